r"""Decides whether two final answers are the same, part by part: sets, intervals, tuples, matrices, relations, text.

The brackets, orders, bases, units and signs of an answer are compared here, by rule; only bare scalar expressions go
to `leaf`, the caller's judge. This is what keeps a lenient symbolic grader from calling (1,2) and \{1,2\} equal.

A gold answer is trusted, a given answer is not: the rules are asymmetric where leniency could be gamed (a dropped
percent sign is forgiven, an added one is not).

Longer than 300 lines because the forms refer to each other: a set holds tuples that hold fractions.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from verifiers import latex_math, quantities
from verifiers.answer_text import canonical, clean, plain
from verifiers.latex_math import CannotTell

Leaf = Callable[[str, str], bool]
"""Whether two scalar LaTeX expressions are equal; may raise to say that it cannot tell."""

MAX_ITEMS = 60  # of a list, set or tuple
_OPEN, _SHUT = {"(": ")", "[": "]", "{": "}"}, frozenset(")]}")
_RELATION = re.compile(r"\\(?:le|ge|ne|in|approx|equiv|sim|subset|subseteq)(?![A-Za-z])|[<>=]")
_JOIN = re.compile(r"\\text\s*\{\s*,?\s*(?:or|and)\s*,?\s*\}|\b(?:or|and)\b|\\(?:vee|wedge|lor|land)(?![A-Za-z])|[,;]")
_AND = re.compile(r"\\text\s*\{\s*,?\s*and\s*,?\s*\}|\band\b|\\(?:wedge|land)(?![A-Za-z])")
_WEDGE, _VEE = re.compile(r"\\(?:wedge|land)(?![A-Za-z])"), re.compile(r"\\(?:vee|lor)(?![A-Za-z])")
_OR = re.compile(r"\\text\s*\{\s*,?\s*or\s*,?\s*\}|\bor\b|\\(?:vee|lor)(?![A-Za-z])")
_MATRIX = re.compile(r"\\begin\s*\{([bpvBV]?(?:small)?matrix|array)\}(?:\s*\{[clr|\s@]*\})?(.*)\\end\s*\{\1\}", re.S)
_NAME = re.compile(
    r"(?:\\(?:angle|overline|vec|hat|bar|mathbf|mathrm|measuredangle|triangle|text|operatorname)\s*)?"
    r"(?:[A-Za-z](?:_\{?\w+\}?)?'*|\\[A-Za-z]+(?:_\{?\w+\}?)?|\{[A-Za-z ]+\}|[A-Z]{2,4})"
    r"(?:\s*\(\s*[A-Za-z0-9](?:\s*,\s*[A-Za-z0-9])*\s*\)|\^\{?-1\}?\s*\([A-Za-z]\))?"
)
_CONSTANTS = frozenset(["\\pi", "\\infty", "e", "i"])
_CHOICE = re.compile(r"\(\s*([A-Ja-j])\s*\)|\\(?:text|textbf|textit|textrm|mathrm)\s*\{\s*\(?\s*([A-Z])\s*\)?\s*\}")
_LABELLED = re.compile(
    r"\\(?:text|textbf|textrm|mathrm)\s*\{\s*\(([A-J])\)\s*(?:\}|(?=[^{}]*\}$))[\s:.~]*([^\s}].*?)(?<!\})\}?"
)
_CONDITION = re.compile(
    r"\s*(?:,|\\text\s*\{\s*,?\s*(?:for|where)\s*\})\s*[a-z]\s*\\in\s*(?:\\mathbb\s*\{?\s*Z\s*\}?|\\Z)$"
)
_VALUE = re.compile(r"[a-zA-Z]\(x\)")
_WORD = re.compile(r"(?<![\\\w])[^\W\d_]{3,}")
_MATHY = re.compile(r"\\(?!text|mbox|mathrm|textbf|textit|textrm|%|\$)[A-Za-z]+|[0-9=<>+*/^_|]")


def equal(gold: str, given: str, leaf: Leaf, question: str = "") -> bool:
    """Whether the given answer is the gold answer.

    Args:
        gold: The reference answer, LaTeX or plain text.
        given: The extracted answer of the response.
        leaf: Judge of two scalar expressions; what it raises passes through.
        question: The problem's text. It decides two things only: whether a percent sign or a number base that one
            side leaves out was asked for.
    """
    gold, given = clean(gold), clean(given)
    if canonical(gold) == canonical(given):
        return bool(canonical(gold))
    for text in (gold, given):
        if found := _OPAQUE.search(text):
            raise CannotTell(f"{found[0]} inside an answer")
    if "\\bold" in gold + given and not all(re.search(r"\\(?:bold|vec)(?![A-Za-z])", text) for text in (gold, given)):
        gold, given = (re.sub(r"\\bold\{(\w)\}", r"\1 ", text) for text in (gold, given))  # x in bold is x
    return _Comparison(leaf, question).equal(gold, given)


_OPAQUE = re.compile(
    r"\\(?:boxed|fbox|framebox|cancel|bcancel|xcancel|sout|st|phantom|hphantom|vphantom|href|url|ref|cite|footnote"
    r"|overset|underset|stackrel|sideset|underbrace|overbrace|substack|not)(?![A-Za-z])"
)


@dataclass(frozen=True)
class _Piece:
    """One stretch of the real line; ends are LaTeX."""

    low: str
    low_in: bool
    high: str
    high_in: bool


class _Comparison:
    def __init__(self, leaf: Leaf, question: str) -> None:
        self.leaf, self.question, self.depth = leaf, question.lower(), 0

    def equal(self, gold: str, given: str) -> bool:
        if canonical(gold) == canonical(given):
            return bool(canonical(gold))
        if not gold or not given or self.depth > 6:
            return False
        self.depth += 1
        try:
            return self._equal(gold, given)
        finally:
            self.depth -= 1

    def _equal(self, gold: str, given: str) -> bool:
        gold, given = _unwrapped(gold), _unwrapped(given)
        if bool(_CONDITION.search(gold)) != bool(_CONDITION.search(given)):
            gold, given = _CONDITION.sub("", gold), _CONDITION.sub("", given)
        if (_WEDGE.search(gold) and _VEE.search(given)) or (_VEE.search(gold) and _WEDGE.search(given)):
            return False
        one, other = _LABELLED.fullmatch(gold), _LABELLED.fullmatch(given)
        if one or other:
            return self._labelled(gold, given, one, other)
        if _choice(gold) or _choice(given):
            choice = _choice(gold, lenient=True)
            return choice is not None and choice == _choice(given, lenient=True)
        if "\\pmod" in gold or "\\pmod" in given:
            return self._congruences(_CONGRUENCE.fullmatch(gold), _CONGRUENCE.fullmatch(given))
        gold, given = _membership(gold), _membership(given)
        gold_set, given_set = real_set(gold), real_set(given)
        if gold_set and given_set and (gold_set.certain or given_set.certain):
            return self._same_sets(gold_set, given_set)
        if is_text(gold) or is_text(given):
            if is_empty(gold) or is_empty(given):
                return is_empty(gold) and is_empty(given)
            return is_text(gold) and is_text(given) and same_words(gold, given)
        if (pairs := assignments(gold)) is not None or assignments(given) is not None:
            decided = self._assignments(pairs, assignments(given), gold, given)
            if decided is not None:
                return decided
        one, other = form(gold), form(given)
        if "relation" in (one[0], other[0]):
            return self._relations(gold, given)
        if one[0] == "scalar" and other[0] == "scalar":
            return self._scalars(gold, given)
        if one[0] in ("list", "set") and other[0] in ("list", "set"):
            if any(_DOTS.search(item) for item in (*one[1], *other[1])):  # 1, 2, ..., n is no set of three
                return len(one[1]) == len(other[1]) and all(
                    self.equal(a, b) for a, b in zip(one[1], other[1], strict=True)
                )
            distinct = "set" in (one[0], other[0])
            return self._matched(self._items(one[1], distinct), self._items(other[1], distinct))
        if one[0] != other[0]:
            return False
        if one[0] == "union":
            return self._matched(one[1], other[1])
        if one[2] != other[2] or len(one[1]) != len(other[1]):
            return False
        return all(self.equal(a, b) for a, b in zip(one[1], other[1], strict=True))

    def _congruences(self, one: re.Match[str] | None, other: re.Match[str] | None) -> bool:
        r"""`x \equiv 2 \pmod 5`: the name, the modulus, and the residue (any number of its class)."""
        if one is None or other is None:
            return False
        if canonical(one["modulus"]) != canonical(other["modulus"]):
            return False
        if one["name"] and other["name"] and canonical(one["name"]) != canonical(other["name"]):
            return False
        residues = [re.split(r"\s*,\s*", match["residue"].strip()) for match in (one, other)]
        modulus = one["modulus"]
        if modulus.isdigit() and int(modulus) and all(re.fullmatch(r"-?\d+", r) for side in residues for r in side):
            classes = [sorted(int(r) % int(modulus) for r in side) for side in residues]
            return classes[0] == classes[1]
        return self._matched(*residues)

    def _labelled(self, gold: str, given: str, one: re.Match[str] | None, other: re.Match[str] | None) -> bool:
        r"""`\textbf{(B)}\ 12` is B and is 12; two such must agree in both."""
        if one and other:
            return one[1] == other[1] and self.equal(one[2], other[2])
        label, rest, plain_side = (one[1], one[2], given) if one else (other[1], other[2], gold)  # pyright: ignore
        if letter := _choice(plain_side, lenient=True):
            return letter == label and re.search(r"^[,;/&]|\([A-J]\)|\b(?:or|and|not)\b", rest) is None
        return self.equal(rest, plain_side) if one else self.equal(plain_side, rest)

    def _assignments(
        self, one: dict[str, str] | None, other: dict[str, str] | None, gold: str, given: str
    ) -> bool | None:
        """x=1, y=2 against itself in any order, against (1,2) and (x,y)=(1,2) in the order of the names."""
        if one is not None and other is not None:
            return one.keys() == other.keys() and all(self.equal(one[name], other[name]) for name in one)
        known, text = (one, given) if one is not None else (other, gold)
        if known is None:
            return None
        kind, items, _ = form(text)
        if kind == "relation" and (sides := split_relation(text)) and sides[1] == ["="]:
            names, values = (form(side) for side in sides[0])
            if names[0] == values[0] == "tuple" and len(names[1]) == len(values[1]):
                rest = ", ".join(f"{name}={value}" for name, value in zip(names[1], values[1], strict=True))
                ours, theirs = (gold, rest) if one is not None else (rest, given)
                return assignments(rest) is not None and self.equal(ours, theirs)
            return None
        if kind not in ("tuple", "list") or len(items) != len(known) or top_level(text, _OR):
            return False
        pairs = zip((known[name] for name in sorted(known)), items, strict=True)
        return all(self.equal(a, b) if one is not None else self.equal(b, a) for a, b in pairs)

    def _items(self, items: list[str], distinct: bool) -> list[str]:
        """The members, each \\pm written out, repeats dropped in sets."""
        spread = [sign for item in items for sign in plus_minus(item)]
        if not distinct:
            return spread
        kept: list[str] = []
        for item in spread:
            if not any(self.equal(item, old) for old in kept):
                kept.append(item)
        return kept

    def _matched(self, gold: list[str], given: list[str]) -> bool:
        """Whether the members pair off, in any order."""
        if len(gold) != len(given) or len(gold) > MAX_ITEMS:
            return False
        left = list(given)
        for item in gold:
            found = next((i for i, other in enumerate(left) if self.equal(item, other)), None)
            if found is None:
                return False
            left.pop(found)
        return True

    # relations -------------------------------------------------------------------------------------------------

    def _relations(self, gold: str, given: str) -> bool:
        one, other = split_relation(gold), split_relation(given)
        if one is None or other is None:
            parts, signs = (one or other) or ([], [])
            if set(signs) != {"="}:
                return False
            if one is not None and form(given)[0] != "scalar" and not is_name(parts[0]):
                return False
            return self._assigned(parts, given if one is not None else gold, from_gold=one is not None)
        if set(one[1]) == {"="} and set(other[1]) == {"="} and len(one[0]) == len(other[0]) == 2:
            (left_a, right_a), (left_b, right_b) = one[0], other[0]
            if canonical(left_a) == canonical(left_b):
                return self.equal(right_a, right_b)
            if {"y"} < {left_a, left_b} and any(_VALUE.fullmatch(left) for left in (left_a, left_b)):
                return self.equal(right_a, right_b)  # f(x) = ... as y = ...
            if any(is_name(left) and "(" in left for left in (left_a, left_b)):
                return False
            if is_name(left_a) and is_name(left_b) and not (is_expression(right_a) and is_expression(right_b)):
                return False
            return self._proportional(left_a, right_a, left_b, right_b, signed=False)
        if len(one[0]) == len(other[0]) == 2:
            a, b = _upward(one), _upward(other)
            if a[1] != b[1]:
                return False
            if a[1] in ("<", "\\le"):
                return self._proportional(*a[0], *b[0], signed=True)
            return canonical(a[0][0]) == canonical(b[0][0]) and self.equal(a[0][1], b[0][1])
        a, b = _rising(one), _rising(other)
        if a[1] != b[1] or len(a[0]) != len(b[0]):
            return False
        return all(self.equal(x, y) for x, y in zip(a[0], b[0], strict=True))

    def _assigned(self, parts: list[str], value: str, from_gold: bool) -> bool:
        """`x = 5` against 5. What is named must be a name; a chain of numbers must be true throughout."""
        named = [part for part in parts if is_name(part)]
        values = [part for part in parts if not is_name(part)]
        if not values or (len(named) == 0 and from_gold):
            return False
        if named and not is_name(parts[0]):
            named, values = parts[-1:] if is_name(parts[-1]) else [], values
            if not named:
                return False
        target = values[-1]
        if any(not self.equal(target, other) for other in values[:-1]):
            return False
        if not named and not all(is_constant(part) for part in values):
            return False
        return self.equal(target, value) if from_gold else self.equal(value, target)

    def _proportional(self, left_a: str, right_a: str, left_b: str, right_b: str, signed: bool) -> bool:
        """Whether two equations (inequalities) say the same: their differences are multiples of each other."""
        if any(_loose(part) for part in (left_a, right_a, left_b, right_b)):
            return False
        a, b = f"({left_a})-({right_a})", f"({left_b})-({right_b})"
        ratio = getattr(self.leaf, "proportional", None)
        if ratio is None:
            return self.leaf(a, b) or (not signed and self.leaf(a, f"-({b})"))
        return ratio(a, b, signed)

    # sets of reals -----------------------------------------------------------------------------------------------

    def _same_sets(self, gold: RealSet, given: RealSet) -> bool:
        if gold.name and given.name and canonical(gold.name) != canonical(given.name):
            return False
        if len(gold.pieces) != len(given.pieces):
            return False
        left = list(given.pieces)
        for piece in gold.pieces:
            found = next((i for i, other in enumerate(left) if self._same_piece(piece, other)), None)
            if found is None:
                return False
            left.pop(found)
        return True

    def _same_piece(self, a: _Piece, b: _Piece) -> bool:
        if (a.low_in, a.high_in) != (b.low_in, b.high_in):
            return False
        return self.equal(a.low, b.low) and self.equal(a.high, b.high)

    # scalars -----------------------------------------------------------------------------------------------------

    def _scalars(self, gold: str, given: str) -> bool:
        a, b = quantities.split(gold), quantities.split(given)
        if a.base or b.base:
            if a.base and b.base:
                return a.base == b.base and a.number == b.number
            base = a.base or b.base
            asked = re.search(rf"\bbase[ -]*\$?{base}\b|base_?\{{?{base}\b", self.question) or any(
                f"base {word}" in self.question for word, value in quantities._WORD_BASES.items() if value == base
            )
            return bool(asked) and canonical(a.number) == canonical(b.number)
        if a.percent or b.percent:
            return self._percents(a, b)
        a = quantities.Quantity(gold) if a.weak and not b.unit else a
        b = quantities.Quantity(given) if b.weak and not a.unit else b
        if {a.unit, b.unit} == {"degree", ""} and "\\pi" in (a.number if b.unit else b.number):
            a, b = (replace(x, unit=x.unit or "radian") for x in (a, b))
        factor = quantities.convertible(a, b)
        if factor is None:
            angles = {a.unit: a.number, b.unit: b.number}
            if set(angles) == {"degree", "radian"}:
                return self.leaf(f"({angles['degree']})\\cdot\\pi/180", angles["radian"])
            return False
        number = b.number if factor == 1 else f"({b.number})\\cdot({factor.numerator}/{factor.denominator})"
        if not a.number or not number:
            return False
        if canonical(a.number) == canonical(number):
            return True
        if _loose(a.number) or _loose(number):
            raise CannotTell("a scalar with more in it than a number")
        return self.leaf(a.number, number)

    def _percents(self, gold: quantities.Quantity, given: quantities.Quantity) -> bool:
        if gold.unit or given.unit or not gold.number or not given.number:
            return False
        if gold.percent and given.percent:
            return self.leaf(gold.number, given.number)
        if gold.percent:
            return self.leaf(gold.number, given.number) or self._share(gold.number, given.number, proper=False)
        if ("percent" in self.question or "%" in self.question) and self.leaf(gold.number, given.number):
            return True
        return self._share(given.number, gold.number)

    def _share(self, percent: str, number: str, proper: bool = True) -> bool:
        """50% as the proportion 0.5; `proper` allows 0 to 1 only, where a reader would take it so."""
        if not proper and re.fullmatch(r"\d+\.\d+|\\frac\s*\{\d+\}\{\d+\}|\d+/\d+", number.strip()):
            return self.leaf(f"({percent})/100", number)
        inside = re.fullmatch(r"(?:0?\.\d+|[01])|\\frac\s*\{?(\d+)\}?\s*\{?(\d+)\}?|(\d+)/(\d+)", number.strip())
        if inside is None or (inside[1] and int(inside[1]) > int(inside[2])):
            return False
        if inside[3] and int(inside[3]) > int(inside[4]):
            return False
        return self.leaf(f"({percent})/100", number)


_CONGRUENCE = re.compile(
    r"(?:(?P<name>[^=<>]+?)\s*(?:\\equiv(?![A-Za-z])|=))?\s*(?P<residue>[^=<>]+?)\s*,?\s*\\pmod\{(?P<modulus>\w+)\}"
)
_DOTS = re.compile(r"\\ldots")
_MEMBER = re.compile(r"([A-Za-z](?:_\{?\w+\}?)?)\s*\\in(?![A-Za-z])\s*(\\\{.*\\\})", re.S)


def _membership(text: str) -> str:
    r"""`x \in \{1, 2\}` as the set, when it is one that is listed."""
    match = _MEMBER.fullmatch(text)
    if match and (inside := _wrapped(match[2], "\\{", "\\}")) and not top_level(inside, _CONDITIONED):
        return match[2]
    return text


_CONDITIONED = re.compile(r"\||:|\\in(?![A-Za-z])|[<>=]|\\(?:le|ge|ne)(?![A-Za-z])")


# taking answers apart --------------------------------------------------------------------------------------------


def is_text(text: str) -> bool:
    """Words, not mathematics: `\\text{east}`, Evelyn, 4:30 p.m."""
    if re.search(r"\d\s*(?:\\text\s*\{)?\s*[ap]\.?\s?m\b\.?", text, re.I):
        return True
    bare = plain(text)
    if _MATHY.search(bare):
        return False
    if re.search(r"\\(?:text|mbox|textbf)\s*\{[^{}]*[^\W\d_]{2,}[^{}]*\}", text):
        return not re.sub(r"\\(?:text|mbox|textbf|textit|mathrm)\s*\{[^{}]*\}|[\s,;.]", "", text) or bool(
            _WORD.search(bare)
        )
    return bool(_WORD.search(bare)) and re.fullmatch(r"[^\W\d_](?:[^\W\d_]|[\s,;.'’?!-])*", bare) is not None


def words(text: str) -> tuple[str, ...]:
    """The words of a text answer, without case and punctuation; an article counts only where it stands alone.

    Lists of words (`A, B and C`) come in a fixed order. Letters of every script are kept.
    """
    bare = unicodedata.normalize("NFKC", _ACCENT.sub(_accented, plain(text))).casefold()
    bare = re.sub(r"\b([ap])\.?\s*m\b\.?", r"\1m", bare)
    bare = re.sub(r"(\d):00(?=\s*[ap]m)", r"\1", bare)
    found = []
    for part in re.split(r"\s*[,;]\s*(?:\b(?:and|or)\b)?|\b(?:and|or)\b", bare.strip().strip(".,;")):
        tokens = re.findall(r"[\w:.]+", re.sub("['’‘-]", "", part))
        tokens = [token.strip(".") for token in tokens if token.strip(".")]
        if len(tokens) > 1:
            tokens = [token for token in tokens if token not in ("the", "a", "an")] or tokens
        found.append(" ".join(tokens))
    return tuple(sorted(found)) if any(found) else (bare,)


def same_words(gold: str, given: str) -> bool:
    """Whether two texts say the same words; `right-angled` may be written as one word or two."""
    if words(gold) == words(given):
        return True
    if not re.search(r"\w-\w", gold + given):
        return False
    options = [{words(text), words(text.replace("-", " "))} for text in (gold, given)]
    return bool(options[0] & options[1])


_ACCENT = re.compile(r"\\([\"'`^~])\s*\{?\s*([A-Za-z])\s*\}?")
_MARKS = {'"': "\u0308", "'": "\u0301", "`": "\u0300", "^": "\u0302", "~": "\u0303"}


def _accented(match: re.Match[str]) -> str:
    return match[2] + _MARKS[match[1]]


def _choice(text: str, lenient: bool = False) -> str | None:
    """The letter of a multiple-choice answer."""
    if match := _CHOICE.fullmatch(text):
        return (match[1] or match[2]).upper()
    if lenient and (match := re.fullmatch(r"\(?\s*([A-Za-z])\s*\)?\s*\.?", plain(text).strip())):
        return match[1].upper()
    return None


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


def cut(text: str, pattern: re.Pattern[str], keep_empty: bool = False) -> list[str]:
    """The stretches between a pattern's top-level matches; empty stretches dropped unless they are kept."""
    parts, at = [], 0
    for match in top_level(text, pattern):
        parts.append(text[at : match.start()].strip())
        at = match.end()
    parts.append(text[at:].strip())
    return [part for part in parts if part or keep_empty]


