r"""A verifier of its own: a boxed number near enough to the answer is right."""

import re
from dataclasses import dataclass

from harness import Problem, Verdict, register


@register("verifier", "within")
@dataclass(frozen=True)
class Within:
    r"""Right when the last \boxed{number} is within `tolerance` of the answer.

    Attributes:
        tolerance: Largest absolute difference that passes.
    """

    tolerance: int = 10

    def __call__(self, problem: Problem, text: str) -> Verdict:
        boxed = re.findall(r"\\boxed\{(\d+)\}", text)
        if not boxed:
            return Verdict(0.0, False, "no_answer")
        right = abs(int(boxed[-1]) - int(problem.answer)) <= self.tolerance
        return Verdict(float(right), right, "ok", boxed[-1])
