r"""math-verify as the last stage, behind an allow list: sums, products, integrals, limits of what our reader knows.

math-verify drops what it does not know without a word (a prime, a degree sign, the order of letters). It may therefore
say "equal" only where every command, sign and name of both texts is on the list here; else nothing is decided.
"""

from __future__ import annotations

# ruff: noqa: SIM905  (a list of words reads best as words)
import re
from collections.abc import Callable
from typing import Any

from verifiers.math.answer_text import canonical_answer
from verifiers.math.latex_math import CannotTell

MAX_COMMANDS = 200
MAX_NESTING = 24  # brackets; math-verify's grammar takes exponential time in them
_TOO_BIG = re.compile(r"\d{300}|\d{5,}\s*!|\^\s*\{?\s*\d{5,}")
_NEEDED = re.compile(r"\\(?:sum|prod|i?int|lim|max|min|gcd|lcm)(?![A-Za-z])")  # else our own reader is the judge
_ALLOWED = frozenset(
    r"\sum \prod \int \lim \max \min \gcd \lcm \infty \to \rightarrow \frac \binom \sqrt \cdot \times \pi \ln \log \exp"
    r" \sin \cos \tan \arcsin \arccos \arctan \alpha \beta \theta \lambda \mu \phi".split()
)
_OTHER = re.compile(r"[\sA-Za-z0-9+\-*/^_(){}\[\],=.!]*")
_UNCLEAR = re.compile(  # numbers side by side, words, names applied, !!, one-sided limits
    r"\d\s+\d|(?<!\})\d\s*\{|[A-Za-z]{3,}|(?<![A-Za-z])[fghFGHPQpquvyT]\s*\(|!\s*!|\\to[^}]*\^|\^\s*\{?\s*\(\s*\d+\s*\)"
)


def is_allowed(text: str) -> bool:
    """Whether math-verify can be trusted to understand all of a text."""
    commands = re.findall(r"\\[A-Za-z]+|\\.", text)
    rest = re.sub(r"\\[A-Za-z]+", " ", text)
    unclear = re.sub(r"\\(?!to)[A-Za-z]+", ";", text)
    return set(commands) <= _ALLOWED and _OTHER.fullmatch(rest) is not None and _UNCLEAR.search(unclear) is None


def is_settled(gold: str, given: str) -> bool:
    """Whether the texts are equal as they stand; False when math-verify may be asked.

    Raises:
        CannotTell: the texts differ and are not both understood.
    """
    if canonical_answer(gold) == canonical_answer(given):
        return True
    if not (_NEEDED.search(gold) or _NEEDED.search(given)) or not (is_allowed(gold) and is_allowed(given)):
        raise CannotTell("not understood")
    return False


def symbolic_equal(gold: str, given: str, warm_up: Callable[[], None]) -> bool:
    """math-verify's verdict.

    Args:
        gold, given: Texts in LaTeX.
        warm_up: Called before math-verify is imported, which takes long.

    Raises:
        CannotTell: the texts differ and are not both understood, or are too large.
    """
    if is_settled(gold, given):
        return True
    if any(_TOO_BIG.search(t) or t.count("\\") > MAX_COMMANDS or _nesting(t) > MAX_NESTING for t in (gold, given)):
        raise CannotTell("too large for symbolic comparison")
    warm_up()
    from math_verify import verify
    from math_verify.parser import LatexExtractionConfig, parse

    config = [LatexExtractionConfig()]
    a, b = (
        parse(f"${text}$", config, parsing_timeout=None, fallback_mode="no_fallback")  # pyright: ignore
        for text in (gold, given)
    )
    if not a or not b:
        raise CannotTell("math-verify does not read it")
    if _mixed_case(gold, given):
        raise CannotTell("math-verify reads A and a as one name")
    if not verify(a, b, timeout_seconds=None, strict=True):
        return False
    return _numbers_agree(a[0], b[0])


def _nesting(text: str) -> int:
    deepest = depth = 0
    for character in text:
        depth += (character in "({[") - (character in ")}]")
        deepest = max(deepest, depth)
    return deepest


def _mixed_case(gold: str, given: str) -> bool:
    letters = set(re.sub(r"\\[A-Za-z]+", " ", gold + " " + given))
    return any(c.isupper() and c.lower() in letters for c in letters)


def _numbers_agree(a: Any, b: Any) -> bool:
    """Recomputes equal-looking numbers to 60 digits: math-verify rounds to 6 decimal places."""
    if getattr(a, "free_symbols", True) or getattr(b, "free_symbols", True) or not hasattr(a, "evalf"):
        return True
    try:
        x, y = a.doit().evalf(60), b.doit().evalf(60)
        if x.is_infinite or y.is_infinite:
            raise CannotTell("an infinite value")
        return bool(abs(x - y) <= abs(x) * 1e-40) or bool(x == y)
    except (TypeError, ValueError, AttributeError):
        raise CannotTell("a value math-verify cannot compute") from None
