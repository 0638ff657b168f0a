"""Tuning as part of the protocol: every row gets the same trials on validation problems, and one rule picks.

A trial is a run of a row with one value of one parameter and one seed; its greedy evaluation is of the validation split
(`run.eval_split`), so nothing here reads a test problem's answer. Trials are rows of an ordinary suite: they run in
parallel, resume and fail as others do. What is picked from them: `harness.analysis.tuned`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.runs.store import write_atomic
from harness.training.grid import Suite

MARK = "-with-"  # between a row and the value in a trial's name
METRICS = ("acc_last", "acc_first", "delta")


@dataclass(frozen=True)
class Tune:
    """The trials of several rows; gin builds it as `tune`.

    Attributes:
        rows: As in `suite.rows`.
        values: Tried for every row, one after the other.
        parameter: Which binding they are values of.
        seeds: Every value runs with each. Others than the comparison's, so that no run is used twice.
        on: As in `suite.on`.
        bindings: As in `suite.bindings`: for all trials.
        problems: Validation problems of a trial; None takes all.
        metric: What decides: `acc_last` (accuracy of the last attempt), `acc_first` or `delta`.
    """

    rows: Sequence[str]
    values: Sequence[Any]
    parameter: str = "hf.lr"
    seeds: Sequence[int] = (1000,)
    on: Sequence[str] = ()
    bindings: Sequence[str] = ()
    problems: int | None = None
    metric: str = "acc_last"

    def __post_init__(self) -> None:
        if (
            isinstance(self.values, str)
            or len(self.values) < 2
            or len({repr(v) for v in self.values}) < len(self.values)
        ):
            raise ValueError(f"tune.values must be a list of at least two different values, not {self.values!r}")
        if self.metric not in METRICS:
            raise ValueError(f"tune.metric is one of {', '.join(METRICS)}, not {self.metric!r}")
        if "." not in self.parameter:
            raise ValueError(f"tune.parameter is a binding's name such as 'hf.lr', not {self.parameter!r}")
        _ = self.suite([]).row_files  # unknown rows are known now

    def suite(self, files: Sequence[str]) -> Suite:
        """The suite of these files, or of the rows as they are where there are none."""
        return Suite(
            tuple(files or self.rows),
            tuple(self.seeds),
            tuple(self.on),
            (*self.bindings, "run.eval_split = 'validation'", f"run.eval_problems = {self.problems!r}"),
        )

    def name(self, row: str, value: Any) -> str:
        """A trial's row name: `score_full-with-0.001`."""
        return f"{row}{MARK}{str(value).replace('/', '_')}"

    @property
    def trials(self) -> list[tuple[str, str, Any]]:
        """(row's name, its gin file, value) of every trial but for seeds: as many for each row."""
        return [(Path(file).stem, file, value) for file in self.suite([]).row_files for value in self.values]

    def write_suite(self, folder: Path) -> Path:
        """Writes a gin file for every trial, and the suite of them; returns the suite's path.

        Raises:
            OSError: they cannot be written.
        """
        files = []
        for row, file, value in self.trials:
            path = folder / "rows" / f"{self.name(row, value)}.gin"
            _write(path, [f"include '{_reach(file)}'", f"{self.parameter} = {value!r}"])
            files.append(str(path.resolve()))
        suite = self.suite(files)
        lines = [f"suite.{key} = {list(getattr(suite, key))!r}" for key in ("rows", "seeds", "on", "bindings")]
        _write(folder / "suite.gin", lines)
        return folder / "suite.gin"

    def write_row(self, folder: Path, row: str, value: Any, told: str) -> Path:
        """Writes the row with the value that was picked, `folder/<row>.gin`; returns its path.

        Args:
            folder: Where the file is written.
            row: The row's name.
            value: Of `parameter`, as picked.
            told: How it was picked; bound as `run.tuned`.
        """
        (file,) = {file for name, file, _ in self.trials if name == row}
        path = folder / f"{row}.gin"
        _write(path, [f"include '{_reach(file)}'", f"{self.parameter} = {value!r}", f"run.tuned = {told!r}"])
        return path


def _reach(file: str) -> str:
    """The path as an include of another folder finds it: the harness's own files are found from everywhere."""
    return file if not Path(file).exists() or file.startswith("gin/") else os.path.abspath(file)


def _write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(["# Written by harness.tune.", *lines]) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomic(path, text)
