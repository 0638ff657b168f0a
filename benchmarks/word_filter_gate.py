"""Can methods be compared on this model and `task.word_filter`? `python -m benchmarks.word_filter_gate --gin FILE ...`

    python -m benchmarks.word_filter_gate --gin gin/base.gin --gin gin/task/word_filter.gin --bind MODEL=...

No method is run. Two greedy attempts on every problem; first attempts sampled at temperature 1 for head room; and a
probe: in a review of the words ("horse yes, chair no"), is the right one of `yes` and `no` the likelier one, behind the
right judgements of the words before it? The limits (`ACC_T1` and those below it) were set before any warm start was
measured (docs/testbed.md). Exit status 1 where one is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import config
from harness.core import Problem, Trajectory, Turn, Verdict
from harness.metrics import pass_at
from harness.metrics.stats import wilson_interval
from harness.seeds import derive_seed
from harness.training.experiment import Experiment
from harness.training.rollout import sample_rollouts

if TYPE_CHECKING:
    from harness.policy.engine import Policy

ACC_T1 = (0.20, 0.60)  # greedy
SAMPLES, LEAST_HEAD_ROOM = 8, 0.15  # pass@8 - pass@1 at temperature 1
MOST_WITHOUT_ANSWER = 0.20  # of greedy first attempts
CHANGED = (0.05, 0.95)  # greedy answers that attempt 2 changes
LEAST_PROBE = 0.75  # of single words
BATCH = 200  # conversations decoded together


def sample_greedy(policy: Policy, experiment: Experiment, problems: Sequence[Problem]) -> list[Trajectory]:
    """Two greedy attempts on each problem."""
    found: list[Trajectory] = []
    for begin in range(0, len(problems), BATCH):
        groups = sample_rollouts(
            policy, experiment.task, experiment.dialogue, problems[begin : begin + BATCH], samples=1, attempts=2,
            seed=0, temperature=0.0,
        )  # fmt: skip
        found += [trajectory for group in groups for trajectory in group]
    return found


def measure_head_room(policy: Policy, experiment: Experiment, problems: Sequence[Problem]) -> tuple[float, float]:
    """pass@1 and pass@8 of first attempts at temperature 1."""
    counts: list[int] = []
    for begin in range(0, len(problems), BATCH // SAMPLES):
        groups = sample_rollouts(
            policy, experiment.task, experiment.dialogue, problems[begin : begin + BATCH // SAMPLES], samples=SAMPLES,
            attempts=1, seed=derive_seed(0, "gate", "pool", begin), temperature=1.0,
        )  # fmt: skip
        counts += [sum(t.attempts[0].verdict.correct for t in group) for group in groups]
    return tuple(float(np.mean([pass_at(SAMPLES, c, k) for c in counts])) for k in (1, SAMPLES))  # type: ignore[return-value]


def probe_words(policy: Policy, experiment: Experiment, greedy: Sequence[Trajectory]) -> list[bool]:
    """For each word of each problem: is its right judgement, in a review of the greedy first attempt, the likelier?"""
    turns: list[Turn] = []
    for trajectory in greedy:
        problem, first = trajectory.problem, trajectory.attempts[0]
        ask = experiment.dialogue.ask(experiment.task, problem, [first.text])
        context = (*first.context, *first.tokens, *policy.chat.encode_followup(ask, first.tokens))
        before = ""
        for word, belongs in zip(problem.meta["words"], problem.meta["belongs"], strict=True):
            for label in ("yes", "no"):
                tokens = tuple(policy.tokenizer.encode(f"{before}{word} {label}", add_special_tokens=False))
                turns.append(Turn(context, tokens, label, Verdict(0.0, False), index=1))
            before += f"{word} {'yes' if belongs else 'no'}, "
    last = [values[-1] for values in policy.turn_logprobs(turns)]
    labels = [label for t in greedy for label in t.problem.meta["belongs"]]
    return [(yes > no) == label for yes, no, label in zip(last[::2], last[1::2], labels, strict=True)]


def judge(
    greedy: Sequence[Trajectory], head_room: tuple[float, float], probe: Sequence[bool]
) -> list[tuple[str, str, str, bool]]:
    """The criteria: what is measured, what was asked for, what was found, whether it is met."""
    n = len(greedy)
    pairs = [tuple(turn.verdict for turn in t.attempts) for t in greedy]
    first, without = sum(a.correct for a, _ in pairs), sum(a.answer is None for a, _ in pairs)
    changed = sum(a.answer != b.answer for a, b in pairs)
    room, seen = head_room[1] - head_room[0], sum(probe) / max(1, len(probe))
    return [
        (
            "greedy Acc@t1", f"{_pct(ACC_T1[0])} to {_pct(ACC_T1[1])} %", _share(first, n),
            ACC_T1[0] <= first / n <= ACC_T1[1],
        ),
        (
            f"head room at temperature 1: pass@{SAMPLES} - pass@1", f"at least {_pct(LEAST_HEAD_ROOM)} points",
            f"{_pct(head_room[1])} - {_pct(head_room[0])} = {_pct(room)} points", room >= LEAST_HEAD_ROOM,
        ),
        (
            "greedy first attempts without an answer", f"below {_pct(MOST_WITHOUT_ANSWER)} %", _share(without, n),
            without / n < MOST_WITHOUT_ANSWER,
        ),
        (
            "greedy answers that attempt 2 changes", f"{_pct(CHANGED[0])} to {_pct(CHANGED[1])} %", _share(changed, n),
            CHANGED[0] <= changed / n <= CHANGED[1],
        ),
        (
            "words judged right by the probe", f"at least {_pct(LEAST_PROBE)} %", _share(sum(probe), len(probe)),
            seen >= LEAST_PROBE,
        ),
    ]  # fmt: skip


def _pct(value: float) -> str:
    return f"{100 * value:.1f}"


def _share(count: int, of: int) -> str:
    found = wilson_interval(count, of)
    return f"{_pct(found.mean)} [{_pct(found.lo)}, {_pct(found.hi)}] %"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gin", action="append", required=True, metavar="FILE", help="gin file; repeat to override")
    parser.add_argument("--bind", action="append", default=[], metavar="'NAME = VALUE'", help="one binding; repeatable")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--problems", type=int, default=200, help="of the split, from the first")
    parser.add_argument("--pool", type=int, default=100, help="of them sampled for head room")
    parser.add_argument("--probe", type=int, default=40, help="of them probed word by word")
    parser.add_argument("--out", type=Path, help="Markdown file to write (default: print)")
    args = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    config.prepare_gin(Experiment, "run")
    config.parse_gin(args.gin, args.bind)
    experiment: Experiment = config.build_root("run")
    spec: Any = experiment.policy
    policy: Policy = spec.load("cpu")
    problems = getattr(experiment.task, args.split)[: args.problems]
    greedy = sample_greedy(policy, experiment, problems)
    probe = probe_words(policy, experiment, greedy[: args.probe])
    criteria = judge(greedy, measure_head_room(policy, experiment, problems[: args.pool]), probe)

    verdicts = [[turn.verdict.correct for turn in t.attempts] for t in greedy]
    mended, broken = verdicts.count([False, True]), verdicts.count([True, False])
    reviews = sum(":" in t.attempts[1].text for t in greedy)
    engine = policy.describe()
    told = [f"{name}: {value}" for name, value in {**engine.get("gguf", {}), **engine.get("warm_start", {})}.items()]
    files = " ".join(f"--gin {path}" for path in args.gin) + "".join(f' --bind "{item}"' for item in args.bind)
    met = all(item[3] for item in criteria)
    lines = [
        f"# Is {spec.key} a base for {experiment.task.name}? {'Accepted' if met else 'Not accepted'}",
        f"Written by `python -m benchmarks.word_filter_gate {files}`; what is measured, and why: docs/testbed.md.\n"
        f"{len(problems)} {args.split} problems, {args.pool} of them for head room, {len(probe)} words for the probe; "
        "percent with 95 % intervals over problems (or words).",
        "\n".join(
            f"| {' | '.join(cells)} |"
            for cells in (
                ("criterion", "asked for", "found", "met"), ("---",) * 4,
                *((*item[:3], "yes" if item[3] else "**no**") for item in criteria),
            )
        ),
        f"Attempt 2, greedy: {_share(sum(pair[1] for pair in verdicts), len(verdicts))} right, {mended} mended, "
        f"{broken} broken, {reviews} replies with a review.",
        "The model: " + "; ".join(told) + ".",
        "Examples, greedy:",
        "\n".join(
            f"- {t.problem.prompt}\n    1. {t.attempts[0].text!r}\n    2. {t.attempts[1].text!r}" for t in greedy[:5]
        ),
    ]  # fmt: skip
    text = "\n\n".join(lines) + "\n"
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    else:
        print(text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
