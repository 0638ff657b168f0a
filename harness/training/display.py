"""Progress of one run: a live table on a terminal, plain lines elsewhere; and the table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from harness.metrics import FAILURES, METRICS, Metric, MetricError, summarize, tabulate
from harness.metrics import Table as Attempts
from harness.metrics.intervals import row_intervals
from harness.metrics.repair import is_repair, repair_rates
from harness.metrics.stats import Interval
from harness.runs.schema import key_of
from harness.terminal import escape_controls

SHOWN = {
    "reward_t1": "reward t1",
    "reward_t2": "reward t2",
    "kl_t1": "KL t1",
    "answer_change": "answer change",
    "trajectories_per_second": "trajectories/s",
}
EVERY_SECONDS = 10.0


class LiveDisplay:
    """Shows phase, step, rewards, KL, answer-change rate, speed and time left."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stdout)
        self._line: dict[str, Any] = {}
        self._shown = 0.0
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=self.console,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=None)
        self._live = Live(console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveDisplay:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def phase(self, text: str, total: int, done: int = 0) -> None:
        """Begins a stretch of `total` updates or problems, `done` of them behind."""
        self._line, self._shown = {}, time.monotonic()
        self._bar.reset(self._task, description=escape_controls(text), total=total, completed=done)
        if not self.console.is_terminal:
            self.console.print(f"{escape_controls(text)}: {total - done} to go", highlight=False, markup=False)

    def advance(self, line: dict[str, Any] | None = None, count: int = 1) -> None:
        """Moves on by `count`; `line` is a step's log line."""
        self._bar.advance(self._task, count)
        self._line = line or {}
        task = self._bar.tasks[0]
        if self.console.is_terminal:
            values = Table.grid(padding=(0, 2))
            values.add_row(*(f"{label} {self._line[key]:.3f}" for key, label in SHOWN.items() if key in self._line))
            flag = "[bold red]bonus farming: Acc@t1 falls while delta rises" if self._line.get("bonus_farming") else ""
            self._live.update(Group(self._bar, values, flag))
        elif line and (time.monotonic() - self._shown > EVERY_SECONDS or task.completed == task.total):
            self._shown = time.monotonic()
            parts = [f"{label} {line[key]:.3f}" for key, label in SHOWN.items() if key in line]
            left = f"{task.time_remaining:.0f} s left" if task.time_remaining else ""
            flag = "BONUS FARMING" if line.get("bonus_farming") else ""
            text = "  ".join(
                filter(None, [f"{line['phase']} {task.completed:.0f}/{task.total:.0f}", *parts, left, flag])
            )
            self.console.print(escape_controls(text), highlight=False, markup=False, soft_wrap=True)


def final_table(name: str, records: Sequence[dict[str, Any]]) -> Table:
    """Accuracies and metrics with 95 % intervals, before and after training.

    Of the greedy evaluation of the test split alone; what other evaluations say is for the leaderboard and the figures.
    A metric that fails is left out and named below the table: the run is done all the same.
    """
    records, others = _greedy(records)
    entries, faults = dict(METRICS), []
    while True:
        try:
            table = _table_of(name, records, entries.values())
            break
        except MetricError as error:
            del entries[error.name]
            faults.append(escape_controls(error))
    notes = [*faults, *([f"and {others} records of further evaluations"] if others else [])]
    if notes:
        table.caption, table.caption_justify = escape("\n".join(notes)), "left"
    return table


def _table_of(name: str, records: Sequence[dict[str, Any]], entries: Collection[Metric]) -> Table:
    table = Table(
        title=f"{escape(escape_controls(name))}: percent, with 95 % intervals over problems", title_justify="left"
    )
    stages = [when for when in ("before", "after") if any(r["when"] == when for r in records)]
    table.add_column("")
    for when in stages:
        table.add_column(f"{when} training", justify="right", no_wrap=True)
    for task in sorted({r["task"] for r in records}):
        columns = []
        for when in stages:
            mine = [r for r in records if r["task"] == task and r["when"] == when]
            columns.append(format_metrics(mine, entries) if mine else {})
        table.add_section()
        sizes = sorted({column["problems"] for column in columns if column})
        table.add_row(f"[bold]{escape(escape_controls(task))}[/] ({', '.join(sizes)} problems)", *[""] * len(stages))
        for row in columns[0] or columns[-1]:
            if row != "problems":
                table.add_row(row, *(column.get(row, "") for column in columns))
    return table


def evaluation_numbers(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The numbers of `final_table`, in percent, as {`task/when/metric`: value}, the bounds as `metric_lo`, `metric_hi`.

    Metrics: `acc_t1`, ... of every attempt of the policy's own, `delta`, `i_to_c`, `c_to_i`.
    """
    found: dict[str, float] = {}
    records, _ = _greedy(records)
    for task, when in sorted({(r["task"], r["when"]) for r in records}):
        mine = [r for r in records if (r["task"], r["when"]) == (task, when)]
        intervals, given = _intervals(mine), is_repair(mine)
        accuracies = {name: f"acc_{name}" for name in intervals if name not in METRICS and not (given and name == "t1")}
        named = accuracies | {name: name for name in ("delta", "i_to_c", "c_to_i") if name in intervals}
        shown = {named[name]: intervals[name] for name in named}
        for metric, interval in shown.items():
            bounds = zip(("", "_lo", "_hi"), interval, strict=True)
            found |= {f"{task}/{when}/{metric}{end}": 100 * float(value) for end, value in bounds}
    return found


def _greedy(records: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """The records of the evaluation that every run has, the first in the file, and how many others there are."""
    first = key_of(records[0]) if records else None
    kept = [r for r in records if (key := key_of(r)).is_main and first and key.asked == first.asked]
    return kept, len(records) - len(kept)


def format_metrics(records: Sequence[dict[str, Any]], entries: Iterable[Metric] | None = None) -> dict[str, str]:
    """The numbers of one evaluation as text, by their plain names; of all metrics unless told otherwise.

    Where wrong first attempts were given (a repair task), what compares with them would only say Acc@t2 again: the rate
    of unchanged copies is shown there. With several given programs to a problem, problems weigh alike.

    Raises:
        MetricError: one of the entries is at fault.
    """
    table, given = tabulate(records), is_repair(records)
    found, chosen = summarize(table, ()), _chosen(table, given, entries)
    intervals = _intervals(records, entries)
    accuracies = [f"t{i + 1}" for i in range(table.num_attempts)]
    shown = {"problems": str(found["problems"])}
    shown |= {f"Acc@{name}": _interval(intervals[name]) for name in accuracies}
    if given:
        rates = repair_rates(records)
        shown |= {"Acc@t1": "given, all wrong", "copied unchanged": f"{100 * rates['copied']:.1f}"}
        if found["n"] > rates["problems"]:
            shown |= {"wrong programs given": str(found["n"])}
            shown |= {"Acc@t2 over programs": f"{100 * rates['per_program']:.1f}"}
    for m in chosen:
        if (interval := intervals.get(m.name)) is not None:
            shown[m.plain] = (
                _figures(interval) if m.interval == "number" else _interval(interval, "+" if m.signed else "")
            )
    shown |= {
        f"{name.replace('_', ' ')} at t{i + 1}": f"{100 * rate:.1f}"
        for name in FAILURES
        for i, rate in enumerate(found[name])
        if rate
    }
    return shown


def _chosen(table: Attempts, given: bool, entries: Iterable[Metric] | None = None) -> list[Metric]:
    """The metrics of a run's summary; none where first attempts were given."""
    asked = METRICS.values() if entries is None else entries
    return [] if given else [m for m in asked if m.in_summary and m.attempts <= table.num_attempts]


def _intervals(records: Sequence[dict[str, Any]], entries: Iterable[Metric] | None = None) -> dict[str, Interval]:
    """{`t1`, `t2`, ... or a metric's name: its interval} of one evaluation.

    Raises:
        MetricError: one of the entries is at fault.
    """
    table = tabulate(records)
    chosen = _chosen(table, is_repair(records), entries)
    values = {f"t{i + 1}": table.per_problem(table.correct[:, i])[None] for i in range(table.num_attempts)}
    values |= {m.name: table.problem_values(m.name)[None] for m in chosen}
    cases = {m.name: table.per_problem(m.record_cases(table))[None] for m in chosen if m.given}
    return row_intervals(values, cases, samples=summarize(table, ())["samples"], seeds_vary=False)


def _figures(value: Interval) -> str:
    return f"{value.mean:.3g} [{value.lo:.3g}, {value.hi:.3g}]"


def _interval(value: Interval, sign: str = "") -> str:
    mean, low, high = (f"{100 * v:{sign}.1f}" for v in (value.mean, value.lo, value.hi))
    return f"{mean} [{low}, {high}]"
