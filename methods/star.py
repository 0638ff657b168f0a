"""STaR over two turns: rounds of collecting the current model's corrections and fitting them.

arXiv 2409.12917v1, section 4.1; the base model is re-tuned each round, as in Singh et al. 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.core import Budget, Example, Group, Phase
from harness.registry import register
from methods.sft import Supervised, corrections, fit_once


@register("method", "star")
@dataclass(frozen=True)
class STaR(Supervised):
    """STaR: rounds of sampling two attempts and fitting those that were wrong and then right.

    Attributes:
        rounds: Collections; the steps are divided among them.
        keep_right: Whether right-right trajectories are kept too: False is the paper's D, True its D+.
        restart: Whether each round fits from the base model's weights (the current model does the sampling).
    """

    rounds: int = 3
    keep_right: bool = False
    restart: bool = True

    def phases(self, budget: Budget) -> Sequence[Phase]:
        steps = budget.allocate_steps([1.0] * self.rounds)
        return [self.fitting(f"round{i + 1}", n, self.credit, restart=self.restart) for i, n in enumerate(steps)]

    def credit(self, groups: Sequence[Group]) -> list[Example]:
        kept = corrections(groups)
        if self.keep_right:
            kept += [Example(t.attempts[1]) for group in groups for t in group if all(r > 0 for r in t.rewards[:2])]
        return kept


@register("phase", "star_phase2")
@dataclass(frozen=True)
class STaRPhase2:
    """STaR in place of Stage II's policy gradient, from the Stage I model ("w/ STaR", section 6.3).

    Attributes:
        share: Part of the method's steps, relative to the other parts.
    """

    share: float = 1.0

    def phase(self, name: str, steps: int) -> Phase:
        return fit_once(name, steps, corrections)
