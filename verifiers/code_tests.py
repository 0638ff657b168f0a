"""Grades programs by their tests: HumanEval, MBPP and repair problems, in the sandbox.

`Problem.answer` holds the tests as JSON, in one of two forms (anything else in it is ignored):
    {"test": source that defines check(candidate), "entry_point": name, "prompt": code a completion continues}
    {"test_list": [source, ...], "test_setup_code": source, "test_imports": [source, ...]}
A `"mode": "compat"` in it asks for one-process grading of that problem. Without "prompt", the prompt of a problem in
the first form is `problem.prompt`.

Split-process grading is the default (`sandbox.two_processes`); the tests alone, never the program, can make a problem
fall
back to `compat`, and that is recorded. Only the final text of a response is graded (see `thinking`).

Policies repeat themselves, so a verifier remembers: an equal response to an equal problem is run once. What depends on
the moment (`timeout`, `error`) is never remembered. A program that passes by luck is judged by its first run.

Not covered: programs that read standard input; tests of side effects.
"""

from __future__ import annotations

import functools
import hmac
import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from harness.core import Problem, Verdict
from harness.registry import register
from verifiers.sandbox import programs, trusted_tests
from verifiers.sandbox.pool import Isolation, Job, Outcome, Sandbox, shared_sandbox
from verifiers.thinking import final_text

VERSION = 3  # of the rules; raised whenever a verdict could change


class BadTests(ValueError):
    """The problem's tests are in no form this verifier knows."""


SEED_KEY = b"random inputs of tests"  # no fork server ever holds it: a program cannot foresee what its tests draw
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")  # of an object, in its repr: another one in every process
LONGEST = 10_000  # characters of a response that is remembered
_memory = threading.Lock()  # of every verifier; held for look-ups only


@dataclass(frozen=True)
class Graded:
    """One verdict with what a report wants to know beside it.

    Attributes:
        mode: `split`, or `compat` (flagged: the program could forge it).
        seconds: Wall time.
        program: The program as the response had it; the verdict's answer is without formatting.
    """

    verdict: Verdict
    mode: str
    reason: str
    seconds: float
    program: str | None


