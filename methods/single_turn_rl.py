"""Single-turn RL: attempt 1 alone is sampled and trained.

The paper's "w/o multi-turn training" (arXiv 2409.12917v2, section 6.3); evaluated with both prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.core import Budget, Example, Group, Phase
from harness.credit import Advantage, Conditioned, reinforce
from harness.registry import register


@register("method", "single_turn_rl")
@dataclass(frozen=True)
class SingleTurnRL:
    """Single-turn RL: one attempt, twice as many trajectories, so equally many responses.

    Attributes:
        kl: beta1.
        advantage: The baseline.
    """

    kl: float = 0.01
    advantage: Advantage = Conditioned()

    def phases(self, budget: Budget) -> Sequence[Phase]:
        return [Phase("rl", budget.steps, self.credit, turns=1)]

    def credit(self, groups: Sequence[Group]) -> list[Example]:
        return reinforce(groups, advantage=self.advantage, kl=(self.kl,))
