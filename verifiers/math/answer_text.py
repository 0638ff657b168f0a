r"""Cleans the text of one answer: LaTeX spellings of the same thing become one spelling, without losing meaning.

Everything here is string work in linear time. What would change the answer (brackets, bases, percent, units) is
kept, and taken apart by `forms`. Commands that only dress a text are dropped; words of plain notation (sqrt, pi, inf)
become their commands.

Longer than 300 lines because the tables of spellings are long.
"""

from __future__ import annotations

# ruff: noqa: SIM905  (a list of words reads best as words)
import functools
import re
import unicodedata

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
        "’": "'",
        "⋅": "\\cdot ",
        "∙": "\\cdot ",
        "⁄": "/",
        "∛": "\\cbrt ",
        "≈": "\\approx ",
        "≡": "\\equiv ",
        "∠": "\\angle ",
        "Ø": "\\emptyset ",
        "⌀": "\\emptyset ",
        "…": "\\ldots ",
        "Ω": "\\Omega ",
        "\u2010": "-",
        "\u2011": "-",
        "\u2012": "-",
        "\u00a0": " ",
        "\u2009": " ",
        "\u202f": " ",
    }
)
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\u00ad]")
_GREEK_LETTERS = str.maketrans(
    {
        letter: f"\\{name} "
        for letter, name in zip(
            "αβγδεζηικλμνξρστυφϕχψωΓΔΘΛΞΠΣΦΨ",
            "alpha beta gamma delta epsilon zeta eta iota kappa lambda mu nu xi rho sigma tau upsilon phi phi chi psi "
            "omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi".split(),
            strict=True,
        )
    }
)
_RAISED = {ord(a): b for a, b in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True)}
_LOWERED = {ord(a): b for a, b in zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True)}
_RAISED_RUN, _LOWERED_RUN = re.compile("[⁰¹²³⁴-⁹⁺⁻⁽⁾ⁿⁱ]+"), re.compile("[₀-₉]+")
_VULGAR = re.compile("[¼-¾⅐-⅞]")
_WIDE = re.compile("[\uff00-\uffef\ufe50-\ufe6f\U0001d400-\U0001d7ff]+")

