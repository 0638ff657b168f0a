"""Reads run folders: finished runs as numbers recomputed from `eval.jsonl`, everything else as a named trouble.

The reading side of docs/results_format.md; it shares no code with the writing side, only the format. Nothing here
raises for what a folder holds: a missing file, a truncated last line, an unfinished or failed run becomes a `Trouble`
with the folder's path (above 300 lines because of that). `run.json` is asked what a run *was* (versions, status,
budget), never for a number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from numpy.typing import NDArray

from harness import metrics

FORMAT = 1


class Key(NamedTuple):
    """What one evaluation of a run was of: records that differ in any of these are never averaged together.

    Attributes:
        when: `before` or `after` training.
        task: The evaluation task's name.
        split: `test`, `validation` or `train`.
        temperature: 0.0 for greedy decoding.
        first: Who wrote the first attempt: `policy`; `given` to it (repair tasks); the `reference` model (fixed first
            attempts of the base model).
        turns: Attempts of each trajectory.
    """

    when: str
    task: str
    split: str
    temperature: float
    first: str
    turns: int


@dataclass(frozen=True)
class Trouble:
    """Something a reader must be told about a run folder; `left_out` says that the run is in no table."""

    path: str
    message: str
    left_out: bool = True


@dataclass(frozen=True, eq=False)  # holds arrays: two evaluations are the same one or not
class Evaluation:
    """One evaluation of one run, reduced to numbers.

    Attributes:
        key: What it was of.
        summary: `metrics.summarize` of its records.
        problems: The problem ids, sorted; P of them.
        values: For each of `metrics.QUANTITIES`, [P] per-problem means in that order; with several samples per problem
            also `majority_2`, the expected majority@2 of first attempts.
        attempts: [P, k] per-problem accuracy of each attempt.
    """

    key: Key
    summary: Mapping[str, Any]
    problems: tuple[str, ...]
    values: Mapping[str, NDArray[Any]]
    attempts: NDArray[Any]

    @functools.cached_property
    def digest(self) -> str:
        """Names the set of problems: two evaluations can be paired when these are equal."""
        return _digest(self.problems)


@dataclass(frozen=True)
class Run:
    """One finished run folder `<task>/<policy>/<name>/seed<k>`.

    Attributes:
        path: The folder.
        label: The folder relative to the results root, with forward slashes: how reports name the run.
        task: Training task.
        policy: The policy's name.
        name: The row: the gin file's name.
        seed: The training seed.
        info: `run.json`.
        evaluations: Every evaluation in `eval.jsonl`.
    """

    path: Path
    label: str
    task: str
    policy: str
    name: str
    seed: int
    info: Mapping[str, Any]
    evaluations: Mapping[Key, Evaluation] = field(repr=False)

    def steps(self) -> list[dict[str, Any]]:
        """The training steps logged in `metrics.jsonl`, in order; [] for untrained rows. Bad lines are left out."""
        return _lines(self.path / "metrics.jsonl", [])

    @functools.cached_property
    def bindings(self) -> dict[str, str]:
        """The operative configuration: {'name.param' or 'MACRO': value as text}."""
        return read_bindings(self.path / "config.gin")

    @property
    def finals(self) -> list[Evaluation]:
        """What the row is judged by: evaluations after training; of an untrained run, which may have none, before."""
        last = "after" if self.trained or any(key.when == "after" for key in self.evaluations) else "before"
        return [evaluation for key, evaluation in self.evaluations.items() if key.when == last]

    @property
    def trained(self) -> bool:
        """Whether the run made any update."""
        return bool((self.info.get("spent") or {}).get("updates"))

    def version(self, task: str) -> str:
        """The version of an evaluation task, '' when run.json does not say."""
        versions = self.info.get("eval_tasks")
        if isinstance(versions, Mapping) and task in versions:
            return str(versions[task])
        return str(self.info.get("task_version", "")) if task == self.task else ""

    def grader(self, task: str) -> str:
        """What graded a task: run.json's `graders`, else the `verifier` bindings of config.gin, else ''."""
        graders = self.info.get("graders")
        if isinstance(graders, Mapping) and task in graders:
            return str(graders[task])
        verifiers = {k: v for k, v in self.bindings.items() if k.endswith(".verifier")}
        mine = {k: v for k, v in verifiers.items() if k.split(".")[-2] == task} or verifiers
        return ", ".join(sorted(set(mine.values())))

    @property
    def model(self) -> str:
        """The model behind the policy: run.json's `model`, else the bound path and revision, else the policy's name."""
        path, revision = (self.bindings.get(f"hf.{key}", "").strip("'\"") for key in ("path", "revision"))
        at = f"@{revision}" if revision not in ("", "main") else ""
        return str(self.info.get("model") or (f"{path}{at}" if path else self.policy))


