"""Reads run folders: finished runs as numbers recomputed from `eval.jsonl`, everything else as a named trouble.

The reading side of docs/results_format.md; what it shares with the writing side is in `harness.runs.schema` and
`harness.runs.integrity`. Nothing here raises for what a folder holds: a missing file, a value of the wrong type, bytes
that are not what run.json says they were, an unfinished run, a second run of one seed becomes a `ReadIssue` with the
folder's path (above 300 lines because of that). `run.json` is asked what a run *was* (versions, status, budget), never
for a number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import hashlib
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from numpy.typing import NDArray

from harness import metrics, registry
from harness.runs import archive, format1, integrity, schema
from harness.runs.schema import EvalKey
from harness.runs.schema import key_of as key_of

SMALL, LARGE = 2**24, 2**34  # bytes: what run.json and config.gin, and what a .jsonl file may have at most
TOLD = 3  # faults of one file that are told one by one


@dataclass(frozen=True)
class ReadIssue:
    """Something a reader must be told about a run folder; `left_out`: the run is in no table."""

    path: str
    message: str
    left_out: bool = True

    def __str__(self) -> str:
        return f"{'left out' if self.left_out else 'remark'}: {self.path}: {self.message}"


@dataclass(frozen=True, eq=False)  # holds arrays: two evaluations are the same one or not
class EvalResult:
    """One evaluation of one run, reduced to numbers.

    Attributes:
        key: What it was of.
        summary: `metrics.summarize` of its records.
        problems: The problem ids, sorted; P of them.
        values: For `t1`, `t2` (the last attempt) and each of `metrics.METRICS`, [P] per-problem means in that order, of
            a conditional rate of its hits; with several samples per problem also `majority_2`, the expected majority@2
            of first attempts.
        cases: For each conditional rate, [P] per-problem means of its cases.
        attempts: [P, k] per-problem accuracy of each attempt.
    """

    key: EvalKey
    summary: Mapping[str, Any]
    problems: tuple[str, ...]
    values: Mapping[str, NDArray[Any]]
    cases: Mapping[str, NDArray[Any]]
    attempts: NDArray[Any]

    @functools.cached_property
    def problems_digest(self) -> str:
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
        info: `run.json`, as format 2 has it.
        evaluations: Every evaluation in `eval.jsonl`.
    """

    path: Path
    label: str
    task: str
    policy: str
    name: str
    seed: int
    info: Mapping[str, Any]
    evaluations: Mapping[EvalKey, EvalResult] = field(repr=False)

    def read_steps(self) -> list[dict[str, Any]]:
        """The training steps logged in `metrics.jsonl`, in order; [] for untrained rows. Bad lines are left out."""
        return _steps(self.path)[0]

    @property
    def bindings(self) -> Mapping[str, str]:
        """The operative configuration: {'name.param' or 'MACRO': value as text}."""
        return self.info.get("bindings", {})

    @property
    def parent(self) -> str:
        """The row that this one differs from, '' where that cannot be told."""
        return self.info.get("parent", "")

    @property
    def difference(self) -> Mapping[str, str]:
        """What distinguishes the row from its parent: {binding: value as text}."""
        return self.info.get("difference", {})

    @property
    def final_evaluations(self) -> list[EvalResult]:
        """What the row is judged by: evaluations after training; of an untrained run, which may have none, before."""
        last = "after" if self.was_trained or any(key.when == "after" for key in self.evaluations) else "before"
        return [evaluation for key, evaluation in self.evaluations.items() if key.when == last]

    @property
    def was_trained(self) -> bool:
        """Whether the run made any update."""
        return bool((self.info.get("spent") or {}).get("updates"))

    def version_of(self, task: str) -> str:
        """The version of an evaluation task, '' when run.json does not say."""
        versions = self.info.get("eval_tasks")
        if isinstance(versions, Mapping) and task in versions:
            return str(versions[task])
        return str(self.info.get("task_version", "")) if task == self.task else ""

    def grader_of(self, task: str) -> str:
        """What graded a task: run.json's `graders`, else the `verifier` bindings of config.gin, else ''."""
        graders = self.info.get("graders")
        if isinstance(graders, Mapping) and task in graders:
            return str(graders[task])
        verifiers = {k: v for k, v in self.bindings.items() if k.endswith(".verifier")}
        mine = {k: v for k, v in verifiers.items() if k.split(".")[-2] == task} or verifiers
        return ", ".join(sorted(set(mine.values())))

    def table_settings(self, task: str) -> tuple[str, ...]:
        """What of a run decides in which table its evaluation on a task stands, whatever was evaluated there."""
        return (
            self.task,
            str(self.info.get("task_version", "")),
            self.model_name,
            task,
            self.version_of(task),
            self.grader_of(task),
        )

    @property
    def model_name(self) -> str:
        """The model behind the policy: run.json's `model`, else the bound path and revision, else the policy's name."""
        path, revision = (self.bindings.get(f"hf.{key}", "").strip("'\"") for key in ("path", "revision"))
        at = f"@{revision}" if revision not in ("", "main") else ""
        return str(self.info.get("model") or (f"{path}{at}" if path else self.policy))


