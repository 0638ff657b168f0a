"""MBPP (Austin et al. 2021, arXiv 2108.07732; CC-BY-4.0): short Python functions with three tests each.

Parts are ranges of task ids, as the data set's authors set them: 1-10 examples for prompts, 11-510 test, 511-600
validation, 601-974 train. Which ids the paper trained on is not said there.
"""

from __future__ import annotations

import ast
import functools
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from harness.core import Message, Problem, Verifier
from harness.python_source import defined_names
from harness.registry import register
from harness.tasks.code_prompts import RETRY, Shot, Shown, answer_text, mbpp_prompt
from harness.tasks.source import (
    DataError,
    Hub,
    Loaded,
    Row,
    Schema,
    check_columns,
    check_pin,
    load_source_rows,
    require_unique_ids,
)

Part = Literal["prompt", "test", "validation", "train"]
PARTS: dict[Part, range] = {
    "prompt": range(1, 11), "test": range(11, 511), "validation": range(511, 601), "train": range(601, 975),
}  # fmt: skip

REPOSITORY = "google-research-datasets/mbpp"
REVISION = "4bb6404fdc6cacfda99d4ac4205087b89d32030c"


@dataclass(frozen=True)
class Edition:
    """One of the two published forms of MBPP.

    Attributes:
        text: The field of the problem's text.
        schema: What every row must have.
        columns: What `pin` is the digest of.
        rows: How many there are.
        file: Its file at the authors' home.
    """

    config: str
    text: str
    schema: Schema
    columns: tuple[str, ...]
    pin: str
    rows: int
    file: str


FULL = Edition(
    "full",
    "text",
    {"task_id": int, "text": str, "code": str, "test_list": list},
    ("task_id", "text", "code", "test_list", "test_setup_code"),
    "24c1f722bcda3824b3c57d32af7ab82289013b783f3ce515c9914d6c0a7af735",
    974,
    "mbpp.jsonl",
)
SANITIZED = Edition(
    "sanitized",
    "prompt",
    {"task_id": int, "prompt": str, "code": str, "test_list": list},
    ("task_id", "prompt", "code", "test_list", "test_imports"),
    "5108b7b4719baef140868aed3d1a440571b112ffd787ab29b3e49f6a7a885c5e",
    427,
    "sanitized-mbpp.json",
)


def tests_of(fields: Mapping[str, Any]) -> str:
    """`Problem.answer` of a row: its tests as JSON, in the form `verifier.code` reads."""
    kept = {name: fields[name] for name in ("test_list", "test_setup_code", "test_imports") if fields.get(name)}
    return json.dumps(kept)