Form = tuple[Literal["scalar", "list", "set", "tuple", "matrix", "union", "relation", "ratio"], list[str], str]
_COMMA, _CUP = re.compile(r"[,;]"), re.compile(r"\\cup(?![A-Za-z])")
_THOUSANDS = re.compile(r"[-+]?(?:\\?\$)?\s*\d{1,3}(?:,\d{3})+(?!\d|,)(?:\.\d+)?")


def form(text: str) -> Form:
    """What an answer is, its members, and the brackets (or the shape) that must agree."""
    text = text.strip()
    if "\\begin" in text and (found := matrix(text)):
        kind, rows = found
        return "matrix", [cell for row in rows for cell in row], f"{kind} {[len(row) for row in rows]}"
    if text.startswith("[") and (rows := _list_of_rows(text)):
        return "matrix", [cell for row in rows for cell in row], f"matrix {[len(row) for row in rows]}"
    if top_level(text, _CUP):
        return "union", cut(text, _CUP), ""
    if len(items := cut(_hide_thousands(text), _JOIN)) > 1:
        return "list", items, ""
    if inside := _wrapped(text, "\\{", "\\}"):
        return "set", cut(_hide_thousands(inside), _JOIN), ""
    if text in ("\\{\\}", "\\{ \\}", "\\emptyset"):
        return "set", [], ""
    if len(signs := plus_minus(text)) > 1:
        return "list", signs, ""
    if top_level(text, _RELATION):
        return "relation", [text], ""
    if inside := _wrapped(text, "\\langle", "\\rangle"):
        return "tuple", cut(inside, _COMMA), "()"
    if text[:1] in ("(", "[", "]") and text[-1:] in (")", "]", "["):
        inside = text[1:-1]
        if len(items := cut(inside, _COMMA)) > 1 and _balanced(inside):
            return "tuple", items, text[0] + text[-1]
    if re.fullmatch(r"[^:]+(?::[^:]+)+", text) and not top_level(text, re.compile(r"\\text")):
        return "ratio", [part.strip() for part in text.split(":")], str(text.count(":"))
    return "scalar", [text], ""


