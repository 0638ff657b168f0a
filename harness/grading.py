"""Grades responses, and checks here, once for all of them, what a verifier returns and how long it takes."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, get_args

from harness.core import Problem, Status, Verdict, Verifier
from harness.registry import IN_TREE, find_place

if TYPE_CHECKING:
    pass

VERIFIER_SECONDS = 60.0


class GradingError(ValueError):
    """A verifier that raised, hung or gave no verdict; the message names it and the problem.

    Attributes:
        problem: Id of the problem ('' where it is one of a batch).
        text: The response ('' where it is one of a batch).
    """

    def __init__(self, message: str, problem: str = "", text: str = "") -> None:
        super().__init__(message)
        self.problem, self.text = problem, text


def grade_responses(
    verifier: Verifier, pairs: Sequence[tuple[Problem, str]], seconds: float = VERIFIER_SECONDS
) -> list[Verdict]:
    """Grades (problem, response) pairs in order, in one batch where the verifier has `batch`.

    Args:
        seconds: Most that the verifier may take for one response; a batch may take that for each of its responses.
            Held in the main thread alone, on systems with SIGALRM, and only where the verifier looks at signals:
            Python code, sleeping, waiting and regular expressions do.

    Raises:
        GradingError: the verifier raised, took longer, or gave something that is no verdict.
    """
    batch = getattr(verifier, "batch", None)
    if batch:
        with _watched(verifier, pairs, seconds):
            verdicts = list(batch(pairs))
        if len(verdicts) != len(pairs):
            raise GradingError(
                f"verifier {_name(verifier)} gave {len(verdicts)} verdicts for {len(pairs)} responses, {_which(pairs)}"
            )
    else:
        verdicts = []
        for pair in pairs:
            with _watched(verifier, [pair], seconds):
                verdicts.append(verifier(*pair))
    for (problem, text), verdict in zip(pairs, verdicts, strict=True):
        if fault := _fault_of(verdict):
            raise GradingError(
                f"verifier {_name(verifier)} gave no verdict on problem {problem.id!r}: {fault}", problem.id, text
            )
    return verdicts


def try_verifier(verifier: Verifier, problem: Problem, seconds: float = VERIFIER_SECONDS) -> None:
    """Has a plugin's verifier grade an empty response and the answer itself, before a model is loaded for it.

    Its verdicts are not used. This project's own verifiers are not asked: they may start sandboxes, and are tested.

    Args:
        verifier: Any; one of this project is not asked.
        problem: Its answer is graded as a response.
        seconds: Longest time of one grading.

    Raises:
        GradingError: as `grade_responses`.
    """
    if getattr(verifier, "__module__", "").partition(".")[0] not in IN_TREE:
        grade_responses(verifier, [(problem, ""), (problem, problem.answer)], seconds)


def _fault_of(verdict: object) -> str:
    """What keeps a verifier's word from being a verdict, or ''."""
    if not isinstance(verdict, Verdict):
        return f"{verdict!r} is no Verdict"
    if isinstance(verdict.reward, bool) or not isinstance(verdict.reward, int | float):
        return f"its reward {verdict.reward!r} is no number"
    if not math.isfinite(verdict.reward):
        return f"its reward {verdict.reward!r} is not finite"
    if not isinstance(verdict.correct, bool):
        return f"its correct is {verdict.correct!r}, neither True nor False"
    if verdict.status not in get_args(Status):
        return f"its status {verdict.status!r} is none of {', '.join(get_args(Status))}"
    if not isinstance(verdict.answer, str | None):
        return f"its answer {verdict.answer!r} is no text"
    if not isinstance(verdict.flag, str):
        return f"its flag {verdict.flag!r} is no text"
    if not isinstance(verdict.reason, str):
        return f"its reason {verdict.reason!r} is no text"
    return ""


class _OutOfTime(BaseException):
    """No `Exception`: a verifier that catches those must not catch this."""


@contextlib.contextmanager
def _watched(verifier: Verifier, pairs: Sequence[tuple[Problem, str]], seconds: float) -> Iterator[None]:
    """Gives a verifier `seconds` for each pair and names it, and what it was given, where it fails."""
    problem, text = (pairs[0][0].id, pairs[0][1]) if len(pairs) == 1 else ("", "")
    try:
        with _alarm(seconds * max(1, len(pairs))):
            yield
    except _OutOfTime:
        raise GradingError(
            f"verifier {_name(verifier)} did not come to an end within {seconds * max(1, len(pairs)):g} s on "
            f"{_which(pairs)}. If it needs longer: --bind 'run.verifier_seconds = {10 * seconds:g}'",
            problem,
            text,
        ) from None
    except Exception as error:  # a plugin's verifier may raise anything
        raise GradingError(
            f"verifier {_name(verifier)} failed on {_which(pairs)}: {describe_error(error)}", problem, text
        ) from error


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raises _OutOfTime inside after so many seconds; whoever had set the alarm before gets it back."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise _OutOfTime

    began, handler = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    left, again = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler or signal.SIG_DFL)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, left - (time.monotonic() - began)), again)


def describe_error(error: BaseException) -> str:
    """`ValueError: what it says (file.py:12)`: the plugin's line, and where it was raised if that is another line."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    raised = f"{last[0].filename}:{last[0].lineno}" if last else ""
    own = find_place(error)
    where = f"{own}, raised at {raised}" if own and own != raised else raised
    return f"{type(error).__name__}: {error}" + (f" ({where})" if where else "")


def _name(verifier: Verifier) -> str:
    return getattr(verifier, "name", None) or type(verifier).__name__


def _which(pairs: Sequence[tuple[Problem, str]]) -> str:
    if len(pairs) == 1:
        return f"problem {pairs[0][0].id!r}"
    return f"one of {len(pairs)} responses, to problems {pairs[0][0].id!r} to {pairs[-1][0].id!r}" if pairs else "none"