def find_runs(root: Path | str) -> list[Path]:
    """Every folder `seed<k>` under a results folder, sorted; `root` may be that folder, its `runs/` or one run.

    `root` may be an archive, or a place in one, and archives in the folder are read like folders: the runs found are in
    the cache then, and `archive.show_path` says what a path of them stands for. Links are followed; a folder that is
    reached twice is found once, where no link leads to it if there is such a way.
    """
    return _search(Path(root))[0]


def _search(base: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The run folders, and (path, why) of what looks like one and is not read."""
    base = archive.find_folder(base)
    if not base.is_dir():
        raise FileNotFoundError(f"no results folder {str(base)!r}")
    archives: dict[Path, Path] = {}
    found: list[Path] = []
    told: list[tuple[Path, str]] = []
    seen: dict[tuple[int, int], Path] = {}
    folders, links = deque([base]), deque[Path]()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        try:
            about = folder.stat()
            first = seen.setdefault((about.st_dev, about.st_ino), folder)
            if first is not folder:
                if _seed(folder.name) is not None:
                    told.append((folder, f"is a link to {_label(first, base)}, which is read there"))
                continue
            if _seed(folder.name) is not None:
                found.append(folder)
                continue
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            told.append((folder, f"cannot be listed: {error.strerror}"))
            continue
        for entry in entries:
            path = folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.is_symlink() and path.is_dir():
                if base.resolve().is_relative_to(path.resolve()):
                    told.append((path, "is a link to a folder above the results: not followed"))
                else:
                    links.append(path)
            elif _seed(entry.name) is not None:
                told.append((path, "is no folder"))
            elif archive.is_archive(path):
                try:
                    expanded = archive.find_folder(path)
                except archive.ArchiveError as error:
                    told.append((path, str(error)))
                    continue
                original = archives.setdefault(expanded, path)
                if original is path:
                    folders.append(expanded)
                else:  # its runs are shown by the first one's path again
                    archive.find_folder(original)
                    told.append((path, f"is a copy of {original.relative_to(base)}, which is read there"))
            elif entry.name == "run.json":
                told.append((folder, "holds a run.json, but a run's folder is called seed0, seed1, ..."))
    return sorted(found, key=lambda path: (archive.show_path(path).parts[:-1], _seed(path.name))), told


def read_runs(
    root: Path | str, *, whens: Sequence[str] = schema.WHENS, gin: Path = format1.GIN
) -> tuple[list[Run], list[ReadIssue]]:
    """Reads every run under `root`.

    Args:
        root: As in `find_runs`.
        whens: Which evaluations of trained runs to read; leaving one out saves the time its lines take.
        gin: Where the gin files of rows lie whose run.json is of format 1.

    Returns:
        The finished, undamaged runs, one per row and seed (`_one_per_seed`), in the order of their paths, and every
        trouble met.

    Raises:
        FileNotFoundError: `root` is no folder and no archive. Nothing below it raises.
        ArchiveError: `root` is an archive that is damaged.
        MetricError: a plugin's metric is at fault.
    """
    runs = []
    broken = _load_plugins()
    with _uncollected():
        paths, told = _search(Path(root))
        troubles = [ReadIssue(_label(path, Path(root)), why) for path, why in told]
        troubles += [ReadIssue(f"plugin {plugin}", f"its metrics are missing: {why}", False) for plugin, why in broken]
        for path in paths:
            run, found = read_run(path, Path(root), whens=whens, gin=gin)
            troubles += found
            if run is not None:
                runs.append(run)
        kept, found = _one_per_seed(runs)
    return kept, troubles + found


@functools.cache
def _load_plugins() -> list[tuple[str, str]]:
    """Imports installed plugins, which may bring metrics; (plugin, error) of those that failed."""
    return list(registry.load_plugins(in_tree=False).items())


def _one_per_seed(runs: Sequence[Run]) -> tuple[list[Run], list[ReadIssue]]:
    """Of several runs that would be one seed of one row of one table, the first in the order of the paths.

    A copied folder does not count as a further seed; neither is another seed's folder whose records and training log
    are, byte for byte, those of a seed that is there: trainings with different seeds do not write the same log.
    """
    kept: list[Run] = []
    troubles = []
    seeds: dict[tuple[Any, ...], Run] = {}
    prints: dict[tuple[str, ...], Run] = {}
    for run in runs:
        mine = [(run.name, run.seed, *run.table_settings(task)) for task in {key.task for key in run.evaluations}]
        there = next((seeds[key] for key in mine if key in seeds), None)
        if there:
            what = "this is a copy" if _print(there) == _print(run) else "this is another run of it, which differs"
            troubles.append(
                ReadIssue(run.label, f"seed {run.seed} of this row is in the tables from {there.label}: {what}")
            )
            continue
        if run.was_trained:
            twin = prints.setdefault((run.name, run.task, run.model_name, _print(run)), run)
            if twin is not run and _bytes_of(twin, "metrics.jsonl") == _bytes_of(run, "metrics.jsonl"):
                troubles.append(ReadIssue(run.label, f"its records and training log are those of {twin.label}: a copy"))
                continue
            if twin is not run:
                same = f"its records are, byte for byte, those of {twin.label}; its training log is not"
                troubles.append(ReadIssue(run.label, same, left_out=False))
        seeds |= dict.fromkeys(mine, run)
        kept.append(run)
    return kept, troubles


def _print(run: Run) -> str:
    """Names the bytes of a run's records: their SHA-256, which was compared where run.json has it."""
    recorded = run.info.get("sha256") or {}
    return recorded.get("eval.jsonl") or hashlib.sha256(_bytes_of(run, "eval.jsonl")).hexdigest()


def _bytes_of(run: Run, name: str) -> bytes:
    try:
        return read_file(run.path / name, LARGE)
    except OSError:
        return b""


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Disables the search for reference cycles: records have none, and it takes a tenth of the reading or more."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def read_run(
    path: Path, root: Path | None = None, *, whens: Sequence[str] = schema.WHENS, gin: Path = format1.GIN
) -> tuple[Run | None, list[ReadIssue]]:
    """One run folder; None (and why) when it is not finished, failed or damaged.

    Args:
        path: The run folder.
        root: The results folder that its label is relative to.
        whens: Times whose evaluations are wanted; of an untrained run all are read.
        gin: Folder of gin files, for runs of format 1.
    """
    label = _label(path, root)
    try:
        run, why, remarks = _read_run(path, label, whens, gin)
    except metrics.MetricError:  # a metric's fault, and no folder's
        raise
    except Exception as error:  # whatever else a folder may hold: it costs this run, not the table
        return None, [ReadIssue(label, f"cannot be read: {type(error).__name__}: {error}")]
    if run is None:
        return None, [ReadIssue(label, why)]
    return run, [ReadIssue(label, remarks, left_out=False)] if remarks else []


