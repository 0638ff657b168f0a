"""harness.same: equalities that are theorems, near misses that are not, and the tracked page."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, pstdev

import pytest

from harness import config
from harness.core import Budget, Credit, Example, Group, Phase
from harness.credit import BatchMean, Bonus, Conditioned, Indicator, LeaveOneOut, NoBonus, Progress, Raw, reinforce
from harness.same import main as run_same
from harness.tools import same
from harness.training.experiment import Experiment

BUDGET = Budget(10, 16, 4)


@pytest.fixture(autouse=True)
def _prepared() -> None:
    config.prepare_gin(Experiment, "run")


def relate(first: Credit, second: Credit, turns: int = 2) -> same.Relation:
    a, b = (same.measure_phase(Phase("rl", 10, credit, turns=turns), BUDGET) for credit in (first, second))
    return same.relate_examples(a, b)


def shaped(advantage, bonus: Bonus = NoBonus(), kl: float = 0.01, scale: Sequence[float] = (1.0,), gamma: float = 0.0):
    return partial(reinforce, advantage=advantage, kl=(kl,), bonus=bonus, scale=scale, gamma=gamma)


@pytest.mark.parametrize(
    ("advantage", "kind"),
    [(Conditioned(), "large"), (LeaveOneOut(), "expected"), (BatchMean(), "expected"), (Raw(), "expected")],
)
def test_the_signed_bonus_is_a_scale_of_attempt_two(advantage, kind: same.Kind) -> None:
    """Exactly where the baseline knows r1 (and nobody is alone with it); in expectation under every baseline."""
    found = relate(shaped(advantage, Progress(10.0)), shaped(advantage, scale=(1.0, 11.0)))
    assert (found.kind, found.scale) == (kind, pytest.approx(1.0))
    for near in (shaped(advantage, scale=(1.0, 10.0)), shaped(advantage, scale=(1.0, 11.0), kl=0.02)):
        assert relate(shaped(advantage, Progress(10.0)), near).kind == "different"


def test_the_indicator_and_discounted_returns_are_other_objectives() -> None:
    scaled = shaped(Conditioned(), scale=(1.0, 11.0))
    assert relate(shaped(Conditioned(), Indicator(10.0)), scaled).kind == "different"
    assert relate(shaped(Conditioned(), Progress(10.0), gamma=0.8), scaled).kind == "different"


def test_two_baselines_are_the_same_in_expectation_and_a_biased_one_is_not() -> None:
    found = relate(shaped(Raw()), shaped(LeaveOneOut()))
    assert (found.kind, found.scale) == ("expected", pytest.approx(1.0))

    def own_response_in_it(groups: Sequence[Group]) -> list[Example]:
        """The mean of the batch's right answers is taken off right answers alone."""
        return [e if e.weight <= 0 else Example(e.turn, e.weight / 2, e.kl) for e in shaped(LeaveOneOut())(groups)]

    assert relate(shaped(LeaveOneOut()), own_response_in_it).kind == "different"


def test_with_four_attempts_the_mark_of_progress_does_not_matter_in_expectation() -> None:
    for advantage in (Conditioned(), LeaveOneOut()):
        previous, best = (shaped(advantage, Progress(10.0, mark)) for mark in ("previous", "best"))
        assert relate(previous, best, turns=4)[:2] == ("expected", pytest.approx(1.0))
    with pytest.raises(ValueError, match="at most 6"):
        same.measure_phase(Phase("rl", 1, previous, turns=8), BUDGET)


def test_a_credit_that_reads_texts_is_not_the_same_in_expectation_unseen() -> None:
    """The small batches hold no copies of texts, so what a credit does with them is looked at in the large ones."""

    def no_copies(groups: Sequence[Group]) -> list[Example]:
        copied = {id(b.turns[1]) for group in groups for b in group if b.turns[0].text == b.turns[1].text}
        return [e for e in shaped(Raw())(groups) if id(e.turn) not in copied]

    assert relate(shaped(Raw()), no_copies).kind == "different"
    assert relate(no_copies, no_copies)[:2] == ("always", 1.0)


def mt_grpo(groups: Sequence[Group], *, share: float, divide: bool) -> list[Example]:
    """MT-GRPO (arXiv 2505.11821): A1 = N(r1) + lambda N(r2), A2 = N(r2), N within a problem's group."""

    def normed(values: Sequence[float]) -> list[float]:
        spread = pstdev(values) if divide else 1.0
        return [(value - fmean(values)) / spread if spread else 0.0 for value in values]

    found = []
    for group in groups:
        first, second = (normed([t.rewards[i] for t in group]) for i in range(2))
        for t, a, b in zip(group, first, second, strict=True):
            found += [Example(t.turns[0], a + share * b), Example(t.turns[1], b)]
    return found


