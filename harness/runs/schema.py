"""What a run folder's files may hold: run.json, a record of eval.jsonl and which evaluation it is of, metrics.jsonl.

The writer (`harness.runs.store`) and the reader (`harness.runs.reader`) both use it, and nothing else says these things
again. A value of the wrong type is never believed (`"false"` is no truth value) and never repaired: the caller leaves
the run out and tells the fault, with file and line. The usual case, no fault, is found by looking at whole columns;
only where something is wrong is each line looked at alone. docs/results_format.md says the same for people.
Above 300 lines because the three files of a run are described in one place.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, get_args

import orjson

from harness.core import Status

FORMAT = 2  # of run.json: what is written
READABLE = (1, 2)  # what is read; `harness.runs.format1` turns the first into the second
UNFINISHED = ("running", "failed", "interrupted")  # run.json's `status`, where it is not `done`
WHENS = ("before", "after")
SPLITS = ("test", "validation", "train")
AUTHORS = ("policy", "given", "reference")
DRAFTS = ("right", "wrong", "other", "blind", "relabelled")  # of controls; harness.training.evaluations describes each
STATUSES = get_args(Status)
MOST = 2**53  # the largest count that every JSON reader holds exactly
LARGEST_LOGGED = 1e100  # beyond it a mean, a sum or an axis runs over
LONGEST_NAME, LONGEST_TEXT = 10_000, 2**20  # characters; comparing two texts takes the product of their lengths


class Asked(NamedTuple):
    """How an evaluation asks, whatever the task and the time; a run asks each of them once.

    Attributes:
        split: `test`, `validation` or `train`.
        temperature: 0.0 for greedy decoding.
        turns: Attempts of each trajectory.
        draft: What attempt 2 reads as attempt 1: `own` (the policy's, or the given one of a repair task), `reference`
            (the base model's), or the draft of a control.
    """

    split: str
    temperature: float
    turns: int
    draft: str


class EvalKey(NamedTuple):
    """Which evaluation of a run a record is of: records that differ in any of these are never averaged together.

    Attributes:
        when: `before` or `after` training.
        task: The evaluation task's name.
        split: `test`, `validation` or `train`.
        temperature: 0.0 for greedy decoding.
        first: Who wrote the first attempt: `policy`; `given` to it (repair tasks); the `reference` model (fixed first
            attempts of the base model).
        turns: Attempts of each trajectory.
        draft: Of a control, what replaced attempt 1 (one of `DRAFTS`); '' for other evaluations.
    """

    when: str
    task: str
    split: str
    temperature: float
    first: str
    turns: int
    draft: str = ""

    @property
    def asked(self) -> Asked:
        """How it asks."""
        own = "reference" if self.first == "reference" else "own"
        return Asked(self.split, self.temperature, self.turns, self.draft or own)

    @property
    def is_main(self) -> bool:
        """Whether tables may show it: the greedy evaluation of a test split that is not a control."""
        return (self.split, self.temperature, self.draft) == ("test", 0.0, "")

    @property
    def label(self) -> str:
        """Its name in run.json's `records`: `after arithmetic test T=0.7 policy 2`, and of a control its draft."""
        text = f"{self.when} {self.task} {self.split} T={self.temperature:g} {self.first} {self.turns}"
        return f"{text} {self.draft}" if self.draft else text

    def is_pool_of(self, greedy: EvalKey) -> bool:
        """Whether its samples, where it has several, are the sampled counterpart of a greedy evaluation."""
        return self[:3] == greedy[:3] and self.first == greedy.first == "policy"


def key_of(record: Mapping[str, Any]) -> EvalKey:
    """Which evaluation a record is of."""
    return key_from(*key_fields(record))


def key_fields(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What of a record decides its `EvalKey`, as written there: records with equal fields have one key."""
    attempts = record["attempts"]
    return (
        record["when"], record["task"], record.get("split", "test"), record["temperature"], attempts[0]["by"],
        len(attempts), record.get("draft", ""),
    )  # fmt: skip


def key_from(when: str, task: str, split: str, temperature: float, first: str, turns: int, draft: str) -> EvalKey:
    """The key of `key_fields`; -0.0 and 0 are the temperature 0.0.

    Args:
        when, task, split, temperature, first, turns, draft: As the attributes of `EvalKey`.
    """
    return EvalKey(when, task, split, float(temperature) + 0.0, first, turns, draft)


def format_fault(info: Mapping[str, Any]) -> str:
    """Why run.json cannot be read as one of `READABLE`, '' where it can."""
    told = info.get("format")
    if type(told) is int and told in READABLE:
        return ""
    return f"has format {told!r}; this program reads formats {' and '.join(map(str, READABLE))}"


def digest_of(info: Mapping[str, Any]) -> str:
    """SHA-256 of run.json's content, but for its own `digest`: of the sorted JSON without spaces, in ASCII."""
    told = {key: value for key, value in info.items() if key != "digest"}
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def info_fault(info: Mapping[str, Any]) -> str:
    """What in run.json of a run that is done is not of its type, or not what was written; '' where nothing is.

    Args:
        info: As format 2 has it, or upgraded to it by `harness.runs.format1`.
    """
    spent = info.get("spent")
    if not isinstance(spent, dict) or "updates" not in spent:
        return f"spent is {shorten_value(spent)}, not what the run used (updates at least)"
    for key, kind in INFO_OBJECTS.items():
        entries = info.get(key, _ABSENT if key in INFO_REQUIRED else {})
        if not isinstance(entries, dict):
            return f"{key} is {shorten_value(entries)}, not an object"
        for entry, value in entries.items():
            one = AMOUNT if (key, entry) == ("spent", "flops") else kind  # passes what a count may be
            if not matches_kind(value, one):
                return f"{key}: {entry} is {shorten_value(value)}, not {one.name}"
    for key in INFO_TEXTS:
        value = info.get(key, _ABSENT if key in INFO_REQUIRED else "")
        if not matches_kind(value, TEXT):
            return f"{key} is {shorten_value(value)}, not {TEXT.name}"
    return info_changed(info)


def info_changed(info: Mapping[str, Any]) -> str:
    """Whether run.json of a run that is done is still what was written, in a sentence; '' where it is, or is format 1,
    which has no digest."""
    if info.get("format", 1) == 1 or info.get("digest") == digest_of(info):
        return ""
    return "its digest differs: something in it was changed after the run"


class Kind(NamedTuple):
    """One kind of value.

    Attributes:
        types: The types JSON may give it.
        holds: Whether a value of these types is one.
        all_hold: The same of a whole column, at once.
        name: Its name in a message.
    """

    types: frozenset[type]
    holds: Callable[[Any], bool]
    all_hold: Callable[[list[Any]], bool]
    name: str


def _few(types: set[type], holds: Callable[[Any], bool], name: str) -> Kind:
    """A kind whose columns hold few different values."""
    return Kind(frozenset(types), holds, lambda column: all(map(holds, set(column))), name)


def _one_of(values: Sequence[str]) -> Kind:
    return _few({str}, frozenset(values).__contains__, f"one of {', '.join(values)}")


def _text(least: int, most: int, *more: type) -> Kind:
    def all_hold(column: list[Any]) -> bool:
        sizes = set(map(len, filter(None, column) if more else column))
        return not sizes or (min(sizes) >= least and max(sizes) <= most)

    name = f"a text of {least} to {most:,} characters{' or null' if more else ''}"
    return Kind(frozenset({str, *more}), lambda text: text is None or least <= len(text) <= most, all_hold, name)


def _lists_of_objects(column: list[Any]) -> bool:
    return all(column) and set(map(type, chain.from_iterable(column))) <= {dict}


NAME, TEXT, ANSWER = _text(1, LONGEST_NAME), _text(0, LONGEST_TEXT), _text(0, LONGEST_TEXT, type(None))
TRUTH = _few({bool}, lambda _: True, "true or false")
COUNT = _few({int}, lambda count: 0 <= count <= MOST, "an integer from 0")
NUMBER = _few({int, float}, math.isfinite, "a finite number")
AMOUNT = TEMPERATURE = _few({int, float}, lambda value: 0 <= value < math.inf, "a finite number from 0")
LOGGED = _few({int, float}, lambda value: abs(value) <= LARGEST_LOGGED, "a finite number")
ATTEMPTS = Kind(frozenset({list}), lambda held: _lists_of_objects([held]), _lists_of_objects, "a list of objects")

RECORD: Mapping[str, Kind] = {
    "when": _one_of(WHENS),
    "task": NAME,
    "id": NAME,
    "sample": COUNT,
    "temperature": TEMPERATURE,
    "attempts": ATTEMPTS,
}
RECORD_OPTIONAL: Mapping[str, Kind] = {
    "split": _one_of(SPLITS),
    "draft": _one_of(DRAFTS),
    "prompt": TEXT,
    "gold": TEXT,
    "extra_tokens": COUNT,
}
ATTEMPT: Mapping[str, Kind] = {
    "text": TEXT,
    "answer": ANSWER,
    "reward": NUMBER,
    "correct": TRUTH,
    "status": _one_of(STATUSES),
    "tokens": COUNT,
    "truncated": TRUTH,
    "by": _one_of(AUTHORS),
}
ATTEMPT_OPTIONAL: Mapping[str, Kind] = {"flag": NAME, "reason": TEXT}
INFO_OBJECTS: Mapping[str, Kind] = {
    **dict.fromkeys(("spent", "records"), COUNT),
    **dict.fromkeys(("eval_tasks", "graders", "sha256", "bindings", "difference"), TEXT),
}
INFO_TEXTS = ("task_version", "model", "parent")
INFO_REQUIRED = ("task_version", "bindings", "parent", "difference")
_ABSENT = object()


def draft_fits(draft: str, correct: bool, answer: str | None, status: str) -> bool:
    """Whether a graded draft is of the kind that a control asks for.

    A right one is right. A wrong one has an answer, and a grader that could tell: no reply that was cut off, and no
    program that ran out of time. Of the other kinds every draft is one. A record whose draft is not of its kind, as
    none was found, counts in no rate.

    Args:
        draft: The control's kind.
        correct, answer, status: The draft's verdict.
    """
    if draft == "wrong":
        return not correct and answer is not None and status == "ok"
    return correct or draft != "right"


def find_faults(records: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """{place in `records`: its first fault}; {} where all are what a record may be.

    Args:
        records: Objects of eval.jsonl as a strict reader gives them: without NaN, infinity and lone surrogates.
    """
    if _all_right(records):
        return {}
    return {place: fault for place, record in enumerate(records) if (fault := record_fault(record))}


def record_fault(record: Mapping[str, Any]) -> str:
    """What is wrong with one record, '' where nothing is."""
    fault = _fault(record, RECORD, RECORD_OPTIONAL)
    if fault:
        return fault
    for turn, attempt in enumerate(record["attempts"], 1):
        fault = _fault(attempt, ATTEMPT, ATTEMPT_OPTIONAL)
        if fault:
            return f"attempt {turn}: {fault}"
    return ""


def identity_fault(record: Mapping[str, Any]) -> str:
    """What keeps the writer from telling which evaluation and problem a record is of, '' where nothing does.

    Less than `record_fault`: an answer that was changed later is told by whoever reads or grades it again.
    """
    fault = _fault(record, RECORD, {})
    if fault:
        return fault
    bad = [
        i
        for i, attempt in enumerate(record["attempts"], 1)
        if not matches_kind(attempt.get("by", _ABSENT), ATTEMPT["by"])
    ]
    return f"attempt {bad[0]}: by is no author" if bad else ""


def _fault(held: Mapping[str, Any], required: Mapping[str, Kind], optional: Mapping[str, Kind]) -> str:
    missing = [key for key in required if key not in held]
    if missing:
        return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    for key, kind in chain(required.items(), optional.items()):
        if key in held and not matches_kind(held[key], kind):
            return f"{key} is {shorten_value(held[key])}, not {kind.name}"
    return ""


def matches_kind(value: Any, kind: Kind) -> bool:
    """Whether a value is of a kind."""
    if type(value) not in kind.types:
        return False
    try:
        if type(value) is str:
            value.encode()  # a lone surrogate is no text: no file, page or digest can hold it
        return kind.holds(value)
    except (ValueError, OverflowError):
        return False


def _all_right(records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every record is fine, column by column; False also where it takes a closer look to tell."""
    try:
        if not _columns_fit(records, RECORD, RECORD_OPTIONAL):
            return False
        attempts = list(chain.from_iterable(map(itemgetter("attempts"), records)))
        return _columns_fit(attempts, ATTEMPT, ATTEMPT_OPTIONAL)
    except (KeyError, TypeError):  # a missing key, a value that cannot be in a set
        return False


def _columns_fit(rows: Sequence[Mapping[str, Any]], required: Mapping[str, Kind], optional: Mapping[str, Kind]) -> bool:
    columns = [(kind, list(map(itemgetter(key), rows))) for key, kind in required.items()]
    if sum(map(len, rows)) > len(required) * len(rows):  # some rows hold more than they must
        columns += [(kind, [row[key] for row in rows if key in row]) for key, kind in optional.items()]
    return all(set(map(type, column)) <= kind.types and kind.all_hold(column) for kind, column in columns)


def check_steps(numbered: Iterable[tuple[int, Mapping[str, Any]]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines of metrics.jsonl that a curve can use, and what is wrong with the others.

    A line needs a `phase` and a `step` that is larger than that of the line before. Another value that is neither a
    finite number, nor a truth value or null is left out of its line.

    Args:
        numbered: (line, object) of metrics.jsonl, in the order of the file.
    """
    kept: list[dict[str, Any]] = []
    faults = []
    for line, row in numbered:
        step = row.get("step", _ABSENT)
        if type(step) is not int or not 1 <= step <= MOST:
            faults.append(f"line {line}: step is {shorten_value(step)}, not an integer from 1")
        elif kept and step <= kept[-1]["step"]:
            faults.append(f"line {line}: step {step} stands behind step {kept[-1]['step']}")
        elif not matches_kind(row.get("phase", _ABSENT), NAME):
            faults.append(f"line {line}: phase is {shorten_value(row.get('phase', _ABSENT))}, not {NAME.name}")
        else:
            odd = [key for key, value in row.items() if key != "phase" and not _fits_log(value)]
            faults += [
                f"line {line}: {shorten_value(key)} is {shorten_value(row[key])}, not a finite number" for key in odd
            ]
            kept.append({key: value for key, value in row.items() if key not in odd} if odd else dict(row))
    return kept, faults


def _fits_log(value: Any) -> bool:
    return value is None or type(value) is bool or matches_kind(value, LOGGED)


def curve_value(step: Mapping[str, Any], key: str) -> float | None:
    """The number that a line of metrics.jsonl logs under `key`; None where it logs none (truth values are none)."""
    value: Any = step.get(key)
    return float(value) if matches_kind(value, LOGGED) else None


def parse_lines(data: bytes, first: int = 1) -> Iterator[tuple[int, Any, str]]:
    """(line, value, why it is no JSON) of each line that is not blank; values that only Python's reader takes pass.

    The second reader, for lines that the strict one refuses, lets the caller name the NaN or the lone surrogate in it.
    In texts of models such halves of characters are no fault.
    """
    for number, line in enumerate(data.split(b"\n"), first):
        if not line.strip():
            continue
        try:
            yield number, orjson.loads(line), ""
        except ValueError as error:
            try:
                value = _spell_surrogates(json.loads(line.decode()))
            except (ValueError, RecursionError):
                value = None
            yield number, value, str(error)


def _spell_surrogates(value: Any) -> Any:
    """The record with lone surrogates in what a model or a task wrote spelt out, as in `a\\ud800b`.

    A model may write half of a character, and the writer keeps it as JSON's escape. No file, page or digest can hold
    it, so readers see the escape as text; two answers are equal as before. Elsewhere (in ids) it stays, and is told.
    """
    if not isinstance(value, dict):
        return value
    attempts = value.get("attempts")
    for held in (value, *(attempts if isinstance(attempts, list) else ())):
        if isinstance(held, dict):
            for key in ("prompt", "gold", "text", "answer", "reason"):
                if isinstance(held.get(key), str):
                    held[key] = held[key].encode(errors="backslashreplace").decode()
    return value


def shorten_value(value: Any, most: int = 40) -> str:
    """A value of a damaged line as a message shows it."""
    try:
        text = "nothing" if value is _ABSENT else json.dumps(value, ensure_ascii=True)
    except (ValueError, TypeError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else text[: most - 3] + "..."
