"""Data of one's own as a task: `task.jsonl` of local files, `task.hub` of a repository of the Hugging Face hub.

A row is a question and its gold answer, under any two names. See docs/bring_your_own_data.md.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.core import Message, Problem, Verifier
from harness.registry import nearest_hint, register
from harness.tasks.arithmetic import RETRY
from harness.tasks.source import DataError, Hub, Loaded, Row, load_source_rows, require_unique_ids, rows_digest

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
Files = str | Sequence[str]


@dataclass(frozen=True)
class _OwnData:
    """What both kinds of data have in common; `_rows` is where they come from."""

    def _rows(self, part: Part) -> Loaded:
        raise NotImplementedError

    verifier: Verifier
    prompt: str = "prompt"
    answer: str = "answer"
    id: str | None = None
    solution: str | None = None
    answer_after: str = ""
    instruction: str = ""
    retry: str = RETRY
    test_size: int | None = None
    name: str = "own"

    @functools.cached_property
    def _parts(self) -> dict[Part, tuple[Problem, ...]]:
        parts: dict[Part, tuple[Problem, ...]] = {}
        places: dict[str, tuple[Part, str]] = {}
        for part in reversed(PARTS):  # the test problems are known first: what training shares with them is told
            rows = self._rows(part).rows
            problems = tuple(self._problem(row) for row in rows)
            require_unique_ids((problem.id, row.place) for problem, row in zip(problems, rows, strict=True))
            for problem, row in zip(problems, rows, strict=True):
                text = " ".join(problem.prompt.split())
                other, place = places.setdefault(text, (part, row.place))
                if other != part:
                    raise DataError(
                        f"{row.place}: this {part} problem is a {other} problem as well ({place}): "
                        f"{problem.prompt[:60]!r}. Take it out of one of them"
                    )
            parts[part] = problems
        if not parts["test"]:
            raise DataError(f"task {self.name}: it has no test problems")
        return parts

    def _problem(self, row: Row) -> Problem:
        prompt, answer = _text(row, self.prompt), _text(row, self.answer)
        solution = _text(row, self.solution) if self.solution else None
        if self.answer_after:
            before, mark, after = answer.rpartition(self.answer_after)
            if not (mark and after.strip()):
                raise DataError(f"{row.place}: the field {self.answer!r} has nothing after {self.answer_after!r}")
            answer, solution = after.strip(), solution or before.strip() or None
        name = _text(row, self.id) if self.id else hashlib.sha256(prompt.encode()).hexdigest()[:16]
        return Problem(name, prompt, answer, solution)

    @property
    def train(self) -> Sequence[Problem]:
        return self._parts["train"]

    @property
    def validation(self) -> Sequence[Problem]:
        return self._parts["validation"]

    @property
    def test(self) -> Sequence[Problem]:
        return self._parts["test"][: self.test_size]

    @functools.cached_property
    def _digest(self) -> str:
        return rows_digest(
            {"part": part, "id": problem.id, "prompt": problem.prompt, "answer": problem.answer}
            for part, problems in self._parts.items()
            for problem in problems
        )

    @property
    def version(self) -> str:
        asked = hashlib.sha256(f"{self.instruction}\n{self.retry}".encode()).hexdigest()
        return f"1-{self._digest[:8]}-{asked[:8]}"

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the problems came from, for run.json."""
        origins = [self._rows(part).origin for part in PARTS]
        sizes = {part: len(problems) for part, problems in self._parts.items()}
        return {"origin": "; ".join(dict.fromkeys(filter(None, origins))), "digest": self._digest, **sizes}

    def chat(self, problem: Problem, answers: Sequence[str]) -> list[Message]:
        asked = f"{self.instruction}\n\n{problem.prompt}" if self.instruction else problem.prompt
        messages = [{"role": "user", "content": asked}]
        for answer in answers:
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": self.retry}]
        return messages


@register("task", "jsonl")
@dataclass(frozen=True)
class Jsonl(_OwnData):
    """Local files of one's own: .jsonl, .json, either with .gz, .parquet; one row a problem.

    Attributes:
        verifier: Grades a response.
        test_data: A file, a folder or several: the test problems.
        train_data: The training problems; None for a task that is only evaluated.
        validation_data: The validation problems.
        prompt: The field that holds the problem as text.
        answer: The field that holds what the verifier compares with: a text or a number.
        id: The field with a name of the problem; without, it is made of the problem's text.
        solution: The field with a worked solution, which SFT-oracle fits.
        answer_after: The gold answer stands behind this text, as `####` in GSM8K; what is before it is the solution.
        instruction: Stands before every problem. Say in it how the verifier wants the answer.
        retry: The instruction for the next attempt.
        test_size: Test problems used, from the first; all of them where None.
        name: The task's name in results.
    """

    test_data: Files = ()
    train_data: Files | None = None
    validation_data: Files | None = None
    name: str = "jsonl"

    def __post_init__(self) -> None:
        if not self.test_data:
            raise ValueError("task.jsonl.test_data is not bound: a file with the test problems")

    def _rows(self, part: Part) -> Loaded:
        return self._loaded[part]

    @functools.cached_property
    def _loaded(self) -> dict[Part, Loaded]:
        files = {"train": self.train_data, "validation": self.validation_data, "test": self.test_data}
        nothing = Loaded((), "")
        return {part: load_source_rows("jsonl", Hub("", ""), files[part]) if files[part] else nothing for part in PARTS}


@register("task", "hub")
@dataclass(frozen=True)
class HubData(_OwnData):
    """A data set of the Hugging Face hub; one row a problem.

    Attributes:
        verifier: Grades a response.
        repository: owner/name.
        revision: Its commit: under a branch's name the data could change.
        config: Its configuration, where it has several: `main`.
        train_split: The split with training problems; None for a task that is only evaluated.
        validation_split: The split with validation problems.
        test_split: The split with test problems.
        name: The task's name in results.

    The other parameters are those of `task.jsonl`.
    """

    repository: str = ""
    revision: str = ""
    config: str | None = None
    train_split: str | None = "train"
    validation_split: str | None = None
    test_split: str = "test"
    name: str = "hub"

    def __post_init__(self) -> None:
        if not (self.repository and self.revision):
            raise ValueError("task.hub.repository and task.hub.revision must be bound: owner/name and a commit of it")

    @functools.cached_property
    def _loaded(self) -> Loaded:
        return load_source_rows("hub", Hub(self.repository, self.revision, (self.config,) if self.config else ()), None)

    def _rows(self, part: Part) -> Loaded:
        split = {"train": self.train_split, "validation": self.validation_split, "test": self.test_split}[part]
        if split is None:
            return Loaded((), "")
        rows = tuple(row for row in self._loaded.rows if row.part == split)
        if not rows:
            known = _kinds(row.part for row in self._loaded.rows)
            near = nearest_hint(split, known)
            raise DataError(
                f"{self._loaded.origin}: there is no split {split!r}{near}; it has {', '.join(known)}. "
                f"Bind task.hub.{part}_split"
            )
        return Loaded(rows, self._loaded.origin)


def _kinds(parts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(parts))


def _text(row: Row, field: str) -> str:
    """A field's text, of a number its digits."""
    if field not in row.fields:
        near = nearest_hint(field, row.fields)
        raise DataError(f"{row.place}: the field {field!r} is missing{near}; it has {', '.join(row.fields)}")
    value = row.fields[field]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{row.place}: the field {field!r} must be a text or a number, not {type(value).__name__}")
    if not value.strip():
        raise DataError(f"{row.place}: the field {field!r} is empty")
    return value.strip()
