r"""The points at which two expressions are compared.

All sign patterns of up to three variables occur, all-positive points more often where a text has a root, a power or a
logarithm; magnitudes run from 10^-90 to 10^130 and lie around the constants of the two texts, so that |x - 1000| is
told from 1000 - x; denominators are large random numbers, so that \sin(311 \pi x) is no zero. The draw depends on the
pair alone and a verdict repeats; its key comes from the gold text, which the author of the given text has not seen.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from fractions import Fraction

from verifiers.math.latex_math import NotExact, Tree, Undefined, exact_value, free_variables, operator_kinds

POINTS = 16
WHOLE_POINTS = 5  # with small whole numbers
ENOUGH = 5  # points at which two expressions with variables must have been compared
MAX_CONSTANTS = 24  # of the texts, around which points lie too
LARGEST = Fraction(10**1000)
FAR = (
    (9, 20),
    (20, 45),
    (45, 80),
    (80, 130),
    (-30, -5),
    (-90, -30),
)  # decimal exponents of points far out and near zero
SCALES = (Fraction(1), Fraction(1, 20), Fraction(30), Fraction(2_000), Fraction(3), Fraction(1, 3), Fraction(10**6))
Point = dict[str, Fraction]


def sample_points(gold: Tree, given: Tree, texts: tuple[str, str]) -> list[Point]:
    """Values for the variables of two trees; one empty point when there is none. The order is random.

    Args:
        gold, given: The expressions.
        texts: Their two texts, gold first; the seed, so that a verdict repeats.
    """
    names = sorted(free_variables(gold) | free_variables(given))
    if not names:
        return [{}]
    key = hashlib.blake2b(texts[0].encode("utf-8", "replace"), digest_size=32).digest()
    draw = random.Random(hashlib.blake2b("\0".join(texts).encode("utf-8", "replace"), key=key).digest())
    whole, natural = integer_variables(gold)
    patterns = list(itertools.product((1, -1), repeat=min(len(names), 3)))
    found: list[Point] = []
    for i in range(POINTS):
        pattern = patterns[i % len(patterns)]
        point: Point = {}
        for k, name in enumerate(names):
            sign = pattern[k] if k < len(pattern) else draw.choice((1, -1))
            scale = SCALES[(i // len(patterns) + (i if len(names) > 1 else 0) * (k + 1)) % len(SCALES)]
            point[name] = _value(draw, sign, scale, name in whole, name in natural)
        found.append(point)
    for i in range(WHOLE_POINTS):  # where floors jump, and at zero
        found.append(
            {name: Fraction((i + k) % WHOLE_POINTS - (0 if name in natural else 2)) for k, name in enumerate(names)}
        )
    if not {"root", "ln", "log", "logb", "pow"}.isdisjoint(operator_kinds(gold) | operator_kinds(given)):
        found += [
            {
                name: _value(draw, 1, SCALES[(i + i * k) % len(SCALES)], name in whole, name in natural)
                for k, name in enumerate(names)
            }
            for i in range(len(SCALES))
        ]
    for (low, high), sign in itertools.product(FAR, (1, -1)):
        scale = Fraction(10) ** draw.randint(low, high)
        found.append({name: _value(draw, sign, scale, name in whole, name in natural) for name in names})
    around = sorted(constant_sizes(gold) | constant_sizes(given))
    if len(around) > MAX_CONSTANTS:
        around = draw.sample(around, MAX_CONSTANTS)
    for constant in around:
        for name, sign in itertools.product(names[:3], (1, -1)):
            for part in (
                Fraction(draw.randint(2**28, 2**29), 2**30 + 1),
                Fraction(draw.randint(2**30, 2**31), 2**29 + 3),
            ):
                point = {
                    other: _value(draw, draw.choice((1, -1)), SCALES[0], other in whole, other in natural)
                    for other in names
                }
                value = sign * constant * (1 + part)
                point[name] = value if name not in whole else Fraction(int(value) if abs(value) < 10**4 else 7)
                if name in natural:
                    point[name] = abs(point[name])
                found.append(point)
    draw.shuffle(found)
    return found


def is_generic(at: Point) -> bool:
    """Whether no value is a whole number, so that only an expression with a hole has no value there."""
    return all(value.denominator > 1 for value in at.values())


def _value(draw: random.Random, sign: int, scale: Fraction, whole: bool, natural: bool) -> Fraction:
    if whole or natural:
        return Fraction(draw.randint(0, 25)) if natural else Fraction(sign * draw.randint(1, 40))
    bottom = draw.randint(2**29, 2**30) * 2 + 1
    return sign * scale * Fraction(draw.randint(bottom // 3, 2 * bottom), bottom)


def constant_sizes(tree: Tree) -> set[Fraction]:
    """The sizes of the numbers in a tree, powers and products of numbers included, from 3 to 10^1000."""
    found: set[Fraction] = set()

    def visit(part: Tree) -> None:
        if not free_variables(part):
            try:
                value = abs(exact_value(part, {}))
                if 3 <= value <= LARGEST:
                    found.add(value)
            except (NotExact, Undefined, ArithmeticError):
                pass
        for inner in part[1:]:
            if isinstance(inner, tuple):
                visit(inner)

    visit(tree)
    return found


def integer_variables(tree: Tree) -> tuple[set[str], set[str]]:
    r"""The variables of a gold expression that stand for whole numbers, and those of them that are not negative.

    Whole: in the exponent of a negative number; n, m, k in a floor, or times \pi in a sine or cosine or times
    i\pi in an exponent. Not negative: under a factorial or a binomial.
    """
    whole: set[str] = set()
    natural: set[str] = set()

    def visit(part: Tree) -> None:
        kind = part[0]
        if kind == "pow" and _is_negative(part[1]):
            whole.update(free_variables(part[2]))
        if kind in ("fact", "binom"):
            natural.update(free_variables(part))
        turned = kind in ("sin", "cos", "tan", "cot", "sec", "csc") or (
            kind == "pow" and "i" in operator_kinds(part[2])
        )
        if kind in ("floor", "ceil") or (turned and "pi" in operator_kinds(part)):
            whole.update(name for name in free_variables(part) if name in ("n", "m", "k"))
        for inner in part[1:]:
            if isinstance(inner, tuple):
                visit(inner)

    visit(tree)
    return whole, natural


def _is_negative(tree: Tree) -> bool:
    if free_variables(tree):
        return False
    try:
        return exact_value(tree, {}) < 0
    except (NotExact, Undefined):
        return False
