r"""Reads one LaTeX expression into a small tree and evaluates it exactly (fractions) or to high precision (mpmath).

The tree is data: nothing of the text is ever executed, and every size is bounded before any arithmetic is done. Two
expressions are compared by evaluating both at the same random points, so `(x+1)^2` equals `x^2+2x+1` without algebra
and 2^{-99} differs from 2^{-98} without rounding.

A name with a meaning of its own is one opaque variable: f(x), f^{-1}(x), y^{(3)}, x', \angle ABC, \vec{a}, and the
products a x b and a . b of two vectors. Letters in a row are a product only where they read as one (abc, xyz).

Not covered: sums, integrals, limits, named sets, matrices (`forms` takes those apart; math-verify gets the rest).
Above 300 lines: one grammar, read in one piece.
"""

from __future__ import annotations

# ruff: noqa: SIM905  (a list of words reads best as words)
import functools
import math
import re
from fractions import Fraction
from typing import Any

MAX_LENGTH = 2_000  # characters of one expression
MAX_DEPTH = 48  # nested groups
MAX_BITS = 20_000  # of any integer in exact arithmetic

Tree = tuple[Any, ...]  # (operator, operand, ...)


class NotMath(ValueError):
    """The text is no expression this reader knows."""


class CannotTell(Exception):
    """An answer that is not understood, or a value out of reach: no verdict, never a confident "wrong"."""


class NotExact(ValueError):
    """The value is no fraction of bounded size (a root, a logarithm, too large)."""


class Undefined(ArithmeticError):
    """The value does not exist at this point (division by zero)."""


_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:,\d{3})+(?!\d)(?:\.\d+)?|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3}(?!\d))?)|(?P<command>\\[A-Za-z]+|\\.)|(?P<other>\S))"
)
_GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell".split()
)
_FUNCTIONS = {
    name: name
    for name in "sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh coth ln log exp lg".split()
}
_INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot"}
_CLOSE = {"(": ")", "[": "]", "{": "}", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}
_STOP = frozenset([",", ")", "]", "}", "\\rfloor", "\\rceil", "|", "+", "-", "/", "*", "\\cdot", "\\times", "\\div"])


_APPLIED = frozenset("fghFGHPQ")  # a letter before a bracket that is a function, not a factor
_PERHAPS_APPLIED = frozenset("pqrsuvyTRSV")  # these only before one lone letter or number
_ARITHMETIC = frozenset("sigma tau mu psi Psi chi omega Lambda Omega Delta".split())  # sigma(6) is no product
_MARKED = frozenset("vec bold hat bar overline tilde dot ddot mathcal mathbb mathscr mathfrak".split())
_VECTORS = ("vec ", "hat ")
_FAMILIES = tuple(map(frozenset, ("xyzw", "uvw", "pqr", "rst", "mnk", "ijk")))
_RUN = re.compile(r"(?<![A-Za-z])[A-Za-z]{3,}")
_NAMED = re.compile(
    r"\\(?:angle|measuredangle|triangle|odot|overline|bar|vec|overrightarrow|hat|parallel)\s*\{?\s*[A-Za-z]+|\\[A-Za-z]+"
)


def _is_product(run: str) -> bool:
    """Whether letters in a row read as a product: in the alphabet's order, or of one family."""
    return run.islower() and (list(run) == sorted(run) or any(set(run) <= family for family in _FAMILIES))


@functools.lru_cache(maxsize=8192)
def parse_latex(text: str) -> Tree:
    r"""The tree of one LaTeX expression.

    Raises:
        NotMath: unknown command, unbalanced groups, too long or nested too deep.
    """
    if len(text) > MAX_LENGTH:
        raise NotMath("too long")
    if not all(_is_product(run) for run in _RUN.findall(_NAMED.sub(" ", text))):
        raise NotMath("a word")
    reader = _Reader(text)
    tree = reader.sum()
    if reader.peek() is not None:
        raise NotMath(f"unexpected {reader.peek()!r}")
    return tree


