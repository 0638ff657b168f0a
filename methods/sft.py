"""Supervised rows that train attempt 2 on traces of the base model: SFT-oracle and SFT-self.

From the user's design note, not from the paper, which has no rows of these names (docs/paper_vs_here.md). The wrong
first attempt is context; only `first_weight` makes it a target.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from harness.core import Budget, Credit, Example, Group, Phase
from harness.registry import register


def fit_once(name: str, steps: int, credit: object, *, restart: bool = False) -> Phase:
    """All samples of a phase first, then one pass over what was kept of them; the loss is a mean over examples."""
    return Phase(name, steps, credit, refresh_every=max(1, steps), mean_over="example", restart=restart)  # type: ignore[arg-type]


def repeated(kept: Sequence[Example], least: int, updates: int) -> list[Example]:
    """The examples in as many whole rounds as give each update at least `least` of them: several passes of a fit."""
    rounds = math.ceil(least * updates / len(kept)) if kept else 0
    return list(kept) * max(1, rounds)


@dataclass(frozen=True)
class Supervised:
    """What the supervised rows share: by default attempt 2 alone is fitted, once, and nothing holds attempt 1.

    Attributes:
        first_weight: Weight of the kept trajectories' own attempt 1 as a target; 0 leaves it out, 1 is the loss on
            both attempts (the paper does not say whether the first is masked).
        kl_first: Coefficient of attempt 1's KL to the base model, on *every* trajectory sampled, kept or not: what
            beta2 is in Stage I.
        least_examples: Fewest targets of an update: what was kept is repeated in whole rounds until there are as many,
            which makes several passes of it; 0 is one pass, however few it leaves to an update.
    """

    first_weight: float = 0.0
    kl_first: float = 0.0
    least_examples: int = 0

    def __post_init__(self) -> None:
        if self.first_weight < 0 or self.kl_first < 0 or self.least_examples < 0:
            raise ValueError(f"first_weight, kl_first and least_examples are 0 or more: {self}")

    def fitting(self, name: str, steps: int, keep: Credit, *, restart: bool = False) -> Phase:
        """A phase that fits what `keep` gives, one example for each trajectory kept, as the attributes say."""
        return fit_once(name, steps, partial(self.targets, keep=keep, steps=steps), restart=restart)

    def targets(self, groups: Sequence[Group], *, keep: Credit, steps: int) -> list[Example]:
        """The targets of one fit of `steps` updates, and the KL of attempt 1."""
        kept = list(keep(groups))
        if self.first_weight:
            # x2 = [x1, y1, p1]: an example's context tells which first attempt is in it.
            firsts = {t.attempts[1].context: t.attempts[0] for group in groups for t in group}
            kept += [Example(firsts[example.turn.context], self.first_weight) for example in kept]
        held = [Example(t.attempts[0], 0.0, self.kl_first) for group in groups for t in group if self.kl_first]
        return repeated(kept, self.least_examples, steps) + held


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
class SFTSelf(Supervised):
    """SFT-self (design note): fit the base model's own corrections, wrong then right in one trajectory."""

    def phases(self, budget: Budget) -> Sequence[Phase]:
        return [self.fitting("sft", budget.steps, corrections)]


@register("method", "sft_oracle")
@dataclass(frozen=True)
class SFTOracle(Supervised):
    """SFT-oracle (design note): after the base model's own wrong attempt, fit the reference solution."""

    def phases(self, budget: Budget) -> Sequence[Phase]:
        return [self.fitting("sft", budget.steps, self.credit)]

    def credit(self, groups: Sequence[Group]) -> list[Example]:
        found = []
        for trajectory in (t for group in groups for t in group if not t.attempts[0].verdict.correct):
            problem, turn = trajectory.problem, trajectory.attempts[1]
            if problem.solution is None:
                raise ValueError(f"sft_oracle needs reference solutions, and problem {problem.id!r} has none")
            found.append(Example(dataclasses.replace(turn, text=problem.solution, tokens=(), logprobs=())))
        return found
