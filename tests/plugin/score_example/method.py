"""RAFT over two turns: fit every right second attempt of fresh samples, whatever the first was."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness import Budget, Example, Group, Phase, register


@register("method", "raft")
@dataclass(frozen=True)
class RAFT:
    """RAFT (Dong et al. 2023, arXiv 2304.06767): sample, keep what is right, fit it, sample again.

    Attributes:
        refresh_every: Updates between two collections of samples.
        kl: Coefficient of the KL to the base model on the fitted attempts.
    """

    refresh_every: int = 5
    kl: float = 0.0

    def phases(self, budget: Budget) -> Sequence[Phase]:
        return [Phase("raft", budget.steps, self.credit, refresh_every=self.refresh_every, mean_over="example")]

    def credit(self, groups: Sequence[Group]) -> list[Example]:
        right = [t.attempts[1] for group in groups for t in group if t.attempts[1].verdict.correct]
        return [Example(turn, weight=1.0, kl=self.kl) for turn in right]
