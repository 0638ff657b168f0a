r"""Grades math answers: the last \boxed{} (or the paper's "final answer" phrase) of one turn against a gold answer.

The ladder: exact string, normalised string, exact fractions (part by part, see `forms`), then a pool of killable
worker processes for everything with roots, constants and functions, where math-verify is the last stage. A missing
answer, a truncated one, a late grader and a failed grader each have a status of their own; none is called wrong.

Not covered: proofs, answers in prose, numeric tolerance (0.333 is not 1/3).
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from harness.core import Problem, Status, Verdict
from harness.registry import register
from verifiers import thinking
from verifiers.boxed import final_answer, last_boxed
from verifiers.math import forms, latex_math, sampling, symbolic
from verifiers.math.answer_text import normalise_answer
from verifiers.math.latex_math import CannotTell, NotExact, NotMath, Undefined
from verifiers.workers import Worker, WorkerDied, WorkerPool, WorkerTimeout, child_command, shared_object, usable_cores

MAX_ANSWER = 2_000  # characters; no answer of MATH comes near
IN_PROCESS = 400  # characters; longer pairs are compared in a worker, which can be killed
START_LIMIT = 60.0  # seconds a worker may take to start or to import
VERSION = 3  # of the rules; raised whenever a verdict could change
RULES = {  # what decided, where it was more than a look at the texts
    "fractions": "compared as fractions", "form": "compared by form", "numeric": "compared as numbers",
    "math-verify": "compared by math-verify",
}  # fmt: skip
LIBRARIES = ("math-verify", "latex2sympy2_extended", "sympy", "mpmath")
CACHE = 200_000  # graded pairs kept


class Undecided(Exception):
    """The pair needs more than fractions: ask a worker."""


@dataclass(frozen=True)
class Grade:
    """What the ladder says of one pair.

    Attributes:
        equal: Whether the answers are the same; False when `status` is not ok.
        status: ok, timeout or error.
        rung: exact, normalised, fractions, form, numeric, math-verify or limit: what decided.
        detail: The reason of an error.
        seconds: Wall time it took (0 when it was remembered).
    """

    equal: bool
    status: Status = "ok"
    rung: str = "exact"
    detail: str = ""
    seconds: float = 0.0


class _Fractions:
    """Judges scalar expressions in exact arithmetic; raises Undecided where fractions do not reach."""

    def __init__(self) -> None:
        self.used = False

    def __call__(self, gold: str, given: str) -> bool:
        try:
            a, b = latex_math.parse_latex(gold), latex_math.parse_latex(given)
            self.used = True
            compared = 0
            points = sampling.sample_points(a, b, (gold, given))
            for at in points:
                try:
                    value = latex_math.exact_value(a, at)
                except Undefined:
                    continue
                try:
                    if value != latex_math.exact_value(b, at):
                        return False
                    compared += 1
                except Undefined:
                    if sampling.is_generic(at):
                        return False  # a hole in the given expression where the gold one has none
            if compared >= (sampling.ENOUGH if points[0] else 1):
                return True
        except NotMath:
            if symbolic.is_settled(gold, given):
                return True
        except NotExact:
            pass
        raise Undecided

    def is_proportional(self, gold: str, given: str, signed: bool) -> bool:
        try:
            a, b = latex_math.parse_latex(gold), latex_math.parse_latex(given)
            pairs = [
                (latex_math.exact_value(a, at), latex_math.exact_value(b, at))
                for at in sampling.sample_points(a, b, (gold, given))
            ]
        except (NotMath, NotExact, Undefined):
            raise Undecided from None
        self.used = True
        x, y = next(((x, y) for x, y in pairs if x or y), (0, 0))
        if not x or not y:
            return False
        return all(
            x * v == y * u and (not signed or x * y > 0) and (bool(u) == bool(v)) and (not signed or u * v >= 0)
            for u, v in pairs
        )


@register("verifier", "math")
class MathAnswer:
    r"""Equality of the response's final answer with the gold answer, `problem.answer`.

    Args:
        answer_form: `boxed` reads the last \boxed{}; `final_answer` reads "The final answer is $...$"; `bare` takes
            the whole text as the answer (auditing only).
        time_limit: Seconds one comparison may take in a worker before the worker is killed.
        workers: Size of the pool; all verifiers of a process with the same limits share one. Default: up to 4 cores.
    """

    def __init__(
        self,
        answer_form: Literal["boxed", "final_answer", "bare"] = "boxed",
        time_limit: float = 3.0,
        workers: int | None = None,
    ) -> None:
        if answer_form not in ("boxed", "final_answer", "bare"):
            raise ValueError(f"answer_form must be boxed, final_answer or bare, not {answer_form!r}")
        self.answer_form, self.time_limit = answer_form, time_limit
        self.workers = workers or min(usable_cores(), 4)
        self._cache: OrderedDict[tuple[str, str, str], Grade] = OrderedDict()
        self._late: dict[tuple[str, str, str], int] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        return {"answer_form": self.answer_form, "time_limit": self.time_limit, "workers": self.workers}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # pyright: ignore[reportArgumentType]

    @property
    def grader(self) -> str:
        """What grades, with its form, limit and the libraries behind the last rungs, for run records."""
        libraries = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
        return f"math {VERSION} ({self.answer_form}, {self.time_limit:g} s; {libraries})"

    def __call__(self, problem: Problem, text: str) -> Verdict:
        return self.judge_response(problem, text)[0]

    def batch(self, items: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """The verdicts in order; only pairs that need a worker wait for one."""
        return [verdict for verdict, _ in self.judge_all(items)]

    def judge_all(self, items: Sequence[tuple[Problem, str]]) -> list[tuple[Verdict, Grade]]:
        """As `batch`, with the grade behind each verdict."""
        results: list[tuple[Verdict, Grade] | None] = [self.judge_response(*item, wait=False) for item in items]
        waiting = [i for i, result in enumerate(results) if result is None]
        done = self.worker_pool().map_items(lambda i: self.judge_response(*items[i]), waiting) if waiting else []
        for i, result in zip(waiting, done, strict=True):
            results[i] = result
        return [result for result in results if result is not None]

    def judge_response(self, problem: Problem, text: str, wait: bool = True) -> tuple[Verdict, Grade]:
        """The verdict and the grade behind it; None instead when a worker is needed and `wait` is False.

        Args:
            problem: Has the gold answer.
            text: The whole response.
            wait: Whether a worker process may be asked.
        """
        answer, status = self.extract_answer(text)
        if answer is None:
            return Verdict(0.0, False, status), Grade(False, status, "extraction")
        question = problem.prompt if any(word in problem.prompt.lower() for word in ("percent", "%", "base")) else ""
        grade = self.compare_answers(problem.answer, answer, question, wait)
        if grade is None:
            return None  # pyright: ignore[reportReturnType]  (only with wait=False)
        canonical = normalise_answer(answer) if len(answer) <= IN_PROCESS else answer[:MAX_ANSWER]
        reason = ": ".join(filter(None, (RULES.get(grade.rung), grade.detail)))
        return Verdict(float(grade.equal), grade.equal, grade.status, canonical, reason=reason), grade

    def extract_answer(self, text: str) -> tuple[str | None, Literal["ok", "no_answer", "truncated"]]:
        """The final answer of this turn alone, and why there is none."""
        if self.answer_form == "bare":
            answer, status = text, "ok"
        else:
            final = thinking.final_text(text)
            if final is None:
                return None, "truncated"
            answer, status = (last_boxed if self.answer_form == "boxed" else final_answer)(final)
        if answer is not None and not answer.strip():
            return None, "no_answer"
        return (answer.strip() if answer is not None else None), status

    def compare_answers(self, gold: str, given: str, question: str = "", wait: bool = True) -> Grade | None:
        """Tries the stages in order for one pair; None when a worker is needed and `wait` is False.

        Args:
            gold, given: Answers without their box.
            question: The problem's text, where it may name a percentage or a number base.
            wait: Whether a worker process may be asked.
        """
        if not gold.strip():
            return Grade(False, "error", "limit", "the gold answer is empty")
        if gold.strip() == given.strip():
            return Grade(True)
        if len(given) > MAX_ANSWER or len(gold) > MAX_ANSWER:
            return Grade(False, "error", "limit", f"an answer of more than {MAX_ANSWER} characters")
        key = (gold, given, question)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        started = time.perf_counter()
        grade = self._in_process(gold, given, question)
        if grade is None:
            if not wait:
                return None
            grade = self._in_worker(gold, given, question)
        self._remember(key, grade)
        return replace(grade, seconds=time.perf_counter() - started)

    def _in_process(self, gold: str, given: str, question: str) -> Grade | None:
        if len(gold) > IN_PROCESS or len(given) > IN_PROCESS:
            return None
        if normalise_answer(gold) == normalise_answer(given):
            return Grade(True, rung="normalised")
        leaf = _Fractions()
        try:
            equal = forms.answers_equal(gold, given, leaf, question)
        except Undecided:
            return None
        except CannotTell as error:
            return Grade(False, "error", "form", str(error))
        return Grade(equal, rung="fractions" if leaf.used else "form")

    def _in_worker(self, gold: str, given: str, question: str) -> Grade:
        request = {"gold": gold, "given": given, "question": question}
        try:
            with self.worker_pool().hold_worker() as worker:
                reply = ask_worker(worker, request, self.time_limit)
        except WorkerTimeout:
            return Grade(False, "timeout", "limit", f"no decision within {self.time_limit} s")
        except WorkerDied as error:
            return Grade(False, "error", "limit", str(error))
        if "error" in reply:
            return Grade(False, "error", reply["rung"], reply["error"])
        return Grade(reply["equal"], rung=reply["rung"])

    def _remember(self, key: tuple[str, str, str], grade: Grade) -> None:
        """Keeps definite grades; a timeout only when it happens twice (the machine may have been busy)."""
        with self._lock:
            if grade.status == "timeout":
                self._late[key] = self._late.get(key, 0) + 1
                if self._late[key] < 2:
                    return
            elif grade.status != "ok":
                return
            self._cache[key] = grade
            while len(self._cache) > CACHE:
                self._cache.popitem(last=False)

    def worker_pool(self) -> WorkerPool:
        """The worker processes, shared by every math verifier of this process with these settings."""
        return math_workers(self.time_limit, self.workers)


def math_workers(time_limit: float, workers: int) -> WorkerPool:
    """The pool of `math_process` children with these settings, one for the whole process."""

    def start() -> WorkerPool:
        paths = json.dumps([path for path in sys.path if path])
        env = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "MPMATH_NOGMPY": "1", "SYMPY_GROUND_TYPES": "python"}
        argv = child_command("math.math_process", str(time_limit), paths, isolated=False)
        return WorkerPool(lambda: argv, env, workers, START_LIMIT)

    return shared_object(("math", time_limit, workers), start)


def ask_worker(worker: Worker, request: dict[str, Any], time_limit: float) -> dict[str, Any]:
    """One request's answer; the time in which math-verify is imported is not counted.

    Args:
        worker: A math process.
        request: Gold answer, given answer and question.
        time_limit: Seconds.

    Raises:
        WorkerTimeout, WorkerDied: as `Worker.ask`.
    """
    reply = json.loads(worker.ask([json.dumps(request).encode()], time_limit))
    while "warming" in reply or "warm" in reply:
        reply = json.loads(worker.receive_frame(START_LIMIT if "warming" in reply else time_limit))
    return reply


def usable_problems(problems: Sequence[Problem]) -> tuple[list[Problem], int]:
    """The problems with a gold answer a grader can use, and how many were dropped (an empty box in the data)."""
    kept = [problem for problem in problems if problem.answer.strip().strip("$").strip()]
    return kept, len(problems) - len(kept)
