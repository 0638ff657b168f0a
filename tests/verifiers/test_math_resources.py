"""Answers made to exhaust the grader: each is answered in time, from any thread and process; the next is right."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.core import Problem
from verifiers.math_answer import MathAnswer

pytestmark = pytest.mark.slow  # answers run into limits of time

LIMIT = 3.0
SLACK = 2.5  # a killed worker starts again, on a busy machine


def nested(left: str, middle: str, right: str, times: int) -> str:
    return left * times + middle + right * times


ATTACKS = {
    "tower of powers": "9^{9^{9^{9}}}",
    "taller tower": "9^{9^{9^{9^{9^{9}}}}}",
    "power of a power": "(10^{10^{10}})^{10^{10}}",
    "bare tower": "9^9^9^9",
    "power": "2^{100000000}",
    "negative power": "2^{-100000000}",
    "factorial": "100000000!",
    "half a factorial": "\\frac{100000000!}{2}",
    "power factorial": "(10^{8})!",
    "factorial of a factorial": "((10!)!)!",
    "many factorials": "+".join(["99999!"] * 50),
    "binomial": "\\binom{1000000000}{500000000}",
    "root tower": nested("\\sqrt{", "2", "}", 400),
    "nested fractions": nested("\\frac{1}{", "2", "}", 50),
    "deeper fractions": nested("\\frac{1}{1+", "x", "}", 200),
    "300 parentheses": nested("(", "1", ")", 300),
    "2000 parentheses": nested("(", "1", ")", 2000),
    "20000 braces": nested("{", "1", "}", 20000),
    "unbalanced": "(" * 500 + "1",
    "200 kB of digits": "7" * 200_000,
    "200 kB of text": "word " * 40_000,
    "200 kB of sums": "1+" * 100_000 + "1",
    "200 kB of commas": "1," * 100_000 + "1",
    "1900 digits": "7" * 1900,
    "1900 minuses": "-" * 1900 + "1",
    "900 pluses and minuses": "1\\pm" * 300 + "1",
    "long list": ",".join(str(i) for i in range(600)),
    "long product": "(x+1)" * 300,
    "expanded power": "(x+y+z+w)^{5000}",
    "long sum": "\\sum_{k=1}^{100000000} k^{k}",
    "endless sum": "\\sum_{k=1}^{\\infty} \\frac{\\sin k}{k^{k!}}",
    "integral": "\\int_0^1 \\frac{\\sin(\\sin(\\sin x))}{\\ln(1+e^{x^{x}})} dx",
    "limit": "\\lim_{x \\to 0} \\frac{\\sin(\\tan x)-\\tan(\\sin x)}{x^{7}}",
    "product": "\\prod_{k=1}^{10000000} k",
    "sines": nested("\\sin(", "10^{100}", ")", 40),
    "huge angle": "\\sin(10^{10^{6}})",
    "logarithms": nested("\\ln(", "x", ")", 45),
    "repeating decimal": "0.\\overline{" + "3" * 1500 + "}",
    "matrix": "\\begin{pmatrix}" + " & ".join(["9^{9^9}"] * 100) + "\\end{pmatrix}",
    "exponent notation": "1e999999999",
    "regex bait": "\\text{" + "a " * 900 + "!",
    "blanks": " " * 1900 + "\\frac{1}",
    "unicode": "√" * 900,
    "null bytes": "\0" * 1000,
    "lone surrogate": "\ud800\\sqrt{2}",
}

GOLDS = ("5", "\\frac{\\sqrt{3}}{2}", "x^2+1")
NEXT = (Problem("next", "", "\\frac{\\sqrt{3}}{2}"), "\\sqrt{\\frac{3}{4}}")


def withstand(verifier: MathAnswer, names: list[str]) -> list[str]:
    """Names of the attacks that were late, matched, or spoilt the next answer."""
    failed = []
    for i, name in enumerate(names):
        started = time.perf_counter()
        verdict = verifier(Problem(name, "", GOLDS[i % 3]), ATTACKS[name])
        seconds = time.perf_counter() - started
        if verdict.correct or seconds > LIMIT + SLACK:
            failed.append(f"{name}: {verdict.status} after {seconds:.1f} s")
        if not verifier(*NEXT).correct:
            failed.append(f"after {name}")
        verifier._cache.clear()
    return failed


@pytest.fixture
def verifier():
    return MathAnswer("bare", time_limit=LIMIT, workers=2)


def test_there_are_enough_attacks():
    assert len(ATTACKS) >= 30


def test_from_the_main_thread(verifier):
    assert withstand(verifier, list(ATTACKS)) == []


def test_from_worker_threads(verifier):
    names = list(ATTACKS)
    with ThreadPoolExecutor(2) as threads:
        failed = list(threads.map(lambda part: withstand(verifier, part), (names[::2], names[1::2])))
    assert failed == [[], []]


def test_from_a_forked_process(verifier):
    assert verifier(*NEXT).correct  # the parent's workers are running when the fork happens
    before = verifier.worker_pool().child_pids()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = (
                0
                if withstand(verifier, list(ATTACKS)) == []
                and not set(before) & set(verifier.worker_pool().child_pids())
                else 2
            )
            verifier.worker_pool().close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert verifier(*NEXT).correct
    assert verifier.worker_pool().child_pids() == before


def test_gold_answers_out_of_reach_are_errors_not_wrong_answers(verifier):
    for gold, given in (("9^{9^{9^{9}}}", "9^{9^{9^{8}}}"), ("\\foo{\\bar}", "\\sqrt{2}")):
        assert verifier(Problem("", "", gold), given).status in ("error", "timeout")
    assert verifier(Problem("", "", "9^{9^{9^{9}}}"), "9^{9^{9^{9}}}").correct


def test_the_callers_alarm_is_left_alone(verifier):
    fired = []
    old = signal.signal(signal.SIGALRM, lambda *_: fired.append(1))
    try:
        signal.alarm(100)
        verifier(Problem("", "", "5"), "\\sqrt{26}")
        verifier(Problem("", "", "5"), "100000000!")
        assert signal.alarm(0) > 90
        assert signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
    assert fired == []


def test_a_dead_worker_is_replaced(verifier):
    assert verifier(*NEXT).correct
    for pid in verifier.worker_pool().child_pids():
        os.kill(pid, signal.SIGKILL)
    verifier._cache.clear()
    time.sleep(0.2)
    verdicts = [verifier(*NEXT) for _ in range(3)]
    assert verdicts[-1].correct
    assert all(verdict.status in ("ok", "error") for verdict in verdicts)


def test_many_threads_share_a_bounded_pool(verifier):
    answers = []
    threads = [
        threading.Thread(target=lambda k=k: answers.append(verifier(Problem("", "", f"\\sqrt{{{k}}}"), f"{k}^{{1/2}}")))
        for k in range(2, 26)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 24
    assert all(verdict.correct for verdict in answers)
    assert len(verifier.worker_pool().child_pids()) <= 2
