"""A results folder as one Parquet file, and back to the same bytes; readers take such a file in place of the folder.

An archive has one row per file of a run, in the columns `path` (below the results folder, with forward slashes), `part`
(from 0; only files of more than `PART` bytes have several), `sha256` (of the whole file) and `content`. Files of one
name are stored together, so that one run's lines are compressed with those of the runs before it. To read an archive it
is expanded once into the user's cache, into a folder named by the archive's own SHA-256.
Above 300 lines because writing, checking and expanding an archive are read together.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from harness.runs import integrity

if TYPE_CHECKING:
    import pyarrow.parquet as pq

FILES = ("run.json", "config.gin", "metrics.jsonl", "eval.jsonl")  # what of a run is kept: all that readers read
COLUMNS = ("path", "part", "sha256", "content")
MARK = b"score-harness archive"  # in the file's metadata, with the version of this format
VERSION = b"1"
SUFFIX = ".parquet"
PART = 2**26  # bytes of one row's content at most: Parquet counts them with 31 bits
GROUP = 2**27  # bytes of contents that are compressed, and held in memory, together
LEVEL = 19  # of zstd: written once, kept for long
DEPTH = 5  # names of the shortest path: task, policy, row, seed, file


class ArchiveError(OSError):
    """A file that is no archive, a damaged one, or one that cannot be written or expanded."""


def write_archive(runs: Iterable[Path], root: Path, out: Path) -> int:
    """Writes the files `FILES` of runs into one archive: the same runs give the same bytes (with one pyarrow).

    Args:
        runs: The runs' folders, as `harness.runs.reader.find_runs(root)` gives them.
        root: The results folder; what the paths in the archive are relative to.
        out: The archive; it is there when it is whole, and was read back, or not at all.

    Returns:
        How many files it holds.

    Raises:
        ArchiveError: no runs; a file that cannot be read or changes meanwhile; a disk that is full.
    """
    files = [(_inside(run, root) / name, run / name) for run in runs for name in FILES if (run / name).exists()]
    if not files:
        raise ArchiveError(f"{root} holds no runs: nothing to archive")
    for place, _ in files:
        _check_place(out, str(place))
    files.sort(key=lambda file: (file[0].name, file[0].parts))
    scratch = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        digests, seen = _write(files, scratch)
        for path, before in seen.items():
            if _looks(path) != before:
                raise ArchiveError(f"{path} changed while it was read: archive again when nothing writes to its run")
        found = {path: _digest(parts) for path, parts in _contents(scratch)}
        if found != digests:
            raise ArchiveError(f"{out} was not written as it should be: the file read back differs")
        os.replace(scratch, out)
    except ArchiveError:
        raise
    except OSError as error:
        raise ArchiveError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
    return len(files)


def expand_archive(path: Path, folder: Path) -> int:
    """Writes every file of an archive below `folder`, which comes into being whole or not at all.

    Returns:
        How many files that are.

    Raises:
        ArchiveError: `folder` is there and not empty; the archive is damaged, or holds a path that is none of a run's
            files below the folder; the disk is full.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArchiveError(f"{folder} is there already: choose a folder that is not")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            count = _fill(path, Path(scratch) / "whole")
            os.replace(Path(scratch) / "whole", folder)
    except ArchiveError:
        raise
    except OSError as error:
        raise ArchiveError(f"{path} cannot be expanded to {folder}: {error.strerror or error}") from error
    return count


def is_archive(path: Path) -> bool:
    """Whether a file is an archive of ours, or a Parquet file so damaged that nobody can tell; other data is not."""
    if not (path.suffix == SUFFIX and path.is_file()):
        return False
    try:
        with _opened(path):
            return True
    except ArchiveError as error:
        return not isinstance(error, _OtherData)


def find_folder(path: Path) -> Path:
    """The folder that a path stands for: itself, or for an archive (or a path into one) where it is expanded.

    Raises:
        ArchiveError: the archive is damaged, or the cache cannot hold it.
    """
    if path.is_dir():
        return path
    for file in (path, *path.parents):
        if file.is_file():
            about = file.stat()
            folder = _expanded(file.resolve(), about.st_mtime_ns, about.st_size)
            _origins[folder] = file
            return folder / path.relative_to(file)
    return path


def show_path(path: Path) -> Path:
    """A path as its user knows it: of what lies in an expanded archive, the archive's path and the place in it."""
    for folder in path.parents if path not in _origins else (path,):
        if folder in _origins:
            return _origins[folder] / path.relative_to(folder)
    return path


_origins: dict[Path, Path] = {}  # {expanded folder: the archive that it was last found by}
_checked: dict[tuple[Any, ...], Path] = {}  # {cache, archive and how it looked: its expanded folder}


def _expanded(path: Path, changed: int, size: int) -> Path:
    """Where an archive is expanded in the cache, which is compared with the archive's digests once a process."""
    key = (_cache(), path, changed, size)
    if key in _checked and _checked[key].is_dir():
        return _checked[key]
    with _opened(path):  # what is no archive is told before it is read for its digest
        pass
    try:
        folder = _cache() / integrity.file_sha256(path)
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror or error}") from error
    if folder.is_dir() and not _is_whole(path, folder):
        shutil.rmtree(folder, ignore_errors=True)
    if not folder.is_dir():
        try:
            expand_archive(path, folder)
        except ArchiveError:
            if not folder.is_dir():  # else another process was quicker
                raise
    _checked[key] = folder
    return folder


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path.home() / ".cache") / "score-harness" / "archives"


