"""The paper's prompts (arXiv 2409.12917v2, appendix C), word for word."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_data import real

from harness.core import Problem, Verdict
from harness.tasks.code_prompts import SHOTS, Shot, function_heads, mbpp_prompt
from harness.tasks.humaneval import HumanEval
from harness.tasks.math import Math
from harness.tasks.mbpp import MBPP


def nobody(problem: Problem, text: str) -> Verdict:
    return Verdict(0.0, False)


MATH = (
    "You are a math expert. When you respond, respond only with the Solution of the final Problem, thinking step by "
    "step. At the end of the Solution, when you give your final answer, write it in the form "
    '"Final Answer: The final answer is $answer$. I hope it is correct."'
)
MATH_RETRY = (
    "There might be an error in the solution above because of lack of understanding of the question. Please correct "
    "the error, if any, and rewrite the solution. Only output the final solution! At the end of the Solution, when you "
    'give your final answer, write it in the form "Final Answer: The final answer is $answer$. I hope it is correct."'
)
CODE_RETRY = (
    "# There might be an error in the code above because of lack of understanding of the question. Please correct the "
    "error, if any, and rewrite the solution. Only output the final correct Python program!"
)
THREE_SHOT = (Path(__file__).parent / "mbpp_3shot.txt").read_text(encoding="utf-8")
ADD = Problem(
    "mbpp/0", "Write a function to add two numbers.", "{}",
    meta={"tests": ("assert add(1, 2) == 3", "assert add(0, 0) == 0"), "code": "def add(a, b):\n    return a + b"},
)  # fmt: skip


def test_math():
    problem = Problem("1", "What is $1 + 1$?", "2")
    asked = [{"role": "user", "content": f"{MATH}\n\nProblem: What is $1 + 1$?"}]
    assert Math(nobody).chat(problem, []) == asked
    answered = [{"role": "assistant", "content": "3"}, {"role": "user", "content": MATH_RETRY}]
    assert Math(nobody).chat(problem, ["3"]) == [*asked, *answered]
    assert Math(nobody).chat(problem, ["3", "3"]) == [*asked, *answered, *answered]
    boxed = Math(nobody, answer_form="boxed").chat(problem, ["3"])
    assert boxed[0]["content"].endswith("write your final answer in \\boxed{}.\n\nProblem: What is $1 + 1$?")
    assert boxed[2]["content"].endswith("Only output the final solution! At the end of the Solution, write your final "
                                        "answer in \\boxed{}.")  # fmt: skip


def test_mbpp_three_shots():
    asked, said, retry = MBPP(nobody).chat(ADD, ["x"])
    assert asked == {"role": "user", "content": THREE_SHOT}
    assert (said, retry["content"]) == ({"role": "assistant", "content": "x"}, CODE_RETRY)


def test_mbpp_shows_all_tests_one_or_none():
    begin = "You are an expert Python programmer, and here is your task: Write a function to add two numbers. "
    shown = MBPP(nobody, shots=0).chat(ADD, [])[0]["content"]
    one = MBPP(nobody, shots=0, tests="one").chat(ADD, [])[0]["content"]
    hidden = MBPP(nobody, shots=0, tests="hidden").chat(ADD, [])[0]["content"]
    assert shown == begin + "Your code should pass these tests:\n\nassert add(1, 2) == 3\nassert add(0, 0) == 0\n"
    assert one == begin + "Your code should pass these tests:\n\nassert add(1, 2) == 3\n"
    assert hidden == begin + "Your code should define this function:\n\ndef add(a, b):\n"
    assert "assert" not in MBPP(nobody, tests="hidden").chat(ADD, [])[0]["content"]


def test_hidden_tests_show_the_heads_of_what_they_call_and_no_more():
    code = "class Pair(object): \n    x = 1\ndef helper(a):\n    return a\ndef longest(pairs, n): \n    return n"
    assert (
        function_heads(code, ["assert longest([Pair(5, 24)], 4) == 3"]) == "class Pair(object):\ndef longest(pairs, n):"
    )


def test_humaneval_asks_or_continues():
    problem = Problem("HumanEval/0", 'def one():\n    """Returns 1."""\n', "{}")
    bare = HumanEval(nobody, style="bare").chat(problem, ["    return 2"])
    assert [message["content"] for message in bare] == [problem.prompt, "    return 2", CODE_RETRY]
    assert HumanEval(nobody).chat(problem, [])[0]["content"] == (
        "Complete the following Python function. Only output the whole Python program.\n\n"
        '```python\ndef one():\n    """Returns 1."""\n```'
    )


def test_settings_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match=r"task\.mbpp\.shots must lie in 0\.\.3"):
        MBPP(nobody, shots=4)
    with pytest.raises(ValueError, match=r"task\.mbpp\.tests must be shown, one or hidden"):
        MBPP(nobody, tests="some")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"task\.humaneval\.style"):
        HumanEval(nobody, style="chat")  # type: ignore[arg-type]


@pytest.mark.data
def test_the_solved_examples_are_tasks_2_3_and_4():
    task = MBPP(nobody, data=real("mbpp.jsonl"))
    found = [p for p in task.part_problems("prompt") if p.meta["task_id"] in (2, 3, 4)]
    assert [Shot(p.prompt, p.meta["tests"], p.meta["code"]) for p in found] == list(SHOTS)
    assert task.chat(found[0], [])[0]["content"] == mbpp_prompt(SHOTS[0], 3, "shown")
