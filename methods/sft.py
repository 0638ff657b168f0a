"""Supervised rows that train attempt 2 on traces of the base model: SFT-oracle and SFT-self.

From the user's design note, not from the paper, which has no rows of these names (docs/paper_vs_here.md). The wrong
first attempt is context, never a target.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from harness.core import Budget, Example, Group, Phase
from harness.registry import register


def fit_once(name: str, steps: int, credit: object, *, restart: bool = False) -> Phase:
    """All samples of a phase first, then one pass over what was kept of them; the loss is a mean over examples."""
    return Phase(name, steps, credit, refresh_every=max(1, steps), mean_over="example", restart=restart)  # type: ignore[arg-type]


def corrections(groups: Sequence[Group]) -> list[Example]:
    """Attempt 2 of every trajectory that was wrong and then right."""
    return [
        Example(t.attempts[1])
        for group in groups
        for t in group
        if not t.attempts[0].verdict.correct and t.attempts[1].verdict.correct
    ]


@register("method", "sft_self")
@dataclass(frozen=True)
class SFTSelf:
    """SFT-self (design note): fit the base model's own corrections, wrong then right in one trajectory."""

    def phases(self, budget: Budget) -> Sequence[Phase]:
        return [fit_once("sft", budget.steps, corrections)]


@register("method", "sft_oracle")
@dataclass(frozen=True)
class SFTOracle:
    """SFT-oracle (design note): after the base model's own wrong attempt, fit the reference solution."""

    def phases(self, budget: Budget) -> Sequence[Phase]:
        return [fit_once("sft", budget.steps, self.credit)]

    def credit(self, groups: Sequence[Group]) -> list[Example]:
        found = []
        for trajectory in (t for group in groups for t in group if not t.attempts[0].verdict.correct):
            problem, turn = trajectory.problem, trajectory.attempts[1]
            if problem.solution is None:
                raise ValueError(f"sft_oracle needs reference solutions, and problem {problem.id!r} has none")
            found.append(Example(dataclasses.replace(turn, text=problem.solution, tokens=(), logprobs=())))
        return found
