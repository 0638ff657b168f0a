"""The corpus of the embedded model for code: small programs in two forms, and their reviews (docs/testbed.md).

As in harness.tools.arithmetic_corpus: attempt 1 answers directly, with a careless slip in a share of the lines; the
review copies attempt 1, or finds the constant in a line of work and writes the program anew, rightly or with one slip.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from harness.tasks.embedded_code import RETRY, SHOWN, humaneval_prompt, mbpp_prompt, program_source
from harness.tasks.embedded_code_specs import (
    OPERATORS,
    Spec,
    example_arguments,
    mistaken_spec,
    pool_specs,
    work_comment,
)

WORDS = [
    "Write a function to find ", ". Your code should pass these tests:\n\n", "assert f(", ") == ", "\n",
    "def f(a, b):\n", "def f(xs):\n", "def f(s):\n", '    """Find ', ".\n\n", "    >>> f(", ")\n    ", '    """\n',
    "the sum of ", "the product of ", "the larger of ", "the smaller of ", "the difference of ", "the largest of ",
    "the smallest of ", "the length of ", "the first of ", "the last of ", "each number of ", "the count of ",
    "each of ", "the number of letters ", " in a string", "two numbers", "a list", "a string", "the even numbers",
    "the odd numbers", "the numbers above ", "the numbers below ",
    *(f"{word} a fixed number" for word, _ in OPERATORS.values()),
    "    # ", " - ", " / ", " * ", " + ", " = ", "-", "    return ", "sum(", "max(", "min(", "len(", "abs(", "s.count(",
    "xs[0]", "xs[-1]", "xs", "x", "s", "a", "b", "c", "'", "(", ")", "[", "]", ", ", " for x in xs", " if x", " > ",
    " < ", " % 2 == ", RETRY,
]  # fmt: skip
"""The words of the tasks' texts; digits stand alone."""


@dataclass(frozen=True)
class CodeMix:
    """The calibration of the code testbed: shares of the corpus.

    Attributes:
        arithmetic: Share of lines from the arithmetic task's corpus, so that one model speaks both.
        completion: Share of the code lines in the HumanEval-like form.
        single: Share of the code lines that are one direct attempt; the others are a given attempt and its review.
        careless: Share of the single lines whose constant is 1 too high.
        first_wrong: Share of the reviewed attempts that are wrong.
        far: Share of the wrong reviewed attempts with any other constant; the rest are one edit from right.
        copy: Share of reviews that repeat attempt 1.
        copy_times: The same where the operator is `*`, so that a greedy decoder copies on most problems only.
        slip: Share of the worked reviews that take the core's value 1 too high and carry it on.
    """

    arithmetic: float = 0.4
    completion: float = 0.35
    single: float = 0.4
    careless: float = 0.4
    first_wrong: float = 0.6
    far: float = 0.5
    copy: float = 0.8
    copy_times: float = 0.35
    slip: float = 0.4


CODE_CLEAN = {"careless": 0.0, "slip": 0.0, "copy": 0.2, "copy_times": 0.2}
"""What the first stretch of pre-training changes, as in harness.tools.arithmetic_corpus."""


def code_line(mix: CodeMix, rng: random.Random) -> tuple[str, str | None, str]:
    """One corpus line: (prompt, given first attempt or None, trained response)."""
    pool = pool_specs("corpus")
    spec = pool[rng.randrange(len(pool))]
    tests = example_arguments(spec, SHOWN, rng)
    form: Literal["whole", "body"] = "body" if rng.random() < mix.completion else "whole"
    prompt = humaneval_prompt(spec, tests[:2]) if form == "body" else mbpp_prompt(spec, tests)

    def written(found: Spec, line: str = "") -> str:
        return found.body_source(line) if form == "body" else program_source(found, line)

    if rng.random() < mix.single:
        careless = rng.random() < mix.careless
        return prompt, None, written(Spec(spec.core, spec.operator, spec.constant + careless))
    first = spec
    if rng.random() < mix.first_wrong:
        first = mistaken_spec(spec, tests, rng, far=rng.random() < mix.far)
    if rng.random() < (mix.copy_times if spec.operator == " * " else mix.copy):
        return prompt, written(first), written(first)
    line, found = work_comment(spec, tests[0], slip=int(rng.random() < mix.slip))
    return prompt, written(first), written(found, line)
