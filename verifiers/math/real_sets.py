"""Sets of real numbers in every spelling: intervals, unions, inequalities, reals without some points."""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass, replace
from fractions import Fraction

from verifiers.math import latex_math
from verifiers.math.answer_parts import (
    AND,
    COMMA,
    CUP,
    JOIN,
    OR,
    is_balanced,
    is_constant,
    is_name,
    order_rising,
    plus_minus,
    split_relation,
    split_top_level,
    top_level,
)


@dataclass(frozen=True)
class Piece:
    """One stretch of the real line; ends are LaTeX."""

    low: str
    low_in: bool
    high: str
    high_in: bool


@dataclass(frozen=True)
class RealSet:
    """A set of real numbers as pieces; `certain` when the notation can mean nothing else ((1,2) may be a point)."""

    pieces: tuple[Piece, ...]
    certain: bool
    name: str = ""


@functools.lru_cache(maxsize=8192)
def real_set(text: str) -> RealSet | None:
    """Reads intervals, unions, inequalities in one variable, reals without some points; None for anything else."""
    text = text.strip()
    if match := re.fullmatch(r"\\\{\s*([a-zA-Z])\s*(?:\\in\s*\\mathbb\{R\})?\s*(?:\||:)(.*)\\\}", text):
        inner = real_set(match[2])
        return inner if inner and inner.name in ("", match[1]) else None
    if re.fullmatch(r"\\mathbb\{R\}|(?:\\text\s*\{)?\s*(?:all )?real(?: number)?s\s*\}?", text):
        return RealSet((Piece("-\\infty", False, "\\infty", False),), True)
    if match := re.fullmatch(r"\\mathbb\{R\}\s*(?:\\setminus|\\backslash|-|\\)\s*\\\{(.+)\\\}", text):
        pieces = _without(split_top_level(match[1], COMMA))
        return RealSet(pieces, True) if pieces else None
    if match := _MINUS.fullmatch(text):
        inner, removed = real_set(match[1]), split_top_level(match[2], COMMA)
        return _removed(inner, removed) if inner and removed else None
    if len(parts := split_top_level(text, _CONDITIONS)) > 1 and (found := _conditions(parts)):
        return found
    if match := re.fullmatch(
        r"(?:\\text\s*\{\s*)?all real numbers (?:except|but|other than)(?: for)?\s*\}?\s*(?:[a-z]\s*=\s*)?(.+?)\}?",
        text,
    ):
        pieces = _without(split_top_level(match[1], JOIN))
        return RealSet(pieces, True) if pieces else None
    if match := re.fullmatch(r"([A-Za-z](?:_\{?\w+\}?)?)\s*\\in(?![A-Za-z])\s*(.*)", text):
        inner = real_set(match[2])
        return RealSet(inner.pieces, True, match[1]) if inner else None
    if len(parts := split_top_level(text, AND)) == 2:
        return _both([real_set(part) for part in parts])
    for joint in (CUP, OR):
        if len(parts := split_top_level(text, joint)) > 1:
            sets = [real_set(part) for part in parts]
            if all(sets):
                names = {s.name for s in sets if s} - {""}
                if len(names) < 2:
                    return RealSet(tuple(p for s in sets if s for p in s.pieces), True, "".join(names))
            return None
    if relation := split_relation(text):
        return _ray(*relation)
    if text[:1] in ("(", "[", "]") and text[-1:] in (")", "]", "[") and is_balanced(text[1:-1]):
        ends = split_top_level(text[1:-1], COMMA)
        if len(ends) == 2:
            certain = text[0] + text[-1] not in ("()", "[]") or "\\infty" in text
            return RealSet((Piece(ends[0], text[0] == "[", ends[1], text[-1] == "]"),), certain)
    return None


_MINUS = re.compile(r"(.+?)\s*(?:\\setminus|\\backslash|-|\\)\s*\\\{(.+)\\\}", re.S)


_CONDITIONS = re.compile(
    r",|\\text\s*\{\s*,?\s*(?:and|but|where|with)\s*,?\s*\}|\b(?:and|but)\b|\\(?:wedge|land)(?![A-Za-z])"
)


def _conditions(parts: list[str]) -> RealSet | None:
    r"""`0 < x < 2, x \ne 1`: one stretch without some points."""
    whole, points = real_set(parts[0]), []
    for part in parts[1:]:
        sides = split_relation(part)
        if whole is None or sides is None or sides[1] != ["\\ne"] or len(sides[0]) != 2:
            return None
        if sides[0][0] != whole.name or not is_constant(sides[0][1]):
            return None
        points.append(sides[0][1])
    if whole is None or split_relation(parts[0]) is None or split_relation(parts[0])[1] == ["\\ne"]:  # pyright: ignore
        return None
    return _removed(whole, points)


