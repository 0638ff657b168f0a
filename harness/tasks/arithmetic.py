r"""The embedded task: `a \times b + c`, answered MATH-style in \boxed{}; needs no download and no data file.

The 64,800 problems (a and c of two digits, b of one) are shuffled once by a fixed seed and cut into four disjoint
pools: the corpus the embedded model was pre-trained on, train, validation and test. See docs/testbed.md.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.core import Message, Problem, Verifier
from harness.registry import register
from harness.seeds import slice_pools

SPLIT_SEED = 2409_12917
SIZES = {"test": 2_000, "validation": 1_000, "train": 20_000}  # the corpus has the rest
RETRY = "There might be an error in the solution above. Please correct the error, if any, and rewrite the solution."

Operands = tuple[int, int, int]


@functools.cache
def pool_operands(pool: Literal["corpus", "train", "validation", "test"]) -> tuple[Operands, ...]:
    """The operands (a, b, c) of one pool; the four pools partition the whole space."""
    space = [(a, b, c) for a in range(10, 100) for b in range(2, 10) for c in range(10, 100)]
    return slice_pools(space, SPLIT_SEED, SIZES, pool)


def problem_text(operands: Operands) -> str:
    """The problem as text."""
    a, b, c = operands
    return rf"Compute ${a} \times {b} + {c}$."


def direct_answer(answer: int) -> str:
    """An answer without work."""
    return rf"\boxed{{{answer}}}"


def worked_answer(tens: int, ones: int, product: int, answer: int) -> str:
    """An answer in steps: the two partial products, their sum, then the answer.

    Args:
        tens, ones: The partial products of a's tens and of its ones with b.
        product: Their sum, a times b.
        answer: The last line's number.
    """
    return rf"${tens} + {ones} = {product}$ \boxed{{{answer}}}"


def reference_solution(operands: Operands) -> str:
    """The reference solution."""
    a, b, c = operands
    return worked_answer(a // 10 * 10 * b, a % 10 * b, a * b, a * b + c)


@register("task", "arithmetic")
@dataclass(frozen=True)
class Arithmetic:
    r"""Two-digit times one-digit plus two-digit, final answer in \boxed{} (embedded, no download).

    Attributes:
        verifier: Grades a response.
        test_size: Test problems used, from the first; at most 2,000.
        train_size: Training problems used, from the first; at most 20,000.
    """

    verifier: Verifier
    test_size: int = 1_000
    train_size: int = 20_000
    name: str = "arithmetic"
    version: str = "1"

    def __post_init__(self) -> None:
        for key, size in (("test", self.test_size), ("train", self.train_size)):
            if not 1 <= size <= SIZES[key]:
                raise ValueError(f"task.arithmetic.{key}_size must lie in 1..{SIZES[key]}, not {size}")

    @property
    def train(self) -> Sequence[Problem]:
        return _problems("train")[: self.train_size]

    @property
    def validation(self) -> Sequence[Problem]:
        return _problems("validation")

    @property
    def test(self) -> Sequence[Problem]:
        return _problems("test")[: self.test_size]

    def chat(self, problem: Problem, answers: Sequence[str]) -> list[Message]:
        messages = [{"role": "user", "content": problem.prompt}]
        for answer in answers:
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": RETRY}]
        return messages


@functools.cache
def _problems(pool: Literal["train", "validation", "test"]) -> tuple[Problem, ...]:
    return tuple(
        Problem(f"{a}*{b}+{c}", problem_text((a, b, c)), str(a * b + c), reference_solution((a, b, c)))
        for a, b, c in pool_operands(pool)
    )
