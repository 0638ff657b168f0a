"""Rows x seeds as cells: what each is called with, how far it is, and one process that runs it."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from harness import config
from harness.registry import nearest_hint
from harness.runs.store import FORMAT, IN_USE, InUseError, RunStore, StoreError, is_blank
from harness.training.experiment import Experiment

CONSOLE = "console.log"
PROCESSES = ("--num_processes", "--num-processes", "--nproc_per_node", "--nproc-per-node")
GRACE_SECONDS = 30.0  # between asking a cell that is over its time to end, asking again, and killing it


@dataclass(frozen=True)
class Suite:
    """A grid of runs; gin builds it as `suite`.

    Attributes:
        rows: Names of gin files in gin/ (`score_full`), patterns over them (`score_*`), or paths of gin files.
        seeds: Every row runs with each.
        on: Gin files that put all rows on another task, protocol or machine (`gin/task/...`).
        bindings: Bindings for all rows, as after `--bind`.
        launcher: What starts `harness.run`: ('accelerate', 'launch', '--num_processes', '8', '-m') on several GPUs.
        cell_minutes: A run that takes longer (in one start) is ended with a checkpoint and recorded as failed; 0: none.
    """

    rows: Sequence[str]
    seeds: Sequence[int] = (0,)
    on: Sequence[str] = ()
    bindings: Sequence[str] = ()
    launcher: Sequence[str] = ("python", "-m")
    cell_minutes: float = 0.0

    @property
    def devices_per_run(self) -> int | None:
        """GPUs that one run takes: as many as the launcher is told to start processes; None where it is not told."""
        words = [part for word in self.launcher for part in word.split("=")]
        told = [words[i + 1] for i, word in enumerate(words[:-1]) if word in PROCESSES and words[i + 1].isdigit()]
        return int(told[-1]) if told else None if "launch" in words or "torchrun" in words else 1

    def __post_init__(self) -> None:
        if self.cell_minutes < 0:
            raise ValueError("suite.cell_minutes must be at least 0 (0: no limit)")
        if isinstance(self.rows, str) or not self.rows or not self.seeds:
            raise ValueError("suite.rows and suite.seeds must be lists with at least one entry")

    @property
    def row_files(self) -> list[str]:
        """The gin files of the rows, in order, each once.

        Raises:
            ValueError: a row or pattern that fits no file, with the nearest that exists.
        """
        known = sorted(path.stem for path in (config.GIN_HOME / "gin").glob("*.gin"))
        files: list[str] = []
        for row in self.rows:
            if row.endswith(".gin"):
                files.append(row)
                continue
            found = fnmatch.filter(known, row)
            if not found:
                raise ValueError(f"suite.rows: no gin file of the name {row!r} in gin/{nearest_hint(row, known)}")
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
        minutes: How long one start of it may take; 0 is no limit.
    """

    name: str
    seed: int
    steps: int
    folder: Path
    command: tuple[str, ...]
    minutes: float = 0.0

    @property
    def label(self) -> str:
        """`row seed k`."""
        return f"{self.name} seed {self.seed}"

    @property
    def run_info(self) -> dict[str, Any]:
        """run.json as it stands, {} where there is none; of one that cannot be read `status` (damaged) and `error`."""
        try:
            return read_info(self.folder)
        except StoreError as error:
            return {"status": "damaged", "error": str(error)}

    @property
    def status(self) -> str:
        """`done`, `failed`, `interrupted`, `running` (or killed while it was), `damaged`, `new`."""
        return str(self.run_info.get("status", "new"))

    @property
    def steps_done(self) -> int:
        """Updates made so far."""
        with contextlib.suppress(OSError), open(self.folder / "metrics.jsonl", "rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
        return 0


def read_info(folder: Path) -> dict[str, Any]:
    """run.json, {} where there is none.

    Raises:
        StoreError: it is there and cannot be read, whatever the reason.
    """
    try:
        info = RunStore(folder).read_info()
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{folder / 'run.json'} cannot be read: {type(error).__name__}: {error}") from error
    if info is not None and not isinstance(info, dict):
        raise StoreError(f"{folder / 'run.json'} is damaged (no JSON object): move {folder} away and run again")
    return info or {}


def build_cells(suite: Suite, out: Path, options: Sequence[str] = ()) -> list[Cell]:
    """Every cell of the grid, row by row. All are built once here: a mistake in one is known before any runs.

    Args:
        suite: The grid.
        out: The results folder.
        options: Further words for every command line (`--device cuda`).

    Raises:
        ConfigError: a row that cannot be built (it is named), or a folder that holds a run of another config.
    """
    found: list[Cell] = []
    for name in (name for binding in suite.bindings for name in config.bound_names(binding)):
        if name.rpartition("/")[2] == "run.seed":
            raise config.ConfigError("run.seed is the suite's business: bind suite.seeds, as in 'suite.seeds = [0, 1]'")
    for file in suite.row_files:
        try:
            config.parse_gin([file, *suite.on], suite.bindings)
            experiment: Experiment = config.build_root("run")
        except config.ConfigError as error:
            raise config.ConfigError(f"row {file}: {error}") from error
        text = config.operative_config()
        for seed in suite.seeds:
            folder = dataclasses.replace(experiment, seed=seed).run_folder(out)
            old = RunStore(folder).saved_config if not is_blank(folder) else None
            changed = config.describe_differences(old, text, ignore=("run.seed",)) if old else []
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
            found.append(Cell(experiment.name, seed, steps, folder, tuple(words), suite.cell_minutes))
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
        with self.console_path() as console:
            process = subprocess.Popen(self.cell.command, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        clock = Clock(self.cell, process)
        try:
            while (code := clock.poll()) is None:
                time.sleep(0.2)
        except BaseException:  # submitit leaves this way at a time limit or a preemption
            process.kill()
            process.wait()
            raise
        if error := settle_cell(self.cell, code, clock.reason):
            raise RuntimeError(f"{self.cell.label}: {error}")
        return self.cell.status

    def checkpoint(self) -> Any:
        """What submitit submits again after a preemption or a time limit: the same cell, which is resumed."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def console_path(self) -> IO[bytes]:
        """The cell's screen, kept beside its results."""
        self.cell.folder.mkdir(parents=True, exist_ok=True)
        return open(self.cell.folder / CONSOLE, "ab")


class Clock:
    """Ends a cell's process when its time is up: asks it to stop, asks again (it then stops at once), kills it.

    Attributes:
        reason: Why the cell was ended, or None while it was not.
    """

    def __init__(self, cell: Cell, process: subprocess.Popen[bytes]) -> None:
        self.reason: str | None = None
        self._process, self._minutes, self._began, self._told = process, cell.minutes, time.monotonic(), 0

    def poll(self) -> int | None:
        """The process's exit status, or None while it runs."""
        code = self._process.poll()
        over = time.monotonic() - self._began - 60 * self._minutes
        if code is None and self._minutes and over > self._told * GRACE_SECONDS:
            self.reason = f"longer than suite.cell_minutes = {self._minutes:g}"
            self._told += 1
            if self._told <= 2:
                self._process.terminate()
            else:
                self._kill()
        return code

    def _kill(self) -> None:
        """The process, with what it has started where it leads a group of its own."""
        if hasattr(os, "killpg") and os.getpgid(self._process.pid) == self._process.pid:
            os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()


def settle_cell(cell: Cell, code: int, reason: str | None = None) -> str | None:
    """After a cell's process ended: its error, or None when it is done, another process's, or can be gone on with.

    A process that could not say itself why it ended (killed, out of memory, no import) is recorded as failed here. What
    another process has in hand or has finished is left alone, and so is a run.json that cannot be read.

    Args:
        code: Exit status of the process, negative for a signal.
        reason: Why it was ended from outside; such a cell has failed.
    """
    if code in (0, IN_USE):
        return None
    store = RunStore(cell.folder)
    try:
        store.acquire_lock()  # first: what is read before it may have been written anew since
        info = read_info(cell.folder)
        status = info.get("status")
        if status != "done" and info and code == 2 and not reason:  # refused: what is there stays as it is
            return _last_error(cell.folder / CONSOLE) or "exit status 2"
        if status == "done" or (status == "interrupted" and not reason):
            return None
        if status != "failed" or reason:
            how = reason or (f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}")
            last = "" if reason else _last_error(cell.folder / CONSOLE)
            info |= {"error": f"{how}: {last}" if last else how}
            store.info = info
            store.update_run_json(format=FORMAT, name=cell.name, seed=cell.seed, status="failed")
        return str(info.get("error") or f"exit status {code}")
    except InUseError:
        return None
    except (StoreError, OSError) as error:
        return str(error)
    finally:
        store.release_lock()


def _last_error(path: Path) -> str:
    """The end of a console log: the lines from its last `error: ` on, or its last line."""
    try:
        lines = [
            line.strip() for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()
        ]
    except OSError:
        return ""
    begin = next((i for i in reversed(range(len(lines))) if lines[i].startswith("error: ")), len(lines) - 1)
    return " ".join(lines[max(begin, 0) :]).removeprefix("error: ")


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
