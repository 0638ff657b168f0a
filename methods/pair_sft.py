"""Pair-SFT: wrong attempts paired with right ones of the same problem (arXiv 2409.12917v1, section 4.1).

After Welleck et al. 2023, with one model for both turns. One collection from the base model, one pass; only first
attempts come first in a pair.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass

from harness.core import Budget, Example, Group, Phase
from harness.registry import register
from methods.sft import Supervised


@register("method", "pair_sft")
@dataclass(frozen=True)
class PairSFT(Supervised):
    """Pair-SFT: each wrong attempt 1 with a random right response of its problem as attempt 2.

    Attributes:
        right_share: Share of the right first attempts that are paired as well: 0 is the paper's D, 1 its D+.
    """

    right_share: float = 0.0

    def phases(self, budget: Budget) -> Sequence[Phase]:
        return [self.fitting("sft", budget.steps, self.credit)]

    def credit(self, groups: Sequence[Group]) -> list[Example]:
        found = []
        for group in groups:
            right = [turn for t in group for turn in t.attempts if turn.verdict.correct]
            for number, trajectory in enumerate(group):
                first, second = trajectory.attempts[:2]
                choose = random.Random(f"{trajectory.problem.id} {number} {first.tokens}")
                if not right or (first.verdict.correct and choose.random() >= self.right_share):
                    continue
                target = choose.choice(right)
                found.append(Example(dataclasses.replace(second, text=target.text, tokens=target.tokens, logprobs=())))
        return found
