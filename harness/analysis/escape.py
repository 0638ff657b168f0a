"""When does a row leave the collapse: time to escape over seeds, with censoring (docs/budgets.md).

Read from the evaluations in mid-training (`run.evaluate_every`). The rule was fixed before any data of it were seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import special

from harness.metrics.stats import Interval, delta_interval
from harness.runs.reader import Run

LEAST = 0.05  # points of delta, as a fraction, that count as having left the collapse
CONFIRMED = 2  # evaluations in a row that must say so
CLOCKS = ("updates", "responses", "sampled_tokens", "trained_tokens", "flops")  # what time can be counted in


@dataclass(frozen=True)
class Look:
    """One evaluation in mid-training.

    Attributes:
        spent: What training had spent by then: `updates`, `responses`, and tokens and FLOPs where they were counted.
        last: Accuracy of the last attempt, as a fraction.
        delta: Last attempt minus the first, with its 95 % interval over problems, as fractions.
    """

    spent: Mapping[str, float]
    last: float
    delta: Interval


@dataclass(frozen=True)
class Time:
    """When one seed escaped, or (`escaped` is False) how long it was watched without that."""

    seed: int
    at: float
    escaped: bool


@dataclass(frozen=True)
class Step:
    """One step of a Kaplan-Meier curve: the share that has not escaped after time `at`, and what it comes from."""

    at: float
    at_risk: int
    events: int
    share: Interval


def read_looks(run: Run) -> list[Look]:
    """A run's evaluations in mid-training, in order; lines that contradict themselves are left out."""
    found = []
    for line in run.read_steps():
        counts = [line.get(f"midway_{name}") for name in ("problems", "correct_t2", "i_to_c", "c_to_i")]
        if not all(type(count) is int and count >= 0 for count in counts):
            continue
        n, right, up, down = (int(count or 0) for count in counts)
        if 0 < n >= max(right, up + down):
            spent = {name: line[f"spent_{name}"] for name in CLOCKS if f"spent_{name}" in line}
            found.append(Look({**spent, "updates": line["step"]}, right / n, delta_interval(up, down, n)))
    return found


def has_escaped(look: Look) -> bool:
    """Whether one evaluation shows an escape: delta is at least `LEAST`, and its interval lies above 0."""
    return look.delta.mean >= LEAST and look.delta.lo > 0


def time_to_escape(seed: int, looks: Sequence[Look], clock: str = "updates") -> Time | None:
    """When a run escaped: at its first evaluation that shows it and is confirmed by the next.

    A seed that never does is censored at its last evaluation: it may have escaped later. An escape is known up to the
    distance between evaluations, and is counted at the evaluation that saw it. None where there are too
    few evaluations.

    Args:
        seed: The run's.
        looks: Its evaluations in mid-training, in order.
        clock: What time is counted in: `updates`, or a currency of `CLOCKS`.
    """
    looks = [look for look in looks if clock in look.spent]
    if len(looks) < CONFIRMED:
        return None
    for i in range(len(looks) - CONFIRMED + 1):
        if all(map(has_escaped, looks[i : i + CONFIRMED])):
            return Time(seed, looks[i].spent[clock], True)
    return Time(seed, looks[-1].spent[clock], False)


def survival(times: Sequence[Time], confidence: float = 0.95) -> list[Step]:
    """Kaplan and Meier's estimate (1958, J. Am. Stat. Assoc. 53:457) of the share that has not escaped.

    Seeds that are censored at the time of an escape count as at risk there. Bounds: Greenwood's variance on the scale
    of log(-log S) (Kalbfleisch and Prentice), which stays within [0, 1]. Where S is 0 that scale has no value: the
    upper bound is then that of the step before, or 1 where there is none. Few seeds promise nothing.

    Returns:
        One step for each time of an escape, by time; [] where nobody escaped.
    """
    z, share, total, steps = float(special.ndtri(0.5 + confidence / 2)), 1.0, 0.0, []
    for at in sorted({time.at for time in times if time.escaped}):
        risk = sum(time.at >= at for time in times)
        events = sum(time.at == at and time.escaped for time in times)
        share *= 1 - events / risk
        if events < risk:
            total += events / (risk * (risk - events))
            half = z * math.sqrt(total) / abs(math.log(share))
            bounds = share ** math.exp(half), share ** math.exp(-half)
        else:
            share, bounds = 0.0, (0.0, steps[-1].share.hi if steps else 1.0)
        steps.append(Step(at, risk, events, Interval(share, *bounds)))
    return steps


def median_time(steps: Sequence[Step]) -> tuple[float, float, float]:
    """The time by which half have escaped, with bounds (Brookmeyer and Crowley 1982); inf where that is not reached."""

    def first(values: Sequence[float]) -> float:
        return next((step.at for step, value in zip(steps, values, strict=True) if value <= 0.5), math.inf)

    shares = [step.share for step in steps]
    return first([s.mean for s in shares]), first([s.lo for s in shares]), first([s.hi for s in shares])


def times_of(runs: Sequence[Run], clock: str = "updates") -> list[Time]:
    """The times of a row's seeds that were evaluated often enough, by seed."""
    found = [time_to_escape(run.seed, read_looks(run), clock) for run in sorted(runs, key=lambda run: run.seed)]
    return [time for time in found if time is not None]


@dataclass(frozen=True)
class Escapes:
    """One row's escapes.

    Attributes:
        name: The row.
        times: One for each seed that was evaluated often enough, by seed; in updates.
        median: Updates by which half have escaped, with bounds; inf where that is not reached.
    """

    name: str
    times: tuple[Time, ...]
    median: tuple[float, float, float]


def measure_escapes(name: str, runs: Sequence[Run]) -> Escapes | None:
    """The escapes of one row over its runs; None where no run was evaluated in mid-training."""
    times = times_of([run for run in runs if run.bindings.get("run.evaluate_every", "0") != "0"])
    return Escapes(name, tuple(times), median_time(survival(times))) if times else None
