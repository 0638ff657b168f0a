"""From rewards to weighted turns: shaping, returns and advantages. Pure; no torch.

Rewards travel as [problem][sample][turn] nested lists; an advantage sees one turn at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from harness.core import Example, Group
from harness.registry import register

Bonus = Callable[[float, float], float]
"""Shaping paid at an attempt, from (the oracle reward of the attempt before, this attempt's)."""


class Advantage(Protocol):
    """Return minus a baseline that is independent of the response given everything before it, so unbiased."""

    least_samples: ClassVar[int]  # fewest samples per problem it can work with

    def __call__(self, returns: Sequence[Sequence[float]], known: Sequence[Sequence[Hashable]]) -> list[list[float]]:
        """Advantages [problem][sample] of one turn; `known` holds the rewards of each trajectory's earlier attempts."""
        ...


@register("advantage", "leave_one_out")
@dataclass(frozen=True)
class LeaveOneOut:
    """Baseline: mean return of the problem's other samples (RLOO; Ahmadian et al. 2024, arXiv 2402.14740)."""

    least_samples: ClassVar[int] = 2

    def __call__(self, returns: Sequence[Sequence[float]], known: Sequence[Sequence[Hashable]]) -> list[list[float]]:
        for group in returns:
            if len(group) < 2:
                raise ValueError(SINGLE)
        return [[value - (sum(group) - value) / (len(group) - 1) for value in group] for group in returns]


@register("advantage", "batch_mean")
@dataclass(frozen=True)
class BatchMean:
    """Baseline: mean return of all other trajectories of the batch, whatever their problem."""

    least_samples: ClassVar[int] = 1

    def __call__(self, returns: Sequence[Sequence[float]], known: Sequence[Sequence[Hashable]]) -> list[list[float]]:
        total, count = sum(map(sum, returns)), sum(map(len, returns))
        return [[value - (total - value) / (count - 1) if count > 1 else 0.0 for value in group] for group in returns]


@register("advantage", "conditioned")
@dataclass(frozen=True)
class Conditioned:
    """Baseline: mean return of the batch's other trajectories whose earlier attempts were paid the same.

    For turn 1 nothing is known and this is the batch mean. For turn 2 it depends on r1, which is written before y2: it
    stays unbiased, and takes out all the noise of the bonus's constant -alpha * r1. A trajectory alone in its stratum
    falls back to the batch mean.
    """

    least_samples: ClassVar[int] = 1

    def __call__(self, returns: Sequence[Sequence[float]], known: Sequence[Sequence[Hashable]]) -> list[list[float]]:
        strata: dict[Hashable, list[float]] = defaultdict(list)
        for group, keys in zip(returns, known, strict=True):
            for value, key in zip(group, keys, strict=True):
                strata[key].append(value)
        sums = {key: (sum(values), len(values)) for key, values in strata.items()}
        coarse = BatchMean()(returns, known)

        def advantage(value: float, key: Hashable, fallback: float) -> float:
            total, count = sums[key]
            return value - (total - value) / (count - 1) if count > 1 else fallback

        return [
            [advantage(*item) for item in zip(group, keys, fallbacks, strict=True)]
            for group, keys, fallbacks in zip(returns, known, coarse, strict=True)
        ]


@register("advantage", "raw")
@dataclass(frozen=True)
class Raw:
    """No baseline: the return itself."""

    least_samples: ClassVar[int] = 1

    def __call__(self, returns: Sequence[Sequence[float]], known: Sequence[Sequence[Hashable]]) -> list[list[float]]:
        return [list(group) for group in returns]


SINGLE = (
    "advantage.leave_one_out needs at least 2 samples of each problem, and there is 1: "
    "raise budget.samples, or bind advantage.batch_mean or advantage.conditioned"
)


@register("bonus", "progress")
@dataclass(frozen=True)
class Progress:
    """The paper's shaping: alpha * (r2 - r1), which also punishes breaking a right answer (arXiv 2409.12917v2, 5.2).

    Attributes:
        alpha: 10 in the paper's Table 5.
    """

    alpha: float = 10.0

    def __call__(self, before: float, reward: float) -> float:
        return self.alpha * (reward - before)


@register("bonus", "indicator")
@dataclass(frozen=True)
class Indicator:
    """The user's own form, beta * 1[r1 < r2]: pays mending, does not punish breaking.

    Attributes:
        beta: Paid when attempt 2 is right and attempt 1 was wrong.
    """

    beta: float = 10.0

    def __call__(self, before: float, reward: float) -> float:
        return self.beta * (before < reward)


@register("bonus", "none")
@dataclass(frozen=True)
class NoBonus:
    """No shaping."""

    def __call__(self, before: float, reward: float) -> float:
        return 0.0


def returns(rewards: Sequence[float], gamma: float) -> list[float]:
    """Discounted returns of the attempts: G_i = sum over j >= i of gamma^(j - i) * R_j; gamma = 0 leaves R_i alone."""
    out, ahead = [0.0] * len(rewards), 0.0
    for i in range(len(rewards) - 1, -1, -1):
        ahead = rewards[i] + gamma * ahead
        out[i] = ahead
    return out


def reinforce(
    groups: Sequence[Group],
    *,
    advantage: Advantage,
    kl: Sequence[float],
    paid: Sequence[bool] = (True,),
    bonus: Bonus = NoBonus(),
    gamma: float = 0.0,
    scale: Sequence[float] = (1.0,),
) -> list[Example]:
    """One example per on-policy attempt, weighted by its advantage: Eq. 3 and Eq. 4 of arXiv 2409.12917v2.

    Args:
        groups: Graded trajectories; every trajectory has the same number of attempts.
        advantage: The baseline, taken turn by turn.
        kl: Coefficient of each attempt's KL; the last holds for all further attempts.
        paid: Whether each attempt's own reward is paid; the last holds for all further attempts. An attempt that is
            not paid and earns no return from later ones has weight exactly 0.
        bonus: Shaping, paid at attempts 2, 3, ... against the attempt before.
        gamma: Discount across attempts; the paper's is 0 (appendix A.2): each attempt earns its own reward only.
        scale: Factor on each attempt's weight; the last holds for all further attempts.

    Returns:
        Examples in order of problem, sample, attempt.
    """
    rewards = [[t.rewards for t in group] for group in groups]
    length = max((len(r) for group in rewards for r in group), default=0)
    pay, beta, factor = ([seq[min(i, len(seq) - 1)] for i in range(length)] for seq in (paid, kl, scale))
    extra = [[[bonus(r[i - 1], r[i]) if i else 0.0 for i in range(length)] for r in group] for group in rewards]
    value = [
        [returns([r[i] * pay[i] + e[i] for i in range(length)], gamma) for r, e in zip(rs, es, strict=True)]
        for rs, es in zip(rewards, extra, strict=True)
    ]
    weights = [
        advantage([[v[i] for v in group] for group in value], [[r[:i] for r in group] for group in rewards])
        for i in range(length)
    ]
    live = [pay[i] or i > 0 or gamma > 0 for i in range(length)]
    return [
        Example(turn, factor[i] * weights[i][g][s] if live[i] else 0.0, float(beta[i]), extra[g][s][i])
        for g, group in enumerate(groups)
        for s, trajectory in enumerate(group)
        for i, turn in enumerate(trajectory.attempts)
        if turn.by == "policy"
    ]
