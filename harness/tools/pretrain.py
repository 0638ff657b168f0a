"""Builds an embedded model: `python -m harness.tools.pretrain --task code --out FOLDER` writes a Hugging Face folder.

Deterministic: same script, config and seed give the same weights on one CPU thread; provenance.json records them with
the hash. Not covered: other corpora than those of this package.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness.core import Message
from harness.policy import EMBEDDED
from harness.tasks import arithmetic, embedded_code, shell_game
from harness.tools.arithmetic_corpus import CLEAN, Mix, corpus_line
from harness.tools.code_corpus import CODE_CLEAN, CodeMix, code_line
from harness.tools.code_corpus import WORDS as CODE_WORDS
from harness.tools.shell_game_corpus import SHELL_GAME_CLEAN, ShellGameMix, shell_game_line
from harness.tools.shell_game_corpus import WORDS as SHELL_GAME_WORDS

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|unknown|>"]
WORDS = ["Compute $", r" \times ", " + ", " = ", "$.", "$ ", "$", r"\boxed{", "}", " ", arithmetic.RETRY]

Line = tuple[list[Message], str]
"""A conversation and the reply that is trained on."""


def arithmetic_line(mix: Mix, rng: random.Random) -> Line:
    """A line of the arithmetic corpus as a conversation."""
    operands, first, response = corpus_line(mix, rng)
    return _chat(arithmetic.problem_text(operands), first, arithmetic.RETRY), response


def both_lines(mix: CodeMix, rng: random.Random, other: Mix) -> Line:
    """A line of the code corpus as a conversation, or of the arithmetic corpus in `mix.arithmetic` of the draws.

    Args:
        mix: Shares of the code corpus.
        rng: Draws the line.
        other: Shares of the arithmetic corpus.
    """
    if rng.random() < mix.arithmetic:
        return arithmetic_line(other, rng)
    prompt, first, response = code_line(mix, rng)
    return _chat(prompt, first, embedded_code.RETRY), response


def shell_line(mix: ShellGameMix, rng: random.Random) -> Line:
    """A line of the shell game's corpus as a conversation."""
    game, first, response = shell_game_line(mix, rng)
    return _chat(shell_game.problem_text(game), first, arithmetic.RETRY), response


def _chat(prompt: str, first: str | None, retry: str) -> list[Message]:
    review = [] if first is None else [{"role": "assistant", "content": first}, {"role": "user", "content": retry}]
    return [{"role": "user", "content": prompt}, *review]


@dataclass(frozen=True)
class Corpus:
    """What one model is pre-trained on.

    Attributes:
        words: Of the tokenizer, besides digits.
        mix: The dataclass of shares; every field is an option.
        stretches: From a mix, what draws a line in the clean stretch and after it.
        sizes: Defaults of the options that size the training.
        lr: Default learning rate.
        start: The embedded model whose weights it begins with, whose tokens come first; '' for random weights.
    """

    words: Sequence[str]
    mix: type
    stretches: Callable[[Any], tuple[Callable[[random.Random], Line], Callable[[random.Random], Line]]]
    sizes: dict[str, int]
    lr: float = 4e-3
    start: str = ""


CORPORA = {
    "arithmetic": Corpus(
        WORDS,
        Mix,
        lambda mix: (
            lambda rng: arithmetic_line(dataclasses.replace(mix, **CLEAN), rng),
            lambda rng: arithmetic_line(mix, rng),
        ),
        {"clean": 1000, "steps": 300, "batch": 256, "parts": 1},
    ),
    "code": Corpus(
        [*WORDS, *(word for word in CODE_WORDS if word not in WORDS)],
        CodeMix,
        lambda mix: (
            lambda rng: both_lines(dataclasses.replace(mix, **CODE_CLEAN), rng, Mix()),
            lambda rng: both_lines(mix, rng, Mix()),
        ),
        {"clean": 1500, "steps": 300, "batch": 80, "parts": 2},
        lr=2e-3,  # at 4e-3 the arithmetic it begins with is lost
        start="arithmetic",
    ),
    "shell_game": Corpus(
        SHELL_GAME_WORDS,
        ShellGameMix,
        lambda mix: (
            lambda rng: shell_line(dataclasses.replace(mix, **SHELL_GAME_CLEAN), rng),
            lambda rng: shell_line(mix, rng),
        ),
        {"clean": 1500, "steps": 400, "batch": 96, "parts": 3},
    ),
}