class _Reader:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise NotMath("unreadable")
            kind = str(match.lastgroup)
            self.tokens.append((kind, match[kind]))
            at = match.end()
        self.at, self.depth, self.divisions, self.bars = 0, 0, 0, 0

    def peek(self) -> str | None:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else None

    def kind(self) -> str | None:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else None

    def take(self) -> str:
        if self.at >= len(self.tokens):
            raise NotMath("ends too early")
        self.at += 1
        return self.tokens[self.at - 1][1]

    def expect(self, token: str) -> None:
        if self.peek() != token:
            raise NotMath(f"expected {token!r}, found {self.peek()!r}")
        self.at += 1

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotMath("nested too deep")

    def sum(self) -> Tree:
        self.deeper()
        terms = [self.product()]
        while self.peek() in ("+", "-"):
            sign = self.take()
            term = self.product()
            terms.append(("neg", term) if sign == "-" else term)
        self.depth -= 1
        return terms[0] if len(terms) == 1 else ("add", *terms)

    def product(self) -> Tree:
        sign = 1
        while self.peek() in ("+", "-"):
            sign *= -1 if self.take() == "-" else 1
        left = self.power()
        if left[0] == "num" and left[1].denominator == 1 and (mixed := self.mixed(left)):
            left = mixed
        while True:
            token = self.peek()
            if token in ("*", "\\cdot", "\\times"):
                self.take()
                left = _joined(left, self.signed(), token)
            elif token in ("/", "\\div"):
                self.take()
                self.divisions += 1
                if self.divisions > MAX_DEPTH:
                    raise NotMath("too many divisions")
                left = ("div", left, self.signed())
            elif token in ("|", "\\vert") and not self.bars:
                left = _joined(left, self.power(), "")
            elif token is None or token in _STOP:
                break
            elif self.kind() == "number" and (left[-1] if left[0] == "mul" else left)[0] not in ("fact", "root", "pi"):
                raise NotMath("two numbers side by side")
            elif token == "{" and left[0] == "num":
                raise NotMath("a number and a group side by side")
            else:
                left = _joined(left, self.power(), "")
        return ("neg", left) if sign < 0 else left

    def mixed(self, whole: Tree) -> Tree | None:
        """`3\\frac{1}{2}` as three and a half, when it is one."""
        if self.peek() not in ("\\frac", "\\dfrac", "\\tfrac"):
            return None
        at = self.at
        part = self.power()
        if part[0] == "div" and all(side[0] == "num" and side[1].denominator == 1 for side in part[1:]):
            top, bottom = part[1][1], part[2][1]
            if 0 < top < bottom:
                return ("add", whole, part)
        self.at = at
        return None

    def signed(self) -> Tree:
        sign = 1
        while self.peek() in ("+", "-"):
            sign *= -1 if self.take() == "-" else 1
        return ("neg", self.power()) if sign < 0 else self.power()

    def power(self) -> Tree:
        self.deeper()
        base = self.postfix(self.atom())
        self.depth -= 1
        return base

    def postfix(self, base: Tree) -> Tree:
        raised = factorial = False
        while True:
            token = self.peek()
            if token == "!":
                if factorial:
                    raise NotMath("a double factorial")
                self.take()
                base, factorial = ("fact", base), True
            elif token in ("'", "\\prime"):
                self.take()
                if base[0] != "var" or raised or factorial:
                    raise NotMath("a prime")
                base = self.applied(f"{base[1]}'")
            elif token == "^":
                self.take()
                if self.peek() == "\\circ":
                    self.take()
                    base = ("deg", base)
                    continue
                start = self.at
                exponent = self.group() if self.kind() != "number" else ("num", _number(self.take()))
                raised_text = "".join(token for _, token in self.tokens[start : self.at])
                if base[0] == "var" and re.fullmatch(r"\{\(\w+\)\}|\{?(?:\\prime)+\}?", raised_text):
                    base = self.applied(f"{base[1]}^{raised_text}")  # a derivative
                    continue
                if base[0] == "var" and base[1][0] in _APPLIED and len(base[1]) == 1 and self.peek() == "(":
                    base = self.applied(f"{base[1]}^{raised_text}")  # f^{-1}(x) is no 1/f(x)
                    continue
                if raised:
                    raise NotMath("a double exponent")
                raised = True
                base = ("deg", base) if exponent == ("circ",) else ("pow", base, exponent)
            else:
                return base

    def group(self) -> Tree:
        """An argument: {...}, one digit, one letter or one command, as TeX takes it."""
        self.deeper()
        token = self.peek()
        if token == "{":
            self.take()
            if self.peek() == "\\circ":
                self.take()
                tree: Tree = ("circ",)
            else:
                tree = self.sum()
            self.expect("}")
        elif token == "-":
            self.take()
            tree = ("neg", self.group())
        elif self.kind() == "number":
            text = self.take()
            if len(text) > 1 and text.isdigit():  # \frac12 and 2^10: TeX takes one digit
                self.at -= 1
                self.tokens[self.at] = ("number", text[1:])
                text = text[0]
            tree = ("num", _number(text))
        else:
            tree = self.atom()
        self.depth -= 1
        return tree

    def subscript(self) -> str:
        if self.peek() != "_":
            return ""
        self.take()
        if self.peek() != "{":
            return "_" + self.take()
        parts = []
        while self.peek() not in ("}", None):
            parts.append(self.take())
        self.expect("}")
        return "_" + "".join(parts).strip("{")

    def atom(self) -> Tree:
        token, kind = self.peek(), self.kind()
        if token is None:
            raise NotMath("ends too early")
        if kind == "number":
            self.take()
            if self.peek() in ("\\overline", "\\bar") and "." in token:
                return self.repeating(token)
            if self.peek() == "_":
                raise NotMath("a number with a subscript")
            return ("num", _number(token))
        if token in _CLOSE:
            self.take()
            tree = self.sum()
            self.expect(_CLOSE[token])
            name = {"\\lfloor": "floor", "\\lceil": "ceil"}.get(token)
            return (name, tree) if name else tree
        if token == "|" or token == "\\vert":
            self.take()
            self.bars += 1
            tree = self.sum()
            self.bars -= 1
            self.expect(token)
            return ("abs", tree)
        if token.isalpha() and token.isascii():
            self.take()
            if token == "C" and self.peek() == "(" and (chosen := self.chosen()):
                return chosen
            name = token + self.subscript()
            if name in ("e", "i"):
                return (name,)
            return self.applied(name) if name[0] in _APPLIED or self.lone_argument(name) else ("var", name)
        if kind == "command":
            return self.command(self.take()[1:])
        raise NotMath(f"unexpected {token!r}")

    def chosen(self) -> Tree | None:
        """C(n, k) as the binomial coefficient."""
        start, depth = self.at, self.depth
        try:
            found = self.arguments()
            if len(found) == 2:
                return ("binom", *found)
        except NotMath:
            pass
        self.at, self.depth = start, depth
        return None

    def lone_argument(self, name: str) -> bool:
        """p(x), T(n): a name before one letter or number in brackets. C(5,2) is seen here too."""
        if (
            not (name[0] in _PERHAPS_APPLIED if len(name) < 3 else name in _ARITHMETIC)
            or self.peek() != "("
            or self.at + 2 >= len(self.tokens)
        ):
            return False
        return self.tokens[self.at + 2][1] == ")"

    def applied(self, name: str) -> Tree:
        """A name as one opaque variable, with the argument in brackets behind it."""
        if self.peek() != "(":
            return ("var", name)
        start, depth = self.at, 0
        while True:
            token = self.take()
            depth += (token == "(") - (token == ")")
            if not depth:
                break
        return ("var", name + "".join(token for _, token in self.tokens[start : self.at]))

    def named(self, kind: str) -> Tree:
        r"""\vec{a}, \overline{AB}, \angle ABC as one variable: a marked name of letters."""
        letters = []
        if self.peek() == "{":
            self.take()
            while self.peek() != "}":
                letters.append(self.take())
            self.take()
        elif kind in ("angle", "triangle"):
            while (self.peek() or "").isalpha() and len(letters) < 4:
                letters.append(self.take())
        else:
            letters.append(self.take())
        if not letters or not all(re.fullmatch(r"[A-Za-z0-9_{}]|\\[A-Za-z]+", letter) for letter in letters):
            raise NotMath(f"{kind} of an expression")
        if letters[0].isdigit():
            raise NotMath(f"{kind} of a number")
        if kind == "angle" and len(letters) == 3:
            letters = min(letters, letters[::-1])  # ABC and CBA are one angle
        kind = "vec" if kind == "bold" else kind
        return self.applied(f"{kind} {''.join(letters)}{self.subscript()}")

    def arguments(self) -> list[Tree]:
        """(a, b, ...)"""
        self.expect("(")
        found = [self.sum()]
        while self.peek() == ",":
            self.take()
            found.append(self.sum())
        self.expect(")")
        return found

    def repeating(self, token: str) -> Tree:
        """0.1\\overline{6}"""
        self.take()
        self.expect("{")
        digits = self.take()
        self.expect("}")
        if not digits.isdigit() or len(digits) > 50:
            raise NotMath("no repeating decimal")
        places = len(token.partition(".")[2])
        return ("num", _number(token) + Fraction(int(digits), (10 ** len(digits) - 1) * 10**places))

    def command(self, name: str) -> Tree:
        if name == "pi":
            return ("pi",)
        if name in _GREEK:
            name += self.subscript()
            applied = name in ("Gamma", "zeta", "phi", "varphi", "Phi") or self.lone_argument(name)
            return self.applied(name) if applied else ("var", name)
        if name in _MARKED:
            return self.named(name)
        if name in ("angle", "measuredangle"):
            return self.named("angle")
        if name == "triangle":
            return self.named("triangle")
        if name == "mathrm":
            return self.named("mathrm")
        if name in ("abs", "floor", "ceil"):
            return (name, self.group())
        if name in ("max", "min", "gcd", "lcm") and self.peek() == "(":
            return (name, *self.arguments())
        if name in ("frac", "dfrac", "tfrac", "cfrac"):
            top = self.group()
            bottom = self.group()
            if all(side[:2] == ("mul", ("var", "d")) or side == ("var", "d") for side in (top, bottom)):
                raise NotMath("a derivative")
            return ("div", top, bottom)
        if name in ("binom", "dbinom", "tbinom"):
            top = self.group()
            return ("binom", top, self.group())
        if name == "sqrt":
            root: Tree = ("num", Fraction(2))
            if self.peek() == "[":
                self.take()
                root = self.sum()
                self.expect("]")
            inside = self.group() if self.kind() != "number" else ("num", _number(self.take()))  # \\sqrt13
            return ("root", inside, root)
        if name in _FUNCTIONS:
            return self.function(name)
        if name == "infty":
            return ("inf",)
        raise NotMath(f"unknown command \\{name}")

    def function(self, name: str) -> Tree:
        base = exponent = None
        while self.peek() in ("^", "_"):
            if self.take() == "_":
                base = self.group()
            else:
                exponent = self.group()
        if base is not None and name != "log":
            raise NotMath("a function with a subscript")
        if self.peek() == "(":  # \sin(x)^2 is the square of the sine, \sin(45)^\circ the sine of 45 degrees
            argument = self.atom()
            following = [token for _, token in self.tokens[self.at : self.at + 3]]
            if following[:2] == ["^", "\\circ"] or following == ["^", "{", "\\circ"]:
                argument = self.postfix(argument)
        elif self.peek() in ("{", "["):
            argument = self.power()
        else:  # sin 2x: up to the next operator or function
            argument = self.power()
            while self.peek() is not None and self.peek() not in _STOP and self.peek() not in ("(", "[", "\\lfloor"):
                token = str(self.peek())
                if token.lstrip("\\") in _FUNCTIONS or self.kind() == "number":
                    break
                argument = _times(argument, self.power())
        if exponent == ("neg", ("num", Fraction(1))):
            if name not in _INVERSE:
                raise NotMath("an inverse function")
            name, exponent = _INVERSE[name], None
        if name == "lg" or (name == "log" and base is None):
            base = ("num", Fraction(10))
        tree: Tree = ("logb", argument, base) if base is not None else (name, argument)
        return ("pow", tree, exponent) if exponent is not None else tree


