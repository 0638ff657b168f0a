"""The embedded code tasks: short Python functions with unit tests, in the forms of MBPP, HumanEval and MBPP-R.

The same small functions (harness.tasks.embedded_code_specs) asked for in three ways, so that the whole code path runs
offline: train on `embedded_code`, evaluate on `embedded_humaneval` and `embedded_repair`. The embedded model that
speaks them is `embedded:code`. See docs/testbed.md.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from harness.core import Message, Problem, Verifier
from harness.registry import register
from harness.tasks.embedded_code_specs import (
    SIZES,
    Arguments,
    Pool,
    Spec,
    call_source,
    example_arguments,
    mistaken_spec,
    pool_specs,
    work_comment,
)

RETRY = (
    "There might be an error in the code above because of lack of understanding of the question. "
    "Please correct the error, if any, and rewrite the solution. Only output the final correct Python program!"
)
SHOWN, HIDDEN = 3, 4  # tests in the prompt (two of them in a docstring); further ones of the HumanEval-like form

Form = Literal["mbpp", "humaneval", "repair"]


@register("task", "embedded_code")
@dataclass(frozen=True)
class EmbeddedCode:
    """Short functions from a line of text and the tests that grade them, as MBPP asks (embedded, no download).

    Attributes:
        verifier: Runs a program against its tests.
        test_size: Test problems used, from the first; at most 200.
        train_size: Training problems used, from the first; at most 350.
    """

    verifier: Verifier
    test_size: int = 200
    train_size: int = 350
    name: str = "embedded_code"
    version: str = "1"
    form: ClassVar[Form] = "mbpp"

    def __post_init__(self) -> None:
        for key, size in (("test", self.test_size), ("train", self.train_size)):
            if not 1 <= size <= SIZES[key]:
                raise ValueError(f"task.{self.name}.{key}_size must lie in 1..{SIZES[key]}, not {size}")

    @property
    def train(self) -> Sequence[Problem]:
        return _problems("train", self.form)[: self.train_size]

    @property
    def validation(self) -> Sequence[Problem]:
        return _problems("validation", self.form)

    @property
    def test(self) -> Sequence[Problem]:
        return _problems("test", self.form)[: self.test_size]

    def chat(self, problem: Problem, answers: Sequence[str]) -> list[Message]:
        messages = [{"role": "user", "content": problem.prompt}]
        for answer in answers:
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": RETRY}]
        return messages


@register("task", "embedded_humaneval")
@dataclass(frozen=True)
class EmbeddedHumanEval(EmbeddedCode):
    """The same functions from a signature and docstring to complete, with hidden tests, as HumanEval asks (embedded).

    Attributes: as `embedded_code`.
    """

    name: str = "embedded_humaneval"
    form: ClassVar[Form] = "humaneval"


@register("task", "embedded_repair")
@dataclass(frozen=True)
class EmbeddedRepair(EmbeddedCode):
    """`embedded_code` with a fixed wrong program, one edit from a right one, as attempt 1 (embedded).

    Attributes: as `embedded_code`.
    """

    name: str = "embedded_repair"
    form: ClassVar[Form] = "repair"


@functools.cache
def _problems(pool: Pool, form: Form) -> tuple[Problem, ...]:
    return tuple(build_problem(spec, form, random.Random(f"{spec.expression} of {pool}")) for spec in pool_specs(pool))


def build_problem(spec: Spec, form: Form, rng: random.Random) -> Problem:
    """A problem that asks for a spec.

    Args:
        spec: What the program computes.
        form: `mbpp`, `humaneval` or `repair`.
        rng: Draws the tests and, for a repair, the wrong program.
    """
    tests = example_arguments(spec, SHOWN, rng)
    if form == "humaneval":
        prompt, hidden = humaneval_prompt(spec, tests[:2]), example_arguments(spec, HIDDEN, rng)
        checks = "".join(f"    {line}\n" for line in assert_lines(spec, [*tests, *hidden], "candidate"))
        answer = json.dumps({"test": f"def check(candidate):\n{checks}", "entry_point": "f"})
        return Problem(spec.expression, prompt, answer, spec.body_source(work_comment(spec, tests[0])[0]))
    given = (program_source(mistaken_spec(spec, tests, rng)),) if form == "repair" else ()
    solution = program_source(spec, work_comment(spec, tests[0])[0])
    answer = json.dumps({"test_list": assert_lines(spec, tests)})
    return Problem(spec.expression, mbpp_prompt(spec, tests), answer, solution, given)


def mbpp_prompt(spec: Spec, tests: Sequence[Arguments]) -> str:
    """An MBPP-like prompt: what to write, then the tests."""
    return f"Write a function to find {spec.text}. Your code should pass these tests:\n\n" + "\n".join(
        assert_lines(spec, tests)
    )


def humaneval_prompt(spec: Spec, tests: Sequence[Arguments]) -> str:
    """A HumanEval-like prompt: signature and docstring with doctests."""
    shown = "".join(f"    >>> {call_source(x)}\n    {spec.return_value(x)!r}\n" for x in tests)
    return f'{spec.head}    """Find {spec.text}.\n\n{shown}    """\n'


def assert_lines(spec: Spec, tests: Sequence[Arguments], function: str = "f") -> list[str]:
    """One line of source for each test.

    Args:
        spec: Gives the right value.
        tests: Arguments of each call.
        function: The name that is called.
    """
    return [f"assert {call_source(x, function)} == {spec.return_value(x)!r}" for x in tests]


def program_source(spec: Spec, work: str = "") -> str:
    """The whole program, as attempts at the MBPP-like form write it."""
    return spec.head + spec.body_source(work)
