r"""Finds the final answer of one response: the last balanced \boxed{...}, and nothing guessed from prose."""

from __future__ import annotations

from typing import Literal

OPEN = "\\boxed{"


def last_boxed(text: str) -> tuple[str | None, Literal["ok", "no_answer", "truncated"]]:
    r"""The content of the last `\boxed{...}` of `text`, with why there is none.

    Returns:
        (content, "ok"); (None, "no_answer") without any box; (None, "truncated") when the last box never closes.
    """
    start = text.rfind(OPEN)
    if start < 0:
        return None, "no_answer"
    depth, begin, i = 1, start + len(OPEN), start + len(OPEN)
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
