"""What code tasks say: the paper's prompts verbatim (arXiv 2409.12917v2, appendix C), and ours where it prints none.

The three solved examples are tasks 2, 3 and 4 of MBPP (Austin et al. 2021, arXiv 2108.07732; CC-BY-4.0). The paper's
print of task 3 breaks off after `if n %`; the data set's line is used here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Shown = Literal["shown", "one", "hidden"]

RETRY = (
    "# There might be an error in the code above because of lack of understanding of the question. Please correct the "
    "error, if any, and rewrite the solution. Only output the final correct Python program!"
)
COMPLETE = "Complete the following Python function. Only output the whole Python program.\n\n```python\n{prompt}\n```"


@dataclass(frozen=True)
class Shot:
    """A problem of MBPP with its tests and, as a solved example, its program."""

    text: str
    tests: tuple[str, ...]
    code: str


SHOTS = (
    Shot(
        "Write a function to find the similar elements from the given two tuple lists.",
        (
            "assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)",
            "assert similar_elements((1, 2, 3, 4),(5, 4, 3, 7)) == (3, 4)",
            "assert similar_elements((11, 12, 14, 13),(17, 15, 14, 13)) == (13, 14)",
        ),
        "def similar_elements(test_tup1, test_tup2):\n  res = tuple(set(test_tup1) & set(test_tup2))\n  return (res)",
    ),
    Shot(
        "Write a python function to identify non-prime numbers.",
        (
            "assert is_not_prime(2) == False",
            "assert is_not_prime(10) == True",
            "assert is_not_prime(35) == True",
        ),
        "import math\ndef is_not_prime(n):\n    result = False\n    for i in range(2,int(math.sqrt(n)) + 1):\n"
        "        if n % i == 0:\n            result = True\n    return result",
    ),
    Shot(
        "Write a function to find the largest integers from a given list of numbers using heap queue algorithm.",
        (
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],3)==[85, 75, 65]",
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],2)==[85, 75]",
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],5)==[85, 75, 65, 58, 35]",
        ),
        "import heapq as hq\ndef heap_queue_largest(nums,n):\n  largest_nums = hq.nlargest(n, nums)\n"
        "  return largest_nums",
    ),
)


def mbpp_prompt(problem: Shot, shots: int, tests: Shown) -> str:
    """MBPP's prompt.

    Args:
        problem: The problem to ask; its code gives the function's head where the tests do not show its name.
        shots: Solved examples before it, at most 3. With any, the prompt ends in [BEGIN] and the answer in [DONE].
        tests: `shown` (all of them, as in the paper), `one` (the first; the rest grade only) or `hidden`.
    """
    solved = "".join(f"{_ask(shot, tests)}[BEGIN]\n{shot.code}\n[DONE]\n\n" for shot in SHOTS[:shots])
    return f"{solved}{_ask(problem, tests)}" + ("[BEGIN]\n" if shots else "")


def answer_text(code: str, shots: int) -> str:
    """A program as the answer that the prompt asks for."""
    return f"{code}\n[DONE]" if shots else code


def _ask(problem: Shot, tests: Shown) -> str:
    task = f"You are an expert Python programmer, and here is your task: {problem.text}"
    if tests == "hidden":  # ours: without a test, nothing else tells how the function is called
        return f"{task} Your code should define this function:\n\n{function_heads(problem.code, problem.tests)}\n"
    given: Sequence[str] = problem.tests[:1] if tests == "one" else problem.tests
    return f"{task} Your code should pass these tests:\n\n" + "\n".join(given) + "\n"


def function_heads(code: str, tests: Sequence[str]) -> str:
    """The heads of the functions and classes of `code` that the tests name, without their bodies."""
    named = set(re.findall(r"\w+", "\n".join(tests)))
    found = re.finditer(r"^(?:def|class) (\w+).*$", code, re.MULTILINE)
    return "\n".join(match[0].rstrip() for match in found if match[1] in named)
