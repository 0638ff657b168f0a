"""MBPP-R: repair of wrong programs written for MBPP's problems by another model (Ni et al. 2024, arXiv 2404.14662).

The original set was never published, so this task reads a file: one built with `python -m harness.build_mbpp_r`, named
"MBPP-R (rebuilt, base=...)" after the model that wrote the programs, or any file with the same fields (the original,
for who has it). Scores on a rebuilt set are not comparable with the paper's 47.3 and 60.6.

Attempt 1 is the wrong program, attempt 2 the repair. Every wrong program is a problem of its own to the policy; in
results the programs of one MBPP problem are its samples, so that means weigh problems alike, not programs.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core import Message, Problem, Verifier
from harness.grading import grade_responses
from harness.registry import register
from harness.tasks.code_prompts import Shown, answer_text
from harness.tasks.mbpp import check_prompt, mbpp_chat, part_of, tests_of
from harness.tasks.source import DataError, Hub, Loaded, Row, Schema, check_columns, load_source_rows, rows_digest

SCHEMA: Schema = {"task_id": int, "prompt": str, "test_list": list, "wrong_code": str}
"""What a file must have. Read where present: code (a reference), test_setup_code, test_imports, failure, generator."""


def sibling_path(data: str | Path, suffix: str) -> Path:
    """A file that belongs to a data file: `set.jsonl` -> `set` + suffix, in the same folder."""
    path = Path(data)
    stem = path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json").removesuffix(".parquet")
    return path.with_name(stem + suffix)


def provenance_path(data: str | Path) -> Path:
    """Where the provenance of a built file stands."""
    return sibling_path(data, ".provenance.json")


def file_hash(data: str | Path) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(Path(data).read_bytes()).hexdigest()


def problems_of(rows: Sequence[Row], shots: int) -> list[Problem]:
    """One problem per wrong program, in the rows' order; `meta` names the MBPP problem and which of its programs."""
    counts: dict[int, int] = {}
    found = []
    for row in rows:
        fields, name = row.fields, f"mbpp/{row.fields['task_id']}"
        number = counts[fields["task_id"]] = counts.get(fields["task_id"], -1) + 1
        code = fields.get("code")
        meta = {
            "problem": name,
            "sample": number,
            "task_id": fields["task_id"],
            "tests": tuple(test.strip() for test in fields["test_list"]),
            "code": code or fields["wrong_code"],  # gives the function's head where tests are hidden
            "failure": fields.get("failure"),
        }
        solution = answer_text(code.strip(), shots) if isinstance(code, str) and code.strip() else None
        given = answer_text(fields["wrong_code"].strip("\n"), shots)
        found.append(Problem(f"{name}#{number}", fields["prompt"].strip(), tests_of(fields), solution, (given,), meta))
    return found


def not_wrong(verifier: Verifier, problems: Sequence[Problem]) -> list[tuple[Problem, str]]:
    """The problems whose given program does not fail its tests, each with why: it passes, or nobody can tell."""
    verdicts = grade_responses(verifier, [(problem, problem.given[0]) for problem in problems])
    return [
        (problem, "passes all tests" if verdict.correct else f"cannot be graded ({verdict.status})")
        for problem, verdict in zip(problems, verdicts, strict=True)
        if verdict.correct or verdict.status == "error"
    ]


