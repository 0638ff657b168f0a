"""The reference answers and programs of the public data sets, graded in the default mode (marker `data`)."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from harness.core import Problem
from verifiers.code_tests import CodeTests, Graded, answer_of
from verifiers.math_answer import MathAnswer, usable_problems

FOLDER = Path(os.environ.get("SHARED_DATA", Path(__file__).parents[3] / "shared")) / "data"
FOLDER = FOLDER if FOLDER.exists() else FOLDER.parent
pytestmark = [pytest.mark.data, pytest.mark.slow]  # whole benchmarks are graded


def rows(name: str) -> list[dict]:
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{name} is not in {FOLDER} (set SHARED_DATA)")
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.split("\n") if line]


@pytest.fixture(scope="module")
def code() -> CodeTests:
    return CodeTests(time_limit=40)


def graded(code: CodeTests, data: list[dict], program) -> list[Graded]:
    items = [(Problem(str(r["task_id"]), r.get("prompt", ""), answer_of(r)), program(r)) for r in data]
    results = code.judge_all(items)
    print(Counter((g.verdict.correct, g.verdict.status, g.mode) for g in results))
    return results


def failures(data: list[dict], results: list[Graded]) -> list[tuple]:
    return [(r["task_id"], g.reason) for r, g in zip(data, results, strict=True) if not g.verdict.correct]


@pytest.mark.parametrize(
    ("name", "field", "count"),
    [
        ("humaneval.jsonl", "canonical_solution", 164),
        ("mbpp.jsonl", "code", 974),
        ("sanitized-mbpp.json", "code", 427),
    ],
)
def test_reference_programs_pass_in_split_mode(code, name, field, count):
    data = rows(name)
    results = graded(code, data, lambda row: row[field])
    assert failures(data, results) == []
    assert len(results) == count
    assert Counter(g.mode for g in results) == {"split": count}


def test_repair_problems_pass_when_fixed_and_fail_when_buggy(code):
    data = rows("humanevalfix_python.jsonl")
    fixed = graded(code, data, lambda row: row["declaration"] + row["canonical_solution"])
    assert failures(data, fixed) == []
    quick = CodeTests(time_limit=3)  # some bugs are endless loops
    buggy = graded(quick, data, lambda row: row["declaration"] + row["buggy_solution"])
    assert [g for g in buggy if g.verdict.correct] == []
    assert {g.verdict.status for g in buggy} <= {"ok", "timeout"}
    assert len(fixed) == len(buggy) == 164


def test_compat_mode_gives_the_same_verdicts(code):
    data = rows("humaneval.jsonl")
    results = graded(CodeTests(time_limit=20, mode="compat"), data, lambda row: row["canonical_solution"])
    assert failures(data, results) == []
    assert {g.mode for g in results} == {"compat"}


def test_whole_programs_in_fences_pass_too(code):
    data = rows("humaneval.jsonl")[:40]
    results = graded(
        code, data, lambda r: f"Sure!\n\n```python\n{r['prompt']}{r['canonical_solution']}\n```\nIt works because ..."
    )
    assert failures(data, results) == []


def answers() -> list[str]:
    return [row["answer"] for row in rows("math500_answers.jsonl")]


@pytest.mark.parametrize("form", ["bare", "boxed", "final_answer"])
def test_math_answers_match_themselves(form):
    wrap = {
        "bare": "{}",
        "boxed": "So \\boxed{{{}}}.",
        "final_answer": "The final answer is ${}$. I hope it is correct.",
    }
    gold = answers()
    verdicts = MathAnswer(form).batch([(Problem("", "", a), wrap[form].format(a)) for a in gold])
    assert sum(verdict.correct for verdict in verdicts) == len(gold) == 500


def test_math_answers_match_their_neighbour_only_when_equal():
    gold = answers()
    pairs = list(zip(gold, gold[1:] + gold[:1], strict=True))
    verdicts = MathAnswer("bare").batch([(Problem("", "", a), b) for a, b in pairs])
    matched = [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.correct]
    assert sorted(matched) == [("3", "3"), ("5", "x=5"), ("7", "7")]
    assert {verdict.status for verdict in verdicts} == {"ok"}


def test_no_two_different_answers_are_confused():
    """Every pair among the distinct answers that are numbers, sets or text: only true equals match."""
    gold = sorted(set(answers()))[::4]
    items = [(Problem("", "", a), b) for i, a in enumerate(gold) for b in gold[i + 1 :]]
    verdicts = MathAnswer("bare").batch(items)
    matched = {(p.answer, b) for (p, b), verdict in zip(items, verdicts, strict=True) if verdict.correct}
    print(matched)
    assert len(matched) <= 12


def test_rows_without_a_gold_answer_are_dropped_and_counted():
    problems = [Problem(str(i), "", answer) for i, answer in enumerate([*answers(), "", "  ", "$$"])]
    kept, dropped = usable_problems(problems)
    assert (len(kept), dropped) == (500, 3)
