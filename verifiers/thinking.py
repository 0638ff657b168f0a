"""What counts as the answer of a response that thinks aloud first: the text behind its last `</think>`.

One rule for math and code. Everything up to the last `</think>` is thinking and is not graded, whether or not a
`<think>` stood before it (chat templates often write that one into the prompt). A `<think>` that is never closed means
that there is no final text. A text with neither marker is its own final text.

A marker that is part of a program does not count. That is one between quotes or backticks on its line; one in a text,
or in a fenced block, that is Python as a whole; and one in another fenced block, unless it fills its line. None of
this holds between a `<think>` and the next `</think>`.

Not covered: other tags, other spellings; a response cut in thinking that the prompt opened, which shows no marker.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from verifiers.sandbox import programs

MAX_MARKS = 50  # a text with more of them is read without looking for programs
MAX_LINE = 1000  # characters on each side of a marker in which quotes are looked for
_MARK = re.compile(r"</?think>")
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+.#-]*)[^\n]*$", re.M)
_QUOTES = re.compile(r"""`[^`]*`|(?<!\w)[rbfuRBFU]{0,2}(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")""")


def final_text(text: str) -> str | None:
    """The part of a response that may be graded; None when its thinking never ends."""
    marks = list(_MARK.finditer(text))
    if not marks:
        return text
    if len(marks) > MAX_MARKS:
        return None if marks[-1][0] == "<think>" else text[marks[-1].end() :]
    start = 0
    while mark := _first_mark(text, start):
        if mark[0] == "<think>":
            mark = next((later for later in marks if later.start() > mark.start() and later[0] == "</think>"), None)
            if mark is None:
                return None
        start = mark.end()
    return text[start:]


def _first_mark(text: str, start: int) -> re.Match[str] | None:
    """The first marker from `start` on that is not part of a program."""
    marks = list(_MARK.finditer(text, start))
    if not marks or _is_python(text[start:]):
        return None
    blocks = list(_fenced(text, start))
    for mark in marks:
        line_start = text.rfind("\n", 0, mark.start()) + 1
        line = text[line_start:].partition("\n")[0]
        block = next((block for block in blocks if block[0] <= mark.start() < block[1]), None)
        fills_line = line.strip() == mark[0] and block is not None and not _is_python(text[slice(*block)])
        if not _quoted(line, mark.start() - line_start) and (block is None or fills_line):
            return mark
    return None


def _fenced(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Where the contents of fenced blocks begin and end; an unclosed one runs to the end."""
    opened: re.Match[str] | None = None
    for match in _FENCE.finditer(text, start):
        if opened is None:
            opened = match
        elif match[1][0] == opened[1][0]:
            yield opened.end(), match.start()
            opened = match if match[2] else None  # a new block without the old one closed
    if opened is not None:
        yield opened.end(), len(text)


def _is_python(text: str) -> bool:
    """Whether the text is Python as a whole, with more than comments in it."""
    tree = programs.parse_program(textwrap.dedent(text.strip("\n")))
    return tree is not None and bool(tree.body)


def _quoted(line: str, column: int) -> bool:
    """Whether the column lies between two quotes or backticks of one kind; an apostrophe opens nothing."""
    low = max(0, column - MAX_LINE)
    spans = (match.span() for match in _QUOTES.finditer(line[low : column + MAX_LINE]))
    return any(left < column - low < right for left, right in spans)
