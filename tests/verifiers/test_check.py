"""The audit command, the sandbox's refusals, and the small parts of the verifiers."""

from __future__ import annotations

# ruff: noqa: E501  (programs and answers are quoted as they are)
import contextlib
import datetime
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections import Counter, OrderedDict, deque
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import registry
from harness.core import Problem, Trajectory, Turn, Verdict
from harness.training import provenance
from harness.training.evaluate import trajectory_to_record
from verifiers.boxed import final_answer, last_boxed
from verifiers.check import main
from verifiers.code_tests import BadTests, CodeTests, answer_of
from verifiers.exact import Exact
from verifiers.math_answer import MathAnswer
from verifiers.sandbox import literals, pool
from verifiers.sandbox.pool import Sandbox, UnsafeMachine

REPO = Path(__file__).parents[2]


def check(tmp_path, lines: list[str], *options: str, code: int = 0) -> list[dict]:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    assert main([str(source), "--out", str(out), *options]) == code
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_math_rows_in_order_with_bad_rows_recorded(tmp_path, capsys):
    lines = [
        json.dumps({"gold": "5", "prediction": "\\boxed{3} no, \\boxed{5}"}),
        "{broken",
        json.dumps({"gold": "5", "prediction": "the answer is 5"}),
        json.dumps({"gold": "5"}),
        json.dumps({"gold": "5", "prediction": "\\boxed{5"}),
        json.dumps(["gold"]),
        json.dumps({"gold": 5, "prediction": "\\boxed{6}\u2028"}, ensure_ascii=False),
        json.dumps({"gold": "", "prediction": "\\boxed{6}"}),
    ]
    records = check(tmp_path, lines, "--verifier", "math", code=1)
    assert [r["status"] for r in records] == [
        "ok", "bad_row", "no_answer", "bad_row", "truncated", "bad_row", "ok", "error"
    ]  # fmt: skip
    assert [r["correct"] for r in records] == [True] + [False] * 7
    assert all(r["seconds"] >= 0 for r in records)
    assert all(r["error"] for r in records if r["status"] == "bad_row")
    out, err = capsys.readouterr()
    assert all(word in out for word in ("rows/s", "isolation: ", "truncated"))
    assert err.splitlines()[1:] == [
        "row 4: 'prediction' must be text, and the row has none; it has gold",
        "row 6: a row is an object, not list",
    ]
    assert err.startswith("row 2: no JSON: ")


def test_rows_of_other_keys_are_told_on_the_screen(tmp_path, capsys):
    check(tmp_path, [json.dumps({"answer": "3", "response": "\\boxed{3}"})] * 5, "--verifier", "math", code=1)
    err = capsys.readouterr().err.splitlines()
    assert err[:3] == [
        f"row {i}: 'gold' must be text, and the row has none; it has answer, response" for i in (1, 2, 3)
    ]
    assert err[3:] == ["and 2 more bad rows; --out FILE has them all"]


def test_bare_math_rows_and_the_question(tmp_path):
    rows = [
        {"gold": "50", "prediction": "50\\%", "problem": "What percent of ...?"},
        {"gold": "50", "prediction": "50\\%"},
        {"gold": "52_8", "prediction": "52", "problem": "Write 42 in base 8."},
        {"gold": "\\sqrt{8}", "prediction": "2\\sqrt2"},
    ]
    records = check(tmp_path, [json.dumps(row) for row in rows], "--verifier", "math", "--bare")
    assert [r["correct"] for r in records] == [True, False, True, True]


def test_code_rows_of_every_form(tmp_path, capsys):
    humaneval = {
        "prompt": 'def f(x):\n    """One more."""\n',
        "entry_point": "f",
        "test": "def check(c):\n    assert c(1) == 2\n",
    }
    rows = [
        humaneval | {"program": "    return x + 1"},
        humaneval | {"program": "```python\ndef f(x):\n    return x + 1\n```"},
        humaneval | {"program": "I do not know."},
        {
            "text": "One more.",
            "test_list": ["assert f(1) == 2"],
            "test_setup_code": "",
            "program": "def f(x):\n    return x + 1",
        },
        {
            "prompt": "x",
            "test_list": ["assert math.isclose(f(1), 2)"],
            "test_imports": ["import math"],
            "program": "def f(x): return 2.0",
        },
        {"test_list": ["assert f(1) == 2"], "program": "def f(x): return x"},
        {"test_list": ["assert isinstance(f(1), Box)"], "program": "class Box: pass\ndef f(x): return Box()"},
        {"program": "def f(x): return x"},
        {"test_list": ["assert f(1) == 2"], "program": None},
    ]
    records = check(tmp_path, [json.dumps(row) for row in rows], "--verifier", "code", code=1)
    assert [r["correct"] for r in records] == [True, True, False, True, True, False, True, False, False]
    assert [r["status"] for r in records] == ["ok", "ok", "no_answer", "ok", "ok", "ok", "ok", "bad_row", "bad_row"]
    assert [r.get("mode") for r in records[:7]] == ["split"] * 6 + ["compat"]
    assert "(compat)" in capsys.readouterr().out