def find_runs(root: Path | str) -> list[Path]:
    """Every folder `seed<k>` under a results folder, sorted; `root` may be that folder, its `runs/` or one run."""
    base = Path(root)
    if not base.is_dir():
        raise FileNotFoundError(f"no results folder {str(root)!r}")
    found = []
    for folder, names, _ in os.walk(base):
        names.sort()
        if _seed(Path(folder).name) is not None:
            found.append(Path(folder))
            names.clear()
    return sorted(found, key=_order)


def read_runs(root: Path | str, *, whens: Sequence[str] = ("before", "after")) -> tuple[list[Run], list[Trouble]]:
    """Reads every run under `root`.

    Args:
        root: As in `find_runs`.
        whens: Which evaluations of trained runs to read; leaving one out saves the time its lines take.

    Returns:
        The finished, undamaged runs, sorted by (task, policy, name, seed), and every trouble met.

    Raises:
        FileNotFoundError: `root` is no folder. Nothing below it raises.
    """
    runs, troubles = [], []
    with _uncollected():
        for path in find_runs(root):
            run, found = read_run(path, Path(root), whens=whens)
            troubles += found
            if run is not None:
                runs.append(run)
    return runs, troubles


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection: records hold no cycles, and looking for some takes a tenth of the reading and more."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def read_run(
    path: Path, root: Path | None = None, *, whens: Sequence[str] = ("before", "after")
) -> tuple[Run | None, list[Trouble]]:
    """One run folder; None (and why) when it is not finished, failed or damaged."""
    label = _label(path, root)
    info, why = _info(path)
    if why:
        return None, [Trouble(label, why)]
    if not (path / "eval.jsonl").is_file():
        return None, [Trouble(label, "finished, but eval.jsonl is missing")]
    task, policy, name = path.parts[-4:-1] if len(path.parts) >= 4 else ("", "", path.parent.name)
    run = Run(path, label, task, policy, name, _seed(path.name) or 0, info, {})
    bad: list[str] = []
    whens = whens if run.trained else ("before", "after")
    evaluations = {}
    for key, records in _grouped(read_records(path, whens=whens, bad=bad)).items():
        try:
            evaluations[key] = _evaluate(key, records)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            bad.append(f"eval.jsonl: {key.when} {key.task}: {error}")
    if not evaluations and not bad:
        bad.append("eval.jsonl holds no records")
    if bad:
        return None, [Trouble(label, "; ".join(bad))]
    _lines(path / "metrics.jsonl", notes := [], check=True)
    troubles = [Trouble(label, note, left_out=False) for note in notes]
    return dataclasses.replace(run, evaluations=evaluations), troubles


def read_records(
    path: Path, *, whens: Sequence[str] = ("before", "after"), bad: list[str] | None = None
) -> list[dict[str, Any]]:
    """The records of a run folder's eval.jsonl; bad lines are left out and told in `bad`."""
    skipped = [when for when in ("before", "after") if when not in whens]
    heads = tuple(f'{{"when":{space}"{when}"'.encode() for when in skipped for space in ("", " "))
    records = _lines(path / "eval.jsonl", [] if bad is None else bad, skip=heads)
    return [record for record in records if record.get("when") not in skipped] if skipped else records


def key_of(record: Mapping[str, Any]) -> Key:
    """What a record is an evaluation of."""
    return _key(*_fields(record))


def _grouped(records: Iterable[dict[str, Any]]) -> dict[Key, list[dict[str, Any]]]:
    """The records of each evaluation; a key is made once, not for every record."""
    grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for record in records:
        grouped.setdefault(_fields(record), []).append(record)
    found: dict[Key, list[dict[str, Any]]] = {}
    for fields, mine in grouped.items():
        found.setdefault(_key(*fields), []).extend(mine)
    return found


def _fields(record: Mapping[str, Any]) -> tuple[Any, ...]:
    get, attempts = record.get, record.get("attempts")
    by, turns = (attempts[0].get("by", "policy"), len(attempts)) if attempts else ("policy", 0)
    return get("when", "after"), get("task", ""), get("split", "test"), get("temperature", 0.0), by, turns


def _key(when: Any, task: Any, split: Any, temperature: Any, first: Any, turns: int) -> Key:
    return Key(str(when), str(task), str(split), float(temperature), str(first), turns)