def _is_whole(path: Path, folder: Path) -> bool:
    """Whether a folder still holds an archive's very files."""
    with _opened(path) as file:
        rows = file.read(columns=["path", "sha256"]).to_pylist()
    try:
        held = {found.relative_to(folder).as_posix() for found in folder.rglob("*") if not found.is_dir()}
        return held == {row["path"] for row in rows} and all(
            integrity.file_sha256(folder / row["path"]) == row["sha256"] for row in rows
        )
    except OSError:
        return False


def _inside(run: Path, root: Path) -> PurePosixPath:
    """A run's place below the results folder; the last four names of its path where `root` is further down."""
    shown = show_path(run)
    below = shown.relative_to(root).parts
    return PurePosixPath(*(below if len(below) >= DEPTH - 1 else Path(os.path.abspath(shown)).parts[1 - DEPTH :]))


def _digest(parts: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def _looks(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _write(files: Sequence[tuple[PurePosixPath, Path]], out: Path) -> tuple[dict[str, str], dict[Path, Any]]:
    """Writes an archive; returns {path in it: SHA-256} and {file: how it looked before it was read}."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = (pa.string(), pa.int32(), pa.string(), pa.binary())
    schema = pa.schema(list(zip(COLUMNS, types, strict=True)), metadata={MARK: VERSION})
    digests: dict[str, str] = {}
    seen: dict[Path, Any] = {}
    rows: list[tuple[str, int, str, bytes]] = []
    held = 0

    with pq.ParquetWriter(
        out, schema, compression="zstd", compression_level=LEVEL, use_dictionary=False, write_page_checksum=True,
        data_page_size=2 * GROUP, write_statistics=False,
    ) as writer:  # fmt: skip

        def flush() -> None:
            columns = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))

        for place, path in files:
            seen[path] = _looks(path)
            digest = digests[str(place)] = integrity.file_sha256(path)
            with open(path, "rb") as file:
                part = 0
                while (content := file.read(PART)) or not part:
                    rows.append((str(place), part, digest, content))
                    part, held = part + 1, held + len(content)
                    if held >= GROUP:
                        flush()
                        rows, held = [], 0
        if rows:
            flush()
    return digests, seen


def _fill(path: Path, folder: Path) -> int:
    """Writes an archive's files below a folder that is not there yet, each compared with its SHA-256."""
    folder.mkdir()
    count = 0
    for place, parts in _contents(path):
        _check_place(path, place)
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(target, "xb") as file:  # a second file of this name, or one that differs in case, is refused
                for content in parts:
                    file.write(content)
        except FileExistsError as error:
            raise ArchiveError(f"{path} is damaged: it holds {place!r} twice") from error
        count += 1
    return count


def _check_place(path: Path, place: str) -> None:
    """Raises ArchiveError for a path in an archive that is not `.../task/policy/row/seed0/FILE`."""
    names = place.split("/")
    refused = set("\0\\:" if os.name == "nt" else "\0\\")
    fine = len(names) >= DEPTH and names[-1] in FILES and names[-2].startswith("seed")
    if not fine or any(name in ("", ".", "..") or set(name) & refused for name in names):
        raise ArchiveError(f"{path} is refused: it holds {place!r}, which is no file of a run below the folder")
    try:
        place.encode()
    except UnicodeEncodeError as error:
        raise ArchiveError(f"{path} is refused: the name {place!r} is not UTF-8") from error


def _contents(path: Path) -> Iterator[tuple[str, Iterator[bytes]]]:
    """(path, parts of its content) of each file in an archive, in order; a part that is missing or differs is told."""
    import pyarrow as pa

    def rows() -> Iterator[dict[str, Any]]:
        with _opened(path) as file:
            try:
                for batch in file.iter_batches(batch_size=1):
                    yield from batch.to_pylist()
            except (pa.ArrowException, OSError, ValueError) as error:
                raise ArchiveError(f"{path} is damaged: {error}") from error

    def parts(place: str, mine: Iterator[dict[str, Any]]) -> Iterator[bytes]:
        digest = hashlib.sha256()
        number, wanted = -1, ""
        for number, row in enumerate(mine):
            if row["part"] != number or row["content"] is None:
                raise ArchiveError(f"{path} is damaged: part {number} of {place!r} is missing")
            digest.update(row["content"])
            wanted = row["sha256"]
            yield row["content"]
        if digest.hexdigest() != wanted:
            raise ArchiveError(f"{path} is damaged: {place!r} does not have the SHA-256 that it is stored with")

    for place, mine in groupby(rows(), key=lambda row: row["path"]):
        if not isinstance(place, str):
            raise ArchiveError(f"{path} is damaged: a file in it has no path")
        yield place, parts(place, mine)


class _OtherData(ArchiveError):
    """A Parquet file of something else."""


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """The open Parquet file of an archive."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(pq.ParquetFile(path, page_checksum_verification=True))
            metadata = file.schema_arrow.metadata or {}
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ArchiveError(f"{path} is no archive that can be read: {error}") from error
        if MARK not in metadata:
            raise _OtherData(f"{path} is no archive of runs (score-harness archive FOLDER --out FILE writes one)")
        if metadata[MARK] != VERSION or tuple(file.schema_arrow.names) != COLUMNS:
            raise ArchiveError(f"{path} is an archive of another version than this program reads ({VERSION.decode()})")
        yield file
