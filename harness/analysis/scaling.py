"""Inference-time scaling: 2K parallel samples against K samples with one correction each, by majority vote.

`python -m harness.scaling results/` reads one cached pool of sampled two-attempt trajectories per run: the eval.jsonl
records with temperature > 0 (0.7 in arXiv 2409.12917v2, section 6.2), the same number n >= 2 of samples for every
problem. First attempts alone are the parallel pool; (first, second) pairs are the corrected one; both are resampled
from the same n samples, so a budget of B = 2K answers per problem needs n >= 2K.

The paper does not say which answers vote after a correction. Here the K corrected ones do (`corrected`); the vote of
all 2K answers is shown as well (`both`). With two votes a tie is a coin toss, so two samples are no better than one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness import metrics
from harness.analysis.leaderboard import PAPER
from harness.metrics import stats
from harness.metrics.stats import Interval
from harness.runs import reader
from harness.runs.reader import EvalKey, Run

STRATEGIES = ("parallel", "corrected", "both")


@dataclass(frozen=True)
class Point:
    """One budget of one row; accuracies are fractions, over seeds and problems.

    Attributes:
        budget: Answers per problem, 2K.
        accuracy: strategy -> interval.
        gain: strategy -> interval of its accuracy minus one sample's.
        difference: `corrected` minus `parallel`, paired by problem and seed.
        p: Of "the two are equally accurate".
    """

    budget: int
    accuracy: dict[str, Interval]
    gain: dict[str, Interval]
    difference: Interval
    p: float


@dataclass(frozen=True)
class Curve:
    """One row's scaling on one task.

    Attributes:
        label: `task / policy / name`, with the evaluation task where it is another.
        name: The row.
        key: What was sampled.
        seeds: Seeds in the numbers.
        samples: n, the size of the pool per problem.
        problems: Problems.
        tokens: Mean tokens of a first and of a corrected answer: budgets are equal in answers, not in tokens.
        single: Accuracy of one sample.
        points: One per budget 2, 4, 8, ... <= n.
    """

    label: str
    name: str
    key: EvalKey
    seeds: tuple[int, ...]
    samples: int
    problems: int
    tokens: tuple[float, float]
    single: Interval
    points: tuple[Point, ...]


def scaling_curves(runs: Sequence[Run], *, subsets: int = 200) -> list[Curve]:
    """Every row's scaling, where its runs hold a pool of at least two samples with two attempts.

    Args:
        runs: As `reader.read_runs` gives them.
        subsets: Random subsets per budget that majority@K is averaged over.
    """
    pools: dict[tuple[str, str, str, EvalKey, tuple[str, ...]], list[tuple[Run, metrics.Table]]] = {}
    for run in runs:
        for evaluation in run.final_evaluations:
            if "majority_2" in evaluation.values and evaluation.key.temperature > 0 and evaluation.summary["turns"] > 1:
                key = evaluation.key
                rows = [r for r in reader.read_records(run.path, whens=(key.when,)) if reader.key_of(r) == key]
                held = pools.setdefault((run.task, run.policy, run.name, key, run.table_settings(key.task)), [])
                held.append((run, metrics.tabulate(rows)))
    found = []
    for (task, policy, name, key, _), members in sorted(pools.items()):
        tables = [table for _, table in members]
        shapes = {(tuple(table.problem_ids), int(table.sample_counts[0])) for table in tables}
        if len(shapes) == 1:
            label = f"{task} / {policy} / {name}" + (f" on {key.task}" if key.task != task else "")
            runs_of = [run for run, _ in members]
            found.append(_curve(label, name, key, runs_of, tables, subsets))
    return found


def _curve(label: str, name: str, key: EvalKey, runs: list[Run], tables: list[metrics.Table], subsets: int) -> Curve:
    n, trained = int(tables[0].sample_counts[0]), any(run.was_trained for run in runs)
    single = np.stack([table.problem_values("t1") for table in tables])
    pools = {"parallel": (0,), "corrected": (1,), "both": (0, 1)}
    points = []
    for budget in (2**i for i in range(1, n.bit_length()) if 2**i <= n):
        grids = {
            name: np.stack(
                [
                    metrics.majority_curve(
                        *table.vote_pools(*who), budget if who == (0,) else budget // 2, subsets=subsets
                    )
                    for table in tables
                ]
            )
            for name, who in pools.items()
        }
        ahead = grids["corrected"] - grids["parallel"]
        cells = stats.bootstrap_all(
            {**grids, **{f"gain {name}": grid - single for name, grid in grids.items()}, "ahead": ahead},
            seeds_vary=trained,
        )
        points.append(
            Point(
                budget,
                {name: cells[name] for name in pools},
                {name: cells[f"gain {name}"] for name in pools},
                cells["ahead"],
                stats.paired_test(ahead, seeds_vary=trained),
            )
        )
    tokens = np.mean([table.tokens.mean(axis=0)[:2] for table in tables], axis=0)
    return Curve(
        label, name, key, tuple(run.seed for run in runs), n, single.shape[1], (float(tokens[0]), float(tokens[1])),
        stats.bootstrap_interval(single, seeds_vary=trained), tuple(points),
    )  # fmt: skip


def render_markdown(found: Sequence[Curve]) -> str:
    """The curves as Markdown tables, with the paper's two numbers for orientation."""
    from harness.analysis.tables import escape_markdown, p_text

    lines = ["# Inference-time scaling", ""]
    if not found:
        lines += [
            "No finished run holds a pool: records with temperature > 0, two attempts, the same number (at least 2)"
        ]
        lines += ["of samples for every problem."]
    for curve in found:
        seeds = f"{len(curve.seeds)} seed{'s' if len(curve.seeds) > 1 else ''}"
        lines += [f"## {escape_markdown(curve.label)}", ""]
        lines += [
            f"{curve.problems} problems, {curve.samples} samples each at temperature {curve.key.temperature:g}, "
            f"{seeds}; one sample: {_show(curve.single)}. Tokens per first answer {curve.tokens[0]:.1f}, "
            f"per correction {curve.tokens[1]:.1f}.",
            "",
        ]
        lines += ["| answers | 2K parallel | K + K corrections | all 2K vote | corrections − parallel | p |"]
        lines += ["| --: | --: | --: | --: | --: | --: |"]
        for point in curve.points:
            cells = [_show(point.accuracy[name]) for name in STRATEGIES] + [_show(point.difference, sign="+")]
            lines += [f"| {point.budget} | {' | '.join(cells)} | {escape_markdown(p_text(point.p))} |"]
        lines += [""]
    paper = json.loads(PAPER.read_text(encoding="utf-8"))["scaling"]
    lines += [
        f"The paper's own numbers ({paper['title']}; not comparable): parallel +{paper['parallel_gain']} points, "
        f"parallel with corrections +{paper['corrected_gain']} points."
    ]
    return "\n".join(lines) + "\n"


def as_json(found: Sequence[Curve]) -> str:
    """The curves as data; fractions, six decimals."""
    from harness.analysis.tables import plain_json

    return plain_json(list(found))


def _show(interval: Interval, sign: str = "") -> str:
    mean, lo, hi = (f"{round(100 * x, 1) + 0.0:{sign}.1f}" for x in interval)
    return f"{mean} [{lo}, {hi}]"
