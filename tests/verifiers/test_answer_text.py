"""Cleaning the text of an answer: what is clean stays as it is, whatever was written."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from verifiers.math.answer_text import clean_latex, normalise_answer

# fmt: off
TERMS = [
    "1", "12", "1,234", ".5", "1 2/3", "1 000", "x", "e", "\\pi", "π", "½", "50%", "\\frac12", "\\dfrac{x}{2}",
    "\\sqrt2", "sqrt(2)", "sin x", "ln.5", "log_2(x)", "sin alpha", "oo", "\\infty", "\\left(x\\right)", "x²", "x_1",
    "45°", "|x|",
]
SIGNS = ["+", "-", "*", "**", "/", "=", "\\cdot", "\\le", "<=", "≤", " + ", "\\,+\\,", "~=~"]
REST = [
    "3.", "^2", "!", ",", ".", " ", "~", "\\ ", "\\,", "\\!", "{,}", "$x$", "\\(2\\)", "\\boxed{5}", "\\tag{1}", "`x`",
    "**y**", "the answer is ", "\\quad", "\\text{ cm}", "\\{1,2\\}", "(1,2]", "\\pmod{3}", "mod", "and", "or", "{", "}",
    "(", "[", "$", "\\(", "\\text{", "\\boxed{", "\\frac", "\\{", "\\\\", "`", '"', "\\emph{", "|",
]
# fmt: on


@given(st.lists(st.sampled_from(TERMS + SIGNS + REST), max_size=7).map("".join) | st.text(max_size=12))
@example("1 2/3.")
@example("sin pi x")
@example("\\ =5")
@example("-5\\\\!")
def test_what_is_clean_stays_as_it_is(text: str) -> None:
    assert clean_latex(clean_latex(text)) == clean_latex(text)


@given(st.sampled_from(TERMS), st.lists(st.tuples(st.sampled_from(SIGNS), st.sampled_from(TERMS)), max_size=3))
@example("ln.5", [("**", ".5")])
@example("", [("+\\quad", "1,234")])
def test_a_normalised_answer_stays_as_it_is(first: str, more: list[tuple[str, str]]) -> None:
    text = first + "".join(sign + term for sign, term in more)
    assert normalise_answer(normalise_answer(text)) == normalise_answer(text)
