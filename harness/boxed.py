r"""The last balanced \boxed{...} of a text: where MATH's solutions and a model's answers keep the final answer."""

from __future__ import annotations

import re
from typing import Literal

OPEN = re.compile(r"\\boxed\s*\{")
MAX_NESTED = 8  # boxes that are all of a box, opened one after the other

Found = tuple[str | None, Literal["ok", "no_answer", "truncated"]]

_BOX = re.compile(r"\\boxed(?![A-Za-z])\s*")
_STEP = re.compile(r"\\boxed(?![A-Za-z])\s*\{?|\\.|[{}]", re.S)
_TOKEN = re.compile(r"\\[A-Za-z]+(?!\s*[A-Za-z{\[])|\d(?!\s*[\d.,])|[A-Za-z](?![A-Za-z])")
_UNCLEAR = re.compile(r"[-+\d\\$(\[.]?[\d\\$(\[]|[-+]")


def last_boxed(text: str) -> Found:
    r"""The content of the last box of `text` that is not inside another box, with why there is none.

    A box that is all of a box is opened; any other box inside the content is left there. `\boxed 6` is a box of one
    token, as TeX reads it; `\boxed 16` (TeX would box the 1 alone) has no clear content.

    Returns:
        (content, "ok"); (None, "no_answer") without any box, or when the last one has no clear content;
        (None, "truncated") when the last box never closes, or the text ends behind \boxed.
    """
    boxes, last, closed = _braced_boxes(text)
    bare = _last_bare(text, boxes)
    if bare is not None and bare[0] > last:
        return bare[1]
    if not boxes:
        return None, "no_answer" if last < 0 else "truncated"
    if not closed:
        return None, "truncated"
    begin, end = boxes[-1]
    content = text[begin:end]
    for _ in range(MAX_NESTED):
        whole = content.strip()
        inner = OPEN.match(whole)
        if inner is None or _braced_boxes(whole)[0][-1:] != [(inner.end(), len(whole) - 1)]:
            break
        content = whole[inner.end() : -1]
    return content, "ok"


def _braced_boxes(text: str) -> tuple[list[tuple[int, int]], int, bool]:
    r"""Contents of the closed outermost `\boxed{...}`, in order; where the last one starts; whether it is closed."""
    stack: list[int] = []  # where the content of the box of each open brace begins; -1: a brace of no box
    closed: list[tuple[int, int]] = []
    last, last_content = -1, -1
    for step in _STEP.finditer(text):
        token = step[0]
        if token.startswith("\\boxed"):
            if token.endswith("{"):
                stack.append(step.end())
                last, last_content = step.start(), step.end()
        elif token == "{":
            stack.append(-1)
        elif token == "}" and stack:
            begin = stack.pop()
            if begin >= 0:
                while closed and closed[-1][0] > begin:
                    closed.pop()  # inside this one
                closed.append((begin, step.start()))
    whole = any(begin <= last_content <= end for begin, end in closed)
    return closed, last, whole


def _last_bare(text: str, boxes: list[tuple[int, int]]) -> tuple[int, Found] | None:
    r"""The last \boxed without braces, outside all others: where it starts and what it holds."""
    for match in reversed(list(_BOX.finditer(text))):
        if text[match.end() : match.end() + 1] == "{":
            return None  # the last box has braces
        if any(begin <= match.start() < end for begin, end in boxes[-1:]):
            continue
        if match.end() >= len(text.rstrip()):
            return match.start(), (None, "truncated")
        if token := _TOKEN.match(text, match.end()):
            return match.start(), (token[0], "ok")
        if _UNCLEAR.match(text, match.end()):
            return match.start(), (None, "no_answer")
        # else the word in prose: "in \boxed format"
    return None
