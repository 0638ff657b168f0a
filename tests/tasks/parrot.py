"""A tiny model of a real architecture that has learnt a few programs by heart, right ones and wrong ones."""

from __future__ import annotations

from pathlib import Path

from factories import ROLE_TEMPLATE, byte_tokenizer, write_model

from harness.core import Example, Message, Turn, Verdict

SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>"]


def teach(folder: Path, lessons: list[tuple[list[Message], str]]) -> Path:
    """Writes a model over bytes into `folder`, fitted to answer each conversation with its text; returns the folder."""
    from transformers import PreTrainedTokenizerFast

    from harness.policy import HF

    tokenizer = byte_tokenizer(special=SPECIAL)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=SPECIAL[0], eos_token=SPECIAL[0])
    fast.chat_template = ROLE_TEMPLATE
    write_model(
        folder, fast, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048,
    )  # fmt: skip
    policy = HF(path=str(folder), lr=5e-3).load("cpu")
    examples = policy.encoded(
        [
            Example(Turn(tuple(policy.chat.encode_opening(chat)), (), text, Verdict(1.0, True)), weight=1.0)
            for chat, text in lessons
        ]
    )
    for _ in range(200):
        stats, _ = policy.step(examples, sum(len(example.turn.tokens) for example in examples))
        if -sum(turn.logprob for turn in stats) < 0.02 * sum(turn.tokens for turn in stats):
            policy.export(folder)
            return folder
    raise AssertionError("the lessons were not learnt")
