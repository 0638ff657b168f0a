"""The leaderboard: run folders in, tables out (`python -m harness.leaderboard results/ --format md`).

Every number is recomputed from eval.jsonl. A row is one gin file's name over its seeds; a table holds only rows that
share training task, model, evaluation task, both tasks' versions, grader, number of attempts and the very set of
problems. docs/statistics.md lists which interval is used where. Rendering is `harness.analysis.tables`.
Above 300 lines because the nouns of a board (a third of the file) and what fills them are read together.
"""

from __future__ import annotations

import ast
import functools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.analysis.budgets import CURRENCIES, Spending, measure_spending
from harness.analysis.controls import Controls, measure_controls
from harness.analysis.escape import Escapes, measure_escapes
from harness.metrics import METRICS, stats
from harness.metrics.intervals import clip_interval, in_one_pass, row_intervals
from harness.metrics.stats import Equivalence, Interval
from harness.project import NO_SCIENCE
from harness.runs import reader
from harness.runs.format1 import GIN
from harness.runs.reader import EvalResult, ReadIssue, Run

HERE = Path(__file__).resolve().parent
PAPER = HERE / "paper.json"
BASE, SINGLE = "base", "single_turn_rl"
PAPER_ORDER = (
    BASE,
    "self_refine",
    "sft_oracle",
    "sft_self",
    "star",
    "pair_sft",
    SINGLE,
    "naive_multi_turn_rl",
    "score",
)
SPENT = ("trajectories", "responses", "updates", *CURRENCIES)  # of run.json's `spent`: what has a column


class ComparisonKey(NamedTuple):
    """What all rows of one table have in common."""

    train_task: str
    train_version: str
    model: str
    task: str
    version: str
    grader: str
    turns: int
    first: str
    digest: str