def build_tokenizer(phrases: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token per digit and per fixed phrase of the tasks; exact both ways on the tasks' own text."""
    words = SPECIAL + [str(digit) for digit in range(10)] + list(phrases)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<|unknown|>"))
    longest_first = sorted(phrases, key=len, reverse=True)
    pattern = "|".join([*(_escape(word) for word in longest_first), "[0-9]", "[^0-9]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")  # type: ignore[assignment]
    tokenizer.decoder = decoders.Fuse()  # type: ignore[assignment]
    tokenizer.add_special_tokens(SPECIAL)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", unk_token="<|unknown|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _escape(word: str) -> str:
    return "".join("\\" + ch if ch in r"\$+{}.()[]*?|^" else ch for ch in word)


def encode_lines(tokenizer: PreTrainedTokenizerFast, lines: Sequence[Line]) -> list[tuple[list[int], int]]:
    """Token ids of each line and the position where its trained reply begins."""
    contexts: Any = tokenizer.apply_chat_template(
        [chat for chat, _ in lines], tokenize=False, add_generation_prompt=True
    )
    replies = [response + "<|end|>" for _, response in lines]
    ids = [tokenizer(texts, add_special_tokens=False)["input_ids"] for texts in (contexts, replies)]
    return [(context + reply, len(context)) for context, reply in zip(*ids, strict=True)]


SIZES = {
    "clean": "steps on right answers and right work",
    "steps": "further steps on the whole mix, habits included",
    "batch": "corpus lines a step",
    "parts": "forward passes a step, over lines of like length",
}


def _options(argv: Sequence[str]) -> tuple[argparse.Namespace, Corpus]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--task", choices=sorted(CORPORA), default="arithmetic", help="the corpus")
    corpus = CORPORA[parser.parse_known_args([word for word in argv if word not in ("-h", "--help")])[0].task]
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--start", default=corpus.start, help="embedded model to begin with; '' for random weights")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=3)
    for name, text in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=corpus.sizes[name], help=text)
    parser.add_argument("--lr", type=float, default=corpus.lr)
    parser.add_argument("--init", type=float, default=0.08, help="standard deviation of the initial weights")
    parser.add_argument("--rope-theta", type=float, default=100.0, help="short texts want short wavelengths")
    parser.add_argument("--seed", type=int, default=0)
    for item in dataclasses.fields(corpus.mix):
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=float, default=item.default)
    return parser.parse_args(argv), corpus


def _parts(lines: list[tuple[list[int], int]], count: int) -> list[list[tuple[list[int], int]]]:
    """The lines in `count` batches of like length; in one, they keep their order."""
    if count == 1:
        return [lines]
    ordered = sorted(lines, key=lambda item: len(item[0]))
    return [ordered[len(lines) * i // count : len(lines) * (i + 1) // count] for i in range(count)]


def _batch(lines: list[tuple[list[int], int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(ids) for ids, _ in lines)
    ids_BT = torch.full((len(lines), width), SPECIAL.index("<|pad|>"))
    labels_BT = torch.full((len(lines), width), -100)
    for row, (ids, begin) in enumerate(lines):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
        labels_BT[row, begin : len(ids)] = torch.tensor(ids[begin:])
    return ids_BT, labels_BT


def _begin_with(model: LlamaForCausalLM, folder: Path) -> None:
    """Takes another model's weights; its tokens are this one's first ones."""
    for (name, new), old in zip(
        model.named_parameters(), LlamaForCausalLM.from_pretrained(folder).parameters(), strict=True
    ):
        with torch.no_grad():
            (new[: len(old)] if "embed_tokens" in name else new).copy_(old)


def main(argv: Sequence[str] | None = None) -> None:
    """Builds one model and writes its folder."""
    args, corpus = _options(sys.argv[1:] if argv is None else argv)
    clean, mixed = corpus.stretches(
        corpus.mix(**{item.name: getattr(args, item.name) for item in dataclasses.fields(corpus.mix)})
    )

    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # a sum split among threads is another sum
    rng, tokenizer = random.Random(args.seed), build_tokenizer(corpus.words)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden,
        intermediate_size=args.hidden * 3,
        num_hidden_layers=args.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=args.init,
        rope_parameters={"rope_type": "default", "rope_theta": args.rope_theta},
        pad_token_id=SPECIAL.index("<|pad|>"),
        bos_token_id=None,
        eos_token_id=SPECIAL.index("<|end|>"),
    )
    model = LlamaForCausalLM(config)
    if args.start:
        _begin_with(model, EMBEDDED / args.start)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01, betas=(0.9, 0.98))
    warmup, total = 100, args.clean + args.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1.0, (i + 1) / warmup) * (1 - i / total) ** 0.5
    )
    for step in track(range(total), description="pre-training"):
        stretch = clean if step < args.clean else mixed
        lines = encode_lines(tokenizer, [stretch(rng) for _ in range(args.batch)])
        total_loss = 0.0
        trained = sum(len(ids) - begin for ids, begin in lines)
        for part in _parts(lines, args.parts):
            ids_BT, labels_BT = _batch(part)
            share = sum(len(ids) - begin for ids, begin in part) / trained
            loss = model(input_ids=ids_BT, labels=labels_BT).loss * share
            loss.backward()
            total_loss += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0 or step == total - 1:
            print(f"step {step} loss {total_loss:.4f}", flush=True)

    out = Path(args.out)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    provenance = {
        "script": "python -m harness.tools.pretrain",
        "arguments": {key: value for key, value in sorted(vars(args).items()) if key != "out"},
        "parameters": sum(p.numel() for p in model.parameters()),
        "torch": torch.__version__.partition("+")[0],
        "sha256": hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(),
    }
    (out / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n")


if __name__ == "__main__":
    main()
