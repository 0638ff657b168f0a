"""Answers in words: what is text and not mathematics, and when two texts say the same words."""

from __future__ import annotations

import functools
import re
import unicodedata

from verifiers.math.answer_text import unwrap_text

_CHOICE = re.compile(r"\(\s*([A-Ja-j])\s*\)|\\(?:text|textbf|textit|textrm|mathrm)\s*\{\s*\(?\s*([A-Z])\s*\)?\s*\}")


_WORD = re.compile(r"(?<![\\\w])[^\W\d_]{3,}")


_MATHY = re.compile(r"\\(?!text|mbox|mathrm|textbf|textit|textrm|%|\$)[A-Za-z]+|[0-9=<>+*/^_|]")


@functools.lru_cache(maxsize=8192)
def is_text(text: str) -> bool:
    """Words, not mathematics: `\\text{east}`, Evelyn, 4:30 p.m."""
    if re.search(r"\d\s*(?:\\text\s*\{)?\s*[ap]\.?\s?m\b\.?", text, re.I):
        return True
    bare = unwrap_text(text)
    if _MATHY.search(bare):
        return False
    if re.search(r"\\(?:text|mbox|textbf)\s*\{[^{}]*[^\W\d_]{2,}[^{}]*\}", text):
        return not re.sub(r"\\(?:text|mbox|textbf|textit|mathrm)\s*\{[^{}]*\}|[\s,;.]", "", text) or bool(
            _WORD.search(bare)
        )
    return bool(_WORD.search(bare)) and re.fullmatch(r"[^\W\d_](?:[^\W\d_]|[\s,;.'’?!-])*", bare) is not None


@functools.lru_cache(maxsize=8192)
def text_words(text: str) -> tuple[str, ...]:
    """The words of a text answer, without case and punctuation; an article counts only where it stands alone.

    Lists of words (`A, B and C`) come in a fixed order. Letters of every script are kept.
    """
    bare = unicodedata.normalize("NFKC", _ACCENT.sub(_accented, unwrap_text(text))).casefold()
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
    if text_words(gold) == text_words(given):
        return True
    if not re.search(r"\w-\w", gold + given):
        return False
    options = [{text_words(text), text_words(text.replace("-", " "))} for text in (gold, given)]
    return bool(options[0] & options[1])


_ACCENT = re.compile(r"\\([\"'`^~])\s*\{?\s*([A-Za-z])\s*\}?")


_MARKS = {'"': "\u0308", "'": "\u0301", "`": "\u0300", "^": "\u0302", "~": "\u0303"}


def _accented(match: re.Match[str]) -> str:
    return match[2] + _MARKS[match[1]]


def choice_of(text: str, lenient: bool = False) -> str | None:
    """The letter of a multiple-choice answer."""
    if match := _CHOICE.fullmatch(text):
        return (match[1] or match[2]).upper()
    if lenient and (match := re.fullmatch(r"\(?\s*([A-Za-z])\s*\)?\s*\.?", unwrap_text(text).strip())):
        return match[1].upper()
    return None


_EMPTY = frozenset([("no solution",), ("no solutions",), ("empty set",)])


def is_empty(text: str) -> bool:
    """The empty set, in signs or words."""
    return text in ("\\{\\}", "\\{ \\}", "\\emptyset") or (is_text(text) and text_words(text) in _EMPTY)
