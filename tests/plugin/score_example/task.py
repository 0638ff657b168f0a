r"""A task of its own: products of round numbers, in the words the embedded model knows."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness import Message, Problem, Verifier, register

RETRY = "There might be an error in the solution above. Please correct the error, if any, and rewrite the solution."


@register("task", "round_products")
@dataclass(frozen=True)
class RoundProducts:
    r"""a \times b + c with c a multiple of ten.

    Attributes:
        verifier: Grades a response.
    """

    verifier: Verifier
    name: str = "round_products"
    version: str = "1"

    @property
    def train(self) -> Sequence[Problem]:
        return [problem for problem in _PROBLEMS if problem.meta["a"] % 5]

    @property
    def validation(self) -> Sequence[Problem]:
        return []

    @property
    def test(self) -> Sequence[Problem]:
        return [problem for problem in _PROBLEMS if not problem.meta["a"] % 5]

    def chat(self, problem: Problem, answers: Sequence[str]) -> list[Message]:
        messages = [{"role": "user", "content": problem.prompt}]
        for answer in answers:
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": RETRY}]
        return messages


_PROBLEMS = [
    Problem(f"{a}*{b}+{c}", rf"Compute ${a} \times {b} + {c}$.", str(a * b + c), meta={"a": a})
    for a in range(10, 100)
    for b in range(2, 5)
    for c in (10, 50)
]
