"""The figures: `python -m harness.plots results/ --out figures/` draws every plot that the results can fill.

Each figure is a function from one `Scope` (rows that may be compared) to a matplotlib figure; where the results lack
what it shows, it raises `Missing` with what is needed. Vector PDF and PNG, column width by default, one colour-blind
safe palette (Okabe and Ito) ordered by lightness and doubled by marker, dash or hatch, so that it reads in greyscale.
No dates in the files: equal results give equal figures. `FIGURES` names the figure of arXiv 2409.12917v2 that
each follows.
Above 300 lines because it is a dozen and a half of short figures in one style.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator

from harness.analysis import leaderboard, scaling
from harness.analysis.escape import CLOCKS, read_looks, survival, times_of
from harness.analysis.leaderboard import Board, Row, Section
from harness.analysis.scaling import Curve
from harness.analysis.terms import METRIC_AXES
from harness.metrics.stats import Interval
from harness.runs import reader
from harness.runs.reader import EvalResult, Run
from harness.runs.schema import LARGEST_LOGGED, curve_value
from harness.terminal import escape_controls

COLUMN = 3.4  # inches: one column of a two-column page
WIDTH, HEIGHT = 7.0, 9.0  # inches: what a page holds
FIRST, LAST, THIRD, FLAG = "#56B4E9", "#00496F", "#D55E00", "#CC3311"
CYCLE = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 1)), (0, (6, 1, 1, 1)))
FEW = 8  # points of a curve that are marked one by one
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLE: Any = {  # matplotlib types its keys as literals
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,
    "figure.constrained_layout.use": True,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.03,
    "hatch.linewidth": 0.4,
    "text.parse_math": False,  # a name may hold dollar signs
}
VISIBLE = "\u200b"  # before a name in a legend: matplotlib leaves out what begins with an underscore


class Missing(Exception):
    """The results lack what a figure shows; the message names what is needed."""


@dataclass(frozen=True)
class Scope:
    """What one set of figures is drawn from: rows that may share one picture.

    Attributes:
        section: The leaderboard's table.
        runs: row name -> its runs, by seed.
        curves: Inference-time scaling of these rows.
        again: An earlier scope shows the same runs (another evaluation of them); figures of their training or their
            pools are drawn there only.
        chosen: Shell patterns of the rows to draw; () for all. A row keeps its colour and dash whichever are drawn.
    """

    section: Section
    runs: dict[str, list[Run]]
    curves: list[Curve]
    again: bool = False
    chosen: tuple[str, ...] = ()
    _logs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The chosen rows in the one order of all figures: untrained, supervised, RL, SCoRe, its ablations."""
        return tuple(
            row
            for row in self._ordered
            if not self.chosen or any(fnmatch.fnmatchcase(row.name, pattern) for pattern in self.chosen)
        )

    @property
    def _ordered(self) -> list[Row]:
        return sorted(self.section.rows, key=lambda row: ORDER.index(family_of(row)))

    def row_style(self, row: Row) -> dict[str, Any]:
        """A row's colour and dash: the same in every figure, and no other row's (of 64)."""
        again, i = divmod(self._ordered.index(row), len(CYCLE))
        return {"color": CYCLE[i], "linestyle": DASHES[(i + again) % len(DASHES)]}

    def read_log(self, run: Run) -> list[dict[str, Any]]:
        """The training log of a run, read once."""
        if run.label not in self._logs:
            self._logs[run.label] = run.read_steps()
        return self._logs[run.label]

    def metric_traces(self, row: Row, key: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """One (steps, values) per seed of a logged quantity; seeds that log it less than twice have no curve."""
        found = []
        for run in self.runs.get(row.name, []):
            logged = [(s["step"], curve_value(s, key)) for s in self.read_log(run)]
            points = [(step, value) for step, value in logged if value is not None]
            if len(points) > 1:  # supervised rows that sample once measure their samples once
                steps, values = zip(*points, strict=True)
                found.append((np.asarray(steps), np.asarray(values, dtype=float)))
        return found

    def rows_with_log(self, *keys: str) -> list[Row]:
        """The rows that have a curve of every one of `keys`.

        Raises:
            Missing: there is none.
        """
        rows = [row for row in self.rows if all(self.metric_traces(row, key) for key in keys)]
        if not rows:
            raise Missing(f"no run logs {' and '.join(keys)} in metrics.jsonl")
        return rows

    def select_evaluations(self, row: Row, **wanted: Any) -> list[EvalResult]:
        """The row's evaluations on this table's task whose key agrees with `wanted`, one per seed that has it."""
        subject = self.section.subject
        alike = {"task": subject.task, "temperature": 0.0, "first": subject.first, "turns": subject.turns}
        wanted = {**alike, "draft": "", **wanted}
        return [
            evaluation
            for run in self.runs.get(row.name, [])
            for evaluation in run.evaluations.values()
            if all(getattr(evaluation.key, name) == value for name, value in wanted.items())
            and ("when" in wanted or evaluation in run.final_evaluations)
        ]

    def phase_boundaries(self, row: Row) -> list[tuple[int, str]]:
        """Where each phase of a row begins: (step, phase), from its first run's log."""
        edges: list[tuple[int, str]] = []
        for step in self.read_log(self.runs[row.name][0]):
            if not edges or edges[-1][1] != step["phase"]:
                edges.append((step["step"], step["phase"]))
        return edges


def read_scopes(root: Path | str, *, gin: Path = leaderboard.GIN) -> tuple[list[Scope], Board]:
    """Reads a results folder once, for all figures and for the tables that go with them."""
    runs, troubles = reader.read_runs(root, gin=gin)
    board = leaderboard.board_of(runs, troubles, root=Path(root))
    curves = scaling.scaling_curves(runs)
    found: list[Scope] = []
    for section in board.sections:
        scope = _scope(section, runs, curves)
        labels = {run.label for members in scope.runs.values() for run in members}
        earlier = ({r.label for members in s.runs.values() for r in members} for s in found)
        found.append(dataclasses.replace(scope, again=any(labels <= others for others in earlier)))
    return found, board


def _scope(section: Section, runs: Sequence[Run], curves: Sequence[Curve]) -> Scope:
    subject, mine = section.subject, {}
    names = {row.name for row in section.rows}
    for run in runs:
        if run.name in names and run.table_settings(subject.task) == subject[:6]:
            mine.setdefault(run.name, []).append(run)
    folders = {(run.task, run.policy) for members in mine.values() for run in members}
    places = tuple(f"{task} / {policy} / " for task, policy in folders)
    found = [c for c in curves if c.name in names and c.label.startswith(places) and c.key.task == subject.task]
    return Scope(section, mine, found)


# -- parts of figures --------------------------------------------------------------------------------------------------


def _figure(
    width: float = COLUMN, height: float = 2.2, columns: int = 1, rows: int = 1, **share: Any
) -> tuple[Figure, Any]:
    figure, axes = plt.subplots(rows, columns, figsize=(width, min(height, HEIGHT)), squeeze=False, **share)
    for ax in axes.flat:
        ax.grid(True, axis="y", color="0.88")
        ax.set_axisbelow(True)
        sns.despine(ax=ax)
    return figure, axes


def _grid(count: int, height: float = 1.45) -> tuple[Figure, list[Axes]]:
    """Small multiples with shared axes, two to a line of a column; many are as wide as the page, so that it holds them.

    Left-over places are hidden.
    """
    width, columns = COLUMN, min(2, count)
    if 0.35 + height * math.ceil(count / columns) > HEIGHT:
        width, columns = WIDTH, 4 if count <= 32 else 6
    lines = math.ceil(count / columns)
    figure, axes = _figure(width, 0.35 + height * lines, columns, lines, sharex=True, sharey=True)
    flat = list(axes.flat)
    for ax in flat[count:]:
        ax.set_visible(False)
    for ax in flat[max(0, count - columns) : count]:
        ax.tick_params(labelbottom=True)
    return figure, flat[:count]


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred moving mean; the ends average what there is."""
    if window < 2:
        return values
    kernel, ones = np.ones(window), np.ones(len(values))
    return np.convolve(values, kernel, "same") / np.convolve(ones, kernel, "same")


def _window(steps: int) -> int:
    return max(1, steps // 20) | 1


def _trace(ax: Axes, traces: Sequence[tuple[np.ndarray, np.ndarray]], scale: float = 100.0, **style: Any) -> int:
    """The mean over seeds of smoothed traces, and the band from the lowest to the highest seed; returns the window."""
    window = _window(max(len(steps) for steps, _ in traces))
    common = sorted(set.intersection(*(set(steps.tolist()) for steps, _ in traces)))
    stack = []
    for steps, values in traces:
        smooth = dict(zip(steps.tolist(), _smooth(values, window).tolist(), strict=True))
        stack.append([scale * smooth[step] for step in common])
    grid = np.asarray(stack)
    if len(grid) > 1:
        ax.fill_between(common, grid.min(axis=0), grid.max(axis=0), color=style.get("color"), alpha=0.18, linewidth=0)
    if len(common) <= FEW:
        style = {"marker": "o", "markersize": 2.5, **style}
    ax.plot(common, grid.mean(axis=0), **_unless_two(len(common), style))
    return window


def _unless_two(points: int, style: dict[str, Any]) -> dict[str, Any]:
    """The style without a line where there are but two points: a line would tell of what lies between."""
    return {**style, "linestyle": "none"} if points < 3 else style


def _spread_axis(ax: Axes) -> None:
    """A logarithmic axis, linear about 0, where one curve would press all others flat."""
    tops = sorted(float(np.nanmax(np.abs(line.get_ydata()))) for line in ax.get_lines())  # pyright: ignore
    middle = tops[(len(tops) - 1) // 2] if tops else 0.0
    if len(tops) > 2 and middle > 0 and tops[-1] > 4 * middle:
        bottom = ax.get_ylim()[0]
        ax.set_yscale("symlog", linthresh=10 ** math.floor(math.log10(middle / 3)))
        ax.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
        ax.set_ylim(bottom=bottom)
        ax.set_ylabel(f"{ax.get_ylabel()} (logarithmic)")


def _step_axis(ax: Axes, windows: set[int], figure: Figure | None = None) -> None:
    """Labels the axis of updates, smoothed over `windows`: of one panel, or with `figure` of all of them together."""
    banded = any(ax.collections for ax in (figure.axes if figure else [ax]))
    mean = f"moving mean of {'up to ' * (len(windows) > 1)}{max(windows)}"
    remarks = [mean] * (max(windows) > 1) + ["band: all seeds"] * banded
    label = "update" + (f" ({'; '.join(remarks)})" if remarks else "")
    if figure:
        figure.supxlabel(label, fontsize=7)
    else:
        ax.set_xlabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def _legend(figure: Figure, ax: Axes, columns: int = 3, where: str = "lower") -> None:
    """One legend for the figure; above it where the lower edge holds a label of all panels."""
    handles, labels = ax.get_legend_handles_labels()
    labels = [label.removeprefix(VISIBLE) for label in labels]
    place: Any = f"outside {where} center"
    figure.legend(handles, labels, loc=place, ncols=columns, handlelength=2.4, columnspacing=1.2).set_gid(where)


def _errors(cells: Sequence[Any]) -> np.ndarray:
    return 100 * np.array([[max(0.0, c.mean - c.lo) for c in cells], [max(0.0, c.hi - c.mean) for c in cells]])


def _two_attempts(scope: Scope) -> Sequence[Row]:
    if scope.section.subject.turns < 2:
        raise Missing("records have one attempt; this figure compares two")
    return scope.rows


def _names(ax: Axes, rows: Sequence[Row]) -> None:
    ax.set_yticks(range(len(rows)), [escape_controls(row.name) for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(True, axis="x", color="0.88")
    ax.grid(False, axis="y")


# -- figures -----------------------------------------------------------------------------------------------------------

FAMILIES = (  # (label, colour, marker, what a row's method or name begins with), the first that fits
    ("untrained", "#000000", "X", ("none", "base", "self_refine")),
    ("supervised", "#E69F00", "^", ("sft_", "star", "pair_sft")),
    ("SCoRe", "#D55E00", "*", ("score_full",)),
    ("SCoRe's ablations", "#0072B2", "o", ("score",)),
    ("other RL", "#009E73", "s", ("",)),
)
ORDER = (0, 1, 4, 2, 3)  # of `FAMILIES`, in every figure


def family_of(row: Row) -> int:
    """The place in `FAMILIES` of a row, by its name and by whether it was trained."""
    name = row.name if row.trained else "none"
    return next(i for i, (*_, heads) in enumerate(FAMILIES) if name.startswith(heads))


def answer_points(scope: Scope) -> dict[str, tuple[Interval, Interval]]:
    """{row: (accuracy of attempt 1, of the last attempt)}, as fractions: what `plot_answer_accuracy` draws."""
    return {row.name: (row.cells["t1"], row.cells["last"]) for row in _two_attempts(scope)}


def describe_answer(scope: Scope) -> str:
    """The numbers of `plot_answer_accuracy`, one row a line, in percent: `save_figure` writes them into the PNG as its
    description."""

    def told(cell: Interval) -> str:
        return f"{100 * cell.mean:.1f} [{100 * cell.lo:.1f}, {100 * cell.hi:.1f}]"

    return "\n".join(f"{name}: {told(first)} -> {told(last)}" for name, (first, last) in answer_points(scope).items())


def plot_answer_accuracy(scope: Scope) -> Figure:
    """Accuracy of the last attempt over that of the first: above the diagonal a second attempt is the better one."""
    points, turns = answer_points(scope), scope.section.subject.turns
    if scope.section.subject.first != "policy":
        raise Missing("first attempts are not the policy's own, so they have no accuracy")
    figure, axes = _figure(COLUMN, 3.9)
    ax = axes[0, 0]
    lowest = 100 * min(c.lo for pair in points.values() for c in pair)
    highest = 100 * max(c.hi for pair in points.values() for c in pair)
    low, high = 10 * math.floor(lowest / 10) - 3.0, 10 * math.ceil(highest / 10) + 3.0
    ends = np.array([low, high])
    for delta in range(-40, 100, 20):
        style = {"color": "0.35", "linewidth": 0.9} if delta == 0 else {"color": "0.8", "linewidth": 0.5}
        ax.plot(ends, ends + delta, zorder=0, scalex=False, scaley=False, **style)
    for row in sorted(scope.rows, key=family_of, reverse=True):
        label, color, marker, _ = FAMILIES[family_of(row)]
        first, last = points[row.name]
        ax.errorbar(
            [100 * first.mean], [100 * last.mean], yerr=_errors([last]), xerr=_errors([first]), fmt=marker,
            color=color, markersize=7 if marker == "*" else 4, elinewidth=0.6, alpha=0.9, markeredgecolor="black",
            markeredgewidth=0.4, label=label,
        )  # fmt: skip
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    ax.set(xlabel="accuracy of attempt 1, % (95 % interval)", ylabel=f"accuracy of attempt {turns}, %")
    ax.grid(False)
    handles, labels = ax.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    shown = [label for label, *_ in FAMILIES if label in by_label]
    figure.set_label(describe_answer(scope))
    figure.legend(
        [by_label[label] for label in shown], shown, loc="outside lower center", ncols=3,  # pyright: ignore
        title="thick line: no change; thin lines: every 20 points of Δ", title_fontsize=6,
    )  # fmt: skip
    return figure


def plot_accuracy(scope: Scope) -> Figure:
    """Accuracy of the first and the last attempt, by method, with 95 % intervals."""
    rows = _two_attempts(scope)
    figure, axes = _figure(COLUMN, 0.75 + 0.3 * len(rows))
    ax, turns = axes[0, 0], scope.section.subject.turns
    for i, (key, label, color, marker) in enumerate(
        (("t1", "attempt 1", FIRST, "o"), ("last", f"attempt {turns}", LAST, "s"))
    ):
        cells = [row.cells[key] for row in rows]
        ax.errorbar(
            [100 * c.mean for c in cells], np.arange(len(rows)) + (0.14 if i else -0.14), xerr=_errors(cells),
            fmt=marker, color=color, markersize=3.5, elinewidth=1, markeredgecolor="black", markeredgewidth=0.4,
            label=label,
        )  # fmt: skip
    base = next((row for row in scope.section.rows if row.name == leaderboard.BASE), None)
    if base:
        ax.axvline(100 * base.cells["t1"].mean, color="0.5", linewidth=0.7, zorder=0, label="base, attempt 1")
    _names(ax, rows)
    ax.set_xlabel("accuracy, percent of problems (95 % interval)")
    _legend(figure, ax, 3)
    return figure


def plot_correction_flow(scope: Scope) -> Figure:
    """Problems fixed (i→c) and broken (c→i) by correction, by method, with 95 % intervals."""
    rows = _two_attempts(scope)
    figure, axes = _figure(COLUMN, 0.75 + 0.27 * len(rows))
    ax, y = axes[0, 0], np.arange(len(rows))
    for key, sign, label, color, hatch in (
        ("c_to_i", -1, "right → wrong", THIRD, "////"),
        ("i_to_c", 1, "wrong → right", "#0072B2", ""),
    ):
        cells = [row.cells[key] for row in rows]
        errors = _errors(cells)
        ax.barh(
            y, [sign * 100 * c.mean for c in cells], 0.62, xerr=errors if sign > 0 else errors[::-1], color=color,
            hatch=hatch, edgecolor="white", linewidth=0, error_kw={"elinewidth": 0.8}, label=label,
        )  # fmt: skip
    ax.axvline(0, color="black", linewidth=0.6)
    deltas = [row.cells["delta"] for row in rows]
    ax.plot(
        [100 * c.mean for c in deltas], y, "D", color="black", markerfacecolor="white", markersize=3.5, label="net Δ"
    )
    _names(ax, rows)
    ax.xaxis.set_major_formatter(lambda x, _: f"{abs(x):g}")
    ax.set_xlabel("% of problems (left: broken, right: fixed)")
    _legend(figure, ax, 3)
    return figure


def edit_distance(scope: Scope) -> Figure:
    """Histogram of the edit-distance ratio between first and last attempt, by method."""
    rows = _two_attempts(scope)
    figure, axes = _grid(len(rows), 0.95)
    bins = np.linspace(0, 1, 21)
    for ax, row in zip(axes, rows, strict=True):
        ratios = row.values["edit_ratio"].ravel()
        sns.histplot(
            x=ratios, bins=bins.tolist(), stat="percent", color="#0072B2", edgecolor="white", linewidth=0.3, ax=ax
        )
        ax.set(title=escape_controls(row.name), xlabel="", ylabel="", xlim=(0, 1))
        same = 100 * float((ratios == 0).mean())
        ax.text(0.97, 0.97, f"identical: {same:.0f} %", transform=ax.transAxes, ha="right", va="top", fontsize=6)
    axes[0].set_ylim(0, 1.25 * axes[0].get_ylim()[1])  # shared by all panels; the text stands above the bars
    figure.supxlabel("edit-distance ratio of attempts (0 = same text)", fontsize=7)
    figure.supylabel("percent of problems", fontsize=7)
    return figure


def edit_distance_splits(scope: Scope) -> Figure:
    """The edit-distance ratio on training and on held-out problems, by method."""
    shown = []
    for row in _two_attempts(scope):
        task = scope.section.subject.train_task
        train = scope.select_evaluations(row, split="train", task=task)
        held = scope.select_evaluations(row, split="validation", task=task) or scope.select_evaluations(
            row, split="test"
        )
        if train and held:
            shown.append((row, train, held))
    if not shown:
        raise Missing("no run has an evaluation with split 'train' beside one with split 'validation' or 'test'")
    figure, axes = _grid(len(shown), 1.1)
    bins = np.linspace(0, 1, 21).tolist()
    for ax, (row, train, held) in zip(axes, shown, strict=True):
        for evaluations, label, style in (
            (train, "training problems", {"color": FIRST, "fill": True, "alpha": 0.8}),
            (held, f"{held[0].key.split} problems", {"color": "black", "fill": False, "linestyle": "--"}),
        ):
            ratios = np.concatenate([e.values["edit_ratio"] for e in evaluations])
            sns.histplot(x=ratios, bins=bins, stat="percent", element="step", linewidth=1, label=label, ax=ax, **style)
        ax.set(title=escape_controls(row.name), xlabel="", ylabel="", xlim=(0, 1))
    _legend(figure, axes[0], 2, "upper")
    figure.supxlabel("edit-distance ratio of attempts (0 = same text)", fontsize=7)
    figure.supylabel("percent of problems", fontsize=7)
    return figure


def fixed_against_own(scope: Scope) -> Figure:
    """Accuracy of the second attempt over training: after the base model's first attempts and after the row's own."""
    lines: Sequence[tuple[str, str, dict[str, Any]]] = (
        ("acc_t2_fixed_train", "fixed first attempts, training", {"color": THIRD, "linestyle": ":", "marker": "^"}),
        ("acc_t2_fixed_validation", "fixed, validation", {"color": FIRST, "linestyle": "--", "marker": "o"}),
        ("acc_t2_own_validation", "its own, validation", {"color": LAST, "marker": "s"}),
    )
    rows = scope.rows_with_log(*(key for key, _, _ in lines))
    figure, axes = _grid(len(rows))
    windows: set[int] = set()
    for ax, row in zip(axes, rows, strict=True):
        for key, label, style in lines:
            windows.add(_trace(ax, scope.metric_traces(row, key), label=label, markersize=2, **style))
        ax.set(title=escape_controls(row.name))
        _step_axis(ax, windows, figure)
    figure.supylabel("accuracy of attempt 2, percent", fontsize=7)
    _legend(figure, axes[0], 2, "upper")
    return figure


def plot_training(scope: Scope) -> Figure:
    """Training accuracy of both attempts, with the boundaries of the phases."""
    rows = scope.rows_with_log("acc_t1", "acc_t2")
    figure, axes = _grid(len(rows))
    windows: set[int] = set()
    for ax, row in zip(axes, rows, strict=True):
        _trace(ax, scope.metric_traces(row, "acc_t1"), color=FIRST, linestyle="--", label="attempt 1")
        windows.add(_trace(ax, scope.metric_traces(row, "acc_t2"), color=LAST, label="attempt 2"))
        _phases(ax, scope, row)
        ax.set(title=escape_controls(row.name))
        _step_axis(ax, windows, figure)
    figure.supylabel("training accuracy, percent", fontsize=7)
    _legend(figure, axes[0], 2, "upper")
    return figure


PHASES = {"phase1": "Stage I", "phase2": "Stage II", "starphase2": "STaR"}  # as the paper calls SCoRe's


def _phase_name(name: str) -> str:
    """`2_phase2` as Stage II: a phase's number, which keeps names apart, tells a reader nothing."""
    plain = re.sub(r"^\d+_", "", name)
    return escape_controls(PHASES.get(plain, re.sub(r"(?<=[a-z])(?=\d)", " ", plain)))


def _phases(ax: Axes, scope: Scope, row: Row) -> None:
    edges = scope.phase_boundaries(row)
    for step, name in edges[1:]:
        ax.axvline(step - 0.5, color="0.35", linewidth=0.8, linestyle=":")
        ax.annotate(
            _phase_name(name), (step, 0.02), xycoords=("data", "axes fraction"), rotation=90, fontsize=5.5,
            color="0.35", xytext=(2.5, 0), textcoords="offset points", va="bottom",
            bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.4},
        )  # fmt: skip


