r"""Finds the final answer of one response: the last balanced \boxed{...}, and nothing guessed from prose."""

from __future__ import annotations

import re
from typing import Literal

_OPEN = re.compile(r"\\boxed\s*\{")
_PHRASE = re.compile(r"final answer is:?\s*", re.IGNORECASE)
_FENCES = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))

Found = tuple[str | None, Literal["ok", "no_answer", "truncated"]]


def last_boxed(text: str) -> Found:
    r"""The content of the last `\boxed{...}` of `text`, with why there is none.

    Returns:
        (content, "ok"); (None, "no_answer") without any box; (None, "truncated") when the last box never closes.
    """
    start = text.rfind("\\boxed")
    opened = _OPEN.match(text, start) if start >= 0 else None
    while start > 0 and opened is None:
        start = text.rfind("\\boxed", 0, start)
        opened = _OPEN.match(text, start) if start >= 0 else None
    if opened is None:
        return None, "no_answer"
    depth, begin, i = 1, opened.end(), opened.end()
    while i < len(text):
        if text[i] == "\\":  # an escaped brace is text, not structure
            i += 2
            continue
        if text[i] == "{":
            depth += 1
        elif text[i] == "}":
            depth -= 1
            if depth == 0:
                return text[begin:i], "ok"
        i += 1
    return None, "truncated"


def final_answer(text: str) -> Found:
    """The content of the last "The final answer is $...$" (the MATH prompt of arXiv 2409.12917v2, appendix).

    Returns:
        As `last_boxed`; a box inside the dollars is opened too.
    """
    phrases = list(_PHRASE.finditer(text))
    if not phrases:
        return None, "no_answer"
    rest = text[phrases[-1].end() :]
    for left, right in _FENCES:
        if rest.startswith(left):
            end = len(left)
            while True:
                end = rest.find(right, end)
                if end < 0:
                    return None, "truncated"
                if right[0] == "$" and rest[end - 1] == "\\":  # a dollar of money
                    end += 1
                    continue
                break
            content = rest[len(left) : end]
            return last_boxed(content) if "\\boxed" in content else (content, "ok")
    if _OPEN.match(rest):
        return last_boxed(rest)
    return None, "no_answer"