def _removed(whole: RealSet, points: list[str]) -> RealSet | None:
    """A set of reals without some points, when the order of all ends is plain."""
    pieces = list(whole.pieces)
    try:
        for point in itertools.chain.from_iterable(map(plus_minus, points)):
            at = latex_math.exact_value(latex_math.parse_latex(point), {})
            left: list[Piece] = []
            for piece in pieces:
                low, high = _end(piece.low), _end(piece.high)
                if not low <= at <= high:
                    left.append(piece)
                    continue
                if at in (low, high):
                    left.append(replace(piece, low_in=piece.low_in and at != low, high_in=piece.high_in and at != high))
                    continue
                left += [replace(piece, high=point, high_in=False), replace(piece, low=point, low_in=False)]
            pieces = left
    except (ValueError, ArithmeticError, LookupError):
        return None
    return RealSet(tuple(pieces), True, whole.name)


def _end(text: str) -> Fraction | float:
    text = text.replace(" ", "")
    infinite = {"-\\infty": float("-inf"), "\\infty": float("inf"), "+\\infty": float("inf")}
    return infinite[text] if text in infinite else latex_math.exact_value(latex_math.parse_latex(text), {})


def _both(sets: list[RealSet | None]) -> RealSet | None:
    """x > 1 and x < 3 as one piece; None for what is no pair of rays, one each way."""
    rays = [found.pieces[0] for found in sets if found and found.name and len(found.pieces) == 1]
    if len(rays) != 2 or sets[0] is None or sets[1] is None or sets[0].name != sets[1].name:
        return None
    down, up = sorted(rays, key=lambda piece: piece.low != "-\\infty")
    if down.low != "-\\infty" or up.high != "\\infty" or up.low == "-\\infty":
        return None
    return RealSet((Piece(up.low, up.low_in, down.high, down.high_in),), True, sets[0].name)


def _without(points: list[str]) -> tuple[Piece, ...]:
    """The reals without some points; () when the order of the points is not plain."""
    points = [sign for point in points for sign in plus_minus(point)]
    if len(points) > 1:
        try:
            points = sorted(points, key=lambda point: latex_math.exact_value(latex_math.parse_latex(point), {}))
        except (ValueError, ArithmeticError, LookupError):
            return ()
    ends = ["-\\infty", *points, "\\infty"]
    return tuple(Piece(low, False, high, False) for low, high in itertools.pairwise(ends))


def _absolute(sides: list[str], closed: bool) -> RealSet | None:
    """|x| < 2 and |x| > 2, for a bound without a sign."""
    for inner, bound in (sides, sides[::-1]):
        match = re.fullmatch(r"\|\s*([A-Za-z])\s*\|", inner)
        if match and is_constant(bound) and bound[:1] not in "-+" and not top_level(bound, re.compile("[-+]")):
            if inner == sides[0]:
                return RealSet((Piece(f"-{bound}", closed, bound, closed),), True, match[1])
            outside = Piece("-\\infty", False, f"-{bound}", closed), Piece(bound, closed, "\\infty", False)
            return RealSet(outside, True, match[1])
    return None


def _ray(sides: list[str], signs: list[str]) -> RealSet | None:
    """x > a, a <= x, a < x <= b, x != a."""
    if len(sides) == 2 and signs == ["\\ne"] and is_name(sides[0]) and is_constant(sides[1]):
        pieces = _without([sides[1]])
        return RealSet(pieces, True, sides[0]) if pieces else None
    sides, signs = order_rising((sides, signs))
    if any(sign not in ("<", "\\le") for sign in signs):
        return None
    if len(sides) == 2:
        if found := _absolute(sides, signs[0] == "\\le"):
            return found
        if is_name(sides[0]) and is_constant(sides[1]):
            return RealSet((Piece("-\\infty", False, sides[1], signs[0] == "\\le"),), True, sides[0])
        if is_name(sides[1]) and is_constant(sides[0]):
            return RealSet((Piece(sides[0], signs[0] == "\\le", "\\infty", False),), True, sides[1])
    if len(sides) == 3 and is_name(sides[1]) and is_constant(sides[0]) and is_constant(sides[2]):
        return RealSet((Piece(sides[0], signs[0] == "\\le", sides[2], signs[1] == "\\le"),), True, sides[1])
    return None