def matrix(text: str) -> tuple[str, list[list[str]]] | None:
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
    while factor and shut and shut[0] == {"(": ")", "[": "]", "{": "}", "|": "|"}.get(factor[-1]):
        bars |= shut.pop(0) == "|"
        factor = re.sub(r"\\(?:cdot|times)\s*$", "", factor[:-1].strip()).strip()
        rest = inner + "".join(shut)
    rest = rest.replace("\\hline", "")
    match = _MATRIX.fullmatch(rest.strip())
    if match is None or (factor and (top_level(factor[1:], re.compile("[-+]")) or not _balanced(factor))):
        return None
    if top_level(factor, _JOIN) or top_level(factor, _RELATION) or "\\begin" in match[2]:
        return None
    kind = "det" if bars or match[1].startswith(("v", "V")) else "matrix"
    if kind == "det" and (factor or turned or divisor):
        return None
    lines = [row for row in re.split(r"\\\\(?:\[\w+\])?", match[2]) if row.strip()]
    rows = [cut(row, re.compile("&"), keep_empty=True) for row in lines]
    if factor:
        factor = f"{factor}1" if factor in ("-", "+") else factor
        rows = [[f"({factor})({cell})" for cell in row] for row in rows]
    if divisor:
        rows = [[f"({cell})/({divisor})" for cell in row] for row in rows]
    if turned and len({len(row) for row in rows}) == 1:
        rows = [list(column) for column in zip(*rows, strict=True)]
    return kind, rows


