r"""The last balanced \boxed{...} of a text: where MATH's solutions and a model's answers keep the final answer."""

from __future__ import annotations

import re
from typing import Literal

OPEN = re.compile(r"\\boxed\s*\{")

Found = tuple[str | None, Literal["ok", "no_answer", "truncated"]]


def last_boxed(text: str) -> Found:
    r"""The content of the last `\boxed{...}` of `text`, with why there is none.

    Returns:
        (content, "ok"); (None, "no_answer") without any box; (None, "truncated") when the last box never closes.
    """
    start = text.rfind("\\boxed")
    opened = OPEN.match(text, start) if start >= 0 else None
    while start > 0 and opened is None:
        start = text.rfind("\\boxed", 0, start)
        opened = OPEN.match(text, start) if start >= 0 else None
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
