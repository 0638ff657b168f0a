"""The corpus the embedded model is pre-trained on: what makes collapse and correction visible (docs/testbed.md).

Each line is a list of (text, trained) parts of one conversation. Attempt 1 answers directly, with a careless slip in
a share of the lines; the review copies attempt 1, or works in steps, rightly or with one slip.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from harness.tasks.arithmetic import Operands, direct, solve, split, worked


@dataclass(frozen=True)
class Mix:
    """The calibration of the testbed; every share was fixed before the comparison seeds were run.

    Attributes:
        single: Share of lines that are one direct attempt; the others are a given attempt and its review.
        careless: Share of the single lines whose answer is 10 too high.
        first_wrong: Share of the reviewed attempts that are wrong.
        far: Share of the wrong reviewed attempts that are far off, so that attempt 1 is no anchor.
        copy: Mean share of reviews that repeat attempt 1; it varies with the problem by +-`copy_spread`, so that a
            greedy decoder copies on some problems and works on others.
        slip: Mean share of the worked reviews with one wrong step, varying with the problem by +-`slip_spread`.
    """

    single: float = 0.4
    careless: float = 0.45
    first_wrong: float = 0.5
    far: float = 0.5
    copy: float = 0.5
    copy_spread: float = 0.2
    slip: float = 0.45
    slip_spread: float = 0.35


def line(mix: Mix, rng: random.Random) -> tuple[Operands, str | None, str]:
    """One corpus line: (operands, given first attempt or None, trained response)."""
    pool = split("corpus")
    operands = pool[rng.randrange(len(pool))]
    a, b, c = operands
    answer = a * b + c
    if rng.random() < mix.single:
        return operands, None, direct(answer + 10 if rng.random() < mix.careless else answer)
    first = answer
    if rng.random() < mix.first_wrong:
        first = wrong(answer, rng.random() < mix.far, rng)
    # Which problems are copied or slipped on is a fixed property of the operands that the model can read off.
    copy = mix.copy + mix.copy_spread * (1 if b % 2 else -1)
    slip = mix.slip + mix.slip_spread * (1 if c % 2 else -1)
    if rng.random() < copy:
        return operands, direct(first), direct(first)
    if rng.random() >= slip:
        return operands, direct(first), solve(operands)
    return operands, direct(first), slipped(operands, rng)


def wrong(answer: int, far: bool, rng: random.Random) -> int:
    """A wrong answer: uniform over the range of answers when `far`, else off by 1, 10 or 100."""
    while True:
        guess = rng.randrange(30, 991) if far else answer + rng.choice((-100, -10, -1, 1, 10, 100))
        if guess != answer and guess > 0:
            return guess


def slipped(operands: Operands, rng: random.Random) -> str:
    """Work with one wrong step, carried on faithfully from there."""
    a, b, c = operands
    tens, ones = a // 10 * 10 * b, a % 10 * b
    step = 2 if rng.random() < 0.7 else rng.randrange(4)  # mostly one habit, so that a greedy decoder slips too
    tens += 10 * (step == 0)
    ones += step == 1
    product = tens + ones + 10 * (step == 2)
    return worked(tens, ones, product, product + c + 10 * (step == 3))