@register("verifier", "code")
class CodeTests:
    """Right when the program in the response passes every test of `problem.answer`.

    Args:
        time_limit: Wall seconds of one program with its tests (the slowest of MBPP takes four of CPU time).
        memory_mb: Address space of each of the two processes.
        mode: `split`, or `compat` to reproduce published numbers of one-process harnesses.
        workers: Programs at a time; default: every core. Verifiers with the same number share one pool.
        unsafe_exec: Run even where the machine offers no sound isolation.
        remember: Verdicts that `batch` and a call keep for equal responses, the latest used; 0 runs every program.
            `judge_response` and `judge_all` always run.
    """

    def __init__(
        self,
        time_limit: float = 10.0,
        memory_mb: int = 1024,
        mode: Literal["split", "compat"] = "split",
        workers: int | None = None,
        unsafe_exec: bool = False,
        remember: int = 16_384,
    ) -> None:
        if mode not in ("split", "compat"):
            raise ValueError(f"mode must be split or compat, not {mode!r}")
        if time_limit <= 0 or memory_mb < 64:
            raise ValueError(f"time_limit must be positive and memory_mb at least 64, not {time_limit}, {memory_mb}")
        self.time_limit, self.memory_mb, self.mode = time_limit, memory_mb, mode
        self.workers, self.unsafe_exec, self.remember = workers, unsafe_exec, remember
        self._known: dict[tuple[str, str, str], Verdict] = {}  # from (tests, prompt, response), the latest used last

    @property
    def sandbox(self) -> Sandbox:
        """The shared pool of fork servers; started on first use."""
        return shared_sandbox(self.workers, self.unsafe_exec)

    @property
    def isolation(self) -> Isolation:
        """The isolation layers that work here, for run records.

        Raises:
            UnsafeMachine: below the floor, and `unsafe_exec` is off.
        """
        return self.sandbox.require_isolation()

    @property
    def grader(self) -> str:
        """What grades, with mode and limits, for run records."""
        return f"code {VERSION} ({self.mode}, {self.time_limit:g} s, {self.memory_mb} MB)"

    def __call__(self, problem: Problem, text: str) -> Verdict:
        return self.batch([(problem, text)])[0]

    def batch(self, items: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """The verdicts in order, as many at a time as there are workers; equal items are run once."""
        if not self.remember:
            return [graded.verdict for graded in self.judge_all(items)]
        keys = [(problem.answer, problem.prompt, text) for problem, text in items]
        with _memory:
            verdicts = {key: self._known[key] for key in keys if key in self._known}
        new = {key: item for key, item in zip(keys, items, strict=True) if key not in verdicts}
        graded = self.judge_all(list(new.values())) if new else []
        verdicts |= {key: found.verdict for key, found in zip(new, graded, strict=True)}
        with _memory:
            for key, verdict in verdicts.items():
                self._known.pop(key, None)
                if verdict.status in ("ok", "no_answer") and len(key[2]) <= LONGEST:
                    self._known[key] = verdict
            for key in list(self._known)[: max(0, len(self._known) - self.remember)]:
                del self._known[key]
        return [verdicts[key] for key in keys]

    def judge_all(self, items: Sequence[tuple[Problem, str]]) -> list[Graded]:
        """As `batch`, with mode, reason and time; every item is run."""
        sandbox = self.sandbox
        sandbox.require_isolation()
        return sandbox.pool.map_items(lambda item: self.judge_response(*item), items)

    def judge_response(self, problem: Problem, text: str) -> Graded:
        """One verdict with mode, reason and time.

        Raises:
            BadTests: `problem.answer` holds no tests.
            UnsafeMachine: below the floor, and `unsafe_exec` is off.
        """
        started = time.perf_counter()
        job = self.build_job(problem, text)
        final = final_text(text)
        if final is None:
            reason = "the thinking never ends"
            verdict = Verdict(0.0, False, "truncated", reason=reason)
            return Graded(verdict, job.mode, reason, time.perf_counter() - started, None)
        job = replace(job, text=final)
        outcome = self.sandbox.run_job(job)
        if outcome.needs_compat and job.mode == "split":
            outcome = self.sandbox.run_job(replace(job, mode="compat"))
        seconds = time.perf_counter() - started
        return Graded(_verdict(outcome), outcome.mode, outcome.reason, seconds, outcome.program)

    def build_job(self, problem: Problem, text: str) -> Job:
        """The sandbox's job for one response.

        Raises:
            BadTests: `problem.answer` holds no tests.
        """
        plan = _plan(problem.answer, problem.prompt)
        mode = "compat" if "compat" in (self.mode, plan.mode) else "split"
        return replace(plan, text=text, mode=mode, limit=self.time_limit, memory=self.memory_mb * 2**20)


def _verdict(outcome: Outcome) -> Verdict:
    flag = "compat" if outcome.mode == "compat" else ""
    answer = None if outcome.program is None else programs.canonical_program(outcome.program)
    reason = "" if outcome.passed else ADDRESS.sub("at 0x...", outcome.reason)
    return Verdict(float(outcome.passed), outcome.passed, outcome.status, answer, flag, reason)


def answer_of(row: Mapping[str, Any]) -> str:
    """`Problem.answer` for a row in HumanEval's or MBPP's fields.

    Raises:
        BadTests: the row has neither `test` and `entry_point` nor `test_list`.
    """
    kept = {name: row[name] for name in _FIELDS if row.get(name)}
    text = json.dumps(kept)
    _plan(text, str(row.get("prompt", "")))
    return text


_FIELDS = ("test", "entry_point", "test_list", "test_setup_code", "test_imports", "mode")


@functools.lru_cache(maxsize=4096)
def _plan(answer: str, prompt: str) -> Job:
    """The job of a problem, without the program; all analysis of the trusted tests happens here, once."""
    try:
        tests = json.loads(answer)
    except ValueError as error:
        raise BadTests(f"the tests are no JSON: {error}") from None
    if not isinstance(tests, dict):
        raise BadTests("the tests are no JSON object")
    setup = _joined(tests, "test_imports") + _joined(tests, "test_setup_code")
    if tests.get("test") and tests.get("entry_point"):
        sources, entry = (_text(tests["test"], "test"),), _text(tests["entry_point"], "entry_point")
        prompt, wanted = _text(tests.get("prompt", prompt), "prompt"), (entry,)
    elif tests.get("test_list"):
        if not isinstance(tests["test_list"], list):
            raise BadTests("test_list must be a list of sources")
        sources, entry, prompt = tuple(_text(source, "test_list") for source in tests["test_list"]), "", ""
        wanted = tuple(trusted_tests.names_under_test(setup, sources))
    else:
        raise BadTests("the tests need `test` with `entry_point`, or `test_list`")
    whole = "\n".join([setup, *sources])
    free = tuple(trusted_tests.free_names(whole))
    trees = [tree for code in (prompt, setup, *sources) if (tree := programs.parse_program(code)) is not None]
    handed = trusted_tests.HandedOver(trees, (*wanted, *(["candidate", entry] if entry else ())))
    one_process = (not entry and trusted_tests.needs_one_process(whole)) or handed.hands_over()
    return Job(
        "",
        sources,
        prompt,
        setup,
        entry,
        wanted,
        free,
        trusted_tests.calls_check(sources),
        handed.believes_methods(),
        int.from_bytes(hmac.digest(SEED_KEY, f"{answer}\n{prompt}".encode("utf-8", "surrogatepass"), "sha256")),
        "compat" if one_process or tests.get("mode") == "compat" else "split",
    )


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadTests(f"{name} must be text, not {type(value).__name__}")
    return value.replace("\r\n", "\n")


def _joined(tests: Mapping[str, Any], name: str) -> str:
    value = tests.get(name) or ""
    lines = value if isinstance(value, list) else [value]
    return "".join(_text(line, name) + "\n" for line in lines if line)
