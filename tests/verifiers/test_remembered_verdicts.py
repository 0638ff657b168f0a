"""Equal responses to equal problems are run once, and what could come out otherwise next time is run again."""

from __future__ import annotations

import json

from harness.core import Problem
from verifiers.code_tests import LONGEST, CodeTests, Graded

ONE = Problem("one", "", json.dumps({"test_list": ["assert f() == 1"]}))
TWO = Problem("two", "", json.dumps({"test_list": ["assert f() == 2"]}))
RETURNS_1, RETURNS_2 = "def f(): return 1", "def f(): return 2"


class Counting(CodeTests):
    """Counts the programs that are really run."""

    ran = 0

    def judge_response(self, problem: Problem, text: str) -> Graded:
        self.ran += 1
        return super().judge_response(problem, text)


def test_equal_items_are_run_once_and_stay_apart_from_others() -> None:
    code = Counting(workers=1)
    items = [(ONE, RETURNS_1), (TWO, RETURNS_1), (ONE, RETURNS_1), (ONE, RETURNS_2), (ONE, "no program")]
    first = code.batch(items)
    assert [verdict.correct for verdict in first] == [True, False, True, False, False]
    assert first[4].status == "no_answer"
    assert code.ran == 4
    assert code.batch(items) == first == [CodeTests(remember=0)(*item) for item in items]
    assert code(ONE, RETURNS_2) == first[3]
    assert code.ran == 4
    assert code.judge_all([(ONE, RETURNS_1)])[0].verdict == first[0]
    assert code.ran == 5


def test_the_prompt_is_part_of_the_problem() -> None:
    answer = json.dumps({"test": "def check(c):\n    assert c() == 1", "entry_point": "f"})
    code, body = CodeTests(workers=1), "    return x"
    problems = [Problem("", f"x = {i}\ndef f():\n", answer) for i in (1, 2)]
    assert [code(problem, body).correct for problem in problems] == [True, False]


def test_timeouts_and_long_responses_are_run_again() -> None:
    code = Counting(time_limit=0.4, workers=1)
    endless = (ONE, "def f():\n    while True: pass")
    assert {code(*endless).status for _ in range(2)} == {"timeout"}
    assert code.ran == 2
    long = (ONE, RETURNS_1 + "\n" + "#" * LONGEST)
    assert all(code(*long).correct for _ in range(2))
    assert code.ran == 4


def test_the_oldest_unused_is_forgotten() -> None:
    code = Counting(workers=1, remember=2)
    a, b, c = (ONE, RETURNS_1), (ONE, RETURNS_2), (TWO, RETURNS_2)
    for item in (a, b, a, c, a, b):  # c drives b out, not a
        code(*item)
    assert code.ran == 4
