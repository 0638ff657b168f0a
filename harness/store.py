"""Run folders: one per (task, policy, name, seed); atomic writes, a lock, append-only logs that survive kill -9.

    results/runs/<task>/<policy>/<name>/seed<k>/
        run.json       what ran: status, budget, versions, plugins, device
        config.gin     the operative config; runs again as input
        metrics.jsonl  one line per training step
        eval.jsonl     one line per (before/after, task, problem, sample): the truth every number comes from
        checkpoint/    weights, optimiser state and position, until the run is done
        model/         the trained model in Hugging Face format

docs/results_format.md describes the fields.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

FORMAT = 1


class StoreError(RuntimeError):
    """A run folder that cannot be used as asked; the message says why and what to do."""


IN_USE = 3  # exit status of a command whose run folder another process works in


class InUseError(StoreError):
    """Another process holds the run folder's lock: what is in it is that process's business."""


class RunStore:
    """One run folder, locked while it is open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: IO[str] | None = None
        self.info: dict[str, Any] = {}

    # -- opening and closing -----------------------------------------------------------------------------------

    def lock(self) -> None:
        """Takes the folder's lock; the kernel frees it when the process dies, however it dies.

        Raises:
            InUseError: another process holds it (named).
            StoreError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = open(self.folder / ".lock", "a+", encoding="utf-8")  # noqa: SIM115 - held while the run lives
        except OSError as error:
            raise StoreError(f"cannot write the run folder {self.folder}: {error}") from error
        if not _try_lock(handle):
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            handle.close()
            raise InUseError(f"{self.folder} is in use by {holder}: wait for it, or give this run another --out")
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        self._lock = handle

    def close(self) -> None:
        """Frees the lock."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def read_info(self) -> dict[str, Any] | None:
        """run.json, or None where there is none.

        Raises:
            StoreError: it is damaged (never by this program: it is written in one piece).
        """
        path = self.folder / "run.json"
        if not path.exists():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise StoreError(f"{path} is damaged ({error}): move {self.folder} away and run again") from error

    def update(self, **fields: Any) -> None:
        """Merges fields into run.json, in one atomic write."""
        self.info.update(fields)
        write_atomic(self.folder / "run.json", json.dumps(self.info, indent=1, sort_keys=True) + "\n")

    # -- config ------------------------------------------------------------------------------------------------

    @property
    def config(self) -> str | None:
        """The saved config.gin, or None."""
        path = self.folder / "config.gin"
        return path.read_text(encoding="utf-8") if path.exists() else None

    def save_config(self, text: str) -> None:
        """Writes config.gin."""
        write_atomic(self.folder / "config.gin", text)

    # -- logs --------------------------------------------------------------------------------------------------

    def log(self, line: Mapping[str, Any]) -> None:
        """Appends one step to metrics.jsonl."""
        append(self.folder / "metrics.jsonl", [line])

    def rewind(self, steps: int) -> None:
        """Drops the lines of metrics.jsonl after step `steps`, and a half-written last one."""
        path = self.folder / "metrics.jsonl"
        kept = [line for line in read_jsonl(path)[0] if line["step"] <= steps]
        write_atomic(path, "".join(dump(line) for line in kept))

    def record(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Appends evaluation records to eval.jsonl."""
        append(self.folder / "eval.jsonl", lines)

    def recorded(self) -> list[dict[str, Any]]:
        """The whole records in eval.jsonl; a half-written last line is cut off the file."""
        path = self.folder / "eval.jsonl"
        lines, damaged = read_jsonl(path)
        if damaged:
            write_atomic(path, "".join(dump(line) for line in lines))
        return lines

    def replace_records(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Writes eval.jsonl anew, in one piece."""
        write_atomic(self.folder / "eval.jsonl", "".join(dump(line) for line in lines))

    # -- checkpoints -------------------------------------------------------------------------------------------

    def checkpoint(self, position: Mapping[str, Any], save: Callable[[Path], None]) -> None:
        """Replaces the checkpoint: `save` fills a new folder, which is swapped in only when it is whole."""
        new, old, final = (self.folder / name for name in ("checkpoint.new", "checkpoint.old", "checkpoint"))
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        save(new)
        write_atomic(new / "position.json", dump(position))
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
        new.rename(final)
        shutil.rmtree(old, ignore_errors=True)

    def last_checkpoint(self) -> tuple[dict[str, Any], Path] | None:
        """Position and folder of the newest whole checkpoint, or None."""
        for name in ("checkpoint", "checkpoint.old"):
            path = self.folder / name / "position.json"
            if path.exists():
                return json.loads(path.read_text(encoding="utf-8")), path.parent
        return None

    def drop_checkpoint(self) -> None:
        """Removes checkpoints once the run is done."""
        for name in ("checkpoint", "checkpoint.old", "checkpoint.new"):
            shutil.rmtree(self.folder / name, ignore_errors=True)


class Onlooker(RunStore):
    """The run folder as every process but the first sees it: nothing is written.

    Not covered: machines that do not share the folder; all of them read the checkpoint when a run goes on.
    """

    def lock(self) -> None:
        pass

    def update(self, **fields: Any) -> None:
        self.info.update(fields)

    def save_config(self, text: str) -> None:
        pass

    def log(self, line: Mapping[str, Any]) -> None:
        pass

    def rewind(self, steps: int) -> None:
        pass

    def record(self, lines: Sequence[Mapping[str, Any]]) -> None:
        pass

    def checkpoint(self, position: Mapping[str, Any], save: Callable[[Path], None]) -> None:
        save(self.folder / "checkpoint.new")  # the processes gather sharded weights together; the first one writes them

    def drop_checkpoint(self) -> None:
        pass


def dump(line: Mapping[str, Any]) -> str:
    """One JSON line; the same mapping always gives the same bytes."""
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"


def append(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Appends JSON lines and hands them to the kernel: they survive the death of the process."""
    with open(path, "a", encoding="utf-8") as file:
        file.write("".join(dump(line) for line in lines))


def read_jsonl(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The lines of a file up to the first damaged one, and whether there was one; a missing file is empty."""
    lines: list[dict[str, Any]] = []
    if not path.exists():
        return lines, False
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            if not text.endswith("\n"):
                return lines, True
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            return lines, True
    return lines, False


def write_atomic(path: Path, text: str) -> None:
    """Writes a file so that a reader, or a crash, sees the old one or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def run_folders(root: Path) -> Iterator[Path]:
    """All run folders below `root`, sorted."""
    yield from sorted(path.parent for path in root.rglob("run.json"))


COMPUTED = ("eval.jsonl", "metrics.jsonl", "checkpoint", "checkpoint.new", "checkpoint.old", "evaluating", "model")


def is_blank(folder: Path) -> bool:
    """Whether run.json tells of a run that ended before anything was computed: it may be begun anew."""
    path = folder / "run.json"
    with contextlib.suppress(OSError, ValueError, RecursionError):
        info = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        if isinstance(info, dict) and info.get("status") in ("failed", "interrupted", "running"):
            return not has_results(folder)
    return False


def has_results(folder: Path) -> bool:
    """Whether a run folder holds anything that was computed."""
    return any(_holds_something(folder / name) for name in COMPUTED)


def _holds_something(path: Path) -> bool:
    return path.is_dir() or (path.exists() and path.stat().st_size > 0)


def _try_lock(handle: IO[str]) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: no advisory locks; two runs of one key must be kept apart by hand
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
