"""Evaluates expression trees with mpmath to many digits; runs in the math worker, where time and memory are bounded.

Not covered: branch choices beyond mpmath's principal values.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import mpmath  # part of sympy's install; imported by the worker alone

from verifiers.latex_math import NotExact, Tree, Undefined

DIGITS = (60, 110)  # two precisions: what shrinks with more digits is zero, what stays is a value
AGREE = 80  # leading digits two values share when they are equal


def value(tree: Tree, at: dict[str, Fraction], digits: int) -> Any:
    """The value at a point as an mpmath number, correct to nearly `digits` digits.

    Raises:
        Undefined: no finite value exists at this point.
        NotExact: an operator without a numeric meaning.
    """
    with mpmath.workdps(digits + 15):
        try:
            result = _value(tree, at)
        except (ZeroDivisionError, ValueError, OverflowError) as error:
            raise Undefined(str(error)) from error
        if not mpmath.isfinite(result):
            raise Undefined("infinite")
        return mpmath.mpmathify(result)


def same(a: Tree, b: Tree, at: dict[str, Fraction]) -> bool:
    """Whether two trees have the same value at a point, to `AGREE` digits, however small the values are."""
    low, high = DIGITS
    first, second = value(a, at, high), value(b, at, high)
    with mpmath.workdps(high + 15):
        gap, size = abs(first - second), max(abs(first), abs(second))
        if gap <= size * mpmath.mpf(10) ** -AGREE:
            return True
        if size > mpmath.mpf(10) ** -(low // 2):
            return False
    # Both tiny: a rounding remnant of zero changes with the precision, a true value does not.
    return _is_zero(a, at, first) and _is_zero(b, at, second)


def _is_zero(tree: Tree, at: dict[str, Fraction], precise: Any) -> bool:
    rough = value(tree, at, DIGITS[0])
    with mpmath.workdps(DIGITS[1]):
        return not precise or abs(rough - precise) > abs(precise) * mpmath.mpf(10) ** -10


def _value(tree: Tree, at: dict[str, Fraction]) -> Any:
    kind = tree[0]
    if kind in ("num", "var"):
        number = tree[1] if kind == "num" else at[tree[1]]
        return mpmath.mpf(number.numerator) / number.denominator
    constant = {"pi": mpmath.pi, "e": mpmath.e, "i": mpmath.mpc(0, 1), "inf": mpmath.inf}.get(kind)
    if constant is not None:
        return +constant
    args = [_value(part, at) for part in tree[1:]]
    if kind == "add":
        return mpmath.fsum(args)
    if kind == "mul":
        return mpmath.fprod(args)
    if kind == "root":
        return _root(args[0], args[1])
    if kind not in _OPERATORS:
        raise NotExact(kind)
    return _OPERATORS[kind](*args)


def _root(inside: Any, degree: Any) -> Any:
    if mpmath.im(inside) == 0 and mpmath.re(inside) < 0 and degree % 2 == 1:
        return -mpmath.power(-inside, 1 / degree)  # the real cube root, as school uses it
    return mpmath.sqrt(inside) if degree == 2 else mpmath.power(inside, 1 / degree)


def _factorial(n: Any) -> Any:
    if abs(n) > 10_000:
        raise Undefined("a factorial too large")
    return mpmath.factorial(n)


def _modest(a: Any) -> Any:
    """Keeps towers of powers and the reduction of huge angles out."""
    if abs(a) > 1_000_000:
        raise Undefined("an argument too large")
    return a


_OPERATORS: dict[str, Any] = {
    "neg": lambda a: -a,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: mpmath.power(a, _modest(b)),
    "abs": abs,
    "floor": lambda a: mpmath.floor(_modest(a)),
    "ceil": lambda a: mpmath.ceil(_modest(a)),
    "fact": _factorial,
    "binom": lambda a, b: mpmath.binomial(_modest(a), _modest(b)),
    "deg": lambda a: a * mpmath.pi / 180,
    "logb": lambda a, b: mpmath.log(a) / mpmath.log(b),
    "log": mpmath.log10,
    "ln": mpmath.log,
    "exp": lambda a: mpmath.exp(_modest(a)),
    "sin": lambda a: mpmath.sin(_modest(a)),
    "cos": lambda a: mpmath.cos(_modest(a)),
    "tan": lambda a: mpmath.tan(_modest(a)),
    "cot": lambda a: mpmath.cot(_modest(a)),
    "sec": lambda a: mpmath.sec(_modest(a)),
    "csc": lambda a: mpmath.csc(_modest(a)),
    "arcsin": mpmath.asin,
    "arccos": mpmath.acos,
    "arctan": mpmath.atan,
    "arccot": mpmath.acot,
    "sinh": lambda a: mpmath.sinh(_modest(a)),
    "cosh": lambda a: mpmath.cosh(_modest(a)),
    "tanh": lambda a: mpmath.tanh(_modest(a)),
    "coth": lambda a: mpmath.coth(_modest(a)),
}
