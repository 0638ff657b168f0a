"""SCoRe: two stages of multi-turn RL (Kumar et al., arXiv 2409.12917v2, section 5).

Differs from the paper: the split of the steps between the stages and the policy-gradient baseline, which it does not
state, are bindings (docs/paper_vs_here.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.core import Budget, Credit, Example, Group, Log, Phase
from harness.credit import Advantage, Bonus, Conditioned, Progress, reinforce
from harness.registry import register


class Stage(Protocol):
    """One stage: its share of the steps and its phase."""

    @property
    def share(self) -> float: ...

    def phase(self, name: str, steps: int) -> Phase: ...


@register("phase", "score_phase1")
@dataclass(frozen=True)
class Phase1:
    """Stage I (Eq. 3): train attempt 2, hold attempt 1 at the base model; attempt 1's reward is not paid.

    Attributes:
        share: Part of the method's steps, relative to the other parts.
        kl: beta1, on every attempt ("we still utilize the default KL ... with a relatively small weight").
        kl_first: beta2, on attempt 1 in addition (0.1 for MATH, 0.25 for MBPP in Table 5); or `@kl.balanced()`.
        advantage: The baseline.
        turns: Attempts in training.
    """

    share: float = 1.0
    kl: float = 0.01
    kl_first: float | Callable[[Log], float] = 0.1
    advantage: Advantage = Conditioned()
    turns: int = 2

    def phase(self, name: str, steps: int) -> Phase:
        adapt = self.adapt if callable(self.kl_first) else None
        return Phase(name, steps, self.credit, turns=self.turns, adapt=adapt)

    def credit(self, groups: Sequence[Group]) -> Sequence[Example]:
        return self.adapt([])(groups)

    def adapt(self, log: Log) -> Credit:
        """The credit of the update after the logged ones; the log matters to an adaptive beta2 alone."""
        first = self.kl_first(log) if callable(self.kl_first) else self.kl_first
        kl = (self.kl + first, self.kl)
        return lambda groups: reinforce(groups, advantage=self.advantage, kl=kl, paid=(False, True))


@register("phase", "score_phase2")
@dataclass(frozen=True)
class Phase2:
    """Stage II (Eq. 4): both attempts earn their reward, attempt 2 the shaping bonus as well; KL on both.

    Attributes:
        share: Part of the method's steps, relative to the other parts.
        kl: beta1, on every attempt.
        bonus: Shaping of attempts 2, 3, ...
        gamma: Discount across attempts; 0 in the paper.
        advantage: The baseline.
        turns: Attempts in training.
        later_scale: Factor on the weight of attempts 2, 3, ...: with no bonus, 1 + alpha here is what the bonus equals
            in expectation.
        offline_share: Share of trajectories whose first attempt is the base model's ("offline prompts", section 5.3).
    """

    share: float = 1.0
    kl: float = 0.01
    bonus: Bonus = Progress()
    gamma: float = 0.0
    advantage: Advantage = Conditioned()
    turns: int = 2
    later_scale: float = 1.0
    offline_share: float = 0.0

    def phase(self, name: str, steps: int) -> Phase:
        return Phase(name, steps, self.credit, turns=self.turns, given_share=self.offline_share)

    def credit(self, groups: Sequence[Group]) -> list[Example]:
        return reinforce(
            groups,
            advantage=self.advantage,
            kl=(self.kl,),
            bonus=self.bonus,
            gamma=self.gamma,
            scale=(1.0, self.later_scale),
        )


@register("method", "score")
@dataclass(frozen=True)
class SCoRe:
    """SCoRe: its parts in order, each with its share of the budget's steps.

    Attributes:
        parts: Phases; the same part may come twice (v1's interleaving).
    """

    parts: Sequence[Stage] = (Phase1(), Phase2())

    def phases(self, budget: Budget) -> Sequence[Phase]:
        steps = budget.allocate_steps([part.share for part in self.parts])
        return [
            part.phase(f"{i + 1}_{type(part).__name__.lower()}", n)
            for i, (part, n) in enumerate(zip(self.parts, steps, strict=True))
        ]
