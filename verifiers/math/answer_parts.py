r"""Takes one answer apart: a list, set, tuple, matrix, union, relation, ratio or one scalar, and its members.

Everything is read from the text once and remembered, so that a gold answer is taken apart once for all its answers.
"""

from __future__ import annotations

import functools
import re
from typing import Literal

_OPEN, _SHUT = {"(": ")", "[": "]", "{": "}"}, frozenset(")]}")


RELATION = re.compile(r"\\(?:le|ge|ne|in|approx|equiv|sim|subset|subseteq)(?![A-Za-z])|[<>=]")


JOIN = re.compile(r"\\text\s*\{\s*,?\s*(?:or|and)\s*,?\s*\}|\b(?:or|and)\b|\\(?:vee|wedge|lor|land)(?![A-Za-z])|[,;]")


AND = re.compile(r"\\text\s*\{\s*,?\s*and\s*,?\s*\}|\band\b|\\(?:wedge|land)(?![A-Za-z])")


OR = re.compile(r"\\text\s*\{\s*,?\s*or\s*,?\s*\}|\bor\b|\\(?:vee|lor)(?![A-Za-z])")


_MATRIX = re.compile(r"\\begin\s*\{([bpvBV]?(?:small)?matrix|array)\}(?:\s*\{[clr|\s@]*\})?(.*)\\end\s*\{\1\}", re.S)


_NAME = re.compile(
    r"(?:\\(?:angle|overline|vec|hat|bar|mathbf|mathrm|measuredangle|triangle|text|operatorname)\s*)?"
    r"(?:[A-Za-z](?:_\{?\w+\}?)?'*|\\[A-Za-z]+(?:_\{?\w+\}?)?|\{[A-Za-z ]+\}|[A-Z]{2,4})"
    r"(?:\s*\(\s*[A-Za-z0-9](?:\s*,\s*[A-Za-z0-9])*\s*\)|\^\{?-1\}?\s*\([A-Za-z]\))?"
)


_CONSTANTS = frozenset(["\\pi", "\\infty", "e", "i"])


