"""What the training of a row has spent, in every currency (docs/budgets.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from harness.core import Budget
from harness.runs.reader import Run

CURRENCIES = ("sampled_tokens", "read_tokens", "trained_tokens", "flops")  # beside responses, which every run counts


@dataclass(frozen=True)
class Spending:
    """What the training of one row has spent.

    Attributes:
        name: The row.
        seeds: Seeds that are in the means.
        means: `responses` and those of `CURRENCIES` that every seed tells; means over seeds.
        derived: Whether sampled tokens of some seed were derived from metrics.jsonl.
        limits: What training was to end by, one for each different setting of the seeds; () where its updates ended it.
        short: Seeds whose updates ended before the limit was reached.
    """

    name: str
    seeds: tuple[int, ...]
    means: Mapping[str, float]
    derived: bool
    limits: tuple[str, ...]
    short: tuple[int, ...]


def measure_spending(name: str, runs: Sequence[Run]) -> Spending:
    """The spending of one row over its runs, one for each seed."""
    runs = sorted(runs, key=lambda run: run.seed)
    told = [run.info.get("spent") or {} for run in runs]
    derived = [
        derive_sampled_tokens(run) if run.was_trained and "sampled_tokens" not in spent else None
        for run, spent in zip(runs, told, strict=True)
    ]
    zeros = dict.fromkeys(("responses", *CURRENCIES), 0)
    counts = [{} if run.was_trained else dict(zeros) for run in runs]
    for count, spent, tokens in zip(counts, told, derived, strict=True):
        count |= {key: spent[key] for key in zeros if key in spent}
        count |= {} if tokens is None else {"sampled_tokens": tokens}
    means = {key: fmean(c[key] for c in counts) for key in zeros if all(key in c for c in counts)}
    limited = [(run, spent, *limit) for run, spent in zip(runs, told, strict=True) if (limit := _limit(run))]
    return Spending(
        name=name,
        seeds=tuple(run.seed for run in runs),
        means=means,
        derived=any(tokens is not None for tokens in derived),
        limits=tuple(dict.fromkeys(f"{limit:g} {currency.replace('_', ' ')}" for *_, currency, limit in limited)),
        short=tuple(run.seed for run, spent, currency, limit in limited if spent.get(currency, 0) < limit),
    )


def derive_sampled_tokens(run: Run) -> int | None:
    """Tokens sampled in training, from metrics.jsonl: mean length times trajectories, attempt by attempt.

    A line with lengths is of fresh samples for the updates up to the next such line. Exact, as a mean times its count
    is a whole number; None where the log and run.json contradict each other, or where a turn is not an attempt of the
    policy's (given first attempts, Self-Refine's feedback): their tokens are not in the log.
    """
    spent, settings = run.info.get("spent") or {}, run.info.get("budget") or {}
    lines = run.read_steps()
    try:
        budget = Budget(settings["steps"], settings["problems"], settings["samples"])
        starts = [i for i, line in enumerate(lines) if "length_t1" in line]
        tokens = trajectories = responses = 0
        for begin, end in pairwise([*starts, len(lines)]):
            lengths = _lengths(lines[begin])
            count = (end - begin) * budget.problems * budget.trajectories_per_problem(len(lengths))
            sums = [length * count for length in lengths]
            if any(abs(total - round(total)) > 1e-3 for total in sums):
                return None
            tokens += sum(map(round, sums))
            trajectories, responses = trajectories + count, responses + count * len(lengths)
    except (KeyError, TypeError, ValueError):
        return None
    whole = len(lines) == spent.get("updates") and starts[:1] == [0]
    agree = (trajectories, responses) == (spent.get("trajectories"), spent.get("responses"))
    return tokens if whole and agree else None


def _lengths(line: Mapping[str, Any]) -> list[float]:
    """Mean tokens of attempts 1, 2, ... of a line."""
    found = []
    while (value := line.get(f"length_t{len(found) + 1}")) is not None:
        found.append(float(value))
    return found


def _limit(run: Run) -> tuple[str, float] | None:
    """The currency and the number that the training was to end by, as bound; None without one."""
    try:
        limit = float(run.bindings.get("run.budget_limit", "None"))
    except ValueError:
        return None
    return run.bindings.get("run.budget_in", "'responses'").strip("'\""), limit