def _list_of_rows(text: str) -> list[list[str]] | None:
    """[[1, 2], [3, 4]], as programs write a matrix."""
    inside = text[1:-1].strip()
    if not text.endswith("]") or not inside.startswith("[") or not inside.endswith("]"):
        return None
    rows = cut(inside, _COMMA)
    if not all(row.startswith("[") and row.endswith("]") and _balanced(row[1:-1]) for row in rows):
        return None
    cells = [cut(row[1:-1], _COMMA) for row in rows]
    return cells if len({len(row) for row in cells}) == 1 and cells[0] else None


_TRANSPOSED = re.compile(r"\s*\^\s*\{?\s*(?:T|\\top|\\intercal|\\text\s*\{\s*T\s*\})\s*\}?\s*$")


def _hide_thousands(text: str) -> str:
    """1,234,567 as one number; `1,234` inside brackets is left alone."""
    if _THOUSANDS.match(text):
        return re.sub(
            r"^([-+]?(?:\\?\$)?\s*)(\d{1,3}(?:,\d{3})+)(?!\d|,)", lambda m: m[1] + m[2].replace(",", ""), text
        )
    return text


def _wrapped(text: str, left: str, right: str) -> str | None:
    inside = text[len(left) : -len(right)]
    return inside.strip() if text.startswith(left) and text.endswith(right) and _balanced(inside) else None