def _over_training(scope: Scope, key: str, label: str, scale: float) -> Figure:
    rows = scope.rows_with_log(key)
    figure, axes = _figure(COLUMN, 2.0 + 0.13 * math.ceil(len(rows) / 2))
    ax, windows = axes[0, 0], set[int]()
    for row in rows:
        windows.add(
            _trace(
                ax,
                scope.metric_traces(row, key),
                scale,
                label=VISIBLE + escape_controls(row.name),
                **scope.row_style(row),
            )
        )
    ax.set_ylabel(label)
    ax.set_ylim(bottom=min(0.0, 1.05 * ax.dataLim.y0))
    _spread_axis(ax)
    _step_axis(ax, windows)
    _legend(figure, ax, 2)
    return figure


def answer_change(scope: Scope) -> Figure:
    """How often the second attempt gives another answer, over training."""
    return _over_training(scope, "answer_change", "answers changed, percent", 100.0)


def kl_first(scope: Scope) -> Figure:
    """KL of the first attempt to the reference model over training: what Stage I holds down."""
    return _over_training(scope, "kl_t1", "KL of attempt 1, nats", 1.0)


def plot_bonus_farming(scope: Scope) -> Figure:
    """Bonus-farming monitor: accuracy of attempt 1 and delta over training; flagged steps are marked."""
    rows = scope.rows_with_log("acc_t1", "delta")
    figure, axes = _grid(len(rows))
    windows: set[int] = set()
    for ax, row in zip(axes, rows, strict=True):
        _trace(ax, scope.metric_traces(row, "acc_t1"), color=FIRST, linestyle="--", label="Acc@t1")
        windows.add(_trace(ax, scope.metric_traces(row, "delta"), color=LAST, label="Δ(t1,t2)"))
        flags = sorted(
            {s["step"] for run in scope.runs[row.name] for s in scope.read_log(run) if s.get("bonus_farming") is True}
        )
        bottom = [0.03] * len(flags)
        ax.plot(flags, bottom, "^", color=FLAG, markersize=4, transform=ax.get_xaxis_transform(), label="flagged")
        ax.axhline(0, color="0.5", linewidth=0.5)
        ax.set(title=escape_controls(row.name))
        _step_axis(ax, windows, figure)
    figure.supylabel("training batch, percent", fontsize=7)
    _legend(figure, axes[0], 3, "upper")
    return figure


