"""From rewards to weighted turns: shaping, returns and advantages. Pure; no torch.

Rewards, bonuses and returns are nested lists [P][G][K] (problem, sample, attempt; docs/glossary.md, Shapes); an
advantage sees one attempt at a time, [P][G].
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar, Literal, Protocol

from harness.core import Example, Group
from harness.registry import nearest_hint, register

Bonus = Callable[[Sequence[float], float], float]
"""Shaping paid at attempt 2, 3, ..., from (the oracle rewards of all attempts before, this attempt's)."""


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
        against: With more than two attempts, the attempt that progress is measured from: the `previous` one, or the
            `best` so far (then what was right once is paid once, however often it is lost and found again).
    """

    alpha: float = 10.0
    against: Literal["previous", "best"] = "previous"

    def __post_init__(self) -> None:
        _check_against(self.against)

    def __call__(self, earlier: Sequence[float], reward: float) -> float:
        return self.alpha * (reward - REFERENCE_ATTEMPTS[self.against](earlier))


@register("bonus", "indicator")
@dataclass(frozen=True)
class Indicator:
    """The user's own form, beta * 1[r1 < r2]: pays mending, does not punish breaking.

    Attributes:
        beta: Paid when attempt 2 is right and attempt 1 was wrong.
        against: As in `bonus.progress`.
    """

    beta: float = 10.0
    against: Literal["previous", "best"] = "previous"

    def __post_init__(self) -> None:
        _check_against(self.against)

    def __call__(self, earlier: Sequence[float], reward: float) -> float:
        return self.beta * (REFERENCE_ATTEMPTS[self.against](earlier) < reward)


@register("bonus", "none")
@dataclass(frozen=True)
class NoBonus:
    """No shaping."""

    def __call__(self, earlier: Sequence[float], reward: float) -> float:
        return 0.0


@register("kl", "balanced")
@dataclass(frozen=True)
class Balanced:
    """Adaptive beta2: attempt 1's KL term is kept as large as attempt 2's objective (arXiv 2409.12917v2, section 5.3).

    The paper says only that it "attempts to balance the magnitudes" of the two. Here beta2 = ratio * mean(r2) /
    mean(KL at t1) over the last `window` updates of the phase, held within [least, most]: a function of the log alone,
    so a resumed run takes the same values.

    Attributes:
        start: beta2 of the first update.
        ratio: Of the KL term's magnitude to the objective's.
        window: Updates averaged over.
        least: Lower bound; a policy far from the base model keeps some hold.
        most: Upper bound; KL is 0 before the first update.
    """

    start: float = 0.1
    ratio: float = 1.0
    window: int = 10
    least: float = 0.01
    most: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.least <= self.start <= self.most) or self.window < 1 or self.ratio <= 0:
            raise ValueError(f"kl.balanced needs 0 <= least <= start <= most, window >= 1 and ratio > 0: {self}")

    def __call__(self, log: Sequence[Mapping[str, Any]]) -> float:
        """beta2 for the update after the logged ones (lines of metrics.jsonl of this phase, oldest first)."""
        recent = [line for line in log if "kl_t1" in line and "reward_t2" in line][-self.window :]
        if not recent:
            return self.start
        objective, kl = (fmean(line[key] for line in recent) for key in ("reward_t2", "kl_t1"))
        return min(self.most, max(self.least, self.ratio * objective / kl if kl > 0 else self.most))


REFERENCE_ATTEMPTS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "previous": lambda earlier: earlier[-1],
    "best": max,
}


def _check_against(against: str) -> None:
    if against not in REFERENCE_ATTEMPTS:
        raise ValueError(
            f"unknown mark {against!r}{nearest_hint(against, REFERENCE_ATTEMPTS)}: one of "
            f"{', '.join(REFERENCE_ATTEMPTS)}"
        )


def discounted_returns(rewards: Sequence[float], gamma: float) -> list[float]:
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

    Example, Stage II with leave-one-out, alpha = 10 and gamma 0; two samples of a problem, rewards (0, 1) and (0, 0):

        returns of attempt 2: 1 + 10 * (1 - 0) = 11  and  0 + 10 * (0 - 0) = 0
        weights of attempt 2: 11 - 0 = 11            and  0 - 11 = -11;   of attempt 1: 0 and 0

    Args:
        groups: P groups of G graded trajectories; every trajectory has the same number of attempts, K.
        advantage: The baseline, taken turn by turn.
        kl: Coefficient of each attempt's KL; the last holds for all further attempts.
        paid: Whether each attempt's own reward is paid; the last holds for all further attempts. An attempt that is
            not paid and earns no return from later ones has weight exactly 0.
        bonus: Shaping, paid at attempts 2, 3, ... against earlier ones.
        gamma: Discount across attempts; the paper's is 0 (appendix A.2): each attempt earns its own reward only.
        scale: Factor on each attempt's weight; the last holds for all further attempts.

    Returns:
        At most P * G * K examples, in order of problem, sample, attempt.
    """
    rewards = [[t.rewards for t in group] for group in groups]
    num_attempts = max((len(r) for group in rewards for r in group), default=0)
    reward_mask, kl_coefs, loss_scale = (
        [seq[min(i, len(seq) - 1)] for i in range(num_attempts)] for seq in (paid, kl, scale)
    )
    shaping = [[[bonus(r[:i], r[i]) if i else 0.0 for i in range(num_attempts)] for r in group] for group in rewards]
    attempt_returns = [
        [
            discounted_returns([r[i] * reward_mask[i] + e[i] for i in range(num_attempts)], gamma)
            for r, e in zip(rs, es, strict=True)
        ]
        for rs, es in zip(rewards, shaping, strict=True)
    ]
    weights = [
        advantage([[v[i] for v in group] for group in attempt_returns], [[r[:i] for r in group] for group in rewards])
        for i in range(num_attempts)
    ]
    # An attempt that can earn nothing stays in the batch for its KL alone (Stage I's attempt 1), with a weight of 0.0.
    has_return = [reward_mask[i] or i > 0 or gamma > 0 for i in range(num_attempts)]
    return [
        Example(turn, loss_scale[i] * weights[i][g][s] if has_return[i] else 0.0, float(kl_coefs[i]), shaping[g][s][i])
        for g, group in enumerate(groups)
        for s, trajectory in enumerate(group)
        for i, turn in enumerate(trajectory.attempts)
        if turn.by == "policy"
    ]
