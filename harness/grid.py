"""Rows x seeds as cells: what each is called with, where it stands, and one process that runs it."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from harness import config
from harness.experiment import LIMITS, Experiment
from harness.registry import nearest
from harness.store import FORMAT, RunStore, StoreError

CONSOLE = "console.log"


@dataclass(frozen=True)
class Suite:
    """A grid of runs; gin builds it as `suite`.

    Attributes:
        rows: Names of gin files in gin/ (`score_full`), patterns over them (`score_*`), or paths of gin files.
        seeds: Every row runs with each.
        on: Gin files that put all rows on another task, model or machine (`gin/on/...`).
        bindings: Bindings for all rows, as after `--bind`.
        launcher: What starts `harness.run`: ('accelerate', 'launch', '--num_processes', '8', '-m') on several GPUs.
    """

    rows: Sequence[str]
    seeds: Sequence[int] = (0,)
    on: Sequence[str] = ()
    bindings: Sequence[str] = ()
    launcher: Sequence[str] = ("python", "-m")

    def __post_init__(self) -> None:
        if isinstance(self.rows, str) or not self.rows or not self.seeds:
            raise ValueError("suite.rows and suite.seeds must be lists with at least one entry")

    @property
    def files(self) -> list[str]:
        """The gin files of the rows, in order, each once.

        Raises:
            ValueError: a row or pattern that fits no file, with the nearest that exists.
        """
        known = sorted(path.stem for path in (config.ROOT / "gin").glob("*.gin"))
        files: list[str] = []
        for row in self.rows:
            if row.endswith(".gin"):
                files.append(row)
                continue
            found = fnmatch.filter(known, row)
            if not found:
                raise ValueError(f"suite.rows: no gin file of the name {row!r} in gin/{nearest(row, known)}")
            files += [f"gin/{name}.gin" for name in found]
        return list(dict.fromkeys(files))


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Attributes:
        name: The row.
        seed: Its seed.
        steps: Updates it will make.
        folder: Its run folder.
        command: The command line that runs it, or goes on with it.
    """

    name: str
    seed: int
    steps: int
    folder: Path
    command: tuple[str, ...]

    @property
    def label(self) -> str:
        """`row seed k`."""
        return f"{self.name} seed {self.seed}"

    @property
    def info(self) -> dict[str, Any]:
        """run.json as it stands, {} where there is none (or none that can be read)."""
        try:
            return RunStore(self.folder).read_info() or {}
        except StoreError:
            return {}

    @property
    def status(self) -> str:
        """`done`, `failed`, `interrupted`, `running` (or killed while it was), `new`."""
        return str(self.info.get("status", "new"))

    @property
    def reached(self) -> int:
        """Updates made so far."""
        with contextlib.suppress(OSError), open(self.folder / "metrics.jsonl", "rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
        return 0


def cells(suite: Suite, out: Path, options: Sequence[str] = ()) -> list[Cell]:
    """Every cell of the grid, row by row. All are built once here: a mistake in one is known before any runs.

    Args:
        suite: The grid.
        out: The results folder.
        options: Further words for every command line (`--device cuda`).

    Raises:
        ConfigError: a row that cannot be built (it is named), or a folder that holds a run of another config.
    """
    found: list[Cell] = []
    for file in suite.files:
        try:
            config.parse([file, *suite.on], suite.bindings)
            experiment: Experiment = config.build("run")
        except config.ConfigError as error:
            raise config.ConfigError(f"row {file}: {error}") from error
        text = config.operative()
        for seed in suite.seeds:
            folder = dataclasses.replace(experiment, seed=seed).folder(out)
            old = RunStore(folder).config
            changed = config.differences(old, text, ignore=("run.seed", *LIMITS)) if old else []
            if changed:
                raise config.ConfigError(
                    f"{folder} holds a run with another config; these bindings differ (old -> new):\n  "
                    + "\n  ".join(changed)
                    + "\nGive the suite another --out."
                )
            words = [sys.executable if word == "python" else word for word in suite.launcher] + ["harness.run"]
            for option, values in (("--gin", (file, *suite.on)), ("--bind", suite.bindings)):
                words += [word for value in values for word in (option, value)]
            words += ["--seed", str(seed), "--out", str(out), "--resume", *options]
            steps = experiment.steps if experiment.phases() else 0
            found.append(Cell(experiment.name, seed, steps, folder, tuple(words)))
    folders = [cell.folder for cell in found]
    for cell in found:
        if folders.count(cell.folder) > 1:
            raise config.ConfigError(f"two rows of the suite would write to {cell.folder}: give one another run.name")
    return found


@dataclass(frozen=True)
class Launch:
    """Runs one cell in a process of its own; what a cluster's engine is handed (it can be pickled)."""

    cell: Cell

    def __call__(self) -> str:
        """Runs the cell to its end and returns its status; raises RuntimeError when it failed."""
        with self.console() as console:
            code = subprocess.call(self.cell.command, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        if error := settle(self.cell, code):
            raise RuntimeError(f"{self.cell.label}: {error}")
        return self.cell.status

    def checkpoint(self) -> Any:
        """What submitit submits again after a preemption or a time limit: the same cell, which goes on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def console(self) -> IO[bytes]:
        """The cell's screen, kept beside its results."""
        self.cell.folder.mkdir(parents=True, exist_ok=True)
        return open(self.cell.folder / CONSOLE, "ab")


def settle(cell: Cell, code: int) -> str | None:
    """After a cell's process ended: its error, or None when it is done or was stopped to be gone on with.

    A process that could not say itself why it ended (killed, out of memory, no import) is recorded as failed here.
    """
    info = cell.info
    if code == 0 or info.get("status") == "interrupted":
        return None
    if info.get("status") != "failed":
        reason = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        last = _last_line(cell.folder / CONSOLE)
        store = RunStore(cell.folder)
        with contextlib.suppress(StoreError, OSError):
            store.lock()
            store.info = info
            store.update(
                format=FORMAT,
                name=cell.name,
                seed=cell.seed,
                status="failed",
                error=f"{reason}: {last}" if last else reason,
            )
        store.close()
    return str(cell.info.get("error") or f"exit status {code}")


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """{'timeout_min': 600} of ['timeout_min=600']: values are JSON where they can be, else text.

    Raises:
        ConfigError: an entry without '='.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise config.ConfigError(f"--cluster-option takes NAME=VALUE, not {pair!r}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