def test_a_missing_file_is_said_so(tmp_path, capsys):
    assert main([str(tmp_path / "none.jsonl"), "--verifier", "math"]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_below_the_floor_nothing_runs_without_consent(capsys):
    weak = Sandbox(workers=1, bubblewrap=False, seccomp=False)
    with pytest.raises(UnsafeMachine, match="--unsafe-exec"):
        weak.require_isolation()
    weak.close()
    willing = Sandbox(workers=1, bubblewrap=False, seccomp=False, unsafe=True)
    assert not willing.require_isolation().safe
    assert not willing.require_isolation().safe
    said = capsys.readouterr().err.splitlines()
    assert said == [willing.isolation.warning]
    assert "without a sound sandbox: " in said[0]
    willing.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its user id")
@pytest.mark.parametrize("unsafe", [False, True])
def test_a_python_that_the_lower_user_cannot_read_is_named(unsafe, monkeypatch, capsys):
    folder = tempfile.TemporaryDirectory(dir="/var/tmp")  # mode 700; /tmp itself is hidden where namespaces work
    closed = Path(folder.name)
    (closed / "lib").mkdir()
    whole = pool._configuration

    def configuration(*args) -> str:
        config = json.loads(whole(*args))
        return json.dumps(config | {"paths": [str(closed / "lib"), *config["paths"]]})

    monkeypatch.setattr(pool, "_configuration", configuration)
    box = Sandbox(workers=1, bubblewrap=False, seccomp=False, unsafe=unsafe)
    with pytest.raises(UnsafeMachine) if not unsafe else contextlib.nullcontext() as caught:
        assert "uid" not in box.require_isolation().layers
    told = str(caught.value) if caught else capsys.readouterr().err
    assert f"{closed}/lib cannot be read" in told
    box.close()
    folder.cleanup()


def test_closing_all_pools_ends_their_processes():
    """Also those of a pool that only the shared table still holds."""
    code = (
        "from verifiers import workers as w; from verifiers.sandbox.pool import shared_sandbox\n"
        "box = shared_sandbox(1); box.require_isolation(); pids = box.pool.child_pids(); del box; w.close_all()\n"
        "import os, pathlib; print(len(pids), [p for p in pids if pathlib.Path(f'/proc/{p}').exists()])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1 []"


def test_the_level_is_recorded_and_probed():
    isolation = CodeTests().isolation
    assert isolation.safe
    assert {"rlimits"} <= set(isolation.layers)
    assert "+" in isolation.level


def test_help_loads_nothing_heavy():
    code = "import sys, verifiers, verifiers.check; print([m for m in ('torch','sympy','mpmath','numpy','pyseccomp','math_verify') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_both_verifiers_are_registered_and_can_be_pickled():
    assert registry.get_entry("verifier", "math").build is MathAnswer
    assert registry.get_entry("verifier", "code").build is CodeTests
    assert pickle.loads(pickle.dumps(MathAnswer("final_answer"))).answer_form == "final_answer"
    assert pickle.loads(pickle.dumps(CodeTests(time_limit=2))).time_limit == 2


def test_bad_tests_and_settings_fail_early():
    for row in ({}, {"test": "x"}, {"test_list": "assert 1"}, {"test_list": [1]}):
        with pytest.raises(BadTests):
            answer_of(row)
    with pytest.raises(BadTests):
        CodeTests().judge_response(Problem("", "", "not json"), "x")
    with pytest.raises(ValueError, match="answer_form"):
        MathAnswer("guess")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="mode"):
        CodeTests(mode="trust")  # pyright: ignore[reportArgumentType]


def test_tests_decide_about_compat_never_the_program():
    verifier = CodeTests(time_limit=3)
    stubborn = "class E:\n    def __eq__(s, o): return True\ndef f(*a): return E()"
    handed = Problem("", "", json.dumps({"test_list": ["assert f(lambda x: x + 1, 2) == 3"]}))
    graded = verifier.judge_response(handed, "def f(g, x): return g(x)")
    assert (graded.mode, graded.verdict.flag, graded.verdict.correct) == ("compat", "compat", True)
    forge = "\nclass E:\n    def __eq__(s, o): return True\ndef g(x): return E()"
    for test, program in {  # values whose handing on once made the tests fall back to one process
        "assert g(f(3)) == 4": "import re\ndef f(x): return re.match('a', 'a')",
        "assert g(f(3) * 40) == 4": "def f(x): return 'a' * 900000",
        "assert g(type(f(3))) == 4": "class K: pass\ndef f(x): return K()",
        "try:\n    f(3)\nexcept Exception as e:\n    assert g(e) == 4": "def f(x): raise ValueError",
    }.items():
        graded = verifier.judge_response(Problem("", "", json.dumps({"test_list": [test]})), program + forge)
        assert (graded.mode, graded.verdict.flag, graded.verdict.correct) == ("split", "", False), test
    large = Problem("", "", json.dumps({"test_list": ["assert f([1]) == 1", "assert f([1] * 900000) == 900000"]}))
    assert verifier.judge_response(large, "def f(x): return len(x)").mode == "split"
    plain = Problem("", "", json.dumps({"test_list": ["assert f(1) == 3"]}))
    graded = verifier.judge_response(plain, stubborn)
    assert (graded.mode, graded.verdict.correct) == ("split", False)


def test_a_compat_verdict_is_flagged_in_the_record_and_only_there():
    def record(flag: str) -> dict:
        turn = Turn((1,), (2,), "x", Verdict(1.0, True, flag=flag))
        return trajectory_to_record(Trajectory(Problem("0", "", ""), (turn,)), "after", "t", 0, 0.0)["attempts"][0]

    assert record("compat")["flag"] == "compat"
    assert "flag" not in record("")


def test_run_records_name_the_graders_and_their_walls():
    def task(name: str, verifier: object) -> SimpleNamespace:
        return SimpleNamespace(name=name, verifier=verifier)

    ran = SimpleNamespace(task=task("math", MathAnswer()), evaluated_tasks=[task("code", CodeTests(mode="compat"))])
    graders = provenance.graders_of(ran)["graders"]  # pyright: ignore[reportArgumentType]
    assert graders["math"].startswith("math ")
    assert "math-verify 0.9" in graders["math"]
    assert "compat" in graders["code"]
    assert list(provenance.isolation_of(ran)) == ["code"]  # pyright: ignore[reportArgumentType]
    plain = SimpleNamespace(task=task("arithmetic", Exact()), evaluated_tasks=[])
    assert provenance.graders_of(plain) == {}  # pyright: ignore[reportArgumentType]


def test_a_program_cannot_replace_the_tests_own_helpers():
    verifier = CodeTests(time_limit=3)
    cheat = "def set(x): return 0\ndef abs(x): return 0\nclass math:\n    isclose = lambda *a: True\ndef f(x): return 1"
    for test in ("assert set(f(1)) == {5}", "assert abs(f(1) - 9) < 1e-6", "assert math.isclose(f(1), 9)"):
        assert not verifier(Problem("", "", json.dumps({"test_list": [test]})), cheat).correct
    prompt = "def poly(xs, x):\n    return sum(xs)\n\n\ndef root(xs):\n    '''A root.'''\n"
    answer = json.dumps({"entry_point": "root", "test": "def check(c):\n    assert poly([1, 2], c([1, 2])) == 0\n"})
    assert not verifier(Problem("", prompt, answer), "def poly(xs, x): return 0\ndef root(xs): return 1").correct


def test_a_batch_keeps_its_order():
    verifier = CodeTests(time_limit=5)
    problems = [Problem(str(i), "", json.dumps({"test_list": [f"assert f() == {i}"]})) for i in range(12)]
    verdicts = verifier.batch(
        [(p, f"import time\ntime.sleep({(i * 7 % 5) / 50})\ndef f(): return {i}") for i, p in enumerate(problems)]
    )
    assert all(verdict.correct for verdict in verdicts)
    shifted = verifier.batch([(p, f"def f(): return {i + i % 2}") for i, p in enumerate(problems)])
    assert [verdict.correct for verdict in shifted] == [i % 2 == 0 for i in range(12)]


def test_exceptions_cross_as_built_in_ones():
    test = "try:\n    f(0)\nexcept ValueError as e:\n    assert 'zero' in str(e)\nelse:\n    assert False"
    problem = Problem("", "", json.dumps({"test_list": [test]}))
    assert CodeTests()(problem, "class Zero(ValueError): pass\ndef f(x): raise Zero('zero!')").correct
    assert not CodeTests()(problem, "def f(x): raise KeyError('zero')").correct
    mapped = Problem(
        "", "", json.dumps({"test_list": ["assert all(map(lambda p: f(p[0]) == p[1], [(1, 2), (2, 3)]))"]})
    )
    assert not CodeTests()(mapped, "def f(x): raise StopIteration").correct  # it would end the map, and all() hold
    assert CodeTests()(mapped, "def f(x): return x + 1").correct


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\\boxed{1} then \\boxed{\\frac{1}{2}}", ("\\frac{1}{2}", "ok")),
        ("\\boxed{\\boxed{5}}", ("5", "ok")),
        ("\\boxed {5}", ("5", "ok")),
        ("\\boxed{\\{1,2\\}}", ("\\{1,2\\}", "ok")),
        ("no box 5", (None, "no_answer")),
        ("\\boxed{5", (None, "truncated")),
        ("\\boxed{3} and \\boxed{5", (None, "truncated")),
        ("\\boxedtext", (None, "no_answer")),
    ],
)
def test_the_last_box(text, found):
    assert last_boxed(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Final Answer: The final answer is $\\frac12$. I hope it is correct.", ("\\frac12", "ok")),
        ("The final answer is $3$. No: the final answer is $\\boxed{4}$.", ("4", "ok")),
        ("The final answer is $\\$5$", ("\\$5", "ok")),
        ("The final answer is $3", (None, "truncated")),
        ("The final answer is 3", (None, "no_answer")),
        ("It is $3$.", (None, "no_answer")),
    ],
)
def test_the_papers_final_answer_form(text, found):
    assert final_answer(text) == found


