"""HumanEval (Chen et al. 2021, arXiv 2107.03374) and HumanEvalFix (Muennighoff et al. 2023, arXiv 2308.07124); MIT.

Both have 164 test problems and nothing to train on; their tests are never shown. HumanEvalFix gives each problem's
buggy program as a fixed first attempt, so that attempt 2 is the repair.
Differs from the papers: SCoRe prints no HumanEval prompt, so `instruct` is ours; OctoPack asks for the fix in one turn,
here it is asked for by SCoRe's correction instruction, with the docstring in sight (its "FixDocs" variant).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from harness.core import Message, Problem, Verifier
from harness.registry import register
from harness.tasks.code_prompts import COMPLETE, RETRY
from harness.tasks.source import Hub, Loaded, Schema, check_columns, check_pin, load_source_rows, require_unique_ids

Style = Literal["instruct", "bare"]

SCHEMA: Schema = {"task_id": str, "prompt": str, "canonical_solution": str, "test": str, "entry_point": str}
FIX_SCHEMA: Schema = {**SCHEMA, "declaration": str, "buggy_solution": str}
PIN = "84c7365de711b66da4caf89c34a04efb207532efb9d00f18e93860b1485ea328"
FIX_PIN = "2a9cd07d1a795145a49ddaa4405d33ed6965eaebba823fd08ff99ff99f927694"


@register("task", "humaneval")
@dataclass(frozen=True)
class HumanEval:
    """HumanEval, zero-shot, tests hidden: 164 problems to evaluate on; from the hub or a file.

    Attributes:
        verifier: Grades a response.
        style: `instruct` asks for the whole program; `bare` is the prompt alone, for a base model to continue.
        data: A local copy instead of the hub: file, folder, or a list of them.
        repository: A hub repository.
        revision: Its commit.
        pin: Digest of the rows; None accepts other rows.
    """

    verifier: Verifier
    style: Style = "instruct"
    data: str | Sequence[str] | None = None
    repository: str = "openai/openai_humaneval"
    revision: str = "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544"
    pin: str | None = PIN
    name: str = "humaneval"

    config: ClassVar[str | None] = None
    schema: ClassVar[Schema] = SCHEMA
    home: ClassVar[str] = "github.com/openai/human-eval, data/HumanEval.jsonl.gz"

    def __post_init__(self) -> None:
        if self.style not in ("instruct", "bare"):
            raise ValueError(f"task.{self.name}.style must be instruct or bare, not {self.style!r}")

    @functools.cached_property
    def _loaded(self) -> Loaded:
        hub = Hub(self.repository, self.revision, (self.config,) if self.config else (), self.home)
        loaded = check_columns(load_source_rows(self.name, hub, self.data), self.schema)
        require_unique_ids((row.fields["task_id"], row.place) for row in loaded.rows)
        return check_pin(self.name, loaded, tuple(self.schema), self.pin, 164)

    @functools.cached_property
    def test(self) -> Sequence[Problem]:
        return [self.build_problem(row.fields) for row in self._loaded.rows]

    def build_problem(self, fields: Mapping[str, Any]) -> Problem:
        """A row as a problem."""
        return Problem(
            fields["task_id"],
            fields["prompt"],
            json.dumps({"test": fields["test"], "entry_point": fields["entry_point"]}),
            fields["prompt"] + fields["canonical_solution"],
            meta={"entry_point": fields["entry_point"]},
        )

    @property
    def version(self) -> str:
        return f"1-{self.style}-{self._loaded.digest[:8]}"

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the problems came from, for run.json."""
        return {"origin": self._loaded.origin, "digest": self._loaded.digest, "test": len(self.test)}

    @property
    def train(self) -> Sequence[Problem]:
        return ()

    @property
    def validation(self) -> Sequence[Problem]:
        return ()

    def chat(self, problem: Problem, answers: Sequence[str]) -> list[Message]:
        asked = COMPLETE.format(prompt=problem.prompt.rstrip()) if self.style == "instruct" else problem.prompt
        messages = [{"role": "user", "content": asked}]
        for answer in answers:
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": RETRY}]
        return messages


@register("task", "humanevalfix")
@dataclass(frozen=True)
class HumanEvalFix(HumanEval):
    """HumanEvalFix (Python): the buggy program is the given first attempt, attempt 2 repairs it; 164 problems.

    Attributes: as `task.humaneval`.
    """

    repository: str = "bigcode/humanevalpack"
    revision: str = "9a41762f73a8cb23bb5811b73d5aab164efcf378"
    pin: str | None = FIX_PIN
    name: str = "humanevalfix"

    config: ClassVar[str | None] = "python"
    schema: ClassVar[Schema] = FIX_SCHEMA
    home: ClassVar[str] = (
        "github.com/bigcode-project/octopack, evaluation/create/humaneval-x/data/python/data/humanevalpack.jsonl"
    )

    def build_problem(self, fields: Mapping[str, Any]) -> Problem:
        return Problem(
            fields["task_id"],
            fields["prompt"],
            json.dumps({"test": fields["test"], "entry_point": fields["entry_point"]}),
            fields["declaration"] + fields["canonical_solution"],
            given=(fields["declaration"] + fields["buggy_solution"],),
            meta={"entry_point": fields["entry_point"], "bug": fields.get("bug_type")},
        )