def budget_curves(scope: Scope) -> Figure:
    """Accuracy of the last attempt and delta in mid-training, over what training had spent in each currency.

    One line for each seed: seeds spend differently by the same update, so there is no mean to draw.
    """
    read = [(row, [read_looks(run) for run in scope.runs.get(row.name, [])]) for row in scope.rows]
    read = [(row, [seed for seed in seeds if len(seed) > 1]) for row, seeds in read]
    looks = [(row, seeds) for row, seeds in read if seeds]
    if not looks:
        raise Missing("no run was evaluated in mid-training (run.evaluate_every) at least twice")
    every = [look for _, seeds in looks for seed in seeds for look in seed]
    clocks = [clock for clock in CLOCKS if all(look.spent.get(clock) for look in every)]
    figure, axes = _figure(COLUMN, 0.5 + 1.15 * len(clocks) + 0.13 * math.ceil(len(looks) / 2), 2, len(clocks))
    for at, clock in enumerate(clocks):
        for row, seeds in looks:
            for number, seed in enumerate(seeds):
                label = {} if number else {"label": VISIBLE + escape_controls(row.name)}
                spent = [look.spent[clock] for look in seed]
                axes[at, 0].plot(spent, [100 * look.last for look in seed], **label, **scope.row_style(row))
                axes[at, 1].plot(spent, [100 * look.delta.mean for look in seed], **scope.row_style(row))
        axes[at, 1].axhline(0, color="0.5", linewidth=0.5)
        axes[at, 0].set_ylabel("Acc@t2, percent")
        axes[at, 1].set_ylabel("Δ(t1,t2), points")
        for ax in axes[at]:
            ax.set_xlabel(clock.replace("_", " "))
    _legend(figure, axes[0, 0], 2)
    return figure


