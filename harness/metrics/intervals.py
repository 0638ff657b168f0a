"""Intervals of the numbers in a table's row: which metric gets which is docs/statistics.md, by `Metric.interval`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.metrics import stats
from harness.metrics.stats import Interval
from harness.metrics.table import METRICS, RANGES

Found = TypeVar("Found")
Grid = NDArray[Any]  # [S, P], per seed and problem


def row_intervals(
    values: Mapping[str, Grid], cases: Mapping[str, Grid], *, samples: int | None, seeds_vary: bool
) -> dict[str, Interval]:
    """The interval of every quantity of one row.

    One run with one sample per problem gets Wilson's or the adjusted Wald interval, anything else the nested bootstrap;
    a conditional rate that of `stats.ratio_interval`.

    Args:
        values: {metric, or `t1`, `t2`, `last`, ...: [S, P] per seed and problem}, of a conditional rate its hits.
        cases: {conditional rate: [S, P] cases}.
        samples: Samples of each problem; None where they differ.
        seeds_vary: Whether the S rows are independent trainings.

    Returns:
        Intervals in the order of `values`; without rates that have no case, quantities with a NaN in them (records have
        too few attempts), and metrics that are shown without an interval.
    """
    usable = {q: v for q, v in values.items() if _kind(q) is not None and not np.isnan(v).any()}
    plain = {q: v for q, v in usable.items() if q not in cases}
    cells: dict[str, Interval | None] = {
        q: stats.ratio_interval(v, cases[q], seeds_vary=seeds_vary) for q, v in usable.items() if q in cases
    }
    if samples == 1 and all(len(v) == 1 for v in plain.values()):
        cells |= {
            q: stats.wilson_interval(round(float(v.sum())), v.size)
            for q, v in plain.items()
            if _kind(q) == "proportion"
        }
        changes = {q: v for q, v in plain.items() if _kind(q) == "difference"}
        cells |= {q: stats.delta_interval(int((v > 0).sum()), int((v < 0).sum()), v.size) for q, v in changes.items()}
    rest = {q: v for q, v in plain.items() if q not in cells}
    found = in_one_pass(stats.bootstrap_all, [(grid, seeds_vary) for grid in rest.values()])
    cells |= {q: clip_interval(one, _kind(q), rest[q].shape[-1]) for q, one in zip(rest, found, strict=True)}
    return {q: cell for q in values if (cell := cells.get(q)) is not None}


def clip_interval(interval: Interval, kind: str | None, problems: int) -> Interval:
    """A bootstrap interval within the range of what it is of.

    What never (always) happened, on any problem of any seed, has no width of its own. It gets that of one run without a
    case, Wilson's or the adjusted Wald interval: P problems cannot promise that it never will.

    Args:
        kind: `Metric.interval` of what was averaged.
        problems: P.
    """
    mean, lo, hi = interval
    if lo == hi and mean in (0.0, 1.0, -1.0) and kind != "number":
        flips = round(abs(mean)) * problems
        if kind == "difference":
            return stats.delta_interval(flips if mean > 0 else 0, flips if mean < 0 else 0, problems)
        return stats.wilson_interval(flips, problems)
    low, high = RANGES[kind or "number"]
    return Interval(mean, max(lo, low), min(hi, high))


def in_one_pass(ask: Callable[..., dict[Any, Found]], grids: Sequence[tuple[Grid, bool]]) -> list[Found]:
    """`ask` of each (values, seeds_vary): those of one shape in one pass over the resamples, which is much quicker."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for place, (grid, vary) in enumerate(grids):
        alike.setdefault((*grid.shape, vary), []).append(place)
    found: dict[int, Found] = {}
    for (*_, vary), places in alike.items():
        found |= ask({place: grids[place][0] for place in places}, seeds_vary=vary)
    return [found[place] for place in range(len(grids))]


def _kind(quantity: str) -> str | None:
    """What a quantity's values are: those of accuracies are 0 or 1, those of majority@2 are probabilities."""
    if quantity in METRICS:
        return METRICS[quantity].interval
    return "fraction" if quantity == "majority_2" else "proportion"