@dataclass(frozen=True)
class Row:
    """One row of a table: one name over its seeds.

    Attributes:
        name: The gin file's name, or `base (before training)`.
        seeds: Seeds that are in the numbers.
        trained: Whether any update was made; untrained rows have no training noise.
        values: quantity -> [S, P] per seed and problem; of a conditional rate its hits.
        cells: quantity -> interval, as `row_intervals` gives them.
        rates: Other metrics, means over seeds of `metrics.summarize`'s entries.
        p: Of "attempt 1 and the last attempt are equally accurate"; None with one attempt.
        budget: `responses` and `updates` per seed, as text; differing seeds are joined by '/'.
        difference: What distinguishes the row from its parent gin file, '' where that cannot be told.
        parent: The parent row's name, '' where that cannot be told.
        notes: What a reader of the row must know.
    """

    name: str
    seeds: tuple[int, ...]
    trained: bool
    values: Mapping[str, NDArray[Any]] = field(repr=False)
    cells: Mapping[str, Interval]
    rates: Mapping[str, Any]
    p: float | None
    budget: Mapping[str, str]
    difference: str = ""
    parent: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Accuracy of one row's last attempt minus another's, paired by problem (and by seed where both were trained).

    Attributes:
        row: The one.
        other: The other.
        seeds: Seeds that are in the numbers.
        difference: With 95 % bounds, as a fraction.
        p: Of 'the difference is 0'.
        p_holm: The same, after Holm's correction over the family.
        smallest: The smallest difference that would be shown four times in five.
        trained: Whether at least one of them was: with one seed no number here then speaks of training noise.
        margin: What counts as the same, as a fraction.
        same: Whether the difference is shown to lie within the margin; its p is corrected for no family.
        seeds_for_margin: Seeds with which a difference of `margin` would be shown four times in five, as text; '>1000'
            where the problems are too few for any number of seeds, '' where no training noise was seen (one seed, or
            nothing trained).
    """

    row: str
    other: str
    seeds: tuple[int, ...]
    difference: Interval
    p: float
    p_holm: float
    smallest: float
    trained: bool
    margin: float
    same: Equivalence
    seeds_for_margin: str


@dataclass(frozen=True)
class ReferenceValue:
    """A reference value printed under a table (single-turn RL's Acc@t1, majority@2).

    `cell` is None where it cannot be computed; `note` gives the reason.
    """

    label: str
    cell: Interval | None
    note: str


@dataclass(frozen=True)
class Section:
    """One table: rows that may be compared, and their comparisons by family (each family is one Holm correction)."""

    subject: ComparisonKey
    problems: int
    rows: tuple[Row, ...]
    beside: tuple[ReferenceValue, ...]
    families: Mapping[str, tuple[Comparison, ...]]
    notes: tuple[str, ...]
    controls: tuple[Controls, ...] = ()
    spending: tuple[Spending, ...] = ()
    escapes: tuple[Escapes, ...] = ()


@dataclass(frozen=True)
class Overall:
    """Rows across all evaluation tasks of one training task and model: interquartile means over seeds and tasks."""

    train_task: str
    model: str
    turns: int
    tasks: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...], Mapping[str, Interval]], ...]


@dataclass(frozen=True)
class BaseRow:
    """One row over several base models.

    Attributes:
        name: The row.
        seeds: Seeds of each base that are in the numbers: as many as the base with the fewest has.
        cells: `t1`, `last`, `delta` (where attempt 1 is the row's), and `gain`: accuracy of the last attempt minus that
            of the base row. Bases are crossed with problems (`stats.bootstrap_bases`).
        p: Of 'the gain is 0'.
        p_holm: The same, after Holm's correction over the rows.
    """

    name: str
    seeds: int
    cells: Mapping[str, Interval]
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class AcrossBases:
    """Rows that were run on each of several base models; `missing` are rows that were not run on all of them."""

    subject: ComparisonKey
    models: tuple[str, ...]
    problems: int
    rows: tuple[BaseRow, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """Everything the leaderboard shows, before rendering. `paper` is the content of paper.json."""

    sections: tuple[Section, ...]
    overall: tuple[Overall, ...]
    troubles: tuple[ReadIssue, ...]
    paper: Mapping[str, Any]
    bases: tuple[AcrossBases, ...] = ()


def build_board(root: Path | str, *, gin: Path = GIN, margin: float = stats.MARGIN) -> Board:
    """Reads every run under `root` and computes the board.

    Args:
        root: A results folder.
        gin: Where the gin files of rows lie whose run.json is of format 1, and tell their parent.
        margin: The difference in accuracy within which two rows count as the same, as a fraction.

    Raises:
        FileNotFoundError: `root` is no folder.
        ValueError: a margin that is not positive.
    """
    runs, troubles = reader.read_runs(root, whens=("after",), gin=gin)
    return board_of(runs, troubles, root=Path(root), margin=margin)


def board_of(runs: Sequence[Run], troubles: Iterable[ReadIssue], *, root: Path, margin: float = stats.MARGIN) -> Board:
    """The board of runs that were read before; `root` is asked again only where a base row must be borrowed.

    Args:
        runs: Read with the evaluations after training.
        troubles: What the reader could not use; the board lists them.
        root: The results folder.
        margin: Of equivalence, as a fraction of problems.
    """
    grouped: dict[ComparisonKey, list[tuple[Run, EvalResult]]] = {}
    more = list(troubles)
    for run in runs:
        greedy = [e for e in run.final_evaluations if e.key.is_main]
        if not greedy:
            more.append(ReadIssue(run.label, "has no greedy evaluation on a test split"))
        for evaluation in greedy:
            grouped.setdefault(_subject(run, evaluation), []).append((run, evaluation))
    sections = tuple(_section(subject, grouped[subject], root, margin) for subject in sorted(grouped))
    paper = json.loads(PAPER.read_text(encoding="utf-8"))
    told = tuple(sorted(more, key=lambda trouble: (trouble.path, trouble.message)))
    return Board(sections, _overall(sections), told, paper, _across_bases(sections))


def _subject(run: Run, evaluation: EvalResult) -> ComparisonKey:
    key = evaluation.key
    version, grader, turns = run.version_of(key.task), run.grader_of(key.task), evaluation.summary["turns"]
    task_version = str(run.info.get("task_version", ""))
    return ComparisonKey(
        run.task, task_version, run.model_name, key.task, version, grader, turns, key.first, evaluation.problems_digest
    )  # fmt: skip


def _section(subject: ComparisonKey, members: list[tuple[Run, EvalResult]], root: Path, margin: float) -> Section:
    named: dict[str, list[tuple[Run, EvalResult]]] = {}
    for run, evaluation in members:
        named.setdefault(run.name, []).append((run, evaluation))
    rows = {name: _row(name, group) for name, group in named.items()}
    if BASE not in rows:
        borrowed = _before(subject, members, root)
        rows |= {borrowed.name: borrowed} if borrowed else {}
    ordered = tuple(sorted(rows.values(), key=lambda row: _rank(row.name)))
    budgets = {tuple(row.budget.values()) for row in ordered if row.trained}
    notes = ["Rows differ in budget: compare them with care."] if len(budgets) > 1 else []
    notes += [*_unlike([run for run, _ in members]), *_flags(named)]
    if not any(row.name.startswith(BASE) for row in ordered):
        notes.append("No base row: neither a finished run called base nor an evaluation before training was found.")
    return Section(
        subject, len(members[0][1].problems), ordered, _beside(ordered) if subject.first == "policy" else (),
        _families(ordered, margin, own=subject.first == "policy"), tuple(notes),
        tuple(c for row in ordered if row.name in named and (c := measure_controls(row.name, named[row.name]))),
        tuple(measure_spending(row.name, [run for run, _ in named[row.name]]) for row in ordered if row.name in named),
        tuple(
            found for row in ordered
            if row.name in named and (found := measure_escapes(row.name, [run for run, _ in named[row.name]]))
        ),
    )  # fmt: skip


def _unlike(runs: Sequence[Run]) -> list[str]:
    """What rows of one table differ in although it is no part of a method: the reply limit, a grader's settings."""
    values = [value for run in runs for value in run.bindings.values() if "@verifier." in value]
    heads = {f"{name}." for value in set(values) for name in re.findall(r"@verifier\.(\w+)", value)}
    held: dict[str, set[str | None]] = {}
    for key in {key for run in runs for key in run.bindings}:
        if key == "hf.max_new_tokens" or key.rpartition("/")[2].partition(".")[0] + "." in heads:
            held[key] = {run.bindings.get(key) for run in runs}
    found = sorted(key for key, seen in held.items() if len(seen) > 1)
    return [f"Rows differ in {', '.join(found)}: compare them with care."] if found else []


def _flags(named: Mapping[str, list[tuple[Run, EvalResult]]]) -> list[str]:
    """One sentence per flag that graders put on attempts: what they accepted, or refused, with a remark."""
    counts: dict[str, dict[str, int]] = {}
    for name, members in named.items():
        for _, evaluation in members:
            for flag, count in evaluation.summary["flags"].items():
                held = counts.setdefault(flag, {})
                held[name] = held.get(name, 0) + count
    return [
        f"Attempts that the grader flagged {flag}: {', '.join(f'{name} {held[name]}' for name in sorted(held))}"
        for flag, held in sorted(counts.items())
    ]


def _row(name: str, group: list[tuple[Run, EvalResult]]) -> Row:
    group = sorted(group, key=lambda pair: pair[0].seed)
    runs, evaluations = [run for run, _ in group], [evaluation for _, evaluation in group]
    turns = evaluations[0].attempts.shape[1]
    values = {q: np.stack([e.values[q] for e in evaluations]) for q in METRICS}
    cases = {q: np.stack([e.cases[q] for e in evaluations]) for q, metric in METRICS.items() if metric.given}
    values |= {f"t{i + 1}": np.stack([e.attempts[:, i] for e in evaluations]) for i in range(turns)}
    values["last"] = values[f"t{turns}"]
    pooled = [(run.seed, e) for run in runs for e in run.evaluations.values() if _is_pool(e, evaluations[0])]
    pools = [pool for _, pool in pooled]
    if len({pool.problems_digest for pool in pools}) == 1:  # pools of different problems cannot be one [S, P] grid
        values["majority_2"] = np.stack([e.values["majority_2"] for e in pools])
    trained = any(run.was_trained for run in runs)
    parent, difference, notes = read_lineage(runs[0])
    notes = (*notes, *_unlike_settings(runs))
    if trained and len(runs) == 1:
        notes = (*notes, "1 seed: its intervals speak of the choice of problems and cannot speak of training noise")
    if trained and len(runs) == 2:
        notes = (*notes, "2 seeds: two trainings hardly tell how much trainings differ, hence its wide intervals")
    if "majority_2" in values:
        pool, asked = pools[0], len(evaluations[0].problems)
        of = f", {len(pool.problems)} of the {asked} problems" if len(pool.problems) < asked else ""
        of += f", seed {_and([seed for seed, _ in pooled])} only" if len(pools) < len(runs) else ""
        what = f"majority@2 at temperature {pool.key.temperature:g}, {pool.summary['samples']} samples{of}"
        notes = (*notes, what)
    more = {k: v for run in runs for k, v in (run.info.get("spent") or {}).items() if k not in SPENT and v}
    notes = (*notes, *(f"spent as well: {k.replace('_', ' ')} {v}" for k, v in sorted(more.items())))
    notes = (*notes, *_imported(runs), *_tuned(runs))
    return Row(
        name=name,
        seeds=tuple(run.seed for run in runs),
        trained=trained,
        values=values,
        cells=row_intervals(values, cases, samples=evaluations[0].summary["samples"], seeds_vary=trained),
        rates=_means([e.summary for e in evaluations]),
        p=stats.paired_test(values["delta"], seeds_vary=trained) if turns > 1 else None,
        budget=_budget(runs),
        difference=difference,
        parent=parent,
        notes=notes,
    )


def _tuned(runs: Sequence[Run]) -> list[str]:
    """How the row's settings were chosen, where `harness.tune` did."""
    told = sorted({run.bindings.get("run.tuned", "''").strip("'\"") for run in runs} - {""})
    return [f"tuned: {one}" for one in told]


def _and(seeds: Sequence[int]) -> str:
    return " and ".join(filter(None, [", ".join(map(str, seeds[:-1])), str(seeds[-1])]))


def _overall(sections: Sequence[Section]) -> tuple[Overall, ...]:
    """Interquartile means of rows that were evaluated on every one of at least two tasks with the same seeds."""
    grouped: dict[tuple[str, str, str, int], list[Section]] = {}
    for section in sections:
        if section.subject.first == "policy" and section.subject.turns > 1:
            grouped.setdefault((*section.subject[:3], section.subject.turns), []).append(section)
    found = []
    for (train_task, _, model, turns), members in grouped.items():
        tasks = [section.subject.task for section in members]
        if len(tasks) < 2 or len(set(tasks)) < len(tasks):
            continue  # one task twice (another version, another set of problems): an average would mix them
        held = [{row.name: row for row in section.rows} for section in members]
        rows = []
        for name, first in held[0].items():
            if all(name in rows_of and rows_of[name].seeds == first.seeds for rows_of in held):
                scores = {
                    q: np.stack([h[name].values[q].mean(axis=1) for h in held], 1) for q in ("t1", "last", "delta")
                }
                rows.append((name, first.seeds, {q: _iqm(grid) for q, grid in scores.items()}))
        if rows:
            found.append(Overall(train_task, model, turns, tuple(tasks), tuple(rows)))
    return tuple(found)


def _iqm(scores: NDArray[Any]) -> Interval:
    """Interquartile mean of [S, T]; its bounds are NaN where seeds do not differ, as resampling has no effect."""
    mean, lo, hi = stats.iqm_interval(scores)
    return Interval(mean, lo, hi) if (scores != scores[0]).any() else Interval(mean, math.nan, math.nan)


def _across_bases(sections: Sequence[Section]) -> tuple[AcrossBases, ...]:
    """Rows that were run on each of several base models, on the same problems of one task."""
    grouped: dict[ComparisonKey, list[Section]] = {}
    for section in sections:
        grouped.setdefault(section.subject._replace(model=""), []).append(section)
    return tuple(
        _crossed(subject, members)
        for subject, members in grouped.items()
        if len(members) > 1 and set.intersection(*({row.name for row in section.rows} for section in members))
    )


def _crossed(subject: ComparisonKey, members: Sequence[Section]) -> AcrossBases:
    held = [{row.name: row for row in section.rows} for section in members]
    names = [name for name in held[0] if all(name in rows for rows in held)]
    own = subject.first == "policy" and subject.turns > 1
    found, compared = [], []
    for name in names:
        rows = [rows_of[name] for rows_of in held]
        seeds = min(len(row.seeds) for row in rows)  # as many of each base, since [B, S, P] has no gaps
        cells = {}
        for q in ("t1", "last", "delta") if own else ("last",):
            cube = np.stack([row.values[q][:seeds] for row in rows])
            kind = "difference" if q == "delta" else "proportion"
            cells[q] = clip_interval(stats.bootstrap_bases(cube), kind, cube.shape[2])
        base = next((other for other in names if other.startswith(BASE)), None)
        if base not in (None, name):
            pairs = [paired_differences(rows_of[name], rows_of[base], "last", "last") for rows_of in held]
            least = min(len(common) for common, _ in pairs)
            if least:
                cube = np.stack([grid[:least] for _, grid in pairs])
                cells["gain"] = clip_interval(stats.bootstrap_bases(cube), "difference", cube.shape[2])
                # Over the means of the seeds: bases, not runs, are the independent units.
                compared.append((name, stats.paired_test(cube.mean(axis=1))))
        found.append((name, seeds, cells))
    p = dict(zip([name for name, _ in compared], stats.holm_adjust([p for _, p in compared]), strict=True))
    missing = sorted({name for rows in held for name in rows} - set(names))
    return AcrossBases(
        subject, tuple(section.subject.model for section in members), members[0].problems,
        tuple(BaseRow(name, seeds, cells, dict(compared).get(name), p.get(name)) for name, seeds, cells in found),
        tuple(missing),
    )  # fmt: skip


def _is_pool(evaluation: EvalResult, greedy: EvalResult) -> bool:
    """Whether an evaluation holds the sampled counterpart of a greedy one."""
    held = "majority_2" in evaluation.values and set(evaluation.problems) <= set(greedy.problems)
    return held and evaluation.key.is_pool_of(greedy.key)


def _before(subject: ComparisonKey, members: list[tuple[Run, EvalResult]], root: Path) -> Row | None:
    """The base row from an evaluation before training: greedy, so every run of the model has the same one."""
    for run, evaluation in members:
        again, _ = reader.read_run(run.path, root, whens=("before",))
        wanted = evaluation.key._replace(when="before")
        found = again.evaluations.get(wanted) if again else None
        if found and (found.problems_digest, found.summary["turns"]) == (subject.digest, subject.turns):
            base = Run(run.path, run.label, run.task, run.policy, BASE, run.seed, {}, {wanted: found})
            row = _row(f"{BASE} (before training)", [(base, found)])
            return Row(**{**row.__dict__, "notes": (*row.notes, f"the evaluation before training of {run.label}")})
    return None


def _beside(rows: Sequence[Row]) -> tuple[ReferenceValue, ...]:
    """What two attempts must be weighed against: one attempt of single-turn RL, and a vote of two."""
    single = next((row for row in rows if row.name == SINGLE), None)
    if single is None:
        missing = f"no finished {SINGLE} run on this table's problems"
        return ReferenceValue(f"{SINGLE}: Acc@t1", None, missing), ReferenceValue(
            f"{SINGLE}: majority@2", None, missing
        )
    vote = single.cells.get("majority_2")
    note = next((note for note in single.notes if note.startswith("majority")), "no sampled answers in its eval.jsonl")
    return ReferenceValue(f"{SINGLE}: Acc@t1", single.cells["t1"], ""), ReferenceValue(
        f"{SINGLE}: majority@2", vote, note
    )


def _families(rows: Sequence[Row], margin: float, *, own: bool) -> dict[str, tuple[Comparison, ...]]:
    """Accuracy of the last attempt against the parent, the base, and single-turn RL's first attempt (its `own`)."""
    by_name = {row.name: row for row in rows}
    base = next((row for row in rows if row.name.startswith(BASE)), None)
    single = by_name.get(SINGLE)
    families: dict[str, list[tuple[Row, Row, str]]] = {
        "against the parent": [
            (r, by_name[r.parent], "last") for r in rows if r.parent in by_name and r.parent != BASE
        ],
        "against the base": [(r, base, "last") for r in rows if base and r is not base],
        f"against {SINGLE}'s first attempt": [(r, single, "t1") for r in rows if own and single and r is not single],
    }
    return {title: _compare(pairs, margin) for title, pairs in families.items() if pairs}


def _compare(pairs: Iterable[tuple[Row, Row, str]], margin: float) -> tuple[Comparison, ...]:
    found = []
    for row, other, quantity in pairs:
        seeds, grid = paired_differences(row, other, "last", quantity)
        if seeds:
            found.append((row, other, seeds, grid, row.trained or other.trained))
    grids = [(grid, vary) for *_, grid, vary in found]
    intervals = [
        interval if grid.any() and interval.lo < interval.hi else clip_interval(interval, "difference", grid.shape[1])
        for interval, (grid, _) in zip(in_one_pass(stats.bootstrap_all, grids), grids, strict=True)
    ]
    same = in_one_pass(functools.partial(stats.equivalence_all, margin=margin), grids)
    p = [stats.paired_test(grid, seeds_vary=vary) for grid, vary in grids]
    return tuple(
        Comparison(
            row.name, other.name, seeds, interval, own, p_holm, stats.smallest_difference_of(grid), vary, margin, alike,
            _seeds_for(grid, margin) if vary else "",
        )
        for (row, other, seeds, grid, vary), interval, own, p_holm, alike in zip(
            found, intervals, p, stats.holm_adjust(p), same, strict=True
        )
    )  # fmt: skip


def _seeds_for(grid: NDArray[Any], difference: float) -> str:
    """`stats.seeds_needed` as text; '' where one seed or one problem cannot tell."""
    if min(grid.shape) < 2:
        return ""
    needed = stats.seeds_needed(grid, target=difference)
    return f">{stats.MOST_SEEDS}" if needed is None else str(needed)


def paired_differences(row: Row, other: Row, mine: str, theirs: str) -> tuple[tuple[int, ...], NDArray[Any]]:
    """Per-problem differences of two rows, [S, P], and the seeds they are of.

    Trained rows are paired by seed and only common seeds count; an untrained row has no training noise, so its mean
    over seeds is compared with every seed of the other.

    Args:
        row, other: Two rows of one table, with the same P problems.
        mine, theirs: The quantity taken of `row` and of `other`, such as `t2`.
    """
    a, b = row.values[mine], other.values[theirs]
    if not other.trained:
        return row.seeds, a - b.mean(axis=0)
    if not row.trained:
        return other.seeds, a.mean(axis=0) - b
    seeds = tuple(sorted(set(row.seeds) & set(other.seeds)))
    pick = [row.seeds.index(s) for s in seeds], [other.seeds.index(s) for s in seeds]
    return seeds, a[pick[0]] - b[pick[1]]


def read_lineage(run: Run) -> tuple[str, str, tuple[str, ...]]:
    """Parent, difference from it as text, and a warning for each literal in the run's bindings that contradicts it."""
    changes = ", ".join(f"{key} = {value}" for key, value in run.difference.items())
    difference = "; ".join(filter(None, (f"= {run.parent}" if run.parent else "", changes)))
    clashes = [k for k, v in run.difference.items() if k in run.bindings and _clash(v, run.bindings[k])]
    notes = tuple(f"its config.gin has {key} = {run.bindings[key]}, unlike its gin file" for key in clashes)
    return run.parent, difference, notes


def _clash(ours: str, theirs: str) -> bool:
    try:
        return ast.literal_eval(ours) != ast.literal_eval(theirs)
    except (ValueError, SyntaxError):
        return False


def _unlike_settings(runs: Sequence[Run]) -> tuple[str, ...]:
    """What to say of seeds whose bindings are not the same.

    A parameter that a config lacks, although it has others of the same part, is newer than that config: the run had its
    default, which by rule changes nothing. That is told, and is no other setting.
    """
    all_settings = [shared_settings(run) for run in runs]
    names = set().union(*all_settings)
    newer = set()
    for name in names:
        if len({bound[name] for bound in all_settings if name in bound}) > 1:
            return ("its seeds were run with different bindings",)
        for bound in all_settings:
            if name not in bound:
                owner = name.rpartition(".")[0]
                if not owner or not any(other.rpartition(".")[0] == owner for other in bound):
                    return ("its seeds were run with different bindings",)
                newer.add(name)
    return (f"some of its seeds are older than {', '.join(sorted(newer))}",) if newer else ()


ASKING = (
    "run.evaluations", "run.evaluate_every", "run.evaluate_split", "run.gradient_probe_every", "run.probe_",
    "pool.", "attempts.", "validation.", "train.", "fixed_first.", "right_first.",
    "wrong_first.", "other_first.", "blind.", "relabelled.",
)  # fmt: skip


def shared_settings(run: Run) -> dict[str, str]:
    """Bindings that must agree between the seeds of a row: all but the seed and what further evaluations were asked."""
    return {
        k: " ".join(v.split())  # format 1 was read so
        for k, v in run.bindings.items()
        if k.rpartition(".")[2] != "seed" and k not in NO_SCIENCE and not k.startswith(ASKING)
    }


def _imported(runs: Sequence[Run]) -> tuple[str, ...]:
    """What to say of a row whose trajectories come from other programs: nothing here held it to the others' budget."""
    told = [run.info["imported"] for run in runs if isinstance(run.info.get("imported"), dict)]
    if not told:
        return ()
    forms = ", ".join(sorted({str(one.get("format")) for one in told}))
    tokens = "" if all(one.get("tokens") for one in told) else "; its tokens are not known and stand as 0"
    return (f"imported ({forms}): it was not trained here, under no budget of this table{tokens}",)


def _budget(runs: Sequence[Run]) -> dict[str, str]:
    def joined(key: str) -> str:
        spent = {str((run.info.get("spent") or {}).get(key, "–" if "imported" in run.info else 0)) for run in runs}
        return "/".join(sorted(spent))

    return {key: joined(key) for key in ("responses", "updates")}


def _means(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds of scalars and of lists, entry by entry; None where a seed has none."""
    means: dict[str, Any] = {}
    for key, value in summaries[0].items():
        entries = [summary[key] for summary in summaries]
        if any(entry is None or isinstance(entry, dict) for entry in entries):
            means[key] = None
        else:
            means[key] = np.mean(entries, axis=0).tolist() if isinstance(value, list) else float(np.mean(entries))
    return means


def _rank(name: str) -> tuple[int, int, str]:
    """The paper's order of rows, variants after what they vary, other rows last."""
    for place, prefix in enumerate(PAPER_ORDER):
        if name == prefix or name.startswith((f"{prefix}_", f"{prefix} ")):
            return place, 0 if name in (prefix, "score_full") else 1, name
    return len(PAPER_ORDER), 0, name