def _read_run(path: Path, label: str, whens: Sequence[str], gin: Path) -> tuple[Run | None, str, str]:
    """The run, why it cannot be used ('' when it can), and what is wrong with its training log."""
    info, why = _info(path)
    if why:
        return None, why, ""
    task, policy, name = (*("", "", ""), *Path(os.path.abspath(path)).parts)[-4:-1]
    seed = _seed(path.name) or 0
    for key, value in {"task": task, "policy": policy, "name": name, "seed": seed}.items():
        if type(info.get(key)) is not type(value) or info[key] != value:
            told = f"run.json: {key} is {schema.shorten_value(info.get(key))}; "
            told += f"the folder says {schema.shorten_value(value)}"
            return None, told, ""
    try:
        config = read_file(path / "config.gin", SMALL).decode()
    except (OSError, ValueError) as error:
        return None, _unreadable("config.gin", error), ""
    info = format1.upgrade_format1(info, config, gin) if info["format"] == 1 else info
    if why := schema.info_fault(info):
        return None, f"run.json: {why}", ""
    run = Run(path, label, task, policy, name, seed, info, {})
    bad: list[str] = []
    whens = whens if run.was_trained else schema.WHENS
    grouped = _grouped(read_records(path, whens=whens, bad=bad))
    bad = bad or integrity.changed_files(path, info) or _miscounted(info, grouped, whens)
    evaluations = {}
    for key, records in grouped.items() if not bad else ():
        try:
            evaluations[key] = _evaluate(key, records)
        except metrics.MetricError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            bad.append(f"eval.jsonl: {key.when} {key.task}: {error}")
    if not evaluations and not bad:
        bad.append("eval.jsonl holds no records")
    if bad:
        return None, _joined(bad), ""
    logged = run.was_trained or (path / "metrics.jsonl").exists()
    return dataclasses.replace(run, evaluations=evaluations), "", _joined(_steps(path)[1]) if logged else ""


