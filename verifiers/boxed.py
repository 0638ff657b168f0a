r"""Finds the final answer of one response: the last balanced \boxed{...}, and nothing guessed from prose."""

from __future__ import annotations

import re

from harness.boxed import OPEN, Found, last_boxed

__all__ = ["final_answer", "last_boxed"]

_PHRASE = re.compile(r"final answer is:?\s*", re.IGNORECASE)
_FENCES = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))


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
    if OPEN.match(rest):
        return last_boxed(rest)
    return None, "no_answer"
