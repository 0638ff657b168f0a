"""The gold answer and the verifier's reason in eval.jsonl: in greedy lines alone, and nothing else moves."""

from __future__ import annotations

import pytest

from harness.core import Problem, Trajectory, Turn, Verdict, Verifier
from harness.grading import GradingError, grade_responses
from harness.runs import schema as records
from harness.training.evaluate import trajectory_to_record
from verifiers.code_tests import CodeTests, answer_of
from verifiers.exact import Exact
from verifiers.math_answer import MathAnswer

OLD_KEYS = ["when", "task", "id", "sample", "temperature", "prompt", "attempts"]
OLD_ATTEMPT = ["text", "answer", "reward", "correct", "status", "tokens", "truncated", "by"]


def written(verifier: Verifier, answer: str, *texts: str, temperature: float = 0.0) -> dict:
    problem = Problem("p", "What is it?", answer)
    turns = [Turn((1,), (2,), text, verifier(problem, text), index=i) for i, text in enumerate(texts)]
    return trajectory_to_record(Trajectory(problem, tuple(turns)), "after", "task", 0, temperature)


def test_a_wrong_number_says_what_compared_it_and_the_gold_answer_stands_beside() -> None:
    found = written(MathAnswer(), r"\frac{1}{2}", r"\boxed{0.4}", r"\boxed{0.5}")
    assert found["gold"] == r"\frac{1}{2}"
    assert [attempt["reason"] for attempt in found["attempts"]] == ["compared as fractions"] * 2
    assert records.record_fault(found) == ""


def test_a_wrong_program_says_which_test_failed() -> None:
    tests = answer_of({"test_list": ["assert double(2) == 4", "assert double(3) == 6"]})
    programs = [
        "def double(x):\n    return x + 2",
        "def double(x):\n    return object()",
        "def double(x):\n    return 2 * x",
    ]
    found = written(CodeTests(workers=1, unsafe_exec=True), tests, *(f"```python\n{text}\n```" for text in programs))
    wrong, nonsense, right = found["attempts"]
    assert wrong["reason"] == "AssertionError in assert double(3) == 6: "
    assert "0x7" not in nonsense["reason"]
    assert "reason" not in right
    assert found["gold"] == tests


def test_without_the_two_keys_a_line_is_what_it_was() -> None:
    found = written(Exact(), "4", "no box", r"\boxed{4}")
    assert list(found) == [*OLD_KEYS[:6], "gold", "attempts"]
    assert [list(attempt) for attempt in found["attempts"]] == [OLD_ATTEMPT] * 2


def test_a_pool_repeats_neither() -> None:
    found = written(MathAnswer(), "4", r"\boxed{5}", r"\boxed{3}", temperature=0.7)
    assert list(found) == [key for key in OLD_KEYS if key != "prompt"]
    assert [list(attempt) for attempt in found["attempts"]] == [OLD_ATTEMPT] * 2


def test_a_long_gold_answer_is_left_out_and_a_long_reason_is_cut() -> None:
    def rambles(problem: Problem, text: str) -> Verdict:
        return Verdict(0.0, False, reason="long " * 10_000)

    found = written(rambles, "x" * 10_001, "one", "two")
    assert "gold" not in found
    assert {len(attempt["reason"]) for attempt in found["attempts"]} == {10_000}


def test_verdicts_are_equal_whatever_their_reasons() -> None:
    assert Verdict(1.0, True, reason="one") == Verdict(1.0, True, reason="another")


def test_a_reason_that_is_no_text_is_no_verdict() -> None:
    with pytest.raises(GradingError, match="its reason None is no text"):
        grade_responses(lambda problem, text: Verdict(0.0, False, reason=None), [(Problem("p", "", ""), "x")])  # pyright: ignore


def test_half_a_character_in_gold_and_reason_is_spelt_out_by_readers() -> None:
    (row,) = (
        value
        for _, value, _ in records.parse_lines(
            rb'{"gold": "a\ud800", "attempts": [{"reason": "b\udfff", "text": "c"}]}' + b"\n"
        )
    )
    assert (row["gold"], row["attempts"][0]["reason"]) == ("a\\ud800", "b\\udfff")
