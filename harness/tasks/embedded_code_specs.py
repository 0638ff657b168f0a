"""The space of small functions that the embedded code tasks ask for: what each is called, does, and is mistaken for.

A *spec* is a core, an operator and a constant, such as `sum(xs) + 7`. The text names core and operator; the constant
("a fixed number") is found from the tests alone, so a program needs a look at the tests and some arithmetic. All specs
are shuffled once by a fixed seed and cut into disjoint pools. See docs/testbed.md.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from harness.seeds import slice_pools

SPLIT_SEED = 2409_12917
SIZES = {"test": 200, "validation": 50, "train": 350}  # the corpus has the rest
THRESHOLDS = (3, 4)
NUMBERS = range(1, 7)  # what calls hand over
OPERATORS = {" + ": (" plus", range(1, 13)), " - ": (" minus", range(1, 10)), " * ": (" times", range(2, 7))}
"""{operator: (its word, the constants it comes with)}."""

Pool = Literal["corpus", "train", "validation", "test"]
Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Core:
    """What a function computes before the constant comes in.

    Attributes:
        text: Its name in a problem.
        code: Its Python, with `{}` where operator and constant go.
        takes: The function's parameters.
        loose: Whether it wants parentheses before a `*`.
    """

    text: str
    code: str
    takes: Literal["a, b", "xs", "s"]
    loose: bool = False

    @property
    def each(self) -> bool:
        """Whether the constant meets every element of a list, and not one number."""
        return self.code.startswith("[")


def _cores() -> tuple[Core, ...]:
    found = [
        Core("the sum of two numbers", "a + b{}", "a, b", loose=True),
        Core("the product of two numbers", "a * b{}", "a, b"),
        Core("the larger of two numbers", "max(a, b){}", "a, b"),
        Core("the smaller of two numbers", "min(a, b){}", "a, b"),
        Core("the difference of two numbers", "abs(a - b){}", "a, b"),
        Core("the sum of a list", "sum(xs){}", "xs"),
        Core("the largest of a list", "max(xs){}", "xs"),
        Core("the smallest of a list", "min(xs){}", "xs"),
        Core("the length of a list", "len(xs){}", "xs"),
        Core("the first of a list", "xs[0]{}", "xs"),
        Core("the last of a list", "xs[-1]{}", "xs"),
        Core("each number of a list", "[x{} for x in xs]", "xs"),
        Core("the length of a string", "len(s){}", "s"),
        *(Core(f"the number of letters {letter} in a string", f"s.count('{letter}'){{}}", "s") for letter in "abc"),
    ]
    tests = [(f"{word} numbers", f"x % 2 == {rest}") for word, rest in (("even", 0), ("odd", 1))]
    tests += [(f"numbers above {n}", f"x > {n}") for n in THRESHOLDS]
    tests += [(f"numbers below {n}", f"x < {n}") for n in THRESHOLDS]
    for text, test in tests:
        found += [
            Core(f"the sum of the {text}", f"sum([x for x in xs if {test}]){{}}", "xs"),
            Core(f"the count of the {text}", f"len([x for x in xs if {test}]){{}}", "xs"),
            Core(f"each of the {text}", f"[x{{}} for x in xs if {test}]", "xs"),
        ]
    return tuple(found)


CORES = _cores()


@dataclass(frozen=True)
class Spec:
    """One function `f`: core, operator, constant."""

    core: Core
    operator: str
    constant: int

    @property
    def expression(self) -> str:
        """What the function returns, as Python writes it; names the spec."""
        code = self.core.code
        if self.core.loose and self.operator == " * ":
            code = "(" + code.replace("{}", "){}")
        return code.format(f"{self.operator}{self.constant}")

    @property
    def text(self) -> str:
        """What is asked for, without the constant."""
        return f"{self.core.text}{OPERATORS[self.operator][0]} a fixed number"

    @property
    def head(self) -> str:
        """The program's first line."""
        return f"def f({self.core.takes}):\n"

    def return_value(self, arguments: Arguments) -> Any:
        """What the function returns."""
        return _function(self.core.takes, self.expression)(*arguments)

    def core_value(self, arguments: Arguments) -> Any:
        """The core's value, without operator and constant."""
        return _function(self.core.takes, self.core.code.format(""))(*arguments)

    def body_source(self, work: str = "") -> str:
        """The program's body, with a line of work before it where there is one."""
        return f"{work}    return {self.expression}"