def _balanced(text: str) -> bool:
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
    if not _PM.search(text) or top_level(text, _RELATION):
        if _PM.search(text) and (parts := split_relation(text)) and is_name(parts[0][0]) and len(parts[0]) == 2:
            return [f"{parts[0][0]}={sign}" for sign in plus_minus(parts[0][1])]
        return [text]
    upper = _PM.sub(lambda match: "+" if match[1] == "pm" else "-", text)
    lower = _PM.sub(lambda match: "-" if match[1] == "pm" else "+", text)
    return [upper.removeprefix("+").strip(), lower.removeprefix("+").strip()]


def split_relation(text: str) -> tuple[list[str], list[str]] | None:
    """The sides and the signs of a relation, None when there is no sign or an empty side."""
    signs = [match[0] for match in top_level(text, _RELATION)]
    sides, at = [], 0
    for match in top_level(text, _RELATION):
        sides.append(text[at : match.start()].strip())
        at = match.end()
    sides.append(text[at:].strip())
    return (sides, signs) if signs and all(sides) else None


_FLIP = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}


def _upward(relation: tuple[list[str], list[str]]) -> tuple[tuple[str, str], str]:
    (left, right), (sign,) = relation
    return ((right, left), _FLIP[sign]) if sign in (">", "\\ge") else ((left, right), sign)


