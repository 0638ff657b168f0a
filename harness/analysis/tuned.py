"""What tuning found: each row's metric at each value, what the rule picks, and what k trials are worth.

Reads the trials of `harness.tune` from their run folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from harness.runs import reader
from harness.runs.reader import Run


@dataclass(frozen=True)
class Sensitivity:
    """One row's trials.

    Attributes:
        row: Its name.
        scores: {value: {seed: metric}}, values in the order they were listed.
    """

    row: str
    scores: Mapping[Any, Mapping[int, float]]

    @property
    def means(self) -> dict[Any, float]:
        """{value: mean over seeds}."""
        return {value: fmean(of_seeds.values()) for value, of_seeds in self.scores.items()}

    @property
    def picked(self) -> Any:
        """The value with the best mean; of equal ones the one listed first."""
        means = self.means
        return max(means, key=lambda value: means[value])  # max keeps the first of equal ones


def read_trials(
    folder: Path, names: Mapping[str, tuple[str, Any]], seeds: Sequence[int], metric: str
) -> tuple[list[Sensitivity], list[str]]:
    """Each row's trials, and what is missing.

    Args:
        folder: The trials' results folder.
        names: {a trial's row name: (row, value)}.
        seeds: Of every trial.
        metric: `acc_last`, `acc_first` or `delta`, on the validation split.

    Returns:
        Rows all of whose trials are there, in the order of `names`; and (trial, seed) pairs that are not, in words.
    """
    runs, _ = reader.read_runs(folder, whens=("after",))
    found = {(run.name, run.seed): _score(run, metric) for run in runs if run.name in names}
    rows: dict[str, dict[Any, dict[int, float]]] = {}
    missing = []
    for name, (row, value) in names.items():
        here = rows.setdefault(row, {}).setdefault(value, {})
        for seed in seeds:
            if (score := found.get((name, seed))) is None:
                missing.append(f"{name} seed {seed}")
            else:
                here[seed] = score
    whole = [row for row, values in rows.items() if all(len(s) == len(seeds) for s in values.values())]
    return [Sensitivity(row, rows[row]) for row in whole], missing


def _score(run: Run, metric: str) -> float | None:
    own = [e for e in run.final_evaluations if (e.key.split, e.key.temperature, e.key.draft) == ("validation", 0.0, "")]
    if len(own) != 1:
        return None
    first, last = own[0].summary["acc"][0], own[0].summary["acc"][-1]
    return {"acc_last": last, "acc_first": first, "delta": last - first}[metric]


def expected_best(scores: Sequence[float]) -> list[float]:
    """The expected best of k trials for k = 1 ... n, drawn with replacement from n scores.

    E[max] = sum over the sorted scores s_i of s_i * ((i / n)^k - ((i - 1) / n)^k) (Dodge et al. 2019, arXiv 1909.03004,
    equation 7).
    """
    ordered, n = sorted(scores), len(scores)
    return [
        sum(score * ((i / n) ** k - ((i - 1) / n) ** k) for i, score in enumerate(ordered, 1)) for k in range(1, n + 1)
    ]


def describe_choice(row: Sensitivity, parameter: str, metric: str) -> str:
    """What `run.tuned` records of a tuned row.

    Args:
        row: Its trials.
        parameter: The binding that was tuned.
        metric: What it was picked by.
    """
    values, seeds = list(row.scores), len(next(iter(row.scores.values())))
    told = ", ".join(map(str, values))
    return (
        f"{parameter} = {row.picked} of {told}, by mean {metric} on validation problems; {len(values)} trials with "
        f"{seeds} seed{'s' if seeds > 1 else ''} each"
    )


def markdown(rows: Sequence[Sensitivity], missing: Sequence[str], parameter: str, metric: str) -> str:
    """The tables of tuning: sensitivity, and the expected best after k trials; in percent.

    Args:
        rows: Those whose trials are all there.
        missing: Trials that are not, in words.
        parameter: The binding that was tuned.
        metric: What values are picked by.
    """
    text = [f"# Tuning of {parameter}", ""]
    if missing:
        text += [f"Not finished: {', '.join(missing)}.", ""]
    if rows:
        values = list(rows[0].scores)
        seeds = ", ".join(map(str, next(iter(rows[0].scores.values()))))
        text += [
            f"Mean {metric} on validation problems over seeds {seeds}, percent; in brackets the seeds' own; the picked "
            "value in the last column (best mean; of equal ones the first listed).",
            "",
            _row(["row", *map(str, values), "picked"]),
            _row(["---", *["--:"] * (len(values) + 1)]),
        ]
        for row in rows:
            cells = [
                f"{100 * row.means[v]:.1f} [{', '.join(f'{100 * s:.1f}' for s in row.scores[v].values())}]"
                for v in values
            ]
            text.append(_row([row.row, *cells, str(row.picked)]))
        text += [
            "",
            "Expected best mean after k trials, drawn from these with replacement (arXiv 1909.03004, eq. 7).",
            "",
            _row(["row", *(f"k = {k}" for k in range(1, len(values) + 1))]),
            _row(["---", *["--:"] * len(values)]),
        ]
        text += [_row([r.row, *(f"{100 * best:.1f}" for best in expected_best(list(r.means.values())))]) for r in rows]
    return "\n".join(text) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def draw_sensitivity(rows: Sequence[Sensitivity], parameter: str, metric: str) -> Figure:
    """Each row's metric over the tried values, percent: a point a seed, a line through the means where there are 3.

    Args:
        rows: At least one, all with the same values.
        parameter: The binding that was tuned; the x axis.
        metric: Its name; the y axis shows it in percent.
    """
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.subplots()
    values = list(rows[0].scores)
    numbers = all(isinstance(value, int | float) and value > 0 for value in values)
    places = values if numbers else list(range(len(values)))
    marks = "osD^vP*X<>"
    for i, row in enumerate(rows):
        (line,) = axes.plot(
            places, [100 * row.means[v] for v in values], marker=marks[i % len(marks)], markersize=5,
            linestyle="-" if len(values) > 2 else "none", label=row.row,
        )  # fmt: skip
        for place, value in zip(places, values, strict=True):
            own = [100 * score for score in row.scores[value].values()]
            axes.plot([place] * len(own), own, ".", color=line.get_color(), alpha=0.4)
    if numbers:
        axes.set_xscale("log")
    axes.set_xticks(places, labels=[str(value) for value in values])
    axes.minorticks_off()
    axes.set_xlabel(parameter)
    axes.set_ylabel(f"{metric} on validation, %")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure
