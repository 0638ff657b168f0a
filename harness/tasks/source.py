"""Where a task's rows come from: a pinned repository of the Hugging Face hub, or local files checked line by line.

Every failure is one `DataError` that names the place (file and line, or repository) and tells what to do. The hub is
asked once, with a short time limit, before anything is loaded: without it the local cache is used, or nothing.

Not covered: streaming; data sets that need a loading script.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.registry import nearest_hint

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")
HUB_SECONDS = 5.0  # how long the hub may take to answer at all

Schema = Mapping[str, type]
"""Field -> what it holds: `str` (not empty), `int`, or `list` (of texts, not empty)."""


class DataError(ValueError):
    """Data that cannot be had or cannot be used; the message names the place and what to do."""


@dataclass(frozen=True)
class Hub:
    """A repository of the Hugging Face hub, at one revision.

    Attributes:
        repository: owner/name.
        revision: A commit; a branch name would let the data change under a pinned name.
        configs: Its configurations, read one after another; none for a repository without.
        home: Where a copy for `data` can be had by hand.
    """

    repository: str
    revision: str
    configs: tuple[str, ...] = ()
    home: str = ""


@dataclass(frozen=True)
class Row:
    """One row as it was found.

    Attributes:
        fields: Its contents.
        place: Where it stands, for messages: "mbpp.jsonl, line 3".
        part: The hub's split, or the part a file names (`train...` or `test...`); '' where nothing tells.
    """

    fields: Mapping[str, Any]
    place: str
    part: str = ""


@dataclass(frozen=True)
class Loaded:
    """All rows of a source.

    Attributes:
        rows: In the source's order.
        origin: Repository and revision, or the files.
        digest: SHA-256 over the canonical form of the rows (`rows_digest`); '' until `check_pin` has computed it.
    """

    rows: tuple[Row, ...]
    origin: str
    digest: str = field(default="", compare=False)


def load_source_rows(task: str, hub: Hub, data: str | Sequence[str] | None) -> Loaded:
    """The rows of local files where `data` names any, else of the hub.

    Args:
        task: The task's name in gin, for messages: "mbpp".
        hub: Used when `data` is None.
        data: A file, a folder (all data files in it) or several of either.

    Raises:
        DataError: no such file, a line that is no JSON object, a hub that cannot be reached.
    """
    if data is None:
        return _from_hub(task, hub)
    names = [data] if isinstance(data, str) else list(data)
    files = [file for name in names for file in _files(task, Path(name).expanduser())]
    return Loaded(tuple(row for file in files for row in _read(file)), ", ".join(names))


def check_columns(loaded: Loaded, schema: Schema) -> Loaded:
    """The same rows, each known to have the schema's fields.

    Raises:
        DataError: naming file, line and field.
    """
    for row in loaded.rows:
        for name, kind in schema.items():
            if name not in row.fields:
                raise DataError(f"{row.place}: the field {name!r} is missing{nearest_hint(name, row.fields)}")
            value = row.fields[name]
            if not _is(value, kind):
                wanted = {str: "text", int: "a whole number", list: "a list of texts"}[kind]
                raise DataError(f"{row.place}: the field {name!r} must be {wanted}, not {_shown(value)}")
            if kind is not int and not value:
                raise DataError(f"{row.place}: the field {name!r} is empty")
    if not loaded.rows:
        raise DataError(f"{loaded.origin} holds no rows")
    return loaded


def rows_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of rows in any order: sorted lines of JSON with sorted keys and without spaces, each ended by \\n."""
    lines = sorted(json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":")) for row in rows)
    return hashlib.sha256("".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass")).hexdigest()


def check_pin(task: str, loaded: Loaded, columns: Sequence[str], pin: str | None, count: int) -> Loaded:
    """The same rows with their digest over `columns`, compared with the one they must have.

    Args:
        task: Its name in gin, for the message.
        loaded: The rows.
        columns: What of a row counts.
        pin: The digest that is expected; None accepts any.
        count: Rows that the pinned data have, for the message.

    Raises:
        DataError: other data, with both digests, both row counts and the binding that allows it.
    """
    found = rows_digest({name: row.fields.get(name) or None for name in columns} for row in loaded.rows)
    if pin is not None and found != pin:
        raise DataError(
            f"{loaded.origin} holds other data than task.{task} is pinned to: {len(loaded.rows)} rows with digest "
            f"{found[:12]}..., not {count} rows with {pin[:12]}.... If other data is meant (results then carry its "
            f'digest in their version): --bind "task.{task}.pin = None"'
        )
    return Loaded(loaded.rows, loaded.origin, found)


def require_unique_ids(rows: Iterable[tuple[str, str]]) -> None:
    """Raises DataError when two (id, place) pairs share an id."""
    seen: dict[str, str] = {}
    for name, place in rows:
        if name in seen:
            raise DataError(f"{place}: the id {name!r} was seen already ({seen[name]})")
        seen[name] = place


def _is(value: Any, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, kind) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else text[:37] + "..."


def load_rows(path: Path | str) -> list[Row]:
    """The rows of one local file of any of `SUFFIXES`, as they are.

    Raises:
        DataError: no such file, another kind of file, a line that is no JSON object.
    """
    path = Path(path)
    if not path.is_file():
        near = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"there is no file {path}{nearest_hint(path.name, near)}")
    if not path.name.endswith(SUFFIXES):
        raise DataError(f"{path} is no {', '.join(SUFFIXES)} file")
    return list(_read(path))


# local files ---------------------------------------------------------------------------------------------------------


def _files(task: str, path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and file.name.endswith(SUFFIXES))
        if not found:
            raise DataError(f"task.{task}.data: the folder {path} holds no {', '.join(SUFFIXES)} file")
        return found
    if not path.exists():
        near = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"task.{task}.data: there is no file {path}{nearest_hint(path.name, near)}")
    if not path.name.endswith(SUFFIXES):
        raise DataError(f"task.{task}.data: {path} is no {', '.join(SUFFIXES)} file")
    return [path]


def _read(path: Path) -> Iterator[Row]:
    part = next((p for p in ("train", "test") if path.name.startswith(p)), "")
    if path.name.endswith(".parquet"):
        for i, fields in enumerate(_parquet(path)):
            yield Row(fields, f"{path}, row {i + 1}", part)
        return
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.name.endswith(".gz") else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    items = _array(path, text) if text.lstrip().startswith("[") else _lines(path, text)
    for line, fields in items:
        if not isinstance(fields, dict):
            raise DataError(f"{path}, line {line}: a row must be a JSON object, not {_shown(fields)}")
        yield Row(fields, f"{path}, line {line}", part)


def _lines(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    for i, line in enumerate(text.split("\n")):  # not splitlines: U+2028 may stand inside a text
        if line.strip():
            try:
                yield i + 1, json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {i + 1}: no JSON ({error})") from None


def _array(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """The items of one JSON array with the line each begins on."""
    decoder, at = json.JSONDecoder(), text.index("[") + 1
    while True:
        while at < len(text) and (text[at].isspace() or text[at] == ","):
            at += 1
        line = text.count("\n", 0, at) + 1
        if text[at : at + 1] == "]":
            return
        try:
            item, at = decoder.raw_decode(text, at)
        except ValueError as error:
            raise DataError(f"{path}, line {line}: no JSON ({error})") from None
        yield line, item


def _parquet(path: Path) -> list[dict[str, Any]]:
    import datasets

    with _quiet(datasets), tempfile.TemporaryDirectory() as scratch:  # no copy is left in the cache
        try:
            return datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=scratch).to_list()
        except Exception as error:  # pyarrow's, datasets' and fsspec's own kinds
            raise DataError(f"{path} is no parquet file that can be read: {_first_line(error)}") from None


# the hub -------------------------------------------------------------------------------------------------------------


def _from_hub(task: str, hub: Hub) -> Loaded:
    import datasets

    where = f"{hub.repository} at revision {hub.revision[:12]}"
    away = _unreachable(hub)
    with _quiet(datasets), _offline(datasets) if away else contextlib.nullcontext():
        rows: list[Row] = []
        try:
            for config in hub.configs or (None,):
                found: Any = datasets.load_dataset(hub.repository, config, revision=hub.revision)
                for part, split in found.items():
                    shown = f"{hub.repository}{f'/{config}' if config else ''}/{part}"
                    rows += [Row(fields, f"{shown}, row {i + 1}", str(part)) for i, fields in enumerate(split)]
        except Exception as error:  # httpx's, huggingface_hub's, datasets' and pyarrow's own kinds
            reason = f"cannot be reached ({away}) and the local cache has no copy" if away else _first_line(error)
            state = f"the Hugging Face hub {reason}" if away else f"the hub did not give it: {reason}"
            raise DataError(
                f"task.{task} needs {where}, and {state}. To go on with a local copy"
                f"{f' (from {hub.home})' if hub.home else ''}: --bind \"task.{task}.data = '/path/to/file'\" "
                f"({', '.join(SUFFIXES)}, or a folder of them)"
            ) from None
    return Loaded(tuple(rows), where)


def _unreachable(hub: Hub) -> str:
    """Why the hub does not answer, '' when it does; one request without repeats instead of `datasets`' minute."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        HfApi().dataset_info(hub.repository, revision=hub.revision, timeout=HUB_SECONDS)
    except HfHubHTTPError:  # it answers: what is wrong with the repository shows when it is loaded
        return ""
    except Exception as error:  # the HTTP library's own kinds, of which huggingface_hub has changed
        return _first_line(error) or type(error).__name__
    return ""


@contextlib.contextmanager
def _offline(datasets: Any) -> Iterator[None]:
    """`datasets` looks into its cache only."""
    before, datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Without a progress bar for every part."""
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:300]