def escape(scope: Scope) -> Figure:
    """Share of the seeds that have not left the collapse, over updates (Kaplan and Meier), with 95 % bounds."""
    times = [(row, found) for row in scope.rows if (found := times_of(scope.runs.get(row.name, [])))]
    if not times:
        raise Missing("no run was evaluated in mid-training (run.evaluate_every) at least twice")
    figure, axes = _figure(COLUMN, 2.0 + 0.13 * math.ceil(len(times) / 2))
    ax = axes[0, 0]
    for row, found in times:
        steps, end, style = survival(found), max(time.at for time in found), scope.row_style(row)
        x = [0.0, *(step.at for step in steps), end]
        shares = [Interval(1.0, 1.0, 1.0), *(step.share for step in steps)]
        shares.append(shares[-1])
        mean, low, high = ([100 * share[i] for share in shares] for i in range(3))
        ax.step(x, mean, where="post", label=VISIBLE + escape_controls(row.name), **style)
        ax.fill_between(x, low, high, step="post", alpha=0.12, linewidth=0, color=style["color"])
        censored = [time.at for time in found if not time.escaped]
        at = [100 * next((s.share.mean for s in reversed(steps) if s.at <= time), 1.0) for time in censored]
        ax.plot(censored, at, "+", color=style["color"], markersize=5)
    ax.set(xlabel="updates", ylabel="not escaped, percent of seeds", ylim=(-3, 103))
    ax.set_xlim(left=0)
    _legend(figure, ax, 2)
    return figure