_COLOUR = r"(?:\[[^\[\]]*\])?\s*\{[^{}]*\}"
_DRESS = (  # what changes how an answer looks, and nothing else
    (
        re.compile(
            r"\\(?:tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge|displaystyle|textstyle"
            r"|scriptstyle|mathstrut|strut|ensuremath|underline|mathtt|mathsf|mathnormal|bf|rm|it|sf|tt|bfseries"
            r"|itshape|limits|nolimits|noindent|centering|relax|num)(?![A-Za-z])"
        ),
        "",
    ),
    (re.compile(rf"\\(?:color|textcolor|colorbox|pagecolor){_COLOUR}"), ""),
    (re.compile(rf"\\fcolorbox{_COLOUR}\s*\{{[^{{}}]*\}}"), ""),
    (re.compile(r"\\(?:emph|texttt|textsf|textsc|textsl|textup|textmd|textnormal)(?![A-Za-z])"), r"\\text"),
    (re.compile(r"\\(?:SI|qty)\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), lambda m: rf"{m[1]} \text{{ {_unit_words(m[2])}}}"),
    (re.compile(r"\\(?:si|unit)\s*\{([^{}]*)\}"), lambda m: rf"\text{{ {_unit_words(m[1])}}}"),
    (re.compile(r"\\(?:tag|label)\*?\s*\{[^{}]*\}"), ""),
    (re.compile(r"</?(?:b|i|u|em|strong|span|p|code)\s*/?>", re.I), ""),
)
_MARKDOWN = re.compile(r"(\*{1,3}|`{1,3}|__)(?!\s)(.+?)(?<!\s)\1", re.S)
_QUOTED = re.compile('["“](.+)["”]', re.S)
_LEAD = re.compile(
    r"(?:\\(?:therefore|implies|Rightarrow|Longrightarrow|longrightarrow|hence)(?![A-Za-z])|=(?![=<>])|⇒|∴|→"
    r"|\\text\s*\{\s*(?:so|thus|hence|therefore|answer|final answer)\s*[,:]?\s*\}"
    r"|(?:\\text(?:bf|it|rm)?\s*\{\s*)?(?:(?:so|thus|hence|therefore),?\s*)?(?:the\s+)?(?:final\s+|correct\s+)?(?:answer|result)"
    r"\s*(?:is\s*:?(?=[\s}])|:|=)\s*\}?\s*[:=]?)\s*",
    re.I,
)
_TRAIL = re.compile(
    r"(?:\\(?:blacksquare|square|qed|Box|checkmark|newline|hfill|quad|qquad)(?![A-Za-z])|\\text\s*\{\s*[.,;]?\s*\}|\\\\?|[■□✓✔])\s*$"
)
_INLINE = re.compile(r"(?<!\\)\$([^$]*[^$\\])\$")  # $12$ cookies
_SAID = re.compile(
    r"^\\(?:text|mathrm|mbox|textbf)\s*\{\s*(-?\d[\d.,/]*)(?:\s|\\ |~)+([A-Za-z][^{}\d]*)\}$"
)  # \text{5 cm}
_BOXED = re.compile(r"\\(?:boxed|fbox|framebox|colorbox)\s*\{")
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
    (
        re.compile(r"\\(?:boldsymbol|mathbf|bm|bold)\s*(?:\{\s*([A-Za-z])\s*\}|(?<=[a-z] )([A-Za-z])(?![A-Za-z]))"),
        r"\\bold{\1\2}",
    ),
    (re.compile(r"\\(?:boldsymbol|mathbf|mathit|bm|bold(?!\{[A-Za-z]\}))(?![A-Za-z])"), ""),
    (re.compile(r"\\(?:overrightarrow|vec)(?![A-Za-z])"), r"\\vec"),
    (re.compile(r"\\(?:dots|dotsc|dotso|cdots|dotsb)(?![A-Za-z])|(?<!\.)\.\.\.(?!\.)"), r"\\ldots "),
    (re.compile(r"\\not\s*="), r"\\ne "),
    (re.compile(r"(\\equiv.*?)\\bmod(?![A-Za-z])"), r"\1\\mod"),
    (re.compile(r"(?<=[)\]])\s*U\s*(?=[(\[])"), r"\\cup "),
    (re.compile(r"\\mathbb\s*R(?![A-Za-z])|\\mathbb\s*\{\s*R\s*\}|\\R(?![A-Za-z])|\\Bbb\s*\{?R\}?"), r"\\mathbb{R}"),
    (re.compile(r"\^\s*\{\s*\\circ\s*\}|(?<=\d)\^\s*(?:\{\s*o\s*\}|o(?![A-Za-z]))"), r"^\\circ"),
    (re.compile(r"\\(?:mathrm|mathit|operatorname|text)\s*\{\s*([ei]|\\pi)\s*\}"), r"\1 "),
    (
        re.compile(
            r"\\(?:text|mathrm)\s*\{\s*infinity\s*\}|(?<![\\A-Za-z])(?:infinity|Infinity|inf|Inf|oo)(?![A-Za-z])"
        ),
        r"\\infty ",
    ),
    (
        re.compile(
            r"\(?\s*\\(?:text|mathrm)\s*\{\s*\(?mod\s*\}\s*\{?\s*(\w+)\s*\}?\s*\)?"
            r"|\\p?mod\s*(?:\{\s*(\w+)\s*\}|(\w+))|\(\s*(?:\\bmod|mod)\s*\{?\s*(\w+)\s*\}?\s*\)"
            r"|(?<=\d)\s*(?<![\\A-Za-z])mod\s+(\w+)|\(\s*\\text\s*\{\s*mod\s+(\w+)\s*\}\s*\)"
            r"|\\text\s*\{\s*\(?mod\s+(\w+)\)?\s*\}"
        ),
        lambda m: rf" \pmod{{{next(g for g in m.groups() if g)}}}",
    ),
    (re.compile(r"\{\s*(\w+)\s*\\choose\s*(\w+)\s*\}"), r"\\binom{\1}{\2}"),
    (re.compile(r"(?<=[\dA-Za-z)}\]])\s*\*\*\s*(?=[-.\dA-Za-z({])"), "^"),
    (re.compile(r"(?<![<>=])>=|=>(?!\s*$)"), r"\\ge "),
    (re.compile(r"<=(?!>)"), r"\\le "),
    (re.compile(r"(?<=\s)!=|(?<=[A-Za-jlo-z])!="), r"\\ne "),
    (re.compile(r"\+\s?/\s?-|(?:(?<=^)|(?<==)|(?<== ))\+-"), r"\\pm "),
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


MOST_PASSES = 5


@functools.lru_cache(maxsize=8192)
def clean_latex(text: str) -> str:
    """One spelling for every way to typeset the same answer; idempotent on its own output.

    A rule can make the text that another one of this pass has looked for: without its full stop `1 2/3.` is a mixed
    number, and `sin pi x` is a sine once `pi` is a command. So what a pass has changed is cleaned again.
    """
    for _ in range(MOST_PASSES):
        before, text = text, _clean_once(text)
        if text == before:
            break
    return text


def _clean_once(text: str) -> str:
    text = _undressed(text.strip() if text.isascii() else _ascii(text))
    for pattern, spelling in _SPELLINGS:
        text = pattern.sub(spelling, text)
    text = _OPERATORS.sub(r"\\\1 ", text)
    text = _commands(text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = _GROUPED.sub(lambda match: match[0].replace(" ", ""), text)
    text = _SPACES.sub(" ", text).strip()
    while text.endswith((".", ",", ";", ":")) and not text.endswith(("\\,", "\\;", "\\:", "..", "p.m.", "a.m.")):
        text = text[:-1].rstrip()
    return text


def _ascii(text: str) -> str:
    """Signs, letters and digits of Unicode as LaTeX spells them."""
    text = _INVISIBLE.sub("", text)
    text = _RAISED_RUN.sub(lambda run: f"^{{{run[0].translate(_RAISED)}}}", text)
    text = _LOWERED_RUN.sub(lambda run: f"_{{{run[0].translate(_LOWERED)}}}", text)
    text = _VULGAR.sub(lambda one: "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", one[0]).split("⁄")), text)
    text = _WIDE.sub(lambda run: unicodedata.normalize("NFKC", run[0]), text)
    return text.translate(_UNICODE).translate(_GREEK_LETTERS).strip()


def _undressed(text: str) -> str:
    """Without dollars, boxes, markdown and commands of looks round the whole, and without "the answer is"."""
    for pattern, spelling in _DRESS:
        if "\\" in text or "<" in text:
            text = pattern.sub(spelling, text)
    text = text.strip()
    before = None
    while text != before:
        before = text
        for left, right in _OUTER:
            inside = text[len(left) : -len(right)]
            around = text.startswith(left) and text.endswith(right) and len(text) > len(left) + len(right)
            if around and left not in inside:
                text = inside.strip()
                break
        for pattern, group in ((_MARKDOWN, 2), (_QUOTED, 1)):
            if (match := pattern.fullmatch(text)) and text[0] not in match[group]:
                text = match[group].strip()
        text = _INLINE.sub(r"\1", text)
        text = _SAID.sub(r"\1 \\text{ \2}", text)
        if (match := _LEAD.match(text)) and match.end() < len(text) and _closes(text, match.end(), len(text), depth=0):
            text = text[match.end() :].strip()
        if (match := _TRAIL.search(text)) and match.start() > 0:
            text = text[: match.start()].strip()
        if (match := _BOXED.match(text)) and text.endswith("}") and _closes(text, match.end(), len(text) - 1):
            text = text[match.end() : -1].strip()
    return text


def _closes(text: str, begin: int, end: int, depth: int = 1) -> bool:
    """Whether the braces between are balanced, so that one that opens before `begin` is closed at `end`."""
    least = depth
    for match in re.finditer(r"\\.|[{}]", text[begin:end]):
        depth += (match[0] == "{") - (match[0] == "}")
        if depth < least:
            return False
    return depth == least


def _unit_words(text: str) -> str:
    return re.sub(r"\\([a-z]+)", r" \1", text).strip()


_GREEK_WORDS = "alpha|beta|gamma|delta|epsilon|theta|lambda|sigma|omega|phi|psi|rho|tau|mu|pi"
_PLAIN = (
    (re.compile(r"(?<![\\A-Za-z])(?:a(sin|cos|tan)h?|arc(sin|cos|tan))(?=\s*\()"), r"\\arc\1\2 "),
    (re.compile(r"(?<![\\A-Za-z])log_?(2|10)(?=\s*\()"), r"\\log_{\1} "),
    (
        re.compile(
            r"(?<![\\A-Za-z])(sinh|cosh|tanh|sin|cos|tan|cot|csc|ln|log)(?=\s*(?:[\^(\d\\_]|\.\d|[A-Za-z](?![A-Za-z])))"
        ),
        r"\\\1 ",
    ),
    (re.compile(r"(?<![\\A-Za-z])(sqrt|cbrt)(?![A-Za-z])"), r"\\\1"),
    (re.compile(r"(?<![\\A-Za-z])(exp|sec|abs|floor|ceil|max|min|gcd|lcm)(?=\s*\()"), r"\\\1 "),
    (re.compile(r"(?<![\\A-Za-z])(?:nCr|choose)(?=\s*\(\s*\w+\s*,\s*\w+\s*\))"), "C"),
    (re.compile(rf"(?<![\\A-Za-z_])({_GREEK_WORDS})(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"(?<![\\A-Za-z])Pi(?![A-Za-z])"), r"\\pi "),
    (re.compile(r"\\cbrt(?![A-Za-z])"), r"\\sqrt[3]"),
)
_NAME_IN_TEXT = re.compile(rf"\\(?:text|mathrm|operatorname)\s*\{{\s*({_GREEK_WORDS})\s*\}}")
_TEXT_GROUP = re.compile(r"(\\(?:text|mbox|textbf|textit|textrm|hbox|begin|end|mathrm|operatorname)\s*\{[^{}]*\})")


def _commands(text: str) -> str:
    r"""Words of plain notation as commands (`sqrt(3)/2`, `2pi`), outside \text{...} and not in sentences."""
    text = _NAME_IN_TEXT.sub(r"\\\1 ", text)
    if re.search("[A-Za-z]{2}", text) is None:
        return text
    parts = _TEXT_GROUP.split(text)
    for i in range(0, len(parts), 2):
        if re.search(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}", parts[i]) is None:
            for pattern, spelling in _PLAIN:
                parts[i] = pattern.sub(spelling, parts[i])
    return "".join(parts)


def unwrap_text(text: str) -> str:
    r"""The text with `\text{...}` and its kin unwrapped."""
    for _ in range(3):
        text, count = _TEXT.subn(r" \1 ", text)
        if not count:
            break
    return _SPACES.sub(" ", text).strip()


_FRAC = re.compile(r"\\frac\s*(?:(\d)\s*(\d)(?!\d)|(\d)\s*\{|\{([^{}]*)\}\s*(\d))")
_SPOKEN = re.compile(
    r"\\(?:text|mbox|textbf|textit|textrm|hbox)\s*\{[^{}]*[^\W\d_] +[^\W\d_]"
)  # words keep their blanks
_SQRT = re.compile(r"\\sqrt\s*(\.?\d+|[a-z])")


def normalise_answer(text: str) -> str:
    r"""A string that equal spellings share: blanks out, `\frac12` braced, `.5` with its zero, `x =` kept.

    Used for the second stage and as the canonical form of an answer.
    """
    return canonical_answer(clean_latex(text))


@functools.lru_cache(maxsize=8192)
def canonical_answer(text: str) -> str:
    """As `normalise_answer`, for a text that is clean already."""
    spoken = _SPOKEN.search(text) is not None
    text = unwrap_text(text)
    if re.fullmatch(r"[-+]? ?\d{1,3}(,\d{3})+(\.\d+)?", text):  # before blanks go: `32, 349` is two numbers
        text = text.replace(",", "")
    text = _FRAC.sub(_braced, text)
    text = _SQRT.sub(r"\\sqrt{\1}", text)
    text = re.sub(r"(\\[A-Za-z]+) (?=[A-Za-z])", "\\1\0", text)  # \cot x is not \cotx
    words = spoken or re.search(r"[^\W\d_]{2,} +[^\W\d_]", text) is not None
    text = text if words else re.sub(r"(?<!\d) | (?!\d)", "", text)
    text = re.sub(r"(?<![\d.])\.(?=\d)", "0.", text)
    return text.replace("\0", " ")


def _braced(match: re.Match[str]) -> str:
    if match[1]:
        return f"\\frac{{{match[1]}}}{{{match[2]}}}"
    if match[3]:
        return f"\\frac{{{match[3]}}}{{"
    return f"\\frac{{{match[4]}}}{{{match[5]}}}"