def read_bindings(path: Path) -> dict[str, str]:
    """The bindings of a gin file as text, {'name.param' or 'MACRO': 'value'}; comments, includes and imports left out.

    A line ending in an open bracket or a backslash goes on; whitespace inside a value is normalised. {} without file.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    bindings, pending = {}, ""
    for raw in text.splitlines():
        line = _uncomment(raw).strip()
        if not line:
            continue
        pending = f"{pending} {line}".strip()
        if pending.endswith("\\"):
            pending = pending[:-1].rstrip()
            continue
        if _depth(pending) > 0 or pending.endswith("="):
            continue
        name, equals, value = pending.partition("=")
        if equals and not pending.startswith(("include ", "import ", "from ")):
            bindings[name.strip()] = " ".join(value.split())
        pending = ""
    return bindings


def _evaluate(key: Key, records: list[dict[str, Any]]) -> Evaluation:
    table = metrics.tabulate(records)
    values = {quantity: table.values(quantity) for quantity in metrics.QUANTITIES}
    summary = metrics.summarize(table, values)
    if summary["majority"]:
        values["majority_2"] = metrics.majority_curve(*table.pools(0), 2)
    return Evaluation(key, summary, _shared(tuple(table.problems)), values, table.per_problem(table.correct))


@functools.lru_cache(maxsize=64)
def _shared(problems: tuple[str, ...]) -> tuple[str, ...]:
    """One tuple for all runs over the same problems: a thousand runs need not hold a thousand copies."""
    return problems


@functools.lru_cache(maxsize=64)
def _digest(problems: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(problems).encode()).hexdigest()[:12]


def _info(path: Path) -> tuple[dict[str, Any], str]:
    """run.json, and why the run cannot be used ('' when it can)."""
    try:
        info = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, "run.json is missing"
    except (OSError, ValueError) as error:
        return {}, f"run.json cannot be read: {error}"
    if not isinstance(info, dict):
        return {}, "run.json does not hold an object"
    if info.get("format") != FORMAT:
        return info, f"run.json has format {info.get('format')!r}; this reader knows {FORMAT}"
    status = info.get("status")
    if status != "done":
        error = str(info.get("error") or "").strip().splitlines()
        return info, f"{status or 'no status'}" + (f": {error[-1]}" if error else "")
    return info, ""


def _lines(path: Path, bad: list[str], *, skip: tuple[bytes, ...] = (), check: bool = False) -> list[dict[str, Any]]:
    """The JSON objects of a .jsonl file; with `check` only the last line is looked at, for its notes.

    Leading lines that begin with one of `skip` are not parsed, which spares a table half of its time.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return []
    end = data.rfind(b"\n") + 1  # a finished file ends in a line feed
    if end < len(data):
        bad.append(f"{path.name}: the last line is cut off")
    if check:
        return []
    start = 0
    while skip and data.startswith(skip, start, end):
        start = data.index(b"\n", start) + 1
    try:  # all at once and by orjson; one bad line sends us the slow way
        rows = orjson.loads(b"[" + data[start : end - 1].replace(b"\n", b",") + b"]") if start < end else []
        if len(rows) == data.count(b"\n", start, end) and set(map(type, rows)) <= {dict}:
            return rows
    except ValueError:
        pass
    return list(_one_by_one(path.name, data[start:end].split(b"\n"), data.count(b"\n", 0, start) + 1, bad))


def _one_by_one(name: str, lines: list[bytes], first: int, bad: list[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, first):
        if not line:
            continue
        try:
            row = json.loads(line.decode("utf-8", "replace"))
        except ValueError as error:
            bad.append(f"{name}: line {number} is no JSON: {error}")
            continue
        if isinstance(row, dict):
            yield row
        else:
            bad.append(f"{name}: line {number} is no object")


def _label(path: Path, root: Path | None) -> str:
    try:
        inside = path.relative_to(root) if root else path
    except ValueError:
        inside = path
    return inside.as_posix() if inside.parts else path.as_posix()


def _seed(name: str) -> int | None:
    digits = name.removeprefix("seed")
    return int(digits) if name.startswith("seed") and digits.isdecimal() else None


def _order(path: Path) -> tuple[Any, ...]:
    return (*path.parts[:-1], _seed(path.name) or 0)


def _uncomment(line: str) -> str:
    quote = ""
    for i, char in enumerate(line):
        if quote:
            quote = "" if char == quote and line[i - 1] != "\\" else quote
        elif char in "'\"":
            quote = char
        elif char == "#":
            return line[:i]
    return line


def _depth(text: str) -> int:
    quote, depth = "", 0
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote and text[i - 1] != "\\" else quote
        elif char in "'\"":
            quote = char
        else:
            depth += (char in "([{") - (char in ")]}")
    return depth