def plot_discounting(scope: Scope) -> Figure:
    """Training with discounted returns (gamma > 0) against instantaneous rewards: delta over training."""
    found = [(_number(scope, row, "gamma"), row) for row in scope.rows if scope.metric_traces(row, "delta")]
    gammas = {gamma for gamma, _ in found if gamma is not None}
    if len(gammas) < 2:
        raise Missing("needs trained rows with at least two values of gamma in their config.gin")
    parents = {row.parent for gamma, row in found if gamma}
    if any(row.name in parents for _, row in found):  # beside what they vary, not beside everything
        found = [(gamma, row) for gamma, row in found if gamma or row.name in parents]
    figure, axes = _figure(COLUMN, 2.0 + 0.13 * len(found))
    ax, windows = axes[0, 0], set[int]()
    for gamma, row in found:
        if gamma is not None:
            label = f"{VISIBLE}{escape_controls(row.name)} (γ = {gamma:g})"
            windows.add(_trace(ax, scope.metric_traces(row, "delta"), label=label, **scope.row_style(row)))
    ax.axhline(0, color="0.5", linewidth=0.5)
    ax.set_ylabel("Δ(t1,t2) in training, points")
    _step_axis(ax, windows)
    _legend(figure, ax, 1)
    return figure


def bonus_sweep(scope: Scope) -> Figure:
    """Accuracy of both attempts against the size of the shaping bonus."""
    rows = [(alpha, row) for row in _two_attempts(scope) if (alpha := _number(scope, row, "alpha")) is not None]
    held = [_otherwise(scope, row) for _, row in rows]
    families = []
    for family, bonus in dict.fromkeys(
        held
    ):  # a row without a bonus has no settings of one: it belongs to each of them
        families.append([pair for pair, (f, b) in zip(rows, held, strict=True) if f == family and b in (bonus, ())])
    found = sorted(max(families, key=len, default=[]), key=lambda pair: (pair[0], pair[1].name))
    if len({alpha for alpha, _ in found}) < 3:  # two are a comparison, which `accuracy` shows
        raise Missing(
            "needs rows with at least three alphas of a bonus that differ in nothing else of their config.gin"
        )
    figure, axes = _figure(COLUMN, 2.3)
    ax, x = axes[0, 0], [alpha for alpha, _ in found]
    for key, label, color, marker, line in (
        ("t1", "attempt 1", FIRST, "o", "--"),
        ("last", "last attempt", LAST, "s", "-"),
    ):
        cells = [row.cells[key] for _, row in found]
        shift = 0.97 if key == "t1" else 1.03
        ax.errorbar(
            [shift * value for value in x], [100 * c.mean for c in cells], _errors(cells), fmt=marker + line,
            color=color, markersize=3.5,
            elinewidth=0.9, markeredgecolor="black", markeredgewidth=0.4, label=label,
        )  # fmt: skip
    ax.set(xlabel="bonus α", ylabel="accuracy, % (95 % interval)")
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xticks(sorted(set(x)), [f"{alpha:g}" for alpha in sorted(set(x))])
    ax.minorticks_off()
    _legend(figure, ax, 2)
    return figure


