r"""`verifier.math_verify`: the library math-verify as it is, for comparison with numbers that others report.

It reads the whole response with the library's own settings: it takes answers from prose, joins several boxes into a
set, rounds to six decimal places, and can be gamed. Do not train on it.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence

from harness.core import Problem, Verdict
from harness.registry import register
from verifiers.math_answer import LIBRARIES, ask_worker, math_workers
from verifiers.workers import WorkerDied, WorkerPool, WorkerTimeout, usable_cores


@register("verifier", "math_verify")
class PlainMathVerify:
    """math-verify's own verdict on the whole response, for comparison with what others report.

    Args:
        time_limit: Seconds until the worker is killed; the library stops itself after 5 s of reading and 5 s of
            comparing.
        workers: Size of the pool. Default: up to 4 cores.
    """

    def __init__(self, time_limit: float = 12.0, workers: int | None = None) -> None:
        self.time_limit, self.workers = time_limit, workers or min(usable_cores(), 4)

    @property
    def grader(self) -> str:
        """The library and its parts with their versions, for run records."""
        return "math_verify (" + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES) + ")"

    def __call__(self, problem: Problem, text: str) -> Verdict:
        try:
            with self.worker_pool().hold_worker() as worker:
                reply = ask_worker(worker, {"gold": problem.answer, "text": text}, self.time_limit)
        except WorkerTimeout:
            return Verdict(0.0, False, "timeout")
        except WorkerDied:
            return Verdict(0.0, False, "error", reason="the worker ended")
        if "error" in reply:
            return Verdict(0.0, False, "error", reason=str(reply["error"]))
        if reply["answer"] is None:
            return Verdict(0.0, False, "no_answer")
        return Verdict(float(reply["equal"]), reply["equal"], "ok", reply["answer"])

    def batch(self, items: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """The verdicts in order, as many at a time as there are workers."""
        return self.worker_pool().map_items(lambda item: self(*item), items)

    def worker_pool(self) -> WorkerPool:
        """The worker processes, shared with every math verifier of this process with these settings."""
        return math_workers(self.time_limit, self.workers)
