"""Run folders: one per (task, policy, name, seed); atomic writes, a lock, append-only logs that survive kill -9.

    results/runs/<task>/<policy>/<name>/seed<k>/
        run.json       what ran: status, budget, versions, plugins, device
        config.gin     the operative config; runs again as input
        metrics.jsonl  one line per training step
        eval.jsonl     one line per (before/after, task, problem, sample): the truth every number comes from
        checkpoint/    weights, optimiser state and position, until the run is done
        model/         the trained model in Hugging Face format

docs/results_format.md describes the fields. Above 300 lines because what may be written, in which order and what is
believed when it is read again are one subject.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from harness.runs.integrity import READ, changed_files, changed_run, hash_files
from harness.runs.schema import FORMAT, UNFINISHED, digest_of, format_fault, identity_fault

CHECKPOINTS = ("checkpoint", "checkpoint.new", "checkpoint.old")
FAILED_BATCH = "failed_batch.json"
EVALUATED = ".evaluated"  # what harness.evaluate has added and not yet removed
_TEMPORARY = re.compile(r"\.(run\.json|config\.gin|eval\.jsonl|metrics\.jsonl|commit\.json|failed_batch\.json)\.\d+")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class StoreError(RuntimeError):
    """A run folder that cannot be used as asked; the message gives the reason and what to do."""


IN_USE = 3  # exit status of a command whose run folder another process works in


class InUseError(StoreError):
    """Another process holds the run folder's lock: what is in it is that process's business."""


class RunStore:
    """One run folder, locked while it is open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: IO[str] | None = None
        self._config: str | None = None
        self.info: dict[str, Any] = {}

    # -- opening and closing -----------------------------------------------------------------------------------

    def acquire_lock(self) -> None:
        """Takes the folder's lock and removes what killed writers have left half-written.

        The kernel frees the lock when the process dies, however it dies.

        Raises:
            InUseError: another process holds it (named).
            StoreError: the folder cannot be written, or its file system has no locks.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = open(self.folder / ".lock", "a+", encoding="utf-8")  # noqa: SIM115 - held while the run lives
        except OSError as error:
            raise StoreError(f"cannot write the run folder {self.folder}: {error}") from error
        try:
            taken = _try_lock(handle)
        except OSError as error:
            handle.close()
            raise StoreError(
                f"{self.folder} cannot be locked: its file system has no file locks ({error.strerror}), and without "
                "them two processes could write one run. Choose an --out on another file system"
            ) from error
        if not taken:
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            handle.close()
            raise InUseError(f"{self.folder} is in use by {holder}: wait for it, or give this run another --out")
        with contextlib.suppress(OSError):  # the name of the holder is worth no failure; a full disk shows later
            handle.truncate(0)
            handle.write(f"process {os.getpid()} on {socket.gethostname()}")
            handle.flush()
        self._lock = handle
        self._sweep()

    def release_lock(self) -> None:
        """Frees the lock."""
        if self._lock:
            with contextlib.suppress(OSError):  # a full disk: the holder's name could not be written
                self._lock.close()
            self._lock = None

    def _sweep(self) -> None:
        """Removes what writers that were killed have left; called under the lock, so nobody is writing."""
        inside = (self.folder, self.folder / "evaluating")
        rests = [path for folder in inside for path in folder.glob(".*") if _TEMPORARY.fullmatch(path.name)]
        with contextlib.suppress(OSError):
            for path in [*rests, *(self.folder / "model").glob(".tmp*")]:
                path.unlink(missing_ok=True)
        shutil.rmtree(self.folder / EVALUATED, ignore_errors=True)
        with contextlib.suppress(StoreError):  # a damaged run.json is told by whoever reads it
            if self.is_done:
                self.drop_checkpoint()

    @property
    def is_done(self) -> bool:
        """Whether the folder holds a finished run, which nothing but `harness.evaluate` changes."""
        return (self.read_info() or {}).get("status") == "done"

    def read_info(self) -> dict[str, Any] | None:
        """run.json, or None where there is none.

        Raises:
            StoreError: it is damaged (never by this program: it is written in one piece), or of another format.
        """
        path = self.folder / "run.json"
        if not os.path.lexists(path):
            return None
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            raise StoreError(f"{path} is damaged ({error}): move {self.folder} away and run again") from error
        if not isinstance(info, dict):
            raise StoreError(f"{path} is damaged (no object): move {self.folder} away and run again")
        if "format" in info and (why := format_fault(info)):
            raise StoreError(f"{path} {why}")
        return info

    def update_run_json(self, **fields: Any) -> None:
        """Merges fields into run.json, with its new digest, in one atomic write."""
        self.info.update(fields)
        if self.info.get("format") == FORMAT:
            self.info["digest"] = digest_of(json.loads(json.dumps(self.info)))  # as it is when read again
        write_atomic(self.folder / "run.json", json.dumps(self.info, indent=1, sort_keys=True) + "\n")

    # -- config ------------------------------------------------------------------------------------------------

    @property
    def saved_config(self) -> str | None:
        """The saved config.gin, or None.

        Raises:
            StoreError: it cannot be read.
        """
        path = self.folder / "config.gin"
        if not os.path.lexists(path):
            return None
        try:
            return path.read_text(encoding="utf-8")
        except (ValueError, OSError) as error:
            raise StoreError(f"{path} cannot be read ({error}): move {self.folder} away and run again") from error

    def save_config(self, text: str) -> None:
        """Writes config.gin."""
        write_atomic(self.folder / "config.gin", text)
        self._config = text

    # -- logs --------------------------------------------------------------------------------------------------

    def append_step(self, line: Mapping[str, Any]) -> None:
        """Appends one step to metrics.jsonl."""
        append_jsonl(self.folder / "metrics.jsonl", [line])

    def drop_steps_after(self, steps: int) -> None:
        """Drops the lines of metrics.jsonl after step `steps`, and a half-written last one.

        Raises:
            StoreError: the lines up to there are not those of steps 1 to `steps`.
        """
        path = self.folder / "metrics.jsonl"
        lines, torn = read_jsonl(path)
        self._check_steps(lines[:steps], steps)
        if torn or len(lines) > steps or not path.exists():  # a run that logs nothing has an empty log
            write_atomic(path, dump_all(lines[:steps]))

    def _check_steps(self, lines: Sequence[Mapping[str, Any]], steps: int) -> None:
        found = [line.get("step") for line in lines]
        if found != list(range(1, steps + 1)):
            number = next((i for i, step in enumerate(found, 1) if step != i), len(found) + 1)
            there = f"line {number} is of step {found[number - 1]!r}" if number <= len(found) else "it ends before that"
            raise StoreError(
                f"{self.folder / 'metrics.jsonl'} does not hold steps 1 to {steps}, one a line: {there}. "
                f"Without its log the run cannot go on: move {self.folder} away and run again"
            )

    def append_records(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Appends evaluation records to eval.jsonl."""
        append_jsonl(self.folder / "eval.jsonl", lines)

    def read_records(self) -> list[dict[str, Any]]:
        """The records in eval.jsonl.

        A last line that ends without a line feed was being written when the process died. In an unfinished run it is
        cut off the file and kept in eval.jsonl.damaged; nothing else is ever taken out of it.

        Raises:
            StoreError: any other damage, with the line's number; in a finished run, any.
        """
        path = self.folder / "eval.jsonl"
        lines, torn = read_jsonl(path)
        if torn:
            if self.is_done:
                raise StoreError(
                    f"{path}, line {len(lines) + 1} is cut off, in a run that is done: it was damaged later. Nothing "
                    "was changed; put back a whole copy, or move the folder away and run again"
                )
            with open(path.with_name(f"{path.name}.damaged"), "ab") as file:
                file.write(torn + b"\n")
                _flush(file)
            os.truncate(path, path.stat().st_size - len(torn))
        return lines

    def sound_records(self) -> list[dict[str, Any]]:
        """As `read_records`, each checked to be what an evaluation writes.

        Raises:
            StoreError: as `read_records`; or a line that lacks what every record has, with its number.
        """
        lines = self.read_records()
        for number, line in enumerate(lines, 1):
            if fault := identity_fault(line):
                raise StoreError(f"{self.folder / 'eval.jsonl'}, line {number} is no record: {fault}")
        return lines

    def add_records(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Adds records to eval.jsonl in one piece: a reader sees none of them or all."""
        path = self.folder / "eval.jsonl"
        write_atomic(path, path.read_bytes() + dump_all(lines))

    def keep_failed_batch(self, told: Mapping[str, Any]) -> None:
        """Writes what an update broke on to failed_batch.json, to be looked at and replayed; NaN becomes a text."""
        write_atomic(self.folder / FAILED_BATCH, dump_json_line(_writable(told)))

    # -- the end -----------------------------------------------------------------------------------------------

    def check_whole(self, steps: int) -> None:
        """Looks before a run is called done whether what was written is still there.

        Args:
            steps: Updates made, each with its line in metrics.jsonl.

        Raises:
            StoreError: naming what was removed or changed while the run went on.
        """
        if self._config is not None and self.saved_config != self._config:
            raise StoreError(f"{self.folder / 'config.gin'} was removed or changed while the run went on")
        lines, torn = read_jsonl(self.folder / "metrics.jsonl")
        if torn:
            raise StoreError(f"{self.folder / 'metrics.jsonl'} ends in half a line")
        self._check_steps(lines, steps)

    def file_hashes(self) -> dict[str, str]:
        """{file: SHA-256} of what readers and later evaluations use, handed to the disk first."""
        names = [name for name in (*READ, "model") if (self.folder / name).exists()]
        for path in (self.folder / "model").rglob("*"):
            sync_to_disk(path)
        for name in names:
            sync_to_disk(self.folder / name)
        return hash_files(self.folder, names)

    def check_unchanged(self, *more: str) -> None:
        """Compares a finished run's files with the hashes in run.json.

        Args:
            more: Files or folders besides those that readers use, such as `model`.

        Raises:
            StoreError: one sentence for each that differs.
        """
        if told := changed_run(self.folder, self.info, (*READ, *more)):
            listed = "\n  ".join(told)
            raise StoreError(
                f"{self.folder} is done, but no longer what it was:\n  {listed}\n"
                "Nothing was changed now. Put back a whole copy, or move the folder away and run again"
            )

    # -- checkpoints -------------------------------------------------------------------------------------------

    def write_checkpoint(self, position: Mapping[str, Any], save: Callable[[Path], None]) -> None:
        """Replaces the checkpoint: `save` fills a new folder, which is swapped in only when it is whole.

        At every moment one whole checkpoint has a name that `last_checkpoint` looks at, and what it stands for (the
        logs up to there, its own files) is on the disk before it takes its place.
        """
        final, new, old = (self.folder / name for name in CHECKPOINTS)
        for name in ("eval.jsonl", "metrics.jsonl"):
            if (self.folder / name).exists():
                sync_to_disk(self.folder / name)
        if not final.exists() and (new / "position.json").exists():  # killed between the two renames below
            new.rename(final)
        shutil.rmtree(new, ignore_errors=True)
        try:
            new.mkdir(parents=True)
            save(new)
            files = [path for path in sorted(new.iterdir()) if path.is_file()]
            for path in files:
                sync_to_disk(path)
            digests = hash_files(new, [path.name for path in files])
            digests["position"] = _digest(position)
            write_atomic(new / "position.json", dump_json_line({**position, "sha256": digests}))
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)  # on a full disk, room for the status
            raise
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
            final.rename(old)
        new.rename(final)
        sync_to_disk(self.folder)
        shutil.rmtree(old, ignore_errors=True)

    def last_checkpoint(self, verify: bool = True) -> tuple[dict[str, Any], Path] | None:
        """Position and folder of the newest whole checkpoint, or None where there is none.

        Args:
            verify: Read its files and compare their SHA-256; without it, position.json alone is looked at.

        Raises:
            StoreError: there are checkpoints, and none of them is whole.
        """
        found, told = [], []
        for name in CHECKPOINTS:
            folder = self.folder / name
            if (folder / "position.json").exists():
                try:
                    found.append((_read_position(folder / "position.json"), folder))
                except StoreError as error:
                    told.append(str(error))
            elif name == "checkpoint" and folder.exists():
                told.append(f"{folder / 'position.json'} is missing")
        for (position, digests), folder in sorted(found, key=lambda item: item[0][0]["step"], reverse=True):
            if changed := changed_files(folder, {"sha256": digests}, digests) if verify else []:
                told += [f"{folder}: {sentence}" for sentence in changed]
                continue
            return position, folder
        if told:
            listed = "\n  ".join(told)
            raise StoreError(
                f"no checkpoint in {self.folder} is whole:\n  {listed}\n"
                f"To train again from update 0, remove {self.folder / 'checkpoint'}*; what was evaluated before "
                "training is kept"
            )
        return None

    def drop_checkpoint(self) -> None:
        """Removes checkpoints once the run is done."""
        for name in CHECKPOINTS:
            shutil.rmtree(self.folder / name, ignore_errors=True)


class ReadOnlyRunStore(RunStore):
    """Read-only run store, for all processes but the first: nothing is written.

    Not covered: machines that do not share the folder; all of them read the checkpoint when a run is resumed.
    """

    def acquire_lock(self) -> None:
        pass

    def update_run_json(self, **fields: Any) -> None:
        self.info.update(fields)

    def save_config(self, text: str) -> None:
        pass

    def append_step(self, line: Mapping[str, Any]) -> None:
        pass

    def drop_steps_after(self, steps: int) -> None:
        pass

    def append_records(self, lines: Sequence[Mapping[str, Any]]) -> None:
        pass

    def keep_failed_batch(self, told: Mapping[str, Any]) -> None:
        pass

    def write_checkpoint(self, position: Mapping[str, Any], save: Callable[[Path], None]) -> None:
        save(self.folder / "checkpoint.new")  # the processes gather sharded weights together; the first one writes them

    def drop_checkpoint(self) -> None:
        pass


def dump_json_line(line: Mapping[str, Any]) -> str:
    """One JSON line; the same mapping always gives the same bytes.

    A lone surrogate, which UTF-8 cannot hold, is written as its JSON escape.

    Raises:
        ValueError: a number that is not finite, which JSON does not have.
    """
    text = json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
    return _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def dump_all(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """JSON lines as the bytes of a file."""
    return "".join(dump_json_line(line) for line in lines).encode()


def append_jsonl(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Appends JSON lines and hands them to the kernel: they survive the death of the process."""
    with _naming(path), open(path, "ab") as file:
        file.write(dump_all(lines))


def read_jsonl(path: Path) -> tuple[list[dict[str, Any]], bytes]:
    """The lines of a file, and the bytes of a last one that ends without a line feed (b"" where it does not).

    Lines end in a line feed alone: U+2028, U+2029 and U+0085 may occur inside a text. A missing file is empty.

    Raises:
        StoreError: a line that is no JSON object, with its number.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], b""
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    *whole, torn = data.split(b"\n")
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(whole, 1):
        try:
            line = json.loads(text.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{path}, line {number} is damaged ({error}); nothing was changed") from error
        if not isinstance(line, dict):
            raise StoreError(f"{path}, line {number} is damaged (no JSON object); nothing was changed")
        lines.append(line)
    return lines, torn


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader, or a crash, sees the old one or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        with _naming(path):
            with open(temporary, "wb") as file:
                file.write(data)
                _flush(file)
            os.replace(temporary, path)
            sync_to_disk(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync_to_disk(path: Path) -> None:
    """Hands a file, or a folder's list of names, to the disk, so that it survives a power cut."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    with _naming(path):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or its cause, means that nothing more can be written.

    torch tells of a full disk as a RuntimeError of its zip writer, safetensors in words of its own.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        text = str(error)
        if "No space left on device" in text or "PytorchStreamWriter failed" in text:
            return True
        if "enforce fail at inline_container" in text:
            return True
        error = error.__cause__ or error.__context__
    return False


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Gives an error of writing the name of its file, which the system leaves out."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _digest(position: Mapping[str, Any]) -> str:
    """SHA-256 of a position as it is when read again (JSON has no tuples, and joins two halves of a surrogate pair)."""
    return hashlib.sha256(dump_json_line(json.loads(dump_json_line(position))).encode()).hexdigest()


def _read_position(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A checkpoint's position and the SHA-256 of its files ({} from before these were written).

    Raises:
        StoreError: it is not what was written.
    """
    try:
        position = json.loads(path.read_text(encoding="utf-8"))
        digests = position.pop("sha256", {})
        told = digests.pop("position", None)
        sound = isinstance(position["step"], int) and (told is None or told == _digest(position))
    except (ValueError, OSError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is damaged ({type(error).__name__}: {error})") from error
    if not sound:
        raise StoreError(f"{path} is not what was written (its SHA-256 differs)")
    return position, digests


def _writable(value: Any) -> Any:
    """A value with numbers that are not finite as texts: JSON has none."""
    if isinstance(value, Mapping):
        return {key: _writable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return repr(value)
    return value if isinstance(value, str | int | float | None) else repr(value)


def run_folders(root: Path) -> Iterator[Path]:
    """All run folders below `root`, sorted."""
    yield from sorted(path.parent for path in root.rglob("run.json"))


COMPUTED = (
    "eval.jsonl", "metrics.jsonl", "failed_batch.json", "checkpoint", "checkpoint.new", "checkpoint.old", "evaluating",
    "model",
)  # fmt: skip


def is_blank(folder: Path) -> bool:
    """Whether run.json tells of a run that ended before anything was computed: it may be begun anew."""
    path = folder / "run.json"
    with contextlib.suppress(OSError, ValueError, RecursionError):
        info = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        if isinstance(info, dict) and info.get("status") in UNFINISHED:
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
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            return False
        raise  # no locks here (ENOLCK, ENOTSUP), which is no other process
    return True
