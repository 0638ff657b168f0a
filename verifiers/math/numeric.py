"""Compares two expression trees at many points, where both are real; runs in the math worker.

Roots, logarithms and broken powers of variables follow the school's convention: they are compared where the values
are real. A gold expression with such operators may be answered by one of a smaller domain, and only in the variables
that it restricts itself; a gold expression without them must be met on both sides of zero.
"""

from __future__ import annotations

from typing import Any

import mpmath  # part of sympy's install; imported by the worker alone

from verifiers.math import high_precision, latex_math, sampling
from verifiers.math.high_precision import NotReal, OutOfReach
from verifiers.math.latex_math import CannotTell, NotExact, Tree, Undefined

FARTHEST = 300  # decimal exponent of any intermediate value at a point; the point is left out beyond it
FAR = 10**8  # a given value may be out of reach beyond it, where a factorial or a power is too large
DIGITS = 160  # of the values whose ratio must be constant


def values_equal(gold: Tree, given: Tree, texts: tuple[str, str]) -> bool:
    """Whether two trees have the same value wherever they are compared.

    Args:
        gold, given: The expressions.
        texts: Their two texts, gold first; they are the seed of the points.

    Raises:
        CannotTell: too few points at which both have a value within reach.
    """
    operators = latex_math.operator_kinds(gold) | latex_math.operator_kinds(given)
    school = "i" not in operators
    points = sampling.sample_points(gold, given, texts)
    if not points[0]:
        return _constants(gold, given, school)
    real = school and any(_is_real(gold, at) for at in points)
    restricted = _restricted(gold) if real else set()
    positive = _positive(gold, points, restricted)
    compared = missing = unreachable = 0
    for at in points:
        if any(at[name] < 0 for name in positive):
            continue
        verdict = _at(gold, given, at, real, restricted)
        if verdict is False:
            return False
        if verdict == "missing" and sampling.is_generic(at):
            return False  # a hole in the given expression where the gold one has none
        compared += verdict is True
        missing += verdict == "missing"
        unreachable += verdict == "unreachable" and max(map(abs, at.values())) < FAR
    if compared >= sampling.ENOUGH and 3 * unreachable <= compared:
        return True
    if missing > compared and not unreachable:
        return False  # the given expression has hardly a value where the gold one has
    raise CannotTell("too few points at which both answers have a value within reach")


def _constants(gold: Tree, given: Tree, school: bool) -> bool:
    try:
        return _same(gold, given, {}, real=False, school=school)
    except OutOfReach as error:
        raise CannotTell(str(error)) from None
    except Undefined:
        raise CannotTell("an undefined value") from None


def _at(gold: Tree, given: Tree, at: sampling.Point, real: bool, restricted: set[str]) -> bool | str | None:
    """The verdict at one point; "missing" or "unreachable": only the given value is; None: the gold one is."""
    try:
        return _same(gold, given, at, real=real)
    except Undefined:
        pass
    try:
        if high_precision.evaluate_tree(gold, at, 30, real)[1] > FARTHEST:
            return None
    except Undefined:
        return None
    try:
        if high_precision.evaluate_tree(given, at, 30, real)[1] > FARTHEST:
            return "unreachable"
    except NotReal:
        if any(at[name] < 0 for name in restricted):
            return None
        try:  # the gold value is real where the given one is not: only a complex detour back to it is excused
            return _same(gold, given, at, real=False, school=False)
        except Undefined:
            return "missing"
    except OutOfReach:
        return "unreachable"
    except Undefined:
        return "missing"
    return None


def _same(gold: Tree, given: Tree, at: sampling.Point, real: bool, school: bool = True) -> bool:
    try:
        return latex_math.exact_value(gold, at) == latex_math.exact_value(given, at)
    except NotExact:
        return high_precision.same_value(gold, given, at, real, school, FARTHEST if at else high_precision.FARTHEST)


def _is_real(tree: Tree, at: sampling.Point) -> bool:
    try:
        high_precision.evaluate_tree(tree, at, 30, real=True)
    except (OutOfReach, NotExact):
        return True
    except Undefined:
        return False
    return True


def _restricted(tree: Tree) -> set[str]:
    """The variables under an even root, a logarithm or a power that is not a whole number."""
    found: set[str] = set()

    def visit(part: Tree) -> None:
        kind = part[0]
        if kind in ("ln", "log", "logb") or (kind == "root" and part[2][0] == "num" and part[2][1] % 2 == 0):
            found.update(latex_math.free_variables(part))
        if kind == "pow" and not (part[2][0] == "num" and part[2][1].denominator == 1):
            try:
                broken = (
                    latex_math.exact_value(part[2], {}).denominator > 1
                    if not latex_math.free_variables(part[2])
                    else True
                )
            except (NotExact, Undefined):
                broken = True
            if broken:
                found.update(latex_math.free_variables(part[1]))
        for inner in part[1:]:
            if isinstance(inner, tuple):
                visit(inner)

    visit(tree)
    return found


def _positive(gold: Tree, points: list[sampling.Point], names: set[str]) -> set[str]:
    """The variables that the gold expression takes for positive: turning the sign of one leaves the real numbers."""
    plain = [at for at in points if all(value > 0 for value in at.values()) and _is_real(gold, at)]
    return {name for name in names if any(not _is_real(gold, at | {name: -at[name]}) for at in plain[:8])}


def is_proportional(gold: Tree, given: Tree, texts: tuple[str, str], signed: bool) -> bool:
    """Whether one tree is a constant multiple (a positive one, when `signed`) of the other.

    Args:
        gold, given: The expressions.
        texts: Their two texts, gold first; they are the seed of the points.
        signed: Whether the factor must be positive.

    Raises:
        CannotTell: too few points at which both have a value within reach.
    """
    ratio: Any = None
    compared = unreachable = 0
    school = "i" not in latex_math.operator_kinds(gold) | latex_math.operator_kinds(given)
    points = sampling.sample_points(gold, given, texts)
    for at in points:
        try:
            x, far = high_precision.evaluate_tree(gold, at, DIGITS, real=False, school=school)
        except Undefined:
            continue
        try:
            y, far_too = high_precision.evaluate_tree(given, at, DIGITS, real=False, school=school)
        except OutOfReach:
            unreachable += max(map(abs, at.values()), default=0) < FAR
            continue
        except Undefined:
            if sampling.is_generic(at):
                return False
            continue
        if max(far, far_too) > 30:
            unreachable += far <= 30 and max(map(abs, at.values()), default=0) < FAR
            continue  # rounding could hide a difference
        with mpmath.workdps(DIGITS):
            tiny = mpmath.mpf(10) ** -40
            if abs(x) < tiny or abs(y) < tiny:
                if abs(x) < tiny and abs(y) < tiny and points[0]:
                    continue
                return bool(abs(x) < tiny and abs(y) < tiny)
            if signed and (getattr(x / y, "imag", 0) or (x / y).real <= 0):
                return False
            if ratio is not None and abs(x / y - ratio) > abs(ratio) * tiny:
                return False
            ratio = x / y
        compared += 1
    if compared < (sampling.ENOUGH if points[0] else 1) or 3 * unreachable > compared:
        raise CannotTell("too few points at which both sides have a value within reach")
    return True