NUMBERS = (
    st.booleans() | st.integers() | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False) | st.fractions()
    | st.decimals(allow_nan=False)
)  # fmt: skip
KEYS = st.none() | NUMBERS | st.text() | st.binary() | st.dates() | st.uuids()
SCALARS = (
    KEYS | st.binary().map(bytearray) | st.datetimes(timezones=st.none() | st.just(datetime.UTC)) | st.times()
    | st.timedeltas() | st.just(...) | st.sampled_from([int, str, dict, ValueError])
    | st.tuples(st.integers(), st.integers(), st.integers().filter(bool)).map(lambda parts: range(*parts))
    | st.tuples(st.none() | st.integers(), st.none() | st.integers()).map(lambda parts: slice(*parts))
)  # fmt: skip
PAIRS = st.dictionaries(KEYS, st.integers())
VALUES = st.recursive(
    SCALARS | st.sets(KEYS) | st.frozensets(KEYS) | PAIRS.map(Counter) | PAIRS.map(OrderedDict),
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.lists(inner).map(deque) | st.dictionaries(KEYS, inner)
    ),
    max_leaves=12,
)


def types_in(value):
    """The type of a value and of all it holds, which equality does not tell apart (True == 1, 1 == 1.0)."""
    held = value.items() if isinstance(value, dict) else value if isinstance(value, (list, tuple, deque)) else ()
    return type(value), [types_in(item) for item in held]


@settings(max_examples=150, deadline=None)
@given(VALUES)
def test_values_cross_unchanged(value):
    back = literals.read_value(literals.write_value(value))
    assert back == value
    assert types_in(back) == types_in(value)


@settings(max_examples=150, deadline=None)
@given(
    st.text()
    | st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(
        json.dumps
    )
)
def test_hostile_value_text_is_refused_or_plain(text):
    try:
        value = literals.read_value(text)
    except ValueError:
        return
    assert type(value).__module__ in (
        "builtins",
        "collections",
        "fractions",
        "decimal",
        "datetime",
        "verifiers.sandbox.literals",
    )
