"""Single-turn RL: attempt 1 alone is sampled and trained.

The paper's "w/o multi-turn training" (arXiv 2409.12917v2, section 6.3); evaluated with both prompts.
`phase.second_as_first` before `phase.single_turn` gives attempt 1 the form of right second attempts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from harness.core import Budget, Example, Group, Phase
from harness.credit import Advantage, Conditioned, reinforce
from harness.registry import register
from methods.sft import fit_once, repeated


@register("phase", "second_as_first")
@dataclass(frozen=True)
class SecondAsFirst:
    """Fits the model's own right second attempts, where they are no copy of the first, as *first* attempts.

    Not from the paper. Where a review may be written in a form that a first attempt never takes (working, on the
    embedded task), single-turn RL cannot find that form: it is never sampled. This phase shows it, from the model's own
    samples alone, by a target under another context, as in RLTF-SD (arXiv 2602.02482) and ERL (arXiv 2602.13949).

    Attributes:
        share: Part of the method's steps, relative to the other parts.
        least_examples: Fewest targets of an update, by several passes where the model writes few of them.
    """

    share: float = 1.0
    least_examples: int = 64

    def phase(self, name: str, steps: int) -> Phase:
        return fit_once(name, steps, partial(self.credit, updates=steps))

    def credit(self, groups: Sequence[Group], updates: int) -> list[Example]:
        pairs = [t.attempts[:2] for group in groups for t in group]
        kept = [
            Example(dataclasses.replace(second, context=first.context, index=first.index, logprobs=()))
            for first, second in pairs
            if second.verdict.correct and second.text != first.text
        ]
        return repeated(kept, self.least_examples, updates)


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


@register("phase", "single_turn")
@dataclass(frozen=True)
class SingleTurn:
    """Single-turn RL as one part of a method of several.

    Attributes:
        share: Part of the method's steps, relative to the other parts.
        kl: beta1. 0 by default: after `phase.second_as_first` the policy writes what the base model never does, and a
            KL to the base takes that back.
        advantage: The baseline.
    """

    share: float = 2.0
    kl: float = 0.0
    advantage: Advantage = Conditioned()

    def phase(self, name: str, steps: int) -> Phase:
        return Phase(name, steps, SingleTurnRL(self.kl, self.advantage).credit, turns=1)
