"""Credit: worked by hand, against the paper's own cases."""

from __future__ import annotations

import pytest

from harness.core import Budget, Example, Problem, Trajectory, Turn, Verdict
from harness.credit import BatchMean, Conditioned, LeaveOneOut, NoBonus, Progress, Raw, reinforce, returns
from methods.naive_multi_turn_rl import NaiveMultiTurnRL
from methods.score import Phase1, Phase2, SCoRe


def trajectory(*rewards: float, first_given: bool = False) -> Trajectory:
    turns = tuple(
        Turn((1,), (2,), "", Verdict(r, bool(r)), index=i, by="given" if first_given and i == 0 else "policy")
        for i, r in enumerate(rewards)
    )
    return Trajectory(Problem("p", "q", "a"), turns)


def weights(examples: list[Example], turn: int) -> list[float]:
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
    assert returns([1.0, 2.0, 4.0], 0.5) == [3.0, 4.0, 4.0]


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
    examples = Phase2(advantage=Raw()).credit([[trajectory(0, 1, first_given=True)]])
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