def test_mt_grpos_lambda_is_the_discount_but_for_its_division_by_the_spread() -> None:
    discounted = shaped(LeaveOneOut(), kl=0.0, gamma=0.5)
    found = relate(partial(mt_grpo, share=0.5, divide=False), discounted)
    assert found[:2] == ("always", pytest.approx(4 / 3))  # n / (n - 1) with n = 4: the others' mean for the group's
    assert relate(partial(mt_grpo, share=0.5, divide=True), discounted).kind == "different"


def test_scale_of_is_one_positive_factor_for_every_entry() -> None:
    one = {"a": same.Entry(1.0, 0.1, 1), "b": same.Entry(-2.0, 0.1, 1)}
    two = {key: same.Entry(3 * entry.weight, 3 * entry.kl, 1) for key, entry in one.items()}
    assert same.scale_of(one, two) == pytest.approx(3.0)
    assert same.scale_of(one, {**two, "b": same.Entry(-6.0, 0.31, 1)}) is None
    assert same.scale_of(one, {key: same.Entry(-e.weight, -e.kl, 1) for key, e in one.items()}) is None
    assert same.scale_of(one, {"a": one["a"]}) is None
    assert same.scale_of({}, {}) == 1.0
    assert same.scale_of({}, one) is None


def answer(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "harness.same", *words], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def said(first: str, second: str, *bindings: str) -> list[str]:
    return same.compare_rows(same.build_row(first, bindings), same.build_row(second, bindings))


def test_the_shipped_control_is_score_without_stage_one() -> None:
    lines = said("naive_turn1_weight", "score_no_phase1")
    assert lines[1].startswith("  rl and 1_phase2: the same at the training batch's size")
    assert "second = 11 x first" in lines[1]
    assert lines[-1] == f"  so: {same.LEGEND['=']}"
    lines = said("naive_turn1_weight", "score_no_phase1", "ADVANTAGE = @advantage.leave_one_out()")
    assert lines[-1] == f"  so: {same.LEGEND['~']}"


def test_the_last_reward_is_weights_zero_and_one() -> None:
    weights = same.build_row("naive_multi_turn_rl", ["naive_multi_turn_rl.scale = (0.0, 1.0)"])
    assert (
        "the same in every batch, second = 1 x first"
        in same.compare_rows(same.build_row("naive_last_reward"), weights)[1]
    )


def test_pags_shaping_is_twice_the_weight_of_attempt_two() -> None:
    """r2 + rs_coef * (r2 - r1) with its rs_coef = 1."""
    pag = same.build_row("score_no_phase1", ["progress.alpha = 1.0"])
    twice = same.build_row("naive_multi_turn_rl", ["naive_multi_turn_rl.scale = (1.0, 2.0)"])
    assert same.compare_rows(pag, twice)[-1] == f"  so: {same.LEGEND['=']}"


def test_what_differs_beside_the_examples_is_named() -> None:
    assert "  outside the method: policy.max_grad_norm: 1.0 -> 1000000000.0" in said("score_full", "score_no_clipping")
    lines = said("score_full", "score_no_phase1")
    assert "differ in phases or sampling" in lines[1]
    assert [line for line in lines if "2_phase2 and 1_phase2: the same" in line and "updates: 120 -> 200" in line]
    lines = said("sft_self", "sft_self_passes")
    assert "the same in every batch, second = 1 x first; targets are repeated in the second" in lines[2]
    assert lines[-1] == f"  so: {same.LEGEND['p']}"
    lines = said("single_turn_rl", "naive_multi_turn_rl")
    assert "not the same; attempts: 1 -> 2" in lines[2]
    assert "not the same" in said("score_adaptive_kl", "score_full")[1]  # the first update is alike, a later one is not


def test_recorded_trajectories_take_the_place_of_drawn_ones() -> None:
    run = config.ROOT / "results" / "embedded" / "arithmetic" / "arithmetic" / "score_full" / "seed0"
    text = answer("score_full", "score_turn2_weight", "--records", str(run))
    assert text.splitlines()[-1] == f"  so: {same.LEGEND['=']}"
    with pytest.raises(ValueError, match="no sampled trajectories of 2 attempts"):
        same.build_row("score_full", records=[])


@pytest.mark.parametrize(
    ("words", "message"),
    [(["score_ful", "base"], "nearest: score_full"), (["base", "base", "--bind", "run.sed = 1"], "nearest: seed")],
)
def test_a_mistake_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_same(words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_tracked_page_is_what_the_command_gives(tmp_path: Path) -> None:
    made = tmp_path / "equivalences.md"
    assert run_same(["--all", "--out", str(made)]) == 0
    tracked = config.ROOT / "results" / "equivalences.md"
    assert made.read_text(encoding="utf-8") == tracked.read_text(encoding="utf-8")
    count = len(same.row_names())
    grid = made.read_text(encoding="utf-8").partition("```\n")[2].splitlines()[:count]
    assert sum(len(line.split()[2:]) for line in grid) == math.comb(count, 2) + count  # a letter for every pair