def _joined(left: Tree, right: Tree, sign: str) -> Tree:
    r"""A product. Of two vectors it is one variable of its own: a \times b is -(b \times a), a \cdot b is b \cdot a."""
    if not (_holds_vector(left) and _holds_vector(right)):
        return _times(left, right)
    factors = list(left[1:]) if left[0] == "mul" else [left]
    flip = False
    if right[0] == "neg":
        flip, right = True, right[1]
    a, b = factors[-1], right
    if not sign or sign == "*" or a[0] != "var" or b[0] != "var" or any(_holds_vector(f) for f in factors[:-1]):
        raise NotMath("a product of vectors")
    one, other = sorted((a[1], b[1]))
    if sign == "\\times":
        flip ^= (one, other) != (a[1], b[1])
        product: Tree = ("var", f"vec ({one} x {other})") if one != other else ("num", Fraction(0))
    else:
        product = ("var", f"({one} . {other})")
    for factor in reversed(factors[:-1]):
        product = _times(factor, product)
    return ("neg", product) if flip else product


def _holds_vector(tree: Tree) -> bool:
    if tree[0] == "var":
        return tree[1].startswith(_VECTORS)
    return any(_holds_vector(part) for part in tree[1:] if isinstance(part, tuple))


def _times(left: Tree, right: Tree) -> Tree:
    return ("mul", *left[1:], right) if left[0] == "mul" else ("mul", left, right)


