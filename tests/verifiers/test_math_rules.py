"""The rules of the math grader, one line each: gold, given, verdict, why (math_rules.tsv)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness import registry
from harness.boxed import last_boxed
from harness.core import Problem
from verifiers.math import latex_math, sampling, symbolic
from verifiers.math_answer import MathAnswer
from verifiers.plain_math_verify import PlainMathVerify

TABLE = Path(__file__).with_name("math_rules.tsv")


def rules() -> list[tuple[str, str, bool, str]]:
    rows = [line.split("\t") for line in TABLE.read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    return [(gold, given, verdict == "=", why) for gold, given, verdict, why in rows]


@pytest.fixture(scope="module")
def verdicts() -> dict[tuple[str, str], tuple[bool, str]]:
    items = [(Problem("", "", gold), given) for gold, given, *_ in rules()]
    graded = MathAnswer("bare").batch(items)
    return {(p.answer, given): (v.correct, v.status) for (p, given), v in zip(items, graded, strict=True)}


@pytest.mark.parametrize(("gold", "given", "equal", "why"), rules())
def test_each_rule(verdicts, gold, given, equal, why):
    correct, status = verdicts[gold, given]
    assert correct == equal, why
    assert status in ("ok", "error")
    assert not equal or status == "ok"


@pytest.mark.parametrize(
    ("gold", "given"),
    [
        ("5", "6 \\fbox{5}"),
        ("7", "3 4"),
        ("(1\\ 2\\ 3)", "(3\\ 2\\ 1)"),
        ("5^\\circ 30'", "30^\\circ 5'"),
        ("\\nabla\\cdot F", "\\nabla\\times F"),
        ("5", "\\cancel{5}"),
        ("2 cat", "2 act"),
    ],
)
def test_what_is_not_understood_is_an_error_not_a_wrong_answer(gold, given):
    verdict = MathAnswer("bare")(Problem("", "", gold), given)
    assert (verdict.correct, verdict.status) == (False, "error")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\\boxed{7-\\boxed{6}}", ("7-\\boxed{6}", "ok")),
        ("\\boxed{\\boxed{5} \\text{ or } \\boxed{6}}", ("\\boxed{5} \\text{ or } \\boxed{6}", "ok")),
        ("\\boxed{ \\boxed{ 5 } }", (" 5 ", "ok")),
        ("\\boxed{5 hmm \\boxed{6}", ("6", "ok")),
        ("\\boxed{5} hmm \\boxed 6", ("6", "ok")),
        ("\\boxed\\pi", ("\\pi", "ok")),
        ("\\boxed{5} then \\boxed", (None, "truncated")),
        ("\\boxed{5} then \\boxed{", (None, "truncated")),
        ("\\boxed{5} then \\boxed{}", ("", "ok")),
        ("\\boxed{5} then \\boxed 16", (None, "no_answer")),
        ("\\boxed{5} then \\boxed -6", (None, "no_answer")),
        ("\\boxed{5}, in \\boxed format", ("5", "ok")),
        ("\\boxed{x" * 20_000, (None, "truncated")),
    ],
)
def test_the_last_box_that_is_inside_no_other(text, found):
    assert last_boxed(text) == found


@pytest.mark.parametrize(
    ("text", "correct", "status"),
    [
        ("<think> maybe \\boxed{7}</think> The answer is 7.", False, "no_answer"),
        ("<think> so maybe \\boxed{7}, let me check", False, "truncated"),
        ("hm, \\boxed{5} </think> \\boxed{7}", True, "ok"),
        ("<think>\\boxed{5}</think>\n\\boxed{7}", True, "ok"),
        ("<think>\\boxed{7}</think>\n\\boxed{5}", False, "ok"),
        ("\\boxed{7} <think> or not", False, "truncated"),
    ],
)
def test_thinking_is_not_graded(text, correct, status):
    verdict = MathAnswer("boxed")(Problem("", "", "7"), text)
    assert (verdict.correct, verdict.status) == (correct, status)


def test_points_have_all_signs_and_sizes_and_lie_around_the_constants():
    gold, given = latex_math.parse_latex("|x-1000|+y"), latex_math.parse_latex("x")
    found = sampling.sample_points(gold, given, ("|x-1000|+y", "x"))
    assert len(found) >= 12
    assert {(p["x"] > 0, p["y"] > 0) for p in found if p["x"] and p["y"]} == {(a, b) for a in (0, 1) for b in (0, 1)}
    sizes = sorted(abs(p["x"]) for p in found if p["x"])
    assert sizes[0] < 1 and sizes[-1] > 10_000  # noqa: PT018
    assert any(1000 < p["x"] < 10_000 for p in found)
    assert max(p["x"].denominator for p in found) > 2**29


def test_a_verdict_and_its_points_repeat_in_another_process():
    program = (
        "from verifiers.math import latex_math as l, sampling as s; "
        "print([{k: str(v) for k, v in p.items()} for p in s.sample_points(l.parse_latex('xy'), l.parse_latex('yx'), "
        "('xy', 'yx'))])"
    )
    runs = {subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(runs) == 1
    assert len(json.loads(runs.pop().replace("'", '"'))) >= 12


def test_math_verify_is_asked_only_about_what_is_on_its_list():
    assert symbolic.is_allowed("\\sum_{k=1}^{10} k")
    assert symbolic.is_allowed("\\int_0^1 \\frac{1}{2} dx")
    for text in ("\\angle ABC", "f(x)", "7!!", "3 4", "x'", "\\fbox{5}", "\\lim_{x\\to 0^+} x", "\\sum 2{3}", "abcd"):
        assert not symbolic.is_allowed(text), text


def test_the_library_as_it_is_can_be_chosen():
    assert any(entry.name == "math_verify" for entry in registry.list_entries("verifier"))
    library = PlainMathVerify(workers=1)
    texts = ["I think 3. Or maybe 5.", "\\boxed{3}, no: \\boxed{5}", "no number"]
    verdicts = library.batch([(Problem("", "", "5"), text) for text in texts])
    assert [(v.correct, v.status) for v in verdicts] == [(True, "ok"), (False, "ok"), (False, "no_answer")]
    assert library.grader.startswith("math_verify (math-verify ")
