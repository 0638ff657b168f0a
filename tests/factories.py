"""What many tests build: graded trajectories, and model folders with random weights. Run folders: `synthetic.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from harness.core import Problem, Trajectory, Turn, Verdict

PROBLEM = Problem("p", "q", "a", solution="the worked answer")
# Roles as one token each; no newline, so that a conversation is easy to count.
ROLE_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def verdict(reward: float, answer: str | None = "?") -> Verdict:
    """A grade; without an answer its status is `no_answer`."""
    return Verdict(float(reward), bool(reward), "ok" if answer is not None else "no_answer", answer)


def trajectory(
    *attempts: float | tuple[str | None, float],
    problem: Problem = PROBLEM,
    by: Literal["policy", "reference", "given"] = "policy",
) -> Trajectory:
    """A graded trajectory.

    Args:
        attempts: Each a reward, or (answer, reward), where an answer of None stands for a reply that was cut off.
        problem: What they are attempts at.
        by: Who wrote the first attempt; the policy wrote the others.

    Returns:
        Turns of one token that is the attempt's number, then one a character; each context extends the turn before,
        as in the engine: x2 = [x1, y1, p1]. Sampled tokens have a log-probability of -0.5.
    """
    turns: list[Turn] = []
    context: tuple[int, ...] = (1, 9)
    for i, attempt in enumerate(attempts):
        answer, reward = attempt if isinstance(attempt, tuple) else (f"{attempt:g}", attempt)
        text = "?" if answer is None else answer
        tokens, author = (i, *map(ord, text)), by if i == 0 else "policy"
        turns.append(
            Turn(
                context, tokens, text, verdict(reward, answer), index=i, by=author, truncated=answer is None,
                logprobs=(-0.5,) * len(tokens) if author == "policy" else (),
            )
        )  # fmt: skip
        context += (*tokens, 9)
    return Trajectory(problem, tuple(turns))


def byte_tokenizer(corpus: Sequence[str] = (), vocab_size: int = 256, special: Sequence[str] = ()) -> Any:
    """A byte-level BPE: the 256 bytes, the special tokens, and merges learnt from `corpus`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE() if corpus else models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    bpe.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    if corpus:
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
        )
        bpe.train_from_iterator(corpus, trainer)
    else:
        bpe.add_special_tokens(list(special))
    return bpe


def write_model(folder: Path, fast: Any, architecture: str = "Llama", ends: Sequence[int] = (), **shape: Any) -> Path:
    """Writes a model with random weights, always the same, and its tokenizer.

    Args:
        folder: Where to; returned.
        fast: The transformers tokenizer, with its pad and end tokens and its chat template.
        architecture: Prefix of the classes `...Config` and `...ForCausalLM`.
        ends: Ids that end a reply; the tokenizer's end token unless given.
        shape: What the config is built with, beside the vocabulary and the special tokens.
    """
    import torch
    import transformers

    ids = list(ends) or fast.eos_token_id
    torch.manual_seed(0)
    suffix = "Text" if architecture == "Gemma3" else ""
    config = getattr(transformers, f"{architecture}{suffix}Config")(
        **shape, vocab_size=len(fast), pad_token_id=fast.pad_token_id, bos_token_id=fast.bos_token_id, eos_token_id=ids
    )
    model = getattr(transformers, f"{architecture}ForCausalLM")(config)
    model.generation_config.eos_token_id = ids
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