def _number(text: str) -> Fraction:
    text = text.replace(",", "")
    if len(text) > 400:
        raise NotMath("a number of too many digits")
    return Fraction(text.removesuffix("."))


def free_variables(tree: Tree) -> set[str]:
    """The names of the free variables."""
    if tree[0] == "var":
        return {tree[1]}
    return set().union(*(free_variables(part) for part in tree[1:] if isinstance(part, tuple)))


def operator_kinds(tree: Tree) -> set[str]:
    """The operators and constants that occur."""
    return {tree[0]}.union(*(operator_kinds(part) for part in tree[1:] if isinstance(part, tuple)))


def exact_value(tree: Tree, at: dict[str, Fraction]) -> Fraction:
    """The value as a fraction.

    Raises:
        NotExact: it is none, or it is larger than `MAX_BITS` bits.
        Undefined: a division by zero.
    """
    value = _exact(tree, at)
    if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
        raise NotExact("too large")
    return value


_EXACT = frozenset("num var add neg mul div pow fact binom abs floor ceil root max min gcd lcm".split())


def _exact(tree: Tree, at: dict[str, Fraction]) -> Fraction:
    kind = tree[0]
    if kind == "num":
        return tree[1]
    if kind == "var":
        return at[tree[1]]
    if kind not in _EXACT:
        raise NotExact(kind)
    args = [exact_value(part, at) for part in tree[1:]]
    if kind in ("max", "min"):
        return (max if kind == "max" else min)(args)
    if kind in ("gcd", "lcm"):
        if any(arg.denominator != 1 for arg in args):
            raise NotExact(kind)
        return Fraction((math.gcd if kind == "gcd" else math.lcm)(*(int(arg) for arg in args)))
    if kind in ("add", "mul"):
        total = args[0]
        for arg in args[1:]:
            total = total + arg if kind == "add" else total * arg
            if total.numerator.bit_length() > MAX_BITS or total.denominator.bit_length() > MAX_BITS:
                raise NotExact("too large")
        return total
    if kind == "neg":
        return -args[0]
    if kind == "div":
        if not args[1]:
            raise Undefined("division by zero")
        return args[0] / args[1]
    if kind == "abs":
        return abs(args[0])
    if kind == "floor":
        return Fraction(math.floor(args[0]))
    if kind == "ceil":
        return Fraction(math.ceil(args[0]))
    if kind == "pow":
        return _power(args[0], args[1])
    if kind == "root":
        return _root(args[0], args[1])
    if any(arg.denominator != 1 or not 0 <= arg <= 1_000 for arg in args):
        raise NotExact("a factorial of this")
    whole = [int(arg) for arg in args]
    return Fraction(math.factorial(whole[0]) if kind == "fact" else math.comb(*whole))


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise NotExact("a root")
    if not base and exponent <= 0:
        raise Undefined("a power of zero")
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) > MAX_BITS or size * abs(exponent) > MAX_BITS + size:
        raise NotExact("too large")
    return base ** int(exponent)


def _root(value: Fraction, degree: Fraction) -> Fraction:
    if degree != 2 or value < 0:
        raise NotExact("a root")
    top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
    if top * top != value.numerator or bottom * bottom != value.denominator:
        raise NotExact("a root")
    return Fraction(top, bottom)