@register("task", "mbpp_r")
@dataclass(frozen=True)
class MBPPR:
    """Repair of given wrong programs for MBPP's problems in one turn, from a file (harness.build_mbpp_r builds one).

    Attributes:
        verifier: Grades a response.
        data: The file; see `SCHEMA`.
        shots: Solved examples in the first turn's prompt, 0 to 3.
        tests: `shown`, `one` or `hidden`, as in `task.mbpp`.
        label: The name in results; "MBPP-R (rebuilt, base=GENERATOR)" unless given.
        pin: SHA-256 the file must have; None takes any (its digest is part of the version).
        verify: Whether a file not yet checked by the builder is graded before use, part by part.
    """

    verifier: Verifier
    data: str | None = None
    shots: int = 0
    tests: Shown = "shown"
    label: str | None = None
    pin: str | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        check_prompt("mbpp_r", self.shots, self.tests)
        if self.data is None:
            raise ValueError(
                "task.mbpp_r needs a file of wrong programs, as the original set was never published: build one with "
                "`python -m harness.build_mbpp_r --help` (from a model's own errors, or without a model from mutants) "
                "and --bind \"task.mbpp_r.data = 'FILE.jsonl'\""
            )

    @functools.cached_property
    def _loaded(self) -> Loaded:
        data = str(self.data)
        loaded = check_columns(load_source_rows("mbpp_r", Hub("", ""), data), SCHEMA)
        found = file_hash(data)
        if self.pin is not None and found != self.pin:
            raise DataError(f"{data} has SHA-256 {found[:12]}..., not task.mbpp_r.pin = {self.pin[:12]}...")
        built = self._built.get("sha256")
        if built is not None and built != found:
            raise DataError(
                f"{data} was changed after {provenance_path(data).name} was written: build it again, or move that "
                "file away if the change is meant"
            )
        for row in loaded.rows:
            if part_of(row.fields["task_id"]) in (None, "prompt"):
                raise DataError(f"{row.place}: task_id {row.fields['task_id']} is in no part of MBPP")
        return Loaded(loaded.rows, loaded.origin, rows_digest(row.fields for row in loaded.rows))

    @functools.cached_property
    def _built(self) -> Mapping[str, Any]:
        path = provenance_path(str(self.data))
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    @functools.cached_property
    def name(self) -> str:
        if self.label:
            return self.label
        generators = sorted({str(row.fields.get("generator") or "") for row in self._loaded.rows})
        if "" in generators:
            raise DataError(
                f"{self.data}: not every row names its generator, so the set needs a name of yours: "
                "--bind \"task.mbpp_r.label = 'MBPP-R'\" (only for the original set)"
            )
        bases = (generator.partition("@")[0].rstrip("/").rpartition("/")[2] for generator in generators)
        return f"MBPP-R (rebuilt, base={'+'.join(bases)})"

    @property
    def version(self) -> str:
        return f"1-{self.shots}shot-{self.tests}-{self._loaded.digest[:8]}"

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the programs came from, for run.json."""
        parts = [part_of(row.fields["task_id"]) for row in self._loaded.rows]
        sizes = {f"{part}_programs": parts.count(part) for part in ("train", "validation", "test")}
        return {"origin": self._loaded.origin, "digest": self._loaded.digest, **sizes, "built": dict(self._built)}

    @property
    def train(self) -> Sequence[Problem]:
        return self._part("train")

    @property
    def validation(self) -> Sequence[Problem]:
        return self._part("validation")

    @property
    def test(self) -> Sequence[Problem]:
        return self._part("test")

    def _part(self, part: str) -> Sequence[Problem]:
        if part not in self._cache:
            rows = [row for row in self._loaded.rows if part_of(row.fields["task_id"]) == part]
            problems = problems_of(rows, self.shots)
            if self.verify and self._built.get("verified") != file_hash(str(self.data)):
                self._demand_wrong(problems)
            self._cache[part] = problems
        return self._cache[part]

    @functools.cached_property
    def _cache(self) -> dict[str, list[Problem]]:
        return {}

    def _demand_wrong(self, problems: Sequence[Problem]) -> None:
        """Raises DataError when a given program is not wrong here."""
        if fine := not_wrong(self.verifier, problems):
            problem, why = fine[0]
            raise DataError(
                f"{self.data}: {len(fine)} of {len(problems)} given programs are not known to be wrong; the first, "
                f"program {problem.meta['sample']} of {problem.meta['problem']}, {why}. Drop them with "
                f"`python -m harness.build_mbpp_r --check {self.data} --out NEW.jsonl`, or --bind "
                '"task.mbpp_r.verify = False"'
            )

    def chat(self, problem: Problem, answers: Sequence[str]) -> list[Message]:
        return mbpp_chat(problem, answers, self.shots, self.tests)
