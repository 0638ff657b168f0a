"""What control evaluations say of a row: does its second attempt use the draft, and is that worth anything?

The counterpart of `harness.drafts` on the reading side. Everything is paired by problem: the row's own second attempt
(of the greedy evaluation) against its second attempt to the same problem after another draft. Numbers come from
eval.jsonl; what each column means: docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.metrics import stats
from harness.metrics.intervals import clip_interval
from harness.metrics.stats import Interval
from harness.runs import reader
from harness.runs.reader import EvalKey, EvalResult, Run
from harness.runs.schema import DRAFTS, draft_fits

OWN, BASE = "own", "reference"
AFTER = ("right", "wrong", "other", BASE, "relabelled", "blind")  # a column of accuracies each, behind the row's own
GAINS = {"gain_over_blind": "blind", "gain_over_other": "other", "role_gap": "relabelled"}
Attempts = Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]
Scored = Callable[[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]], tuple[float, float]]


@dataclass(frozen=True)
class Controls:
    """One row's controls.

    Attributes:
        name: The row.
        seeds: Seeds with controls.
        problems: Problems asked, of the control that has most.
        cells: `own`, `AFTER`: accuracy of attempt 2 after that draft, on the problems that the control was asked on
            (`own`: on those of all); `reliance` and `GAINS`. A missing one was not asked, or has no case.
        left_out: {`right` or `wrong`: problems, a mean over seeds, for which no draft of that kind was found}.
        notes: What a reader of the row must know.
    """

    name: str
    seeds: tuple[int, ...]
    problems: int
    cells: Mapping[str, Interval]
    left_out: Mapping[str, float]
    notes: tuple[str, ...]


def find_controls(run: Run, own: EvalResult) -> dict[str, EvalKey]:
    """{draft: the run's evaluation} of the controls that belong to its greedy evaluation `own`; {} where none do.

    They belong to the one with the fewest attempts, of two and more: its attempt 2 is what they are compared with.
    """
    greedy = own.key
    if greedy.temperature or greedy.draft or greedy.turns < 2 or greedy.first == BASE:
        return {}
    alike = [
        e.key
        for e in run.final_evaluations
        if (e.key.task, e.key.split, e.key.temperature) == (greedy.task, greedy.split, 0.0)
    ]
    plain = [key for key in alike if not key.draft and key.first == greedy.first and key.turns > 1]
    if greedy.turns > min(key.turns for key in plain):
        return {}
    shapes = {draft: (1, "policy") if draft == "blind" else (2, "given") for draft in DRAFTS}
    found = {key.draft: key for key in alike if key.draft and (key.turns, key.first) == shapes[key.draft]}
    fixed = [key for key in alike if key.first == BASE and key.turns == 2 and not key.draft]
    return {**found, **({BASE: fixed[0]} if found and fixed else {})}


def measure_controls(name: str, group: Sequence[tuple[Run, EvalResult]]) -> Controls | None:
    """The controls of one row over its seeds; None where no seed has any.

    Args:
        name: The row.
        group: (run, its greedy evaluation), one for each seed.
    """
    asked = [(run, own, found) for run, own in group if (found := find_controls(run, own))]
    if not asked:
        return None
    runs = sorted(asked, key=lambda item: item[0].seed)
    read = [_read(run, {OWN: own.key, **found}) for run, own, found in runs]
    trained = any(run.was_trained for run, *_ in runs)
    cells: dict[str, Interval | None] = {OWN: _rate(read, OWN, _right, trained)}
    cells |= {draft: _rate(read, draft, _right_after(draft), trained) for draft in AFTER}
    cells["reliance"] = _rate(read, "other", _relies, trained)
    cells |= {gain: _gain(read, draft, trained) for gain, draft in GAINS.items()}
    kept = {key: cell for key, cell in cells.items() if cell is not None}
    left_out = {}
    for draft in ("right", "wrong"):
        have = [held[draft] for held in read if draft in held]
        if have:
            left_out[draft] = float(np.mean([sum(not _fits(draft, a) for a in held.values()) for held in have]))
    sizes = {len({problem for problem, _ in held[draft]}) for held in read for draft in held if draft != OWN}
    notes = _remarks(read, kept)
    return Controls(name, tuple(run.seed for run, *_ in runs), max(sizes), kept, left_out, notes)


def _remarks(read: Sequence[Mapping[str, Attempts]], cells: Mapping[str, Interval]) -> tuple[str, ...]:
    """A blind second attempt below attempt 1 shows that the model cannot read the prompt, not that drafts help.

    `relabelled` asks in the same form.
    """
    firsts = [
        [float(held[OWN][key][0]["correct"]) for key in held["blind"] if key in held[OWN]]
        for held in read
        if "blind" in held and held[OWN] and next(iter(held[OWN].values()))[0]["by"] == "policy"
    ]
    if not firsts or "blind" not in cells or cells["blind"].hi >= np.mean(np.concatenate(firsts)):
        return ()
    return (
        "blind is below the row's own Acc@t1 on the same problems: the model does not read such a prompt as it reads "
        "the problem, so the gain over blind and the role gap say nothing of correction",
    )


def _read(run: Run, keys: Mapping[str, EvalKey]) -> dict[str, Attempts]:
    """{draft: {(problem, sample): attempts}} of one run."""
    drafts = {key: draft for draft, key in keys.items()}
    found: dict[str, dict[tuple[str, int], Sequence[Mapping[str, Any]]]] = {draft: {} for draft in keys}
    for record in reader.read_records(run.path, whens=(keys[OWN].when,)):
        draft = drafts.get(reader.key_of(record))
        if draft:
            found[draft][record["id"], record["sample"]] = record["attempts"]
    return dict(found)


def _second(attempts: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Attempt 2; of a blind record the only one."""
    return attempts[1] if len(attempts) > 1 else attempts[0]


def _fits(draft: str, attempts: Sequence[Mapping[str, Any]]) -> bool:
    first = attempts[0]
    return draft not in DRAFTS or draft_fits(draft, first["correct"], first["answer"], first["status"])


def _right(own: Sequence[Mapping[str, Any]], _: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    return float(_second(own)["correct"]), 1.0


def _right_after(draft: str) -> Scored:
    def score(_: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
        case = float(_fits(draft, other))
        return case * float(_second(other)["correct"]), case

    return score


def _relies(own: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Whether attempt 2's answer changes with the draft, where the drafts' answers differ."""
    case = own[0]["answer"] != other[0]["answer"]
    return float(case and own[1]["answer"] != other[1]["answer"]), float(case)


def _grids(
    read: Sequence[Mapping[str, Attempts]], draft: str, score: Scored
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(hits, cases), each [S, P]: means over a problem's samples, of the seeds that were asked after that draft.

    None where none was, or where seeds were asked on different problems: they cannot be paired.
    """
    have = [held for held in read if draft in held]
    tops, bottoms, names = [], [], set()
    for held in have:
        scored: dict[str, list[tuple[float, float]]] = {}
        for (problem, sample), attempts in held[draft].items():
            own = held[OWN].get((problem, sample))
            if own is not None:
                scored.setdefault(problem, []).append(score(own, attempts))
        names.add(tuple(sorted(scored)))
        means = np.asarray([np.mean(scored[problem], axis=0) for problem in sorted(scored)]).reshape(-1, 2)
        tops.append(means[:, 0])
        bottoms.append(means[:, 1])
    if len(names) != 1 or not next(iter(names)):
        return None
    return np.stack(tops), np.stack(bottoms)


def _rate(read: Sequence[Mapping[str, Attempts]], draft: str, score: Scored, trained: bool) -> Interval | None:
    grids = _grids(read, draft, score)
    return stats.ratio_interval(*grids, seeds_vary=trained) if grids else None


def _gain(read: Sequence[Mapping[str, Attempts]], draft: str, trained: bool) -> Interval | None:
    """Accuracy of attempt 2 after the own draft minus that after another, in [-1, 1]."""
    own, other = _grids(read, draft, _right), _grids(read, draft, _right_after(draft))
    if own is None or other is None:
        return None
    difference = own[0] - other[0]
    return clip_interval(stats.bootstrap_interval(difference, seeds_vary=trained), "difference", difference.shape[1])