def _miscounted(
    info: Mapping[str, Any], grouped: Mapping[EvalKey, list[dict[str, Any]]], whens: Sequence[str]
) -> list[str]:
    """Evaluations that do not have as many records as run.json records; [] for a run of before this was recorded."""
    if "records" not in info:
        return []
    counted = {key.label: len(records) for key, records in grouped.items()}
    recorded = {label: count for label, count in info["records"].items() if label.partition(" ")[0] in whens}
    return [
        f"eval.jsonl holds {counted.get(label, 0)} records of {label!r}; the run ended with {recorded.get(label, 0)}"
        for label in sorted(counted.keys() | recorded.keys())
        if counted.get(label) != recorded.get(label)
    ]


def _joined(faults: Sequence[str]) -> str:
    more = f"; and {len(faults) - TOLD} more" if len(faults) > TOLD else ""
    return "; ".join(faults[:TOLD]) + more


def read_records(
    path: Path, *, whens: Sequence[str] = schema.WHENS, bad: list[str] | None = None
) -> list[dict[str, Any]]:
    """The records of a run folder's eval.jsonl; invalid lines are left out and listed in `bad`, with their number.

    Leading lines of a time that is not asked for are not parsed, which spares a table half of its time.

    Args:
        path: The run folder.
        whens: Times whose records are wanted.
        bad: A list that faults are added to.
    """
    faults = [] if bad is None else bad
    skipped = [when for when in schema.WHENS if when not in whens]
    heads = tuple(f'{{"when":{space}"{when}"'.encode() for when in skipped for space in ("", " "))
    data = _data(path / "eval.jsonl", faults)
    start = 0
    while heads and data.startswith(heads, start):
        start = data.index(b"\n", start) + 1
    first = data.count(b"\n", 0, start) + 1
    rows = _strict(data, start)
    if rows is not None:
        wrong = schema.find_faults(rows)
        faults += [f"eval.jsonl: line {first + place}: {fault}" for place, fault in wrong.items()]
        found = [row for place, row in enumerate(rows) if place not in wrong] if wrong else rows
    else:
        found = []
        for line, row in _one_by_one("eval.jsonl", data[start:], first, faults):
            fault = schema.record_fault(row)
            if fault:
                faults.append(f"eval.jsonl: line {line}: {fault}")
            else:
                found.append(row)
    return [record for record in found if record["when"] not in skipped] if skipped else found