def _otherwise(scope: Scope, row: Row) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """A row's settings apart from its name and bonus, and those of its bonus apart from alpha: equal within a sweep."""
    bindings = leaderboard.shared_settings(scope.runs[row.name][0])
    bonuses = {name for v in bindings.values() for name in re.findall(r"@bonus\.(\w+)", v)}
    rest = sorted((k, v) for k, v in bindings.items() if k.rpartition(".")[2] not in ("name", "bonus", "alpha"))
    of_bonus = tuple(item for item in rest if item[0].rpartition(".")[0] in bonuses)
    return tuple(item for item in rest if item not in of_bonus), of_bonus


def _number(scope: Scope, row: Row, parameter: str) -> float | None:
    """The one numeric value of `<anything>.<parameter>` in a row's configuration; 0 for `bonus.none` as alpha."""
    bindings = scope.runs[row.name][0].bindings if row.name in scope.runs else {}
    if parameter == "alpha" and any(
        re.search(r"@(bonus\.)?none\(\)", v) for k, v in bindings.items() if k.endswith(".bonus")
    ):
        return 0.0
    values = {value for key, value in bindings.items() if key.rpartition(".")[2] == parameter}
    try:
        value = float(values.pop()) if len(values) == 1 else math.nan
    except ValueError:
        return None
    return value if abs(value) <= LARGEST_LOGGED else None


