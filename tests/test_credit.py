"""Credit: worked by hand, against the paper's own cases."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from factories import trajectory

from harness import config
from harness.core import Budget, Example, Phase, Trajectory
from harness.credit import (
    Balanced,
    BatchMean,
    Conditioned,
    Indicator,
    LeaveOneOut,
    NoBonus,
    Progress,
    Raw,
    discounted_returns,
    reinforce,
)
from harness.training.experiment import Experiment
from methods.naive_multi_turn_rl import NaiveMultiTurnRL
from methods.score import Phase1, Phase2, SCoRe
from methods.single_turn_rl import SingleTurnRL


def weights(examples: Sequence[Example], turn: int) -> list[float]:
    return [e.weight for e in examples if e.turn.index == turn]


@pytest.mark.parametrize(("r1", "r2", "paid"), [(0, 0, 0.0), (0, 1, 11.0), (1, 0, -10.0), (1, 1, 1.0)])
def test_stage_two_pays_the_papers_four_cases(r1: float, r2: float, paid: float) -> None:
    examples = Phase2(bonus=Progress(10.0), advantage=Raw()).credit([[trajectory(r1, r2)]])
    assert weights(examples, 0) == [r1]
    assert weights(examples, 1) == [paid]
    assert examples[1].bonus == 10.0 * (r2 - r1)
    assert [e.kl for e in examples] == [0.01, 0.01]


@pytest.mark.parametrize("advantage", [Raw(), BatchMean(), Conditioned(), LeaveOneOut()])
def test_stage_one_gives_attempt_one_no_weight_and_beta2_to_it_alone(advantage) -> None:
    groups = [[trajectory(1, 0), trajectory(0, 1)], [trajectory(1, 1), trajectory(0, 0)]]
    examples = Phase1(kl=0.01, kl_first=0.25, advantage=advantage).credit(groups)
    assert weights(examples, 0) == [0.0] * 4
    assert any(weights(examples, 1))
    assert {e.kl for e in examples if e.turn.index == 0} == {0.26}
    assert {e.kl for e in examples if e.turn.index == 1} == {0.01}


def test_turn_one_never_sees_the_bonus_without_discounting() -> None:
    groups = [[trajectory(0, 1), trajectory(1, 0), trajectory(1, 1)]]
    with_bonus = Phase2(advantage=LeaveOneOut()).credit(groups)
    without = Phase2(bonus=NoBonus(), advantage=LeaveOneOut()).credit(groups)
    assert weights(with_bonus, 0) == weights(without, 0)


def test_discounting_pays_turn_one_for_being_wrong() -> None:
    examples = Phase2(gamma=1.0, advantage=Raw()).credit([[trajectory(0, 1), trajectory(1, 1)]])
    assert weights(examples, 0) == [11.0, 2.0]
    assert weights(Phase2(gamma=0.8, advantage=Raw()).credit([[trajectory(0, 1)]]), 0) == [pytest.approx(8.8)]
    assert discounted_returns([1.0, 2.0, 4.0], 0.5) == [3.0, 4.0, 4.0]


def test_leave_one_out_by_hand() -> None:
    assert LeaveOneOut()([[1, 0, 0], [1, 1, 1]], []) == [[1, -0.5, -0.5], [0, 0, 0]]
    with pytest.raises(ValueError, match=r"at least 2 samples.*advantage.batch_mean"):
        LeaveOneOut()([[1.0]], [])


def test_batch_mean_leaves_the_trajectory_itself_out() -> None:
    assert BatchMean()([[1], [0], [0]], []) == [[1], [-0.5], [-0.5]]
    assert BatchMean()([[1]], []) == [[0]]


def test_conditioned_takes_the_mean_of_the_same_turn_one_reward() -> None:
    known = [[(0.0,), (0.0,)], [(1.0,), (1.0,)]]
    assert Conditioned()([[11, 0], [1, -10]], known) == [[11, -11], [11, -11]]


def test_conditioned_falls_back_to_the_batch_for_a_single_trajectory_of_a_stratum() -> None:
    assert Conditioned()([[11, 0, 1]], [[(0.0,), (0.0,), (1.0,)]]) == [[11, -11, -4.5]]


def test_groups_without_a_wrong_or_a_right_answer_give_no_weight() -> None:
    for reward in (0, 1):
        groups = [[trajectory(reward, reward)] * 3]
        assert {e.weight for e in NaiveMultiTurnRL(advantage=LeaveOneOut()).credit(groups)} == {0.0}


def test_given_first_attempts_are_never_trained() -> None:
    examples = Phase2(advantage=Raw()).credit([[trajectory(0, 1, by="given")]])
    assert [(e.turn.index, e.weight) for e in examples] == [(1, 11.0)]


def test_naive_rl_can_pay_the_last_attempt_only() -> None:
    examples = NaiveMultiTurnRL(paid=(False, True), advantage=Raw()).credit([[trajectory(1, 1)]])
    assert [e.weight for e in examples] == [0.0, 1.0]


def test_three_attempts_are_shaped_against_the_one_before() -> None:
    examples = Phase2(advantage=Raw(), turns=3).credit([[trajectory(0, 1, 0)]])
    assert [e.weight for e in examples] == [0.0, 11.0, -10.0]


def test_reinforce_repeats_the_last_coefficient() -> None:
    examples = reinforce([[trajectory(1, 1, 1)]], advantage=Raw(), kl=(0.3, 0.1))
    assert [e.kl for e in examples] == [0.3, 0.1, 0.1]


def test_the_parts_of_score_share_the_budget() -> None:
    phases = SCoRe((Phase1(share=2.0), Phase2(share=3.0))).phases(Budget(201, 4, 2))
    assert [p.steps for p in phases] == [80, 121]
    assert [p.name for p in phases] == ["1_phase1", "2_phase2"]
    assert [p.steps for p in SCoRe((Phase2(),)).phases(Budget(201, 4, 2))] == [201]


def test_the_indicator_pays_mending_and_does_not_punish_breaking() -> None:
    groups = [[trajectory(0, 0), trajectory(0, 1), trajectory(1, 0), trajectory(1, 1)]]
    examples = Phase2(bonus=Indicator(10.0), advantage=Raw()).credit(groups)
    assert weights(examples, 1) == [0.0, 11.0, 0.0, 1.0]


def test_progress_over_the_best_so_far_pays_a_regained_answer_once() -> None:
    groups = [[trajectory(0, 1, 0, 1)]]
    assert weights_of(Progress(10.0, "previous"), groups) == [0.0, 11.0, -10.0, 11.0]
    assert weights_of(Progress(10.0, "best"), groups) == [0.0, 11.0, -10.0, 1.0]
    assert weights_of(Indicator(10.0, "best"), groups) == [0.0, 11.0, 0.0, 1.0]


def weights_of(bonus: Progress | Indicator, groups: list[list[Trajectory]]) -> list[float]:
    return [e.weight for e in Phase2(bonus=bonus, advantage=Raw(), turns=4).credit(groups)]


# Two problems, two samples each; rewards (r1, r2), the baselines worked by hand.
GROUPS = [[(0, 0), (0, 1)], [(1, 0), (1, 1)]]


@pytest.mark.parametrize(
    ("advantage", "first", "second"),
    [
        # leave-one-out: each against the other sample of its problem; R2 = 0, 11 | -10, 1
        (LeaveOneOut(), [0, 0, 0, 0], [-11, 11, -11, 11]),
        # batch mean: against the three others; sums of R1 and R2 over the batch are 2 and 2
        (BatchMean(), [-2 / 3, -2 / 3, 2 / 3, 2 / 3], [-2 / 3, 14, -14, 2 / 3]),
        # conditioned: turn 1 as batch mean; turn 2 against the others with the same r1
        (Conditioned(), [-2 / 3, -2 / 3, 2 / 3, 2 / 3], [-11, 11, -11, 11]),
        (Raw(), [0, 0, 1, 1], [0, 11, -10, 1]),
    ],
)
def test_stage_two_by_hand_under_every_baseline(advantage, first: list[float], second: list[float]) -> None:
    examples = Phase2(advantage=advantage).credit([[trajectory(*r) for r in group] for group in GROUPS])
    assert weights(examples, 0) == pytest.approx(first)
    assert weights(examples, 1) == pytest.approx(second)


@pytest.mark.parametrize("advantage", [BatchMean(), Conditioned(), Raw()])
@pytest.mark.parametrize("method", [Phase1, Phase2, NaiveMultiTurnRL, SingleTurnRL])
def test_one_sample_of_one_problem_is_credited(advantage, method) -> None:
    rewards = (1,) if method is SingleTurnRL else (1, 1)
    examples = method(advantage=advantage).credit([[trajectory(*rewards)]])
    alone = 0.0 if not isinstance(advantage, Raw) else 1.0  # nothing to compare with: no weight, but the KL stays
    assert {e.weight for e in examples} <= {alone, 0.0}
    assert all(e.kl > 0 for e in examples)


def test_adaptive_beta2_balances_the_kl_with_the_objective() -> None:
    beta2 = Balanced(start=0.1, ratio=1.0, window=2, least=0.01, most=1.0)
    assert beta2([]) == 0.1
    assert beta2([{"kl_t1": 0.0, "reward_t2": 0.5}]) == 1.0  # no KL yet: the upper bound
    log = [{"kl_t1": 9.0, "reward_t2": 0.0}, {"kl_t1": 2.0, "reward_t2": 0.5}, {"kl_t1": 4.0, "reward_t2": 0.7}]
    assert beta2(log) == pytest.approx(0.6 / 3.0)  # the last two: mean r2 0.6, mean KL 3
    assert beta2([{"kl_t1": 100.0, "reward_t2": 0.5}]) == 0.01
    part = Phase1(kl=0.01, kl_first=beta2)
    phase, groups = part.phase("1", 4), [[trajectory(0, 1), trajectory(1, 1)]]
    assert phase.adapt is not None
    assert [e.kl for e in phase.credit(groups)] == pytest.approx([0.11, 0.01] * 2)
    assert [e.kl for e in phase.adapt(log)(groups)] == pytest.approx([0.21, 0.01] * 2)
    assert Phase1().phase("1", 4).adapt is None


def test_under_the_conditioned_baseline_the_signed_bonus_is_exactly_a_factor_on_attempt_two() -> None:
    groups = [[trajectory(*r) for r in group] for group in [[(0, 0), (0, 1), (1, 0)], [(1, 0), (1, 1), (0, 0)]]]
    shaped = Phase2(bonus=Progress(10.0), advantage=Conditioned()).credit(groups)
    scaled = Phase2(bonus=NoBonus(), later_scale=11.0, advantage=Conditioned()).credit(groups)
    assert [e.weight for e in shaped] == pytest.approx([e.weight for e in scaled])
    for other in (BatchMean(), LeaveOneOut()):
        shaped = Phase2(bonus=Progress(10.0), advantage=other).credit(groups)
        scaled = Phase2(bonus=NoBonus(), later_scale=11.0, advantage=other).credit(groups)
        assert [e.weight for e in shaped] != pytest.approx([e.weight for e in scaled])


def phases_of(row: str) -> Sequence[Phase]:
    config.prepare_gin(Experiment, "run")
    config.parse_gin([f"gin/{row}.gin"], [])
    return config.build_root("run").phases()


def test_naive_rl_with_a_lighter_attempt_one_is_score_without_stage_one_up_to_a_scale() -> None:
    """The rows as shipped: weights and KL coefficients of both attempts differ by the one factor 1 + alpha."""
    groups = [[trajectory(*r) for r in group] for group in [[(0, 0), (0, 1), (1, 0)], [(1, 0), (1, 1), (0, 0)]]]
    (naive,), (score,) = phases_of("naive_turn1_weight"), phases_of("score_no_phase1")
    assert (naive.steps, naive.turns, naive.mean_over) == (score.steps, score.turns, score.mean_over)
    for a, b in zip(naive.credit(groups), score.credit(groups), strict=True):
        assert (11 * a.weight, 11 * a.kl) == pytest.approx((b.weight, b.kl))
        assert a.turn is b.turn
    assert any(e.weight for e in naive.credit(groups) if e.turn.index == 0)