def _rising(relation: tuple[list[str], list[str]]) -> tuple[list[str], list[str]]:
    sides, signs = relation
    if signs and all(sign in (">", "\\ge", "=") for sign in signs):
        return sides[::-1], [_FLIP.get(sign, sign) for sign in signs[::-1]]
    return sides, signs


def _unwrapped(text: str) -> str:
    """Without plain braces around everything, which TeX does not print, and a system of equations as their list."""
    if match := _SYSTEM.fullmatch(text):
        text = ", ".join(row.strip().rstrip(",") for row in match[1].split("\\\\") if row.strip())
    while text.startswith("{") and text.endswith("}") and _balanced(text[1:-1]) and text[1:-1].strip():
        text = text[1:-1].strip()
    return text


_SYSTEM = re.compile(r"\\begin\s*\{cases\}([^&]*)\\end\s*\{cases\}", re.S)
_EMPTY = frozenset([("no solution",), ("no solutions",), ("empty set",)])


def is_empty(text: str) -> bool:
    """The empty set, in signs or words."""
    return text in ("\\{\\}", "\\{ \\}", "\\emptyset") or (is_text(text) and words(text) in _EMPTY)


def assignments(text: str) -> dict[str, str] | None:
    """{name: value} of `x=1, y=2`: two or more different names, each with one constant; else None."""
    found: dict[str, str] = {}
    parts = cut(_hide_thousands(text), _JOIN) if "=" in text and not top_level(text, _OR) else []
    for part in parts:
        sides = split_relation(part)
        if sides is None or sides[1] != ["="] or not re.fullmatch(r"\\?[A-Za-z]+(?:_\{?\w+\}?)?", sides[0][0]):
            return None
        if sides[0][0] in found or not is_constant(sides[0][1]) or not is_name(sides[0][0]):
            return None
        found[sides[0][0]] = sides[0][1]
    return found if len(found) > 1 else None


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


