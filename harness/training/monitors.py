"""What is logged at every training step: the signals whose absence let replications of SCoRe die unnoticed. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from statistics import fmean, pvariance
from typing import Any

from harness import registry
from harness.core import Example, Group, Trajectory, Turn, TurnStats
from harness.metrics import METRICS, tabulate

WINDOW = 25


def rollout_metrics(groups: Sequence[Group]) -> dict[str, Any]:
    """Rewards, accuracies, flips and failures of a batch of trajectories, per attempt (suffix _t1, _t2, ...)."""
    trajectories = [trajectory for group in groups for trajectory in group]
    line: dict[str, Any] = {}
    alike = len({len(t.attempts) for t in trajectories}) == 1
    for i in range(min(len(t.attempts) for t in trajectories)):
        turns = [t.attempts[i] for t in trajectories]
        status = [turn.verdict.status for turn in turns]
        line |= {
            f"reward_t{i + 1}": fmean(turn.verdict.reward for turn in turns),
            f"acc_t{i + 1}": fmean(turn.verdict.correct for turn in turns),
            f"truncated_t{i + 1}": fmean(turn.truncated for turn in turns),
            f"no_answer_t{i + 1}": fmean(s in ("no_answer", "truncated") for s in status),
            f"error_t{i + 1}": fmean(s in ("error", "timeout") for s in status),
            f"length_t{i + 1}": fmean(len(turn.tokens) for turn in turns),
        }
    pairs = [t.attempts if alike else (t.attempts[0], t.attempts[-1]) for t in trajectories if len(t.attempts) > 1]
    if pairs:
        table = tabulate(_record(number, attempts) for number, attempts in enumerate(pairs))
        logged = (entry for entry in METRICS.values() if entry.logged)
        line |= {entry.name: value for entry in logged if (value := entry.batch_mean(table)) is not None}
    return line


def _record(number: int, attempts: Sequence[Turn]) -> dict[str, Any]:
    """A trajectory as metrics read it; each is a problem of its own, as a batch may hold one problem twice."""
    return {
        "id": f"{number:09}",
        "attempts": [
            {
                "text": turn.text, "answer": turn.verdict.answer, "correct": turn.verdict.correct,
                "status": turn.verdict.status, "tokens": len(turn.tokens), "truncated": turn.truncated, "by": turn.by,
            }
            for turn in attempts
        ],
    }  # fmt: skip


def update_metrics(groups: Sequence[Group], examples: Sequence[Example], stats: Sequence[TurnStats]) -> dict[str, Any]:
    """KL, entropy, bonus and advantages of what was trained on, per attempt, before the update.

    `kl_t*` is per turn (summed over tokens, nats; left out where it was not measured), `entropy_t*` per token;
    `sampler_gap` is the mean absolute difference per token between the sampler's and the trainer's log-probability of
    the same turn (0 but for rounding).
    `advantage_variance_*` is the variance of attempt 2's advantages under each registered baseline; the run trains with
    the configured one only.

    Args:
        groups: P groups of graded trajectories, of which the examples were made.
        examples: E examples, before the update that fits them.
        stats: E results of the forward that measured them, in the same order.
    """
    line: dict[str, Any] = {"examples": len(examples)}
    by_turn: dict[int, list[tuple[Example, TurnStats]]] = {}
    for example, stat in zip(examples, stats, strict=True):
        by_turn.setdefault(example.turn.index, []).append((example, stat))
    gaps = [
        abs(sum(e.turn.logprobs) - s.logprob) / s.tokens
        for e, s in zip(examples, stats, strict=True)
        if e.turn.logprobs
    ]
    if gaps:
        line["sampler_gap"] = fmean(gaps)
    for i, items in sorted(by_turn.items()):
        if kl := [s.kl for _, s in items if s.kl is not None]:
            line[f"kl_t{i + 1}"] = fmean(kl)
        line[f"entropy_t{i + 1}"] = fmean(s.entropy / max(s.tokens, 1) for _, s in items)  # 0 tokens: a full window
        line[f"bonus_t{i + 1}"] = fmean(e.bonus for e, _ in items)
        line[f"kl_coefficient_t{i + 1}"] = fmean(e.kl for e, _ in items)
        line[f"weight_variance_t{i + 1}"] = pvariance([e.weight for e, _ in items])
    return line | _advantage_variances(groups, {id(example.turn): example for example in examples})


def _advantage_variances(groups: Sequence[Group], examples: Mapping[int, Example]) -> dict[str, float]:
    # By identity, as two samples may be equal turns. A batch some of whose second attempts are not trained on (offline,
    # or dropped by the method) has no variance that a baseline could be judged by.
    returns, known = [], []
    for group in groups:
        second: list[tuple[Trajectory, Turn]] = [(t, t.attempts[1]) for t in group if len(t.attempts) > 1]
        if not second or any(id(turn) not in examples for _, turn in second):
            return {}
        returns.append([turn.verdict.reward + examples[id(turn)].bonus for _, turn in second])
        known.append([t.rewards[:1] for t, _ in second])
    if not returns:
        return {}
    found = {}
    for entry in registry.list_entries("advantage"):
        advantage = entry.build()
        if all(len(group) >= advantage.least_samples for group in returns):
            values = [value for group in advantage(returns, known) for value in group]
            found[f"advantage_variance_{entry.name}"] = pvariance(values)
    return found


class BonusFarming:
    """Flags a policy that earns the bonus by failing attempt 1: Acc@t1 falls while delta rises.

    Compares the last `WINDOW` steps with the `WINDOW` before; flags when both moves exceed two standard errors of
    their difference.
    """

    def __init__(self, history: Sequence[Mapping[str, Any]] = ()) -> None:
        self._steps: deque[tuple[float, float]] = deque(maxlen=2 * WINDOW)
        for line in history:
            self.update_flag(line)

    def update_flag(self, line: Mapping[str, Any]) -> bool:
        """Takes one step's line; returns the flag."""
        if line.get("acc_t1") is None or line.get("delta") is None:
            return False
        self._steps.append((line["acc_t1"], line["delta"]))
        if len(self._steps) < 2 * WINDOW:
            return False
        before, after = list(self._steps)[:WINDOW], list(self._steps)[WINDOW:]

        def rise(column: int) -> float:
            old, new = ([step[column] for step in part] for part in (before, after))
            error = ((pvariance(old) + pvariance(new)) / (WINDOW - 1)) ** 0.5
            return (fmean(new) - fmean(old)) / error if error else 0.0

        return rise(0) < -2 and rise(1) > 2