def top_level(text: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """The matches of a pattern outside all brackets, braces and environments."""
    found, depth, at = [], 0, 0
    while at < len(text):
        match = pattern.match(text, at) if depth == 0 else None
        if match and not (match[0][0].isalpha() and at and text[at - 1].isalpha()):
            found.append(match)
            at = match.end()
            continue
        if text.startswith("\\begin", at):
            depth += 1
            at = text.find("}", at) + 1 or len(text)
        elif text.startswith("\\end", at):
            depth -= 1
            at = text.find("}", at) + 1 or len(text)
        elif text[at] == "\\":
            word = re.compile(r"\\[A-Za-z]+|\\.?", re.S).match(text, at)
            token = word[0] if word else "\\"
            depth += token in ("\\{", "\\langle", "\\lfloor", "\\lceil")
            depth -= token in ("\\}", "\\rangle", "\\rfloor", "\\rceil")
            at += max(len(token), 1)
        else:
            depth += text[at] in _OPEN
            depth -= text[at] in _SHUT
            at += 1
        depth = max(depth, 0)
    return found


def split_top_level(text: str, pattern: re.Pattern[str], keep_empty: bool = False) -> list[str]:
    """The stretches between a pattern's top-level matches.

    Args:
        text: Of an answer.
        pattern: Of the separator; matches inside brackets do not split.
        keep_empty: Whether empty stretches are kept.
    """
    parts, at = [], 0
    for match in top_level(text, pattern):
        parts.append(text[at : match.start()].strip())
        at = match.end()
    parts.append(text[at:].strip())
    return [part for part in parts if part or keep_empty]


Form = tuple[Literal["scalar", "list", "set", "tuple", "matrix", "union", "relation", "ratio"], list[str], str]


COMMA, CUP = re.compile(r"[,;]"), re.compile(r"\\cup(?![A-Za-z])")


_THOUSANDS = re.compile(r"[-+]?(?:\\?\$)?\s*\d{1,3}(?:,\d{3})+(?!\d|,)(?:\.\d+)?")


@functools.lru_cache(maxsize=8192)
def parse_form(text: str) -> Form:
    """What an answer is, its members, and the brackets (or the shape) that must agree."""
    text = text.strip()
    if "\\begin" in text and (found := parse_matrix(text)):
        kind, rows = found
        return "matrix", [cell for row in rows for cell in row], f"{kind} {[len(row) for row in rows]}"
    if text.startswith("[") and (rows := _list_of_rows(text)):
        return "matrix", [cell for row in rows for cell in row], f"matrix {[len(row) for row in rows]}"
    if top_level(text, CUP):
        return "union", split_top_level(text, CUP), ""
    if len(items := split_top_level(joined_thousands(text), JOIN)) > 1:
        return "list", items, ""
    if inside := strip_brackets(text, "\\{", "\\}"):
        return "set", split_top_level(joined_thousands(inside), JOIN), ""
    if text in ("\\{\\}", "\\{ \\}", "\\emptyset"):
        return "set", [], ""
    if len(signs := plus_minus(text)) > 1:
        return "list", signs, ""
    if top_level(text, RELATION):
        return "relation", [text], ""
    if inside := strip_brackets(text, "\\langle", "\\rangle"):
        return "tuple", split_top_level(inside, COMMA), "()"
    if text[:1] in ("(", "[", "]") and text[-1:] in (")", "]", "["):
        inside = text[1:-1]
        if len(items := split_top_level(inside, COMMA)) > 1 and is_balanced(inside):
            return "tuple", items, text[0] + text[-1]
    if re.fullmatch(r"[^:]+(?::[^:]+)+", text) and not top_level(text, re.compile(r"\\text")):
        return "ratio", [part.strip() for part in text.split(":")], str(text.count(":"))
    return "scalar", [text], ""


def parse_matrix(text: str) -> tuple[str, list[list[str]]] | None:
    r"""The rows of one matrix, a scalar before it multiplied in and ^T carried out; `det` between bars."""
    start = text.find("\\begin")
    factor, rest = re.sub(r"\\(?:cdot|times)\s*$", "", text[:start].strip()).strip(), text[start:]
    turned = _TRANSPOSED.search(rest)
    rest = (rest[: turned.start()] if turned else rest).strip()
    divisor = ""
    if match := re.search(r"(\\end\s*\{\w+\}[\s)\]}]*)/\s*([\w.{}\\]+)$", rest):
        divisor, rest = match[2], rest[: match.end(1)].strip()
    bars = False
    end = re.search(r"\\end\s*\{\w+\}([\s)\]}|]*)$", rest)
    inner, shut = (rest[: end.start(1)], list(end[1].replace(" ", ""))) if end else (rest, [])
    # Brackets around the whole matrix: one that ends the factor is closed right behind the matrix.
    while factor and shut and shut[0] == {"(": ")", "[": "]", "{": "}", "|": "|"}.get(factor[-1]):
        bars |= shut.pop(0) == "|"
        factor = re.sub(r"\\(?:cdot|times)\s*$", "", factor[:-1].strip()).strip()
        rest = inner + "".join(shut)
    rest = rest.replace("\\hline", "")
    match = _MATRIX.fullmatch(rest.strip())
    if match is None or (factor and (top_level(factor[1:], re.compile("[-+]")) or not is_balanced(factor))):
        return None
    if top_level(factor, JOIN) or top_level(factor, RELATION) or "\\begin" in match[2]:
        return None
    kind = "det" if bars or match[1].startswith(("v", "V")) else "matrix"
    if kind == "det" and (factor or turned or divisor):
        return None
    lines = [row for row in re.split(r"\\\\(?:\[\w+\])?", match[2]) if row.strip()]
    rows = [split_top_level(row, re.compile("&"), keep_empty=True) for row in lines]
    if factor:
        factor = f"{factor}1" if factor in ("-", "+") else factor
        rows = [[f"({factor})({cell})" for cell in row] for row in rows]
    if divisor:
        rows = [[f"({cell})/({divisor})" for cell in row] for row in rows]
    if turned and len({len(row) for row in rows}) == 1:  # only a rectangular one has a transpose
        rows = [list(column) for column in zip(*rows, strict=True)]
    return kind, rows


def _list_of_rows(text: str) -> list[list[str]] | None:
    """[[1, 2], [3, 4]], as programs write a matrix."""
    inside = text[1:-1].strip()
    if not text.endswith("]") or not inside.startswith("[") or not inside.endswith("]"):
        return None
    rows = split_top_level(inside, COMMA)
    if not all(row.startswith("[") and row.endswith("]") and is_balanced(row[1:-1]) for row in rows):
        return None
    cells = [split_top_level(row[1:-1], COMMA) for row in rows]
    return cells if len({len(row) for row in cells}) == 1 and cells[0] else None


_TRANSPOSED = re.compile(r"\s*\^\s*\{?\s*(?:T|\\top|\\intercal|\\text\s*\{\s*T\s*\})\s*\}?\s*$")


def joined_thousands(text: str) -> str:
    """1,234,567 as one number; `1,234` inside brackets is left alone."""
    if _THOUSANDS.match(text):
        return re.sub(
            r"^([-+]?(?:\\?\$)?\s*)(\d{1,3}(?:,\d{3})+)(?!\d|,)", lambda m: m[1] + m[2].replace(",", ""), text
        )
    return text


def strip_brackets(text: str, left: str, right: str) -> str | None:
    """What is between two brackets that enclose the whole text; None where they do not.

    Args:
        text: Of an answer.
        left, right: The brackets.
    """
    inside = text[len(left) : -len(right)]
    return inside.strip() if text.startswith(left) and text.endswith(right) and is_balanced(inside) else None


def is_balanced(text: str) -> bool:
    """No bracket of the outside closes within: (1,2) but not (1)+(2)."""
    depth = 0
    for token in re.findall(r"\\[A-Za-z]+|\\.|[()\[\]{}]", text):
        depth += token in ("(", "[", "{", "\\{", "\\langle")
        depth -= token in (")", "]", "}", "\\}", "\\rangle")
        if depth < 0:
            return False
    return depth == 0


_PM = re.compile(r"\\(pm|mp)(?![A-Za-z])")


def plus_minus(text: str) -> list[str]:
    r"""`1 \pm a` as [1 + a, 1 - a]; a text without \pm as itself. All signs of one text switch together."""
    if not _PM.search(text) or top_level(text, RELATION):
        if _PM.search(text) and (parts := split_relation(text)) and is_name(parts[0][0]) and len(parts[0]) == 2:
            return [f"{parts[0][0]}={sign}" for sign in plus_minus(parts[0][1])]
        return [text]
    upper = _PM.sub(lambda match: "+" if match[1] == "pm" else "-", text)
    lower = _PM.sub(lambda match: "-" if match[1] == "pm" else "+", text)
    return [upper.removeprefix("+").strip(), lower.removeprefix("+").strip()]


@functools.lru_cache(maxsize=8192)
def split_relation(text: str) -> tuple[list[str], list[str]] | None:
    """The sides and the signs of a relation, None when there is no sign or an empty side."""
    signs = [match[0] for match in top_level(text, RELATION)]
    sides, at = [], 0
    for match in top_level(text, RELATION):
        sides.append(text[at : match.start()].strip())
        at = match.end()
    sides.append(text[at:].strip())
    return (sides, signs) if signs and all(sides) else None


_FLIP = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}