def _steps(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines of a run's metrics.jsonl that are fit for a curve, and what is wrong with the others."""
    faults: list[str] = []
    data = _data(path / "metrics.jsonl", faults)
    rows = _strict(data, 0)
    numbered = enumerate(rows, 1) if rows is not None else _one_by_one("metrics.jsonl", data, 1, faults)
    steps, wrong = schema.check_steps(numbered)
    return steps, faults + [f"metrics.jsonl: {fault}" for fault in wrong]


def _grouped(records: Iterable[dict[str, Any]]) -> dict[EvalKey, list[dict[str, Any]]]:
    """The records of each evaluation; a key is made once, not for every record."""
    grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for record in records:
        grouped.setdefault(schema.key_fields(record), []).append(record)
    found: dict[EvalKey, list[dict[str, Any]]] = {}
    for fields, mine in grouped.items():
        found.setdefault(schema.key_from(*fields), []).extend(mine)
    return found


def _evaluate(key: EvalKey, records: list[dict[str, Any]]) -> EvalResult:
    table = metrics.tabulate(records)
    values = {quantity: table.problem_values(quantity) for quantity in ("t1", "t2", *metrics.METRICS)}
    rates = [metric for metric in metrics.METRICS.values() if metric.given]
    cases = {metric.name: table.per_problem(metric.record_cases(table)) for metric in rates}
    summary = metrics.summarize(table)
    if summary["majority"]:
        values["majority_2"] = metrics.majority_curve(*table.vote_pools(0), 2)
    return EvalResult(key, summary, _shared(tuple(table.problem_ids)), values, cases, table.per_problem(table.correct))


@functools.lru_cache(maxsize=64)
def _shared(problems: tuple[str, ...]) -> tuple[str, ...]:
    """One tuple for all runs over the same problems: a thousand runs need not hold a thousand copies."""
    return problems


@functools.lru_cache(maxsize=64)
def _digest(problems: tuple[str, ...]) -> str:
    return hashlib.sha256(orjson.dumps(problems)).hexdigest()[:12]  # an id may hold any separator


def _info(path: Path) -> tuple[dict[str, Any], str]:
    """run.json, and why the run cannot be used ('' when it can)."""
    try:
        info = orjson.loads(read_file(path / "run.json", SMALL))
    except FileNotFoundError:
        return {}, "run.json is missing"
    except (OSError, ValueError) as error:
        return {}, _unreadable("run.json", error)
    if not isinstance(info, dict):
        return {}, "run.json does not hold an object"
    if why := schema.format_fault(info):
        return info, f"run.json {why}"
    status = info.get("status")
    if status != "done":
        error = str(info.get("error") or "").strip().split("\n")
        return info, f"{status or 'no status'}" + (f": {error[-1]}" if error[-1] else "")
    return info, ""


def read_file(path: Path, most: int) -> bytes:
    """The bytes of a regular file, with at most `most` of them: no pipe, no device, nothing that never ends.

    Raises:
        OSError: there is none, it cannot be read, it is no regular file, or it is larger.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(0, "is no regular file")
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(0, f"holds more than {most:,} bytes")
    return data


def _unreadable(name: str, error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"finished, but {name} is missing"
    return f"{name} cannot be read: {error.strerror if isinstance(error, OSError) else error}"


def _data(path: Path, bad: list[str]) -> bytes:
    """The whole lines of a .jsonl file; what is wrong with it as a file is told in `bad`."""
    try:
        data = read_file(path, LARGE)
    except OSError as error:
        bad.append(_unreadable(path.name, error))
        return b""
    end = data.rfind(b"\n") + 1  # a finished file ends in a line feed
    if end < len(data):
        bad.append(f"{path.name}: the last line is cut off")
        return data[:end]
    return data


def _strict(data: bytes, start: int) -> list[dict[str, Any]] | None:
    """The objects of whole lines, parsed at once; None where a line is no object, or not one: look at each alone."""
    if start == len(data):
        return []
    try:
        rows = orjson.loads(b"[" + data[start:-1].replace(b"\n", b",") + b"]")
    except ValueError:
        return None
    return rows if len(rows) == data.count(b"\n", start) and set(map(type, rows)) <= {dict} else None


def _one_by_one(name: str, data: bytes, first: int, bad: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of each line, also of those with a NaN in them, for which a better fault may be found."""
    for line, row, why in schema.parse_lines(data, first):
        if isinstance(row, dict):
            yield line, row
        else:
            bad.append(f"{name}: line {line} is no JSON: {why}" if why else f"{name}: line {line} is no object")


def _label(path: Path, root: Path | None) -> str:
    path = archive.show_path(path)
    try:
        inside = path.relative_to(root) if root else path
    except ValueError:
        inside = path
    text = inside.as_posix() if inside.parts else path.as_posix()
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")  # a name need not be UTF-8


def _seed(name: str) -> int | None:
    """The seed that a folder's name tells: `seed0`, `seed1`, ... as the writer writes them, and nothing like it."""
    digits = name.removeprefix("seed")
    return int(digits) if digits.isascii() and digits.isdecimal() and name == f"seed{int(digits)}" else None