def entry_points(code: str, tests: Sequence[str]) -> list[str]:
    """The names a program defines that its tests use, the one used most often first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = defined_names(ast.parse(code))
        trees = [ast.parse(test) for test in tests]
    used = [node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in names]
    return sorted(dict.fromkeys(used), key=lambda name: -used.count(name))


def problem_of(row: Row, edition: Edition, shots: int) -> Problem:
    """A row as a problem, its line ends made \\n; the solution is the answer a prompt of `shots` examples asks for.

    Args:
        row: Of the data set.
        edition: Which columns hold what.
        shots: Solved examples in the prompt, which decide the form of a solution.
    """
    fields = row.fields
    code = fields["code"].replace("\r\n", "\n").strip()
    tests = tuple(test.replace("\r\n", "\n").strip() for test in fields["test_list"])
    meta = {"task_id": fields["task_id"], "tests": tests, "code": code}
    prompt, name = fields[edition.text].strip(), f"mbpp/{fields['task_id']}"
    return Problem(name, prompt, tests_of(fields), answer_text(code, shots), meta=meta)


def part_of(task_id: int) -> Part | None:
    """The part a task id belongs to."""
    return next((name for name, ids in PARTS.items() if task_id in ids), None)


@register("task", "mbpp")
@dataclass(frozen=True)
class MBPP:
    """MBPP, 3-shot (or zero-shot) with its tests shown, one shown, or hidden; from the hub or a file.

    Attributes:
        verifier: Grades a response.
        shots: Solved examples in the prompt, 0 to 3; the paper's prompt has 3.
        tests: `shown` (the paper's: all tests, which also grade), `one` (the first; the rest only grade) or `hidden`.
        data: A local copy instead of the hub: file, folder, or a list of them.
        repository: A hub repository.
        revision: Its commit.
        pin: Digest of the rows; None accepts other rows.
    """

    verifier: Verifier
    shots: int = 3
    tests: Shown = "shown"
    data: str | Sequence[str] | None = None
    repository: str = REPOSITORY
    revision: str = REVISION
    pin: str | None = FULL.pin
    name: str = "mbpp"

    edition: ClassVar[Edition] = FULL

    def __post_init__(self) -> None:
        check_prompt(self.name, self.shots, self.tests)

    @functools.cached_property
    def _loaded(self) -> Loaded:
        edition = self.edition
        home = f"github.com/google-research/google-research, mbpp/{edition.file}"
        hub = Hub(self.repository, self.revision, (edition.config,), home)
        loaded = check_columns(load_source_rows(self.name, hub, self.data), edition.schema)
        require_unique_ids((str(row.fields["task_id"]), row.place) for row in loaded.rows)
        return check_pin(self.name, loaded, edition.columns, self.pin, edition.rows)

    @functools.cached_property
    def _parts(self) -> dict[Part, tuple[Problem, ...]]:
        rows = sorted(self._loaded.rows, key=lambda row: row.fields["task_id"])
        parts: dict[Part, list[Problem]] = {name: [] for name in PARTS}
        for row in rows:
            part = part_of(row.fields["task_id"])
            if part is None:
                raise DataError(f"{row.place}: MBPP has no task_id {row.fields['task_id']}")
            parts[part].append(problem_of(row, self.edition, self.shots))
        return {name: tuple(problems) for name, problems in parts.items()}

    @property
    def version(self) -> str:
        return f"1-{self.shots}shot-{self.tests}-{self._loaded.digest[:8]}"

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the problems came from, for run.json."""
        sizes = {name: len(problems) for name, problems in self._parts.items()}
        return {"origin": self._loaded.origin, "digest": self._loaded.digest, **sizes}

    def part_problems(self, name: Part) -> Sequence[Problem]:
        """The problems of one part; `prompt` holds the data set's own examples for prompts."""
        return self._parts[name]

    @property
    def train(self) -> Sequence[Problem]:
        return self._parts["train"]

    @property
    def validation(self) -> Sequence[Problem]:
        return self._parts["validation"]

    @property
    def test(self) -> Sequence[Problem]:
        return self._parts["test"]

    def chat(self, problem: Problem, answers: Sequence[str]) -> list[Message]:
        return mbpp_chat(problem, answers, self.shots, self.tests)


@register("task", "mbpp_sanitized")
@dataclass(frozen=True)
class SanitizedMBPP(MBPP):
    """The 427 problems of MBPP that its authors checked by hand, in the same parts; otherwise as `task.mbpp`."""

    pin: str | None = SANITIZED.pin
    name: str = "mbpp_sanitized"

    edition: ClassVar[Edition] = SANITIZED


def check_prompt(task: str, shots: int, tests: str) -> None:
    """Raises ValueError for a number of shots or a way to show tests that does not exist.

    Args:
        task: Its name, for the message.
        shots: 0 to 3.
        tests: `shown`, `one` or `hidden`.
    """
    if shots not in range(4):
        raise ValueError(f"task.{task}.shots must lie in 0..3, not {shots!r}")
    if tests not in ("shown", "one", "hidden"):
        raise ValueError(f"task.{task}.tests must be shown, one or hidden, not {tests!r}")


def mbpp_chat(problem: Problem, answers: Sequence[str], shots: int, tests: Shown) -> list[Message]:
    """MBPP's prompt, then the paper's correction instruction after each answer.

    Args:
        problem: Of MBPP.
        answers: The replies so far.
        shots, tests: As in `MBPP`.
    """
    shot = Shot(problem.prompt, problem.meta["tests"], problem.meta["code"])
    messages = [{"role": "user", "content": mbpp_prompt(shot, shots, tests)}]
    for answer in answers:
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": RETRY}]
    return messages