def plot_seeds(scope: Scope) -> Figure:
    """Every seed of every method: accuracy of the last attempt, and delta."""
    rows = [row for row in _two_attempts(scope) if row.trained] or list(scope.rows)
    figure, axes = _figure(COLUMN, 0.75 + 0.26 * len(rows), 2, sharey=True)
    for ax, key, label in ((axes[0, 0], "last", "last attempt right, %"), (axes[0, 1], "delta", "Δ, points")):
        for y, row in enumerate(rows):
            means = 100 * row.values[key].mean(axis=1)
            jitter = np.linspace(-0.18, 0.18, len(means)) if len(means) > 1 else np.zeros(1)
            ax.plot(
                means, y + jitter, "o", markersize=3.2, color="#0072B2", markeredgecolor="black", markeredgewidth=0.4,
                label="" if y else "one seed (height has no meaning)",
            )  # fmt: skip
            ax.plot([means.mean()] * 2, [y - 0.32, y + 0.32], color="black", linewidth=1.1, label="" if y else "mean")
        _names(ax, rows)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_xlabel(label)
    axes[0, 1].axvline(0, color="0.5", linewidth=0.6)
    axes[0, 1].tick_params(labelleft=False)
    _legend(figure, axes[0, 0], 2)
    return figure


def controls(scope: Scope) -> Figure:
    """What the draft is worth: gain of the second attempt over asking without a draft, and reliance on the draft."""
    shown = {"gain_over_blind", "reliance"}
    held = {row.name: row for row in scope.section.controls if shown & row.cells.keys()}
    rows = [row for row in scope.rows if row.name in held]
    if not rows:
        raise Missing("needs runs with control evaluations (gin/eval/controls.gin): blind, or another problem's draft")
    panels = (("gain_over_blind", "gain over no draft, points"), ("reliance", "answer follows the draft, %"))
    figure, axes = _figure(COLUMN, 0.85 + 0.26 * len(rows), 2, sharey=True)
    for ax, (key, label) in zip(axes[0], panels, strict=True):
        for y, row in enumerate(rows):
            cell, unread = held[row.name].cells.get(key), bool(held[row.name].notes)
            if cell is None:
                continue
            ax.errorbar(
                [100 * cell.mean], [y], xerr=_errors([cell]), fmt="o", color="#0072B2", markersize=3.5, elinewidth=0.9,
                markeredgecolor="black", markeredgewidth=0.5, markerfacecolor="white" if unread else "#0072B2",
            )  # fmt: skip
        _names(ax, rows)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_xlabel(label)
    axes[0, 0].axvline(0, color="0.5", linewidth=0.6)
    axes[0, 1].set_xlim(-4, 104)
    axes[0, 1].tick_params(labelleft=False)
    remark = "; hollow: the model does not read such a prompt" if any(held[row.name].notes for row in rows) else ""
    figure.supxlabel(f"95 % intervals{remark}", fontsize=6)
    return figure


def metric(scope: Scope, key: str) -> Figure:
    """One quantity of the leaderboard, by method, with 95 % intervals.

    Args:
        key: One of `METRIC_AXES`.

    Raises:
        Missing: no row has it.
    """
    rows = [row for row in scope.rows if key in row.cells]
    if not rows:
        raise Missing(f"no row has {METRIC_AXES[key]}")
    figure, axes = _figure(COLUMN, 0.65 + 0.24 * len(rows))
    ax = axes[0, 0]
    cells = [row.cells[key] for row in rows]
    ax.errorbar(
        [100 * c.mean for c in cells], np.arange(len(rows)), xerr=_errors(cells), fmt="o", color="#0072B2",
        markersize=3.5, elinewidth=1, markeredgecolor="black", markeredgewidth=0.4,
    )  # fmt: skip
    if min(c.lo for c in cells) < 0 < max(c.hi for c in cells):
        ax.axvline(0, color="0.5", linewidth=0.6)
    _names(ax, rows)
    ax.set_xlabel(f"{METRIC_AXES[key]} (95 % interval)")
    return figure


def plot_attempts(scope: Scope) -> Figure:
    """Accuracy over many attempts, by method."""
    turns = scope.section.subject.turns
    if turns < 3:
        raise Missing("needs an evaluation with three or more attempts")
    figure, axes = _figure(COLUMN, 2.0 + 0.13 * math.ceil(len(scope.rows) / 2))
    ax, x = axes[0, 0], np.arange(1, turns + 1)
    for i, row in enumerate(scope.rows):
        cells = [row.cells[f"t{t}"] for t in x]
        shift = 0.03 * (i - (len(scope.rows) - 1) / 2)
        ax.errorbar(
            x + shift, [100 * c.mean for c in cells], _errors(cells), marker=MARKERS[i % len(MARKERS)], markersize=3,
            elinewidth=0.6, label=VISIBLE + escape_controls(row.name), **scope.row_style(row),
        )  # fmt: skip
    ax.set(xlabel="attempt", ylabel="accuracy, % (95 % interval)")
    ax.set_xticks(x)
    _legend(figure, ax, 2)
    return figure


def parallel_scaling(scope: Scope) -> Figure:
    """Majority vote at equal budget: 2K parallel samples against K samples with one correction each."""
    curves = [curve for row in scope.rows for curve in scope.curves if curve.name == row.name and curve.points]
    if not curves:
        raise Missing("needs records with temperature > 0, two attempts and at least two samples per problem")
    figure, axes = _grid(len(curves), 1.5)
    lines: Sequence[tuple[str, str, dict[str, Any]]] = (
        ("parallel", "2K parallel", {"color": "black", "linestyle": "--", "marker": "o"}),
        ("corrected", "K parallel + K corrections", {"color": "#0072B2", "marker": "s"}),
        ("both", "the same, all 2K vote", {"color": "#E69F00", "linestyle": ":", "marker": "^"}),
    )
    for ax, curve in zip(axes, curves, strict=True):
        budgets = [point.budget for point in curve.points]
        for shift, (key, label, style) in zip((0.97, 1.0, 1.03), lines, strict=True):
            cells = [point.accuracy[key] for point in curve.points]
            x = [shift * budget for budget in budgets]
            y = [100 * c.mean for c in cells]
            style = _unless_two(len(x), style)
            ax.errorbar(x, y, _errors(cells), markersize=3, elinewidth=0.7, label=label, **style)
        ax.axhline(100 * curve.single.mean, color="0.5", linewidth=0.7, label="one sample")
        ax.set_xscale("log", base=2)
        ax.set_xticks(budgets, [str(budget) for budget in budgets])
        ax.set(title=escape_controls(curve.name))
    figure.supxlabel("answers per problem", fontsize=7)
    figure.supylabel("majority-vote accuracy, percent", fontsize=7)
    _legend(figure, axes[0], 2, "upper")
    return figure