def is_upward(relation: tuple[list[str], list[str]]) -> tuple[tuple[str, str], str]:
    (left, right), (sign,) = relation
    return ((right, left), _FLIP[sign]) if sign in (">", "\\ge") else ((left, right), sign)


def order_rising(relation: tuple[list[str], list[str]]) -> tuple[list[str], list[str]]:
    sides, signs = relation
    if signs and all(sign in (">", "\\ge", "=") for sign in signs):
        return sides[::-1], [_FLIP.get(sign, sign) for sign in signs[::-1]]
    return sides, signs


@functools.lru_cache(maxsize=8192)
def strip_braces(text: str) -> str:
    """Without plain braces around everything, which TeX does not print, and a system of equations as their list."""
    if match := _SYSTEM.fullmatch(text):
        text = ", ".join(row.strip().rstrip(",") for row in match[1].split("\\\\") if row.strip())
    while text.startswith("{") and text.endswith("}") and is_balanced(text[1:-1]) and text[1:-1].strip():
        text = text[1:-1].strip()
    return text


_SYSTEM = re.compile(r"\\begin\s*\{cases\}([^&]*)\\end\s*\{cases\}", re.S)


@functools.lru_cache(maxsize=8192)
def is_name(text: str) -> bool:
    r"""A thing that can be given a value: x, f(x), \angle ABC, AB, (x, y); not a number or constant."""
    text = text.strip()
    if re.fullmatch(r"\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])+\s*\)", text):
        return True
    return (_NAME.fullmatch(text) is not None and text not in _CONSTANTS) or bool(
        re.fullmatch(r"\\text\s*\{[^{}]+\}", text)
    )


def is_expression(text: str) -> bool:
    """Holds a variable, so that an equation with it relates two unknowns."""
    return not is_constant(text)


@functools.lru_cache(maxsize=8192)
def is_constant(text: str) -> bool:
    """Holds no variable."""
    bare = re.sub(r"\\[A-Za-z]+", " ", text)
    return re.search(r"[A-Za-df-hj-z]", bare) is None


def is_loose(text: str) -> bool:
    """Holds what a scalar cannot: list commas, braces of sets, relations, bases, leftover text."""
    if _THOUSANDS.fullmatch(text.strip()):
        return False
    return bool(
        re.search(r"\\[{}$%]|\\(?:text|mbox|cup|cap|pm|mp|emptyset|begin|in|mathbb)(?![A-Za-z])|[%$;:?]", text)
        or top_level(text, RELATION)
        or re.search(r"\d\s*_", text)
        or top_level(text, COMMA)
    )
