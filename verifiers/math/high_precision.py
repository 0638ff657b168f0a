"""Evaluates expression trees with mpmath to many digits; runs in the math worker, where time and memory are bounded.

Not covered: branch choices beyond mpmath's principal values.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import mpmath  # part of sympy's install; imported by the worker alone

from verifiers.math.latex_math import NotExact, Tree, Undefined, exact_value

START = 60  # digits of the first look
MARGIN = 40  # digits that stay when everything that may cancel has cancelled
FARTHEST = 8_000  # decimal exponent of any intermediate value; beyond it nothing is decided


class OutOfReach(Undefined):
    """The value exists, but is too large or too small to compare."""


class NotReal(Undefined):
    """In real arithmetic: an even root or a logarithm of a negative number."""


def evaluate_tree(
    tree: Tree, at: dict[str, Fraction], digits: int, real: bool = False, school: bool = True
) -> tuple[Any, int]:
    """The value at a point, and the largest decimal exponent (either sign) of any intermediate value.

    Args:
        tree: The expression.
        at: A value for each variable.
        digits: Decimal digits of the arithmetic.
        real: Only real numbers count; otherwise roots, powers and logarithms take principal values.
        school: Odd roots of negative numbers are real.

    Raises:
        Undefined: no finite value exists at this point; `NotReal` and `OutOfReach` are kinds of it.
        NotExact: an operator without a numeric meaning.
    """
    with mpmath.workdps(digits):
        evaluation = _Evaluation(at, real, school)
        try:
            result = evaluation(tree)
        except (ZeroDivisionError, ValueError) as error:
            raise Undefined(str(error)) from error
        except OverflowError as error:
            raise OutOfReach(str(error)) from error
        return mpmath.mpmathify(result), evaluation.farthest


def same_value(
    a: Tree, b: Tree, at: dict[str, Fraction], real: bool = False, school: bool = True, farthest: int = FARTHEST
) -> bool:
    """Whether two trees have the same value at a point, however small the difference that the texts spell out.

    The digits of the arithmetic grow with the exponents of the intermediate values: two values that differ do so far
    above the rounding, and what agrees to the last of these digits is equal.

    Args:
        a, b: The expressions.
        at: A value for each variable.
        real, school: As in `evaluate_tree`.
        farthest: Largest decimal exponent of an intermediate value that is still compared.
    """
    digits = START
    while True:
        (x, far), (y, far_too) = evaluate_tree(a, at, digits, real, school), evaluate_tree(b, at, digits, real, school)
        reach = max(far, far_too)
        if reach > farthest:
            raise OutOfReach("a value too large or too small")
        with mpmath.workdps(digits):
            gap, size = abs(x - y), max(abs(x), abs(y))
            if gap > max(size, mpmath.mpf(10) ** -reach) * mpmath.mpf(10) ** (3 * reach + 10 - digits):
                return False
        if digits >= MARGIN + 5 * reach + 15:
            return True
        digits = MARGIN + 5 * reach + 30


class _Evaluation:
    """One walk over a tree."""

    def __init__(self, at: dict[str, Fraction], real: bool, school: bool) -> None:
        self.at, self.real, self.school, self.farthest = at, real, school, 0

    def __call__(self, tree: Tree) -> Any:
        result = self.walk(tree)
        if isinstance(result, mpmath.mpc) and not result.imag:
            result = result.real
        if isinstance(result, mpmath.mpc) and self.real:
            raise NotReal("not real")
        size = abs(result)
        if not mpmath.isfinite(size):
            raise Undefined("infinite")
        if size:
            self.farthest = max(self.farthest, abs(int(mpmath.mag(size) * 0.30103)))
        if self.farthest > FARTHEST:
            raise OutOfReach("a value too large or too small")
        return result

    def walk(self, tree: Tree) -> Any:
        kind = tree[0]
        if kind in ("num", "var"):
            number = tree[1] if kind == "num" else self.at[tree[1]]
            return mpmath.mpf(number.numerator) / number.denominator
        constant = {"pi": mpmath.pi, "e": mpmath.e, "i": mpmath.mpc(0, 1), "inf": mpmath.inf}.get(kind)
        if constant is not None:
            return +constant
        args = [self(part) for part in tree[1:]]
        if kind in ("add", "mul"):
            return mpmath.fsum(args) if kind == "add" else mpmath.fprod(args)
        if kind == "root":
            return self.root(args[0], _whole(args[1]))
        if kind == "pow":
            return self.power(args[0], args[1], tree[2])
        if kind in ("ln", "log", "logb") and self.real and any(arg <= 0 for arg in args):
            raise NotReal("a logarithm")
        if kind not in _OPERATORS:
            raise NotExact(kind)
        return _OPERATORS[kind](*args)

    def root(self, inside: Any, degree: int) -> Any:
        if isinstance(inside, mpmath.mpf) and inside < 0:
            if degree % 2 and (self.real or self.school):
                return -mpmath.root(-inside, degree)
            if self.real:
                raise NotReal("an even root")
        return mpmath.sqrt(inside) if degree == 2 else mpmath.power(inside, mpmath.mpf(1) / degree)

    def power(self, base: Any, exponent: Any, tree: Tree) -> Any:
        exponent = _modest(exponent)
        if base and abs(exponent) * abs(mpmath.log(abs(base), 10)) > FARTHEST:
            raise OutOfReach("a power too large")
        if not isinstance(base, mpmath.mpf) or base >= 0 or not isinstance(exponent, mpmath.mpf):
            return mpmath.power(base, exponent)
        if exponent == int(exponent):
            return mpmath.power(base, int(exponent))
        if self.real or self.school:
            try:
                broken = exact_value(tree, self.at)
            except (NotExact, Undefined):
                broken = Fraction(1, 2)
            if broken.denominator % 2 and broken.denominator < 1_000:
                size = mpmath.power(-base, exponent)
                return -size if broken.numerator % 2 else size
        if self.real:
            raise NotReal("a broken power")
        return mpmath.power(base, exponent)


def _whole(degree: Any) -> int:
    if degree != int(degree) or not 1 <= degree <= 10_000:
        raise Undefined("a root of this degree")
    return int(degree)


def _factorial(n: Any) -> Any:
    if abs(n) > 2_500:
        raise OutOfReach("a factorial too large")
    return mpmath.factorial(n)


def _modest(a: Any) -> Any:
    """Keeps towers of powers and the reduction of huge angles out."""
    if abs(a) > 10_000_000:
        raise OutOfReach("an argument too large")
    return a


def _exp(a: Any) -> Any:
    if abs(a) > 2.3 * FARTHEST:
        raise OutOfReach("a power too large")
    return mpmath.exp(a)


_OPERATORS: dict[str, Any] = {
    "neg": lambda a: -a,
    "div": lambda a, b: a / b,
    "abs": abs,
    "max": max,
    "min": min,
    "floor": lambda a: mpmath.floor(_modest(a)),
    "ceil": lambda a: mpmath.ceil(_modest(a)),
    "fact": _factorial,
    "binom": lambda a, b: mpmath.binomial(_modest(a), _modest(b)),
    "deg": lambda a: a * mpmath.pi / 180,
    "logb": lambda a, b: mpmath.log(a) / mpmath.log(b),
    "log": mpmath.log10,
    "ln": mpmath.log,
    "exp": _exp,
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
    "sinh": lambda a: mpmath.sinh(_modest(a) if abs(a) < 2.3 * FARTHEST else _modest(10**9)),
    "cosh": lambda a: mpmath.cosh(_modest(a) if abs(a) < 2.3 * FARTHEST else _modest(10**9)),
    "tanh": lambda a: mpmath.tanh(_modest(a) if abs(a) < 2.3 * FARTHEST else _modest(10**9)),
    "coth": lambda a: mpmath.coth(_modest(a) if abs(a) < 2.3 * FARTHEST else _modest(10**9)),
}
