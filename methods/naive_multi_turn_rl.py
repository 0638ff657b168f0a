"""Standard multi-turn RL: each attempt earns its own reward, no stages, no shaping (arXiv 2409.12917v2, section 5).

The paper's own baseline optimises Eq. 1 on (x2, y2) alone, so attempt 2 is paid and attempt 1 is not: `paid = (False,
True)`. v2's Eq. 1 sums both rewards, which is the default here. docs/paper_vs_here.md has both readings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.core import Budget, Example, Group, Phase
from harness.credit import Advantage, Conditioned, reinforce
from harness.registry import register


@register("method", "naive_multi_turn_rl")
@dataclass(frozen=True)
class NaiveMultiTurnRL:
    """Standard multi-turn RL: one on-policy phase, each attempt paid its own reward.

    Attributes:
        kl: beta1, on every attempt.
        paid: Whether each attempt's own reward is paid; the last holds for all further attempts.
        gamma: Discount across attempts.
        advantage: The baseline.
        turns: Attempts in training.
        scale: Factor on each attempt's weight; the last holds for all further attempts. (1 / (1 + alpha), 1), with the
            KL divided likewise, is SCoRe without Stage I, divided by 1 + alpha (docs/equivalences.md).
    """

    kl: float = 0.01
    paid: Sequence[bool] = (True, True)
    gamma: float = 0.0
    advantage: Advantage = Conditioned()
    turns: int = 2
    scale: Sequence[float] = (1.0,)

    def phases(self, budget: Budget) -> Sequence[Phase]:
        return [Phase("rl", budget.steps, self.credit, turns=self.turns)]

    def credit(self, groups: Sequence[Group]) -> list[Example]:
        return reinforce(
            groups, advantage=self.advantage, kl=(self.kl,), paid=self.paid, gamma=self.gamma, scale=self.scale
        )
