r"""Decides whether two final answers are the same, part by part: sets, intervals, tuples, matrices, relations, text.

The brackets, orders, bases, units and signs of an answer are compared here, by rule; only bare scalar expressions go
to `leaf`, the caller's judge. This is what keeps a lenient symbolic grader from calling (1,2) and \{1,2\} equal.

A gold answer is trusted, a given answer is not: the rules are asymmetric where leniency could be gamed (a dropped
percent sign is forgiven, an added one is not).

Longer than 300 lines because the rules refer to each other: a set holds tuples that hold fractions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from verifiers.math import quantities
from verifiers.math.answer_parts import (
    JOIN,
    OR,
    is_constant,
    is_expression,
    is_loose,
    is_name,
    is_upward,
    joined_thousands,
    order_rising,
    parse_form,
    plus_minus,
    split_relation,
    split_top_level,
    strip_braces,
    strip_brackets,
    top_level,
)
from verifiers.math.answer_text import canonical_answer, clean_latex
from verifiers.math.answer_words import choice_of, is_empty, is_text, same_words
from verifiers.math.latex_math import CannotTell
from verifiers.math.real_sets import Piece, RealSet, real_set

Leaf = Callable[[str, str], bool]


"""Whether two scalar LaTeX expressions are equal; may raise to say that it cannot tell."""


MAX_ITEMS = 60  # of a list, set or tuple


_WEDGE, _VEE = re.compile(r"\\(?:wedge|land)(?![A-Za-z])"), re.compile(r"\\(?:vee|lor)(?![A-Za-z])")


_LABELLED = re.compile(
    r"\\(?:text|textbf|textrm|mathrm)\s*\{\s*\(([A-J])\)\s*(?:\}|(?=[^{}]*\}$))[\s:.~]*([^\s}].*?)(?<!\})\}?"
)


_CONDITION = re.compile(
    r"\s*(?:,|\\text\s*\{\s*,?\s*(?:for|where)\s*\})\s*[a-z]\s*\\in\s*(?:\\mathbb\s*\{?\s*Z\s*\}?|\\Z)$"
)


_VALUE = re.compile(r"[a-zA-Z]\(x\)")


def answers_equal(gold: str, given: str, leaf: Leaf, question: str = "") -> bool:
    """Whether the given answer is the gold answer.

    Args:
        gold: The reference answer, LaTeX or plain text.
        given: The extracted answer of the response.
        leaf: Judge of two scalar expressions; what it raises passes through.
        question: The problem's text. It decides two things only: whether a percent sign or a number base that one
            side leaves out was asked for.
    """
    gold, given = clean_latex(gold), clean_latex(given)
    if canonical_answer(gold) == canonical_answer(given):
        return bool(canonical_answer(gold))
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


class _Comparison:
    def __init__(self, leaf: Leaf, question: str) -> None:
        self.leaf, self.question, self.depth = leaf, question.lower(), 0

    def equal(self, gold: str, given: str) -> bool:
        if canonical_answer(gold) == canonical_answer(given):
            return bool(canonical_answer(gold))
        if not gold or not given or self.depth > 6:
            return False
        self.depth += 1
        try:
            return self._equal(gold, given)
        finally:
            self.depth -= 1

    def _equal(self, gold: str, given: str) -> bool:
        gold, given = strip_braces(gold), strip_braces(given)
        if bool(_CONDITION.search(gold)) != bool(_CONDITION.search(given)):
            gold, given = _CONDITION.sub("", gold), _CONDITION.sub("", given)
        if (_WEDGE.search(gold) and _VEE.search(given)) or (_VEE.search(gold) and _WEDGE.search(given)):
            return False
        one, other = _LABELLED.fullmatch(gold), _LABELLED.fullmatch(given)
        if one or other:
            return self._labelled(gold, given, one, other)
        if choice_of(gold) or choice_of(given):
            choice = choice_of(gold, lenient=True)
            return choice is not None and choice == choice_of(given, lenient=True)
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
        if (pairs := parse_assignments(gold)) is not None or parse_assignments(given) is not None:
            decided = self._assignments(pairs, parse_assignments(given), gold, given)
            if decided is not None:
                return decided
        one, other = parse_form(gold), parse_form(given)
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
        if canonical_answer(one["modulus"]) != canonical_answer(other["modulus"]):
            return False
        if one["name"] and other["name"] and canonical_answer(one["name"]) != canonical_answer(other["name"]):
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
        if letter := choice_of(plain_side, lenient=True):
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
        kind, items, _ = parse_form(text)
        if kind == "relation" and (sides := split_relation(text)) and sides[1] == ["="]:
            names, values = (parse_form(side) for side in sides[0])
            if names[0] == values[0] == "tuple" and len(names[1]) == len(values[1]):
                rest = ", ".join(f"{name}={value}" for name, value in zip(names[1], values[1], strict=True))
                ours, theirs = (gold, rest) if one is not None else (rest, given)
                return parse_assignments(rest) is not None and self.equal(ours, theirs)
            return None
        if kind not in ("tuple", "list") or len(items) != len(known) or top_level(text, OR):
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
            if not any(self._repeats(item, old) for old in kept):
                kept.append(item)
        return kept

    def _repeats(self, item: str, old: str) -> bool:
        try:
            return self.equal(item, old)
        except CannotTell:  # two members that are not understood, and differ as texts
            return False

    def _matched(self, gold: list[str], given: list[str]) -> bool:
        """Whether the members pair off, in any order."""
        if len(gold) != len(given) or len(gold) > MAX_ITEMS:
            return False
        left = list(given)
        for item in gold:
            found, unclear = None, None
            for i, other in enumerate(left):
                try:
                    if self.equal(item, other):
                        found = i
                        break
                except CannotTell as error:
                    unclear = error
            if found is None:
                if unclear is not None:
                    raise unclear
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
            if one is not None and parse_form(given)[0] != "scalar" and not is_name(parts[0]):
                return False
            return self._assigned(parts, given if one is not None else gold, from_gold=one is not None)
        if set(one[1]) == {"="} and set(other[1]) == {"="} and len(one[0]) == len(other[0]) == 2:
            (left_a, right_a), (left_b, right_b) = one[0], other[0]
            if canonical_answer(left_a) == canonical_answer(left_b):
                return self.equal(right_a, right_b)
            if {"y"} < {left_a, left_b} and any(_VALUE.fullmatch(left) for left in (left_a, left_b)):
                return self.equal(right_a, right_b)  # f(x) = ... as y = ...
            if any(is_name(left) and "(" in left for left in (left_a, left_b)):
                return False
            if is_name(left_a) and is_name(left_b) and not (is_expression(right_a) and is_expression(right_b)):
                return False
            return self._proportional(left_a, right_a, left_b, right_b, signed=False)
        if len(one[0]) == len(other[0]) == 2:
            a, b = is_upward(one), is_upward(other)
            if a[1] != b[1]:
                return False
            if a[1] in ("<", "\\le"):
                return self._proportional(*a[0], *b[0], signed=True)
            return canonical_answer(a[0][0]) == canonical_answer(b[0][0]) and self.equal(a[0][1], b[0][1])
        a, b = order_rising(one), order_rising(other)
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
        if any(is_loose(part) for part in (left_a, right_a, left_b, right_b)):
            return False
        a, b = f"({left_a})-({right_a})", f"({left_b})-({right_b})"
        ratio = getattr(self.leaf, "is_proportional", None)
        if ratio is None:
            return self.leaf(a, b) or (not signed and self.leaf(a, f"-({b})"))
        return ratio(a, b, signed)

    # sets of reals -----------------------------------------------------------------------------------------------

    def _same_sets(self, gold: RealSet, given: RealSet) -> bool:
        if gold.name and given.name and canonical_answer(gold.name) != canonical_answer(given.name):
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

    def _same_piece(self, a: Piece, b: Piece) -> bool:
        if (a.low_in, a.high_in) != (b.low_in, b.high_in):
            return False
        return self.equal(a.low, b.low) and self.equal(a.high, b.high)

    # scalars -----------------------------------------------------------------------------------------------------

    def _scalars(self, gold: str, given: str) -> bool:
        a, b = quantities.split_quantity(gold), quantities.split_quantity(given)
        if a.base or b.base:
            if a.base and b.base:
                return a.base == b.base and a.number == b.number
            base = a.base or b.base
            asked = re.search(rf"\bbase[ -]*\$?{base}\b|base_?\{{?{base}\b", self.question) or any(
                f"base {word}" in self.question for word, value in quantities._WORD_BASES.items() if value == base
            )
            return bool(asked) and canonical_answer(a.number) == canonical_answer(b.number)
        if a.percent or b.percent:
            return self._percents(a, b)
        a = quantities.Quantity(gold) if a.weak and not b.unit else a
        b = quantities.Quantity(given) if b.weak and not a.unit else b
        if {a.unit, b.unit} == {"degree", ""} and "\\pi" in (a.number if b.unit else b.number):
            a, b = (replace(x, unit=x.unit or "radian") for x in (a, b))
        factor = quantities.conversion_factor(a, b)
        if factor is None:
            angles = {a.unit: a.number, b.unit: b.number}
            if set(angles) == {"degree", "radian"}:
                return self.leaf(f"({angles['degree']})\\cdot\\pi/180", angles["radian"])
            return False
        number = b.number if factor == 1 else f"({b.number})\\cdot({factor.numerator}/{factor.denominator})"
        if not a.number or not number:
            return False
        if canonical_answer(a.number) == canonical_answer(number):
            return True
        if is_loose(a.number) or is_loose(number):
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
    if match and (inside := strip_brackets(match[2], "\\{", "\\}")) and not top_level(inside, _CONDITIONED):
        return match[2]
    return text


_CONDITIONED = re.compile(r"\||:|\\in(?![A-Za-z])|[<>=]|\\(?:le|ge|ne)(?![A-Za-z])")


def parse_assignments(text: str) -> dict[str, str] | None:
    """{name: value} of `x=1, y=2`: two or more different names, each with one constant; else None."""
    found: dict[str, str] = {}
    parts = split_top_level(joined_thousands(text), JOIN) if "=" in text and not top_level(text, OR) else []
    for part in parts:
        sides = split_relation(part)
        if sides is None or sides[1] != ["="] or not re.fullmatch(r"\\?[A-Za-z]+(?:_\{?\w+\}?)?", sides[0][0]):
            return None
        if sides[0][0] in found or not is_constant(sides[0][1]) or not is_name(sides[0][0]):
            return None
        found[sides[0][0]] = sides[0][1]
    return found if len(found) > 1 else None