def is_constant(text: str) -> bool:
    """Holds no variable."""
    bare = re.sub(r"\\[A-Za-z]+", " ", text)
    return re.search(r"[A-Za-df-hj-z]", bare) is None


def _loose(text: str) -> bool:
    """Holds what a scalar cannot: list commas, braces of sets, relations, bases, leftover text."""
    if _THOUSANDS.fullmatch(text.strip()):
        return False
    return bool(
        re.search(r"\\[{}$%]|\\(?:text|mbox|cup|cap|pm|mp|emptyset|begin|in|mathbb)(?![A-Za-z])|[%$;:?]", text)
        or top_level(text, _RELATION)
        or re.search(r"\d\s*_", text)
        or top_level(text, _COMMA)
    )


@dataclass(frozen=True)
class RealSet:
    """A set of real numbers as pieces; `certain` when the notation can mean nothing else ((1,2) may be a point)."""

    pieces: tuple[_Piece, ...]
    certain: bool
    name: str = ""


def real_set(text: str) -> RealSet | None:
    """Reads intervals, unions, inequalities in one variable, reals without some points; None for anything else."""
    text = text.strip()
    if match := re.fullmatch(r"\\\{\s*([a-zA-Z])\s*(?:\\in\s*\\mathbb\{R\})?\s*(?:\||:)(.*)\\\}", text):
        inner = real_set(match[2])
        return inner if inner and inner.name in ("", match[1]) else None
    if re.fullmatch(r"\\mathbb\{R\}|(?:\\text\s*\{)?\s*(?:all )?real(?: number)?s\s*\}?", text):
        return RealSet((_Piece("-\\infty", False, "\\infty", False),), True)
    if match := re.fullmatch(r"\\mathbb\{R\}\s*(?:\\setminus|\\backslash|-|\\)\s*\\\{(.+)\\\}", text):
        pieces = _without(cut(match[1], _COMMA))
        return RealSet(pieces, True) if pieces else None
    if match := _MINUS.fullmatch(text):
        inner, removed = real_set(match[1]), cut(match[2], _COMMA)
        return _removed(inner, removed) if inner and removed else None
    if len(parts := cut(text, _CONDITIONS)) > 1 and (found := _conditions(parts)):
        return found
    if match := re.fullmatch(
        r"(?:\\text\s*\{\s*)?all real numbers (?:except|but|other than)(?: for)?\s*\}?\s*(?:[a-z]\s*=\s*)?(.+?)\}?",
        text,
    ):
        pieces = _without(cut(match[1], _JOIN))
        return RealSet(pieces, True) if pieces else None
    if match := re.fullmatch(r"([A-Za-z](?:_\{?\w+\}?)?)\s*\\in(?![A-Za-z])\s*(.*)", text):
        inner = real_set(match[2])
        return RealSet(inner.pieces, True, match[1]) if inner else None
    if len(parts := cut(text, _AND)) == 2:
        return _both([real_set(part) for part in parts])
    for joint in (_CUP, _OR):
        if len(parts := cut(text, joint)) > 1:
            sets = [real_set(part) for part in parts]
            if all(sets):
                names = {s.name for s in sets if s} - {""}
                if len(names) < 2:
                    return RealSet(tuple(p for s in sets if s for p in s.pieces), True, "".join(names))
            return None
    if relation := split_relation(text):
        return _ray(*relation)
    if text[:1] in ("(", "[", "]") and text[-1:] in (")", "]", "[") and _balanced(text[1:-1]):
        ends = cut(text[1:-1], _COMMA)
        if len(ends) == 2:
            certain = text[0] + text[-1] not in ("()", "[]") or "\\infty" in text
            return RealSet((_Piece(ends[0], text[0] == "[", ends[1], text[-1] == "]"),), certain)
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
            at = latex_math.exact(latex_math.read(point), {})
            left: list[_Piece] = []
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
    return infinite[text] if text in infinite else latex_math.exact(latex_math.read(text), {})