@dataclass(frozen=True)
class Plot:
    """One entry of `FIGURES`.

    Attributes:
        draw: What draws it.
        paper: Which figure of the paper it follows; '' for ours.
        of_runs: It shows the runs' training or pools, whichever table the scope is of.
    """

    draw: Callable[[Scope], Figure]
    paper: str = ""
    of_runs: bool = False


FIGURES: dict[str, Plot] = {
    "answer": Plot(plot_answer_accuracy),
    "accuracy": Plot(plot_accuracy, "Figure 1, left"),
    "scaling": Plot(parallel_scaling, "Figure 1, right", of_runs=True),
    "edit_distance": Plot(edit_distance, "Figure 4a"),
    "edit_distance_splits": Plot(edit_distance_splits, "Figures 4b, 4c", of_runs=True),
    "fixed_against_own": Plot(fixed_against_own, "Figure 5", of_runs=True),
    "training": Plot(plot_training, "Figure 6a", of_runs=True),
    "answer_change": Plot(answer_change, "Figure 6b", of_runs=True),
    "attempts": Plot(plot_attempts, "Figure 8"),
    "discount": Plot(plot_discounting, "Figure 9", of_runs=True),
    "flow": Plot(plot_correction_flow),
    "seeds": Plot(plot_seeds),
    "budget_curves": Plot(budget_curves, of_runs=True),
    "escape": Plot(escape, of_runs=True),
    "kl_first": Plot(kl_first, of_runs=True),
    "farming": Plot(plot_bonus_farming, of_runs=True),
    "bonus_sweep": Plot(bonus_sweep),
    "controls": Plot(controls),
}


def draw_figures(
    scope: Scope, only: Sequence[str] = (), metrics: Sequence[str] = (), titled: bool = False
) -> Iterator[tuple[str, Figure | Missing]]:
    """Every figure of a scope by name, or why it cannot be drawn. The caller closes the figures.

    Args:
        scope: What to draw from.
        only: Names of `FIGURES`; () for all, or for none where `metrics` are asked.
        metrics: Names of `METRIC_AXES`, a figure `metric_NAME` each.
        titled: Put what the figure is of above it: task, model, whose first attempts.
    """
    wanted = {name: p.draw for name, p in FIGURES.items() if (name in only or not (only or metrics))}
    wanted = {name: drawing for name, drawing in wanted.items() if not (FIGURES[name].of_runs and scope.again)}
    wanted |= {f"metric_{key}": functools.partial(metric, key=key) for key in metrics}
    with mpl.rc_context(STYLE):
        for name, drawing in wanted.items():
            try:
                if not scope.rows:
                    raise Missing("no row has such a name")
                figure = drawing(scope)
                if titled:
                    _put_title(figure, title_of(scope))
                yield name, figure
            except Missing as missing:
                yield name, missing


def _put_title(figure: Figure, text: str) -> None:
    """Above everything; a legend that stands above the panels takes it as its own title."""
    upper = [legend for legend in figure.legends if legend.get_gid() == "upper"]
    if upper:
        upper[0].set_title(text, prop=FontProperties(size=7))
    else:
        figure.suptitle(text, fontsize=7)


def title_of(scope: Scope) -> str:
    """What tells the figures of one scope from those of another, in a few words."""
    subject = scope.section.subject
    words = [subject.task, *([f"trained on {subject.train_task}"] if subject.train_task != subject.task else [])]
    words += [Path(subject.model).name, f"{scope.section.problems} problems"]
    words += [{"given": "given first attempts", "reference": "the base's first attempts"}.get(subject.first, "")]
    words += [f"{subject.turns} attempts"] if subject.turns != 2 else []
    return textwrap.fill(escape_controls(", ".join(filter(None, words))), 60)


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Writes `path`.pdf and `path`.png without dates; equal figures give equal bytes. A label becomes a description."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_name(f"{path.name}.pdf"), path.with_name(f"{path.name}.png")]
    described = {"Description": figure.get_label()} if figure.get_label() else {}
    with mpl.rc_context(STYLE):
        figure.canvas.draw()
        figure.set_layout_engine("none")  # laid out once: every further drawing would move things by a hair
        figure.savefig(files[0], metadata={"CreationDate": None, "Creator": None, "Producer": None})
        figure.savefig(files[1], dpi=220, metadata={"Software": None, **described})
    return files


def folder_of(scope: Scope, scopes: Sequence[Scope]) -> str:
    """A short folder name that tells scopes apart; '' when there is one scope only."""
    if len(scopes) == 1:
        return ""
    subject = scope.section.subject
    name = re.sub(r"[^\w.+-]+", "-", f"{subject.train_task}-{Path(subject.model).name}-{subject.task}").strip("-")
    twins = [s for s in scopes if s.section.subject[:4] == subject[:4] and s.section.subject.task == subject.task]
    return name if len(twins) == 1 else f"{name}-{twins.index(scope) + 1}"
