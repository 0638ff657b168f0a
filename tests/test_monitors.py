"""Monitors: worked by hand; the bonus-farming flag fires on farming and on nothing else."""

from __future__ import annotations

import random

import pytest
from factories import trajectory

from harness.core import TurnStats
from harness.credit import Conditioned, Progress, Raw
from harness.training.monitors import WINDOW, BonusFarming, rollout_metrics, update_metrics
from methods.score import Phase2

STAT = TurnStats(logprob=-1.0, kl=0.2, entropy=3.0, tokens=2)  # as the sampler's: two tokens of -0.5


GROUPS = [
    [trajectory(("1", 1), ("1", 1)), trajectory(("2", 0), ("1", 1))],
    [trajectory((None, 0), (None, 0)), trajectory(("1", 1), ("3", 0))],
]


def test_groups_by_hand() -> None:
    line = rollout_metrics(GROUPS)
    assert (line["acc_t1"], line["acc_t2"], line["delta"]) == (0.5, 0.5, 0.0)
    assert (line["i_to_c"], line["c_to_i"], line["answer_change"]) == (0.25, 0.25, 0.5)
    assert (line["no_answer_t1"], line["truncated_t2"], line["error_t1"], line["length_t1"]) == (0.25, 0.25, 0.0, 2)
    assert line["edit_ratio"] == pytest.approx((0 + 1 + 0 + 1) / 4)


def test_examples_by_hand() -> None:
    examples = Phase2(bonus=Progress(10.0), advantage=Raw()).credit(GROUPS)
    line = update_metrics(GROUPS, examples, [STAT] * len(examples))
    assert line["kl_t1"] == pytest.approx(0.2)
    assert line["entropy_t2"] == pytest.approx(1.5)
    assert line["bonus_t2"] == pytest.approx(0.0)  # +10 and -10
    assert line["sampler_gap"] == 0.0
    returns, known = [[1.0, 11.0], [0.0, -10.0]], [[(1.0,), (0.0,)], [(0.0,), (1.0,)]]
    values = [v for group in Conditioned()(returns, known) for v in group]
    mean = sum(values) / 4
    assert line["advantage_variance_conditioned"] == pytest.approx(sum((v - mean) ** 2 for v in values) / 4)
    assert line["advantage_variance_raw"] == pytest.approx(55.25)


def walk(acc_step: float, delta_step: float) -> bool:
    rng, farming, flags = random.Random(0), BonusFarming(), []
    for i in range(4 * WINDOW):
        noise = rng.gauss(0, 0.02)
        flags.append(
            farming.update_flag({"acc_t1": 0.6 + acc_step * i + noise, "delta": 0.02 + delta_step * i - noise})
        )
    return any(flags)


def test_farming_is_attempt_one_falling_while_delta_rises() -> None:
    assert walk(-0.004, 0.004)
    assert not walk(0.004, 0.0)
    assert not walk(0.004, 0.004)
    assert not walk(-0.004, -0.004)
    assert not BonusFarming().update_flag({"acc_t1": 0.5})