def _both(sets: list[RealSet | None]) -> RealSet | None:
    """x > 1 and x < 3 as one piece; None for what is no pair of rays, one each way."""
    rays = [found.pieces[0] for found in sets if found and found.name and len(found.pieces) == 1]
    if len(rays) != 2 or sets[0] is None or sets[1] is None or sets[0].name != sets[1].name:
        return None
    down, up = sorted(rays, key=lambda piece: piece.low != "-\\infty")
    if down.low != "-\\infty" or up.high != "\\infty" or up.low == "-\\infty":
        return None
    return RealSet((_Piece(up.low, up.low_in, down.high, down.high_in),), True, sets[0].name)


def _without(points: list[str]) -> tuple[_Piece, ...]:
    """The reals without some points; () when the order of the points is not plain."""
    points = [sign for point in points for sign in plus_minus(point)]
    if len(points) > 1:
        try:
            points = sorted(points, key=lambda point: latex_math.exact(latex_math.read(point), {}))
        except (ValueError, ArithmeticError, LookupError):
            return ()
    ends = ["-\\infty", *points, "\\infty"]
    return tuple(_Piece(low, False, high, False) for low, high in itertools.pairwise(ends))


def _absolute(sides: list[str], closed: bool) -> RealSet | None:
    """|x| < 2 and |x| > 2, for a bound without a sign."""
    for inner, bound in (sides, sides[::-1]):
        match = re.fullmatch(r"\|\s*([A-Za-z])\s*\|", inner)
        if match and is_constant(bound) and bound[:1] not in "-+" and not top_level(bound, re.compile("[-+]")):
            if inner == sides[0]:
                return RealSet((_Piece(f"-{bound}", closed, bound, closed),), True, match[1])
            outside = _Piece("-\\infty", False, f"-{bound}", closed), _Piece(bound, closed, "\\infty", False)
            return RealSet(outside, True, match[1])
    return None


def _ray(sides: list[str], signs: list[str]) -> RealSet | None:
    """x > a, a <= x, a < x <= b, x != a."""
    if len(sides) == 2 and signs == ["\\ne"] and is_name(sides[0]) and is_constant(sides[1]):
        pieces = _without([sides[1]])
        return RealSet(pieces, True, sides[0]) if pieces else None
    sides, signs = _rising((sides, signs))
    if any(sign not in ("<", "\\le") for sign in signs):
        return None
    if len(sides) == 2:
        if found := _absolute(sides, signs[0] == "\\le"):
            return found
        if is_name(sides[0]) and is_constant(sides[1]):
            return RealSet((_Piece("-\\infty", False, sides[1], signs[0] == "\\le"),), True, sides[0])
        if is_name(sides[1]) and is_constant(sides[0]):
            return RealSet((_Piece(sides[0], signs[0] == "\\le", "\\infty", False),), True, sides[1])
    if len(sides) == 3 and is_name(sides[1]) and is_constant(sides[0]) and is_constant(sides[2]):
        return RealSet((_Piece(sides[0], signs[0] == "\\le", sides[2], signs[1] == "\\le"),), True, sides[1])
    return None


__all__ = ["RealSet", "equal", "form", "is_text", "real_set", "words"]
