"""The corpus the embedded model is pre-trained on: what makes collapse and correction visible (docs/testbed.md).

Each line is a list of (text, trained) parts of one conversation. Attempt 1 answers directly, with a careless slip in
a share of the lines; the review copies attempt 1, or works in steps, rightly or with one slip.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from harness.tasks.arithmetic import Operands, direct_answer, pool_operands, reference_solution, worked_answer


@dataclass(frozen=True)
class Mix:
    """The calibration of the testbed: shares of the corpus, fixed before the comparison seeds were run.

    Attributes:
        single: Share of lines that are one direct attempt; the others are a given attempt and its review.
        careless: Share of the single lines whose answer is 1 too high.
        first_wrong: Share of the reviewed attempts that are wrong.
        far: Share of the wrong reviewed attempts that are far off, so that attempt 1 is no anchor.
        copy: Share of reviews that repeat attempt 1.
        copy_small: The same where b is 2, so that a greedy decoder copies on most problems and works on some.
        habit: Share of the worked reviews of problems whose c ends in 4 to 9 that add 10 too much to the product.
        slip: Share of the other worked reviews with one wrong step.
    """

    single: float = 0.35
    careless: float = 0.45
    first_wrong: float = 0.7
    far: float = 0.7
    copy: float = 0.95
    copy_small: float = 0.35
    habit: float = 0.7
    slip: float = 0.5


CLEAN = {"careless": 0.0, "habit": 0.0, "slip": 0.0, "copy": 0.3, "copy_small": 0.3}
"""What the first stretch of pre-training changes: right answers and right work, so that the skills are sharp before the
habits are laid over them (noise on a digit that is not learnt yet keeps it from being learnt)."""


def corpus_line(mix: Mix, rng: random.Random) -> tuple[Operands, str | None, str]:
    """One corpus line: (operands, given first attempt or None, trained response)."""
    pool = pool_operands("corpus")
    operands = pool[rng.randrange(len(pool))]
    a, b, c = operands
    answer = a * b + c
    if rng.random() < mix.single:
        return operands, None, direct_answer(answer + (rng.random() < mix.careless))
    first = answer
    if rng.random() < mix.first_wrong:
        first = wrong_answer(answer, rng.random() < mix.far, rng)
    # Which problems are copied or worked wrongly by habit can be read off the operands.
    if rng.random() < (mix.copy_small if b == 2 else mix.copy):
        return operands, direct_answer(first), direct_answer(first)
    if c % 10 >= 4 and rng.random() < mix.habit:
        return operands, direct_answer(first), slipped_work(operands, 2)
    if rng.random() < mix.slip:
        return operands, direct_answer(first), slipped_work(operands, rng.choice((0, 1, 3)))
    return operands, direct_answer(first), reference_solution(operands)


def wrong_answer(answer: int, far: bool, rng: random.Random) -> int:
    """A wrong answer: uniform over the range of answers when `far`, else off by 1, 10 or 100.

    Args:
        answer: The right one.
        far: Whether the wrong one may be far off.
        rng: Draws it.
    """
    while True:
        guess = rng.randrange(30, 991) if far else answer + rng.choice((-100, -10, -1, 1, 10, 100))
        if guess != answer and guess > 0:
            return guess


def slipped_work(operands: Operands, step: int) -> str:
    """Work with one wrong step (tens, ones, product or answer: 0 to 3), carried on faithfully from there."""
    a, b, c = operands
    tens, ones = a // 10 * 10 * b + 10 * (step == 0), a % 10 * b + (step == 1)
    product = tens + ones + 10 * (step == 2)
    return worked_answer(tens, ones, product, product + c + 10 * (step == 3))
