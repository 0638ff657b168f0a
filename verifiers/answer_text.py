r"""Cleans the text of one answer: LaTeX spellings of the same thing become one spelling, without losing meaning.

Everything here is string work in linear time. What would change the answer (brackets, bases, percent, units) is
kept, and taken apart by `forms`.
"""

from __future__ import annotations

import re

_OUTER = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
_UNICODE = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "—": "-",
        "×": "\\times ",
        "·": "\\cdot ",
        "÷": "\\div ",
        "π": "\\pi ",
        "°": "^\\circ ",
        "√": "\\sqrt ",
        "≤": "\\le ",
        "≥": "\\ge ",
        "≠": "\\ne ",
        "∞": "\\infty ",
        "∪": "\\cup ",
        "∩": "\\cap ",
        "±": "\\pm ",
        "∈": "\\in ",
        "∅": "\\emptyset ",
        "ℝ": "\\mathbb{R}",
        "θ": "\\theta ",
        "½": "\\frac{1}{2}",
        "¼": "\\frac{1}{4}",
        "¾": "\\frac{3}{4}",
        "²": "^2",
        "³": "^3",
        "’": "'",
        "\u00a0": " ",
        "\u2009": " ",
        "\u202f": " ",
    }
)
_SPELLINGS = (
    (
        re.compile(
            r"\\(?:left|right|bigl|bigr|Bigl|Bigr|biggl|biggr|big|Big|displaystyle|textstyle|limits)(?![A-Za-z])\.?"
        ),
        "",
    ),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:leq|leqslant)(?![A-Za-z])"), r"\\le"),
    (re.compile(r"\\(?:geq|geqslant)(?![A-Za-z])"), r"\\ge"),
    (re.compile(r"\\neq(?![A-Za-z])"), r"\\ne"),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"\\(?:lbrace)(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\(?:rbrace)(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\\(?:lvert|rvert|vert|mid)(?![A-Za-z])"), "|"),
    (re.compile(r"\\(?:varnothing)(?![A-Za-z])"), r"\\emptyset"),
    (re.compile(r"\\degrees?(?![A-Za-z])"), r"^\\circ"),
    (re.compile(r"\\(?:bf|rm|it|sf|boldsymbol|mathbf|mathit|bold)(?![A-Za-z])"), ""),
    (re.compile(r"\\mathbb\s*R(?![A-Za-z])|\\mathbb\s*\{\s*R\s*\}|\\R(?![A-Za-z])|\\Bbb\s*\{?R\}?"), r"\\mathbb{R}"),
    (re.compile(r"\^\s*\{\s*\\circ\s*\}|(?<=\d)\^\s*(?:\{\s*o\s*\}|o(?![A-Za-z]))"), r"^\\circ"),
    (re.compile(r"\\(?:mathrm|mathit|operatorname|text)\s*\{\s*([ei]|\\pi)\s*\}"), r"\1 "),
    (re.compile(r"\\(?:text|mathrm)\s*\{\s*infinity\s*\}|\binfinity\b"), r"\\infty "),
    (re.compile(r"(?<!\\)\\(?:quad|qquad|enspace|thinspace|hspace\{[^{}]*\}|,|;|:|>| )"), " "),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r",?\\!\s*(?:\{,\}|,)?\s*(?:\\!)?\s*(?=\d{3}(?!\d))"), ""),
    (re.compile(r"\\!"), ""),
    (re.compile(r"(?<!\\)~"), " "),
)
_TEXT = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|textnormal|mathrm|mathsf|operatorname|hbox)\s*\{([^{}]*)\}")
_OPERATORS = re.compile(
    r"\\(?:operatorname|mathrm|text)\s*\{\s*(sin|cos|tan|cot|sec|csc|ln|log|arcsin|arccos|arctan)\s*\}"
)
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d])")
_MIXED = re.compile(r"(?<![\d./^{])(\d+) (?:and )?(\d+)/(\d+)(?![\d.])")
_SPACES = re.compile(r"\s+")


def clean(text: str) -> str:
    """One spelling for every way to typeset the same answer; idempotent on its own output."""
    text = text.strip()
    for left, right in _OUTER:
        inside = text[len(left) : -len(right)]
        if text.startswith(left) and text.endswith(right) and len(text) > len(left) + len(right) and left not in inside:
            text = inside.strip()
            break
    text = text.translate(_UNICODE)
    for pattern, spelling in _SPELLINGS:
        text = pattern.sub(spelling, text)
    text = _OPERATORS.sub(r"\\\1 ", text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = _GROUPED.sub(lambda match: match[0].replace(" ", ""), text)
    text = _SPACES.sub(" ", text).strip()
    while text.endswith((".", ",", ";", ":")) and not text.endswith(("\\,", "\\;", "\\:", "..", "p.m.", "a.m.")):
        text = text[:-1].rstrip()
    return text


def plain(text: str) -> str:
    r"""The text with `\text{...}` and its kin unwrapped."""
    for _ in range(3):
        text, count = _TEXT.subn(r" \1 ", text)
        if not count:
            break
    return _SPACES.sub(" ", text).strip()


_FRAC = re.compile(r"\\frac\s*(?:(\d)\s*(\d)(?!\d)|(\d)\s*\{|\{([^{}]*)\}\s*(\d))")
_SQRT = re.compile(r"\\sqrt\s*(\d+|[a-z])")


def normalise(text: str) -> str:
    r"""A string that equal spellings share: blanks out, `\frac12` braced, `.5` with its zero, `x =` kept.

    Used for the second rung and as the canonical form of an answer.
    """
    text = plain(clean(text))
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?", text):  # before blanks go: `32, 349` is two numbers
        text = text.replace(",", "")
    text = _FRAC.sub(_braced, text)
    text = _SQRT.sub(r"\\sqrt{\1}", text)
    text = re.sub(r"(\\[A-Za-z]+) (?=[A-Za-z])", "\\1\0", text)  # \cot x is not \cotx
    words = re.search(r"[A-Za-z]{2,} +[A-Za-z]", text) is not None
    text = text if words else re.sub(r"(?<!\d) | (?!\d)", "", text)
    text = re.sub(r"(?<![\d.])\.(?=\d)", "0.", text)
    return text.replace("\0", " ")


def _braced(match: re.Match[str]) -> str:
    if match[1]:
        return f"\\frac{{{match[1]}}}{{{match[2]}}}"
    if match[3]:
        return f"\\frac{{{match[3]}}}{{"
    return f"\\frac{{{match[4]}}}{{{match[5]}}}"
