"""The metrics of results tables, one entry each, in the order of their columns (docs/adding_a_metric.md).

Leaderboard, report, CSV, JSON, data frames, the table at a run's end, the training log and the `evaluate` module go
over this list. A plugin adds to it with the same decorator. Accuracies of the attempts (`t1`, `t2`, ...) are no
entries: there are as many as attempts.

Differs from the paper (arXiv 2409.12917v2, section 3): fix rate, break rate, the conditional rates and answer change
are ours. Its "edit distance ratio" names no distance; here it is the insertion/deletion distance on characters, whose
maximum under the paper's normalisation is 1 (plain Levenshtein's would be 1/2 for equal lengths).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rapidfuzz.distance import Indel
from rapidfuzz.process import cpdist

from harness.metrics.table import Floats, Table, metric


def edit_ratio(first: str, second: str) -> float:
    """Insertion/deletion distance of two texts over the sum of their lengths, in characters.

    Returns:
        A number in [0, 1]: 0 for equal texts (two empty ones included), 1 when they share no character in order.

    Source: the normalisation is arXiv 2409.12917v2, section 4; the choice of distance is ours.
    """
    return float(Indel.normalized_distance(first, second))


def _wrong(table: Table) -> Any:
    return ~table.correct[:, 0]


def _right(table: Table) -> Any:
    return table.correct[:, 0]


def _wrong_and_changed(table: Table) -> Any:
    return ~table.correct[:, 0] & table.changed


@metric("delta", "Δ(t1,t{last})", interval="difference", place="accuracy", plain="delta", logged=True)
def _delta(table: Table) -> Floats:
    """Accuracy of the last attempt minus that of the first."""
    return table.correct[:, -1].astype(float) - table.correct[:, 0]


@metric("i_to_c", "Δi→c", interval="proportion", place="accuracy", plain="i->c", logged=True)
def _i_to_c(table: Table) -> Any:
    """Share of all problems: attempt 1 is wrong, the last attempt right."""
    return ~table.correct[:, 0] & table.correct[:, -1]


@metric("c_to_i", "Δc→i", interval="proportion", place="accuracy", plain="c->i", logged=True)
def _c_to_i(table: Table) -> Any:
    """Share of all problems: attempt 1 is right, the last attempt wrong."""
    return table.correct[:, 0] & ~table.correct[:, -1]


@metric(
    "fix_rate", "fix rate", interval=None, given=_wrong, in_summary=False,
    about="Fix rate: right at the end given a wrong first attempt; break rate: the reverse.",
)  # fmt: skip
def _fix_rate(table: Table) -> Any:
    """P(the last attempt is right | attempt 1 is wrong), over records."""
    return _i_to_c(table)


@metric("break_rate", "break rate", interval=None, given=_right, in_summary=False)
def _break_rate(table: Table) -> Any:
    """P(the last attempt is wrong | attempt 1 is right), over records."""
    return _c_to_i(table)


@metric(
    "change_if_wrong", "P(change | wrong)", interval="proportion", given=_wrong, in_summary=False,
    about="P(change | wrong), P(change | right): the last answer is another than the first, given that the first was "
    "wrong (right); P(right | wrong, changed): the new answer is then right.",
)  # fmt: skip
def _change_if_wrong(table: Table) -> Any:
    """P(the last answer is another | attempt 1 is wrong)."""
    return _wrong_and_changed(table)


@metric("change_if_right", "P(change | right)", interval="proportion", given=_right, in_summary=False)
def _change_if_right(table: Table) -> Any:
    """P(the last answer is another | attempt 1 is right)."""
    return table.correct[:, 0] & table.changed


@metric(
    "right_if_changed", "P(right | wrong, changed)", interval="proportion", given=_wrong_and_changed, in_summary=False
)
def _right_if_changed(table: Table) -> Any:
    """P(the last attempt is right | attempt 1 is wrong and the last answer is another)."""
    return _wrong_and_changed(table) & table.correct[:, -1]


@metric("answer_change", "answer change", interval="proportion", logged=True)
def _answer_change(table: Table) -> Any:
    """Share of all problems whose extracted answers differ; two missing answers are the same answer."""
    return table.changed


@metric(
    "edit_ratio", "edit ratio", interval="fraction", in_summary=False, logged=True,
    about="Edit ratio: insertion/deletion distance over summed length, in characters.",
)  # fmt: skip
def _edit_ratio(table: Table) -> Any:
    """Mean `edit_ratio` of the first and the last text."""
    return cpdist(table.texts[0], table.texts[-1], scorer=Indel.normalized_distance, dtype=np.float64)


@metric("unchanged", "unchanged", interval="proportion", in_summary=False)
def _unchanged(table: Table) -> Any:
    """Share of all problems whose last text is a copy of the first, surrounding space aside."""
    return [a.strip() == b.strip() for a, b in zip(table.texts[0], table.texts[-1], strict=True)]
