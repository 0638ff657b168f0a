"""What a repair evaluation reports: records whose first attempt is a given wrong program and whose last is its repair.

The records of one problem are its wrong programs. A model can look busy without repairing anything, so the share of
programs it hands back as they were is always reported beside the others.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any

import numpy as np

from harness.metrics import Record, tabulate
from harness.python_source import parse_program

__all__ = ["is_repair", "repair_rates", "same_program"]


def is_repair(records: Iterable[Record]) -> bool:
    """Whether every record's first attempt was given and wrong (a base model's fixed ones are not), with a second."""
    attempts = [record["attempts"] for record in records]
    return bool(attempts) and all(
        len(turns) > 1 and turns[0].get("by") == "given" and not turns[0]["correct"] for turns in attempts
    )


def repair_rates(records: Iterable[Record]) -> dict[str, Any]:
    """The rates of one repair evaluation.

    Returns:
        - `problems`, `programs`: counts
        - `macro`: the mean over problems of the share of the problem's programs that were repaired (the headline)
        - `by_problem`: those shares, [P]
        - `per_program`, `repaired`: share and number of all programs that were repaired
        - `copied`: share of all programs handed back unchanged (`same_program`)

    Raises:
        ValueError: as `harness.metrics.tabulate`.
    """
    table = tabulate(records)
    pairs = zip(*(_programs(table, turn) for turn in (0, -1)), strict=True)
    by_problem = table.problem_values("t2")
    return {
        "problems": len(table.problem_ids),
        "programs": len(table),
        "macro": float(by_problem.mean()),
        "by_problem": [float(share) for share in by_problem],
        "per_program": float(table.correct[:, -1].mean()),
        "repaired": int(table.correct[:, -1].sum()),
        "copied": float(np.mean([same_program(a, b) for a, b in pairs])),
    }


def same_program(first: str, second: str) -> bool:
    """Whether two texts are one program: the same syntax tree, or where one does not parse the same text but blanks."""
    trees = [_tree(text) for text in (first, second)]
    if None in trees:
        return first.split() == second.split()
    return trees[0] == trees[1]


def _programs(table: Any, turn: int) -> list[str]:
    """The program of each record's attempt: as the verifier found it, else the response."""
    return [found or text for found, text in zip(table.answers[turn], table.texts[turn], strict=True)]


def _tree(text: str) -> str | None:
    tree = parse_program(text)
    return None if tree is None else ast.dump(tree)
