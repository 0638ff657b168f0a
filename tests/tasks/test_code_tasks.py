"""The code tasks: counts, hashes and parts of the real files; reference programs pass, buggy ones fail."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from real_data import real

from harness.core import Problem, Verdict
from harness.tasks.humaneval import HumanEval, HumanEvalFix
from harness.tasks.mbpp import MBPP, PARTS, SanitizedMBPP, entry_points
from harness.tasks.source import DataError
from verifiers.code_tests import CodeTests

EVERY = int(os.environ.get("EVERY", "30"))


def nobody(problem: Problem, text: str) -> Verdict:
    return Verdict(0.0, False)


FILES = {
    MBPP: ("mbpp.jsonl", (374, 90, 500), "1-3shot-shown-24c1f722"),
    SanitizedMBPP: ("sanitized-mbpp.json", (120, 43, 257), "1-3shot-shown-5108b7b4"),
    HumanEval: ("humaneval.jsonl", (0, 0, 164), "1-instruct-84c7365d"),
    HumanEvalFix: ("humanevalfix_python.jsonl", (0, 0, 164), "1-instruct-2a9cd07d"),
}


@pytest.mark.data
@pytest.mark.parametrize("build", FILES)
def test_the_real_file_loads_with_its_counts_and_hash(build):
    name, sizes, version = FILES[build]
    task = build(nobody, data=real(name))
    parts = (task.train, task.validation, task.test)
    assert tuple(len(part) for part in parts) == sizes
    assert task.version == version
    assert len({p.id for part in parts for p in part}) == sum(sizes)
    assert all(p.answer and p.solution and p.prompt and "\r" not in f"{p.solution}{p.prompt}" for p in parts[2])
    assert task.provenance["origin"] == real(name)


@pytest.mark.data
@pytest.mark.parametrize("build", FILES)
def test_reference_programs_pass_through_the_task(build):
    """A sample of every EVERYth problem: tests/verifiers grades all of them; so does EVERY=1 here."""
    verifier = CodeTests(time_limit=20)
    task = build(verifier, data=real(FILES[build][0]))
    parts = [task.part_problems(name) for name in PARTS] if isinstance(task, MBPP) else [task.test]
    problems = [p for part in parts for p in part[::EVERY]]
    verdicts = verifier.batch([(p, str(p.solution)) for p in problems])
    failed = [p.id for p, verdict in zip(problems, verdicts, strict=True) if not verdict.correct]
    print(f"{task.name}: {len(problems) - len(failed)} of {len(problems)} reference programs pass")
    assert failed == []


@pytest.mark.data
def test_buggy_programs_fail_and_their_repair_is_attempt_2():
    task = HumanEvalFix(CodeTests(time_limit=3), data=real("humanevalfix_python.jsonl"))
    sample = task.test[:: min(EVERY, 16)]
    passed = sum(v.correct for v in CodeTests(time_limit=3).batch([(p, p.given[0]) for p in sample]))
    print(f"{task.name}: {passed} of {len(sample)} buggy programs pass")
    assert passed == 0
    asked, buggy, retry = task.chat(sample[0], list(sample[0].given))
    assert (asked["role"], buggy, retry["role"]) == (
        "user",
        {"role": "assistant", "content": sample[0].given[0]},
        "user",
    )
    assert "distance = elem - elem2" in buggy["content"]
    assert "assert" not in asked["content"]


@pytest.mark.data
def test_every_problem_of_mbpp_has_a_function_its_tests_call():
    task = MBPP(nobody, data=real("mbpp.jsonl"))
    for part in PARTS:
        for problem in task.part_problems(part):
            assert entry_points(problem.meta["code"], problem.meta["tests"]), problem.id


def test_functions_under_test_are_the_programs_own():
    code = "import math\nLIMIT = 3\ndef helper(x):\n    return x\ndef area(r):\n    return helper(r)"
    assert entry_points(code, ["assert area(2) == math.floor(LIMIT)", "assert area(3) == 3"]) == ["area", "LIMIT"]


def write(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def mbpp_row(task_id: int = 11, **fields: object) -> dict:
    return {
        "task_id": task_id, "text": "Add two numbers.", "code": "def add(a, b):\r\n    return a + b \r\n",
        "test_list": ["assert add(1, 2) == 3"], "test_setup_code": "", **fields,
    }  # fmt: skip


def test_a_small_file_of_ones_own_needs_its_pin_lifted(tmp_path):
    data = write(tmp_path / "mine.jsonl", mbpp_row(11), mbpp_row(601))
    with pytest.raises(DataError, match=r"2 rows with digest .* not 974 rows .*task\.mbpp\.pin = None"):
        _ = MBPP(nobody, data=data).test
    task = MBPP(CodeTests(), data=data, pin=None, shots=0)
    assert (len(task.train), len(task.validation), len(task.test)) == (1, 0, 1)
    assert task.test[0].solution == "def add(a, b):\n    return a + b"
    assert task.verifier(task.test[0], str(task.test[0].solution)).correct
    shot = MBPP(CodeTests(), data=data, pin=None)
    assert str(shot.test[0].solution).endswith("\n[DONE]")
    assert shot.verifier(shot.test[0], str(shot.test[0].solution)).correct
    assert len({task.version, shot.version, MBPP(nobody, data=data, pin=None, tests="one").version}) == 3


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([mbpp_row(), mbpp_row()], r"line 2: the id '11' was seen already \(.*line 1\)"),
        ([mbpp_row(975)], r"line 1: MBPP has no task_id 975"),
        ([{k: v for k, v in mbpp_row().items() if k != "test_list"}], r"line 1: the field 'test_list' is missing"),
    ],
)
def test_rows_that_cannot_be_mbpps_are_told_by_line(tmp_path, rows, told):
    with pytest.raises(DataError, match=told):
        _ = MBPP(nobody, data=write(tmp_path / "mine.jsonl", *rows), pin=None).test
