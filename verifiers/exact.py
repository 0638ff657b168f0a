"""Grades by string equality of the boxed answer: for tasks whose answers have one spelling."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core import Problem, Verdict
from harness.registry import register
from verifiers.boxed import last_boxed


@register("verifier", "exact")
@dataclass(frozen=True)
class Exact:
    r"""String equality of the last boxed answer with the gold answer, blanks at the ends ignored."""

    def __call__(self, problem: Problem, text: str) -> Verdict:
        answer, status = last_boxed(text)
        if answer is None:
            return Verdict(0.0, False, status)
        answer = answer.strip()
        correct = answer == problem.answer.strip()
        return Verdict(float(correct), correct, "ok", answer)