@functools.cache
def _function(parameters: str, expression: str) -> Callable[..., Any]:
    # The grammar above writes both texts: nothing a model wrote comes here.
    return eval(f"lambda {parameters}: {expression}")


@functools.cache
def pool_specs(pool: Pool) -> tuple[Spec, ...]:
    """The specs of one pool; the four pools partition the whole space."""
    space = [Spec(core, op, k) for core in CORES for op, (_, constants) in OPERATORS.items() for k in constants]
    return slice_pools(space, SPLIT_SEED, SIZES, pool)


def example_arguments(spec: Spec, count: int, rng: random.Random) -> list[Arguments]:
    """Arguments of `count` different calls; on the first the core is neither 0 nor empty: it tells the constant.

    Args:
        spec: Its core sets the kinds of arguments.
        count: How many calls.
        rng: Draws the arguments.
    """
    found: list[Arguments] = []
    while len(found) < count:
        arguments = _arguments(spec.core.takes, rng)
        if arguments not in found and (found or spec.core_value(arguments)):
            found.append(arguments)
    return found


def _arguments(takes: str, rng: random.Random) -> Arguments:
    if takes == "a, b":
        return rng.choice(NUMBERS), rng.choice(NUMBERS)
    if takes == "s":
        return ("".join(rng.choice("abc") for _ in range(rng.randint(1, 5))),)
    return ([rng.choice(NUMBERS) for _ in range(rng.randint(2, 3))],)


def call_source(arguments: Arguments, function: str = "f") -> str:
    """The call as source."""
    return f"{function}({', '.join(map(repr, arguments))})"


def work_comment(spec: Spec, first: Arguments, slip: int = 0) -> tuple[str, Spec]:
    """A comment that finds the constant from the first test, and the spec it leads to.

    Args:
        spec: The spec asked for.
        first: Arguments of the first test.
        slip: Added to the core's value by mistake.
    """
    before, value = spec.core_value(first), spec.return_value(first)
    if spec.core.each:
        before, value = before[0], value[0]
    before += slip
    if spec.operator == " + ":
        line, constant = f"{value} - {before}", value - before
    elif spec.operator == " - ":
        line, constant = f"{before} - {value}", before - value
    else:
        line, constant = f"{value} / {before}", value // before if before else 0
    return f"    # {line} = {constant}\n", Spec(spec.core, spec.operator, constant)


def mistaken_spec(spec: Spec, tests: list[Arguments], rng: random.Random, far: bool = False) -> Spec:
    """A spec one edit away that fails at least one of the tests.

    Args:
        spec: The right one.
        tests: Arguments of the tests.
        rng: Chooses among constant, operator and core.
        far: Change the constant alone, to any of the operator's: nothing of it can be read off the mistake.
    """
    constants = list(OPERATORS[spec.operator][1])
    kinds = ["constant", "operator", *(["core"] if sibling_cores(spec.core) else [])]
    while True:
        kind = "constant" if far else rng.choice(kinds)
        if kind == "constant":
            constant = rng.choice(constants) if far else spec.constant + rng.choice((-1, 1))
            other = Spec(spec.core, spec.operator, constant)
        elif kind == "operator":
            other = Spec(spec.core, rng.choice(list(OPERATORS)), spec.constant)
        else:
            other = Spec(rng.choice(sibling_cores(spec.core)), spec.operator, spec.constant)
        if other.constant >= 0 and any(other.return_value(x) != spec.return_value(x) for x in tests):
            return other


@functools.cache
def sibling_cores(core: Core) -> tuple[Core, ...]:
    """The cores one could take for this one: the same parameters, and one word or one number between them."""

    def words(text: str) -> list[str]:
        return text.replace("(", " ( ").replace("[", " [ ").replace(")", " ) ").split()

    def near(other: Core) -> bool:
        a, b = words(core.code), words(other.code)
        return len(a) == len(b) and sum(x != y for x, y in zip(a, b, strict=True)) == 1

    return tuple(other for other in CORES if other.takes == core.takes and near(other))
