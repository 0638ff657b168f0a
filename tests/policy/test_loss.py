"""The surrogate: its gradient, what it leaves alone, and the exact gradient on a model that can be enumerated."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from statistics import pvariance
from typing import ClassVar

import pytest
import torch

from harness.core import Example, Problem, Trajectory, Turn, Verdict
from harness.credit import BatchMean, Conditioned, LeaveOneOut, NoBonus, Progress, Raw
from harness.policy import HF, loss
from harness.policy.engine import KL_EVERY, UNGRADED, Policy
from harness.policy.loss import merge_examples, pack_rows
from methods.score import Phase1, Phase2

ASK, AGAIN = "a", "b"


def gradient(policy: Policy, examples: Sequence[Example], denominator: float = 1.0) -> torch.Tensor:
    policy.optimizer.zero_grad()
    policy.accumulate_gradients(examples, denominator)
    found = torch.cat([p.grad.flatten().double() for p in policy.model.parameters() if p.grad is not None])
    policy.optimizer.zero_grad()
    return found


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative to the expected gradient's norm."""
    return float((found - expected).norm() / expected.norm())


def replies(policy: Policy, context: tuple[int, ...], index: int) -> Iterator[Turn]:
    """Every reply of at most two tokens: `<|end|>`, or two tokens of which only the second may end it."""
    vocabulary, end = range(len(policy.tokenizer)), policy.end_ids[0]
    for tokens in [(end,), *((x, y) for x in vocabulary if x != end for y in vocabulary)]:
        yield Turn(context, tokens, policy.chat.decode_reply(tokens), UNGRADED, index=index)


def reward(turn: Turn) -> float:
    """An arbitrary fixed rule that about half of the replies meet."""
    return float(turn.tokens[0] % 2 == turn.index)


def graded(turn: Turn) -> Turn:
    return dataclasses.replace(turn, verdict=Verdict(reward(turn), bool(reward(turn))))


def all_trajectories(policy: Policy) -> list[tuple[Trajectory, float, float]]:
    """(trajectory, p(y1), p(y2 | y1)) for every two-turn conversation on one prompt."""
    problem = Problem("p", ASK, "a")
    context = tuple(policy.chat.encode_opening([{"role": "user", "content": ASK}]))
    found = []
    firsts = [graded(turn) for turn in replies(policy, context, 0)]
    for first, logp1 in zip(firsts, policy.turn_logprobs(firsts), strict=True):
        follow = context + first.tokens + tuple(policy.chat.encode_followup(AGAIN, first.tokens))
        seconds = [graded(turn) for turn in replies(policy, follow, 1)]
        for second, logp2 in zip(seconds, policy.turn_logprobs(seconds), strict=True):
            found.append((Trajectory(problem, (first, second)), math.exp(sum(logp1)), math.exp(sum(logp2))))
    return found


def exact_gradient(policy: Policy, pay: Callable[[float, float], tuple[float, float]]) -> torch.Tensor:
    """Gradient of -J with per-turn rewards (gamma = 0): sum over conversations of p * R_i * grad log pi(y_i)."""
    examples = []
    for t, p1, p2 in all_trajectories(policy):
        paid = pay(*t.rewards)
        examples += [Example(turn, p1 * p2 * value) for turn, value in zip(t.turns, paid, strict=True)]
    return gradient(policy, examples)


def sampled_groups(policy: Policy, problems: int, samples: int, seed: int) -> list[list[Trajectory]]:
    chat = [{"role": "user", "content": ASK}]
    session = policy.open([chat] * problems, samples, seed=seed, temperature=1.0)
    firsts = session.reply()
    session.ask([AGAIN] * len(firsts))
    rows = [(graded(a), graded(b)) for a, b in zip(firsts, session.reply(), strict=True)]
    all_ = [Trajectory(Problem(str(i // samples), ASK, "a"), row) for i, row in enumerate(rows)]
    return [all_[i : i + samples] for i in range(0, len(all_), samples)]


def test_the_enumeration_is_complete(micro: Policy) -> None:
    everything = all_trajectories(micro)
    assert len(everything) == 31 * 31
    assert sum(p1 * p2 for _, p1, p2 in everything) == pytest.approx(1.0, abs=1e-5)
    assert {t.rewards for t, _, _ in everything} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_the_bonus_only_multiplies_turn_twos_gradient_by_one_plus_alpha(micro: Policy) -> None:
    """The equality behind Conditioned: E[grad log pi(y2) * alpha * r1] = 0 (docs/paper_vs_here.md)."""
    alpha = 10.0
    shaped = exact_gradient(micro, lambda r1, r2: (0.0, r2 + alpha * (r2 - r1)))
    scaled = (1 + alpha) * exact_gradient(micro, lambda r1, r2: (0.0, r2))
    assert distance(shaped, scaled) < 1e-4
    indicator = exact_gradient(micro, lambda r1, r2: (0.0, r2 + alpha * (r2 > r1)))
    assert distance(indicator, scaled) > 0.05  # the note's bonus is another objective


class GroupMean:
    """A biased baseline: the mean of the problem's samples, this one among them, shrinks the gradient by 7 / 8."""

    least_samples: ClassVar[int] = 1

    def __call__(self, returns: Sequence[Sequence[float]], known: Sequence[Sequence[Hashable]]) -> list[list[float]]:
        return [[value - sum(group) / len(group) for value in group] for group in returns]


@pytest.mark.slow
def test_the_estimate_converges_to_the_exact_gradient(micro: Policy) -> None:
    """Under every baseline: no bias, so the mean of n estimates misses by the spread of one over sqrt(n).

    Within 5 standard errors (24 batches: chance is over them once in 20,000 draws, should torch draw others one day); a
    bias of 1 / 8 is some 9 away.
    """
    exact = exact_gradient(micro, lambda r1, r2: (r1, r2 + 2.0 * (r2 - r1)))
    batches = [sampled_groups(micro, problems=64, samples=8, seed=100 + i) for i in range(24)]
    for advantage in (Raw(), BatchMean(), LeaveOneOut(), Conditioned(), GroupMean()):
        phase = Phase2(kl=0.0, bonus=Progress(2.0), advantage=advantage)
        found = torch.stack([gradient(micro, phase.credit(groups), 64 * 8) for groups in batches])
        along = found @ exact / exact.square().sum()  # 1 in expectation
        error = float(along.std()) / len(found) ** 0.5
        assert error < 0.1
        assert (abs(float(along.mean()) - 1) < 5 * error) == (not isinstance(advantage, GroupMean))
        spread = float((found - found.mean(0)).norm(dim=1).square().mean().sqrt())
        assert float((found.mean(0) - exact).norm()) < 2.5 * spread / len(found) ** 0.5


def test_conditioning_on_turn_one_takes_the_bonus_noise_out(micro: Policy) -> None:
    """Law of total variance: what the batch mean leaves in and conditioning takes out is Var(E[R2 | r1])."""
    alpha, groups = 10.0, sampled_groups(micro, 128, 8, seed=11)
    variance = {
        type(advantage): pvariance(e.weight for e in phase.credit(groups) if e.turn.index == 1)
        for advantage in (BatchMean(), Conditioned())
        for phase in [Phase2(bonus=Progress(alpha), advantage=advantage)]
    }
    mass, mean = {0.0: 0.0, 1.0: 0.0}, {0.0: 0.0, 1.0: 0.0}
    for t, p1, p2 in all_trajectories(micro):
        r1, r2 = t.rewards
        mass[r1] += p1 * p2
        mean[r1] += p1 * p2 * (r2 + alpha * (r2 - r1))
    between = mass[0.0] * mass[1.0] * (mean[0.0] / mass[0.0] - mean[1.0] / mass[1.0]) ** 2
    assert between > 1  # the model answers both ways, so there is something to take out
    assert variance[BatchMean] - variance[Conditioned] == pytest.approx(between, rel=0.25)


def flip_first(trajectory: Trajectory) -> Trajectory:
    first, second = trajectory.turns
    other = Verdict(1 - first.verdict.reward, not first.verdict.correct)
    return dataclasses.replace(trajectory, turns=(dataclasses.replace(first, verdict=other), second))


def test_stage_one_reward_of_attempt_one_has_exactly_no_gradient(micro: Policy) -> None:
    groups = sampled_groups(micro, 8, 4, seed=1)
    flipped = [[flip_first(t) for t in group] for group in groups]
    phase = Phase1(advantage=LeaveOneOut())
    assert torch.equal(gradient(micro, phase.credit(groups)), gradient(micro, phase.credit(flipped)))
    firsts_only = [e for e in Phase1(kl=0.0, kl_first=0.0).credit(groups) if e.turn.index == 0]
    assert float(gradient(micro, firsts_only).abs().max()) == 0.0


@pytest.mark.parametrize("kl", ["exact", "k1", "k2", "k3"])
def test_gradient_equals_finite_differences(micro_folder: Path, kl: str) -> None:
    policy = HF(path=str(micro_folder), max_new_tokens=2, kl=kl).load("cpu")
    groups = sampled_groups(policy, 4, 4, seed=0)
    examples = Phase2(kl=0.3, bonus=Progress(2.0), advantage=LeaveOneOut()).credit(groups)
    policy.model.double()
    policy.reference.model.double()
    torch.manual_seed(1)
    with torch.no_grad():  # away from the reference, where the KL's gradient is not 0
        for p in policy.model.parameters():
            p += 0.05 * torch.randn_like(p)
    found = gradient(policy, examples, 16)
    direction = (found / found.norm()).split([p.numel() for p in policy.model.parameters()])

    @torch.no_grad()
    def surrogate(shift: float) -> float:
        for p, d in zip(policy.model.parameters(), direction, strict=True):
            p += shift * d.view_as(p)
        batch = pack_rows(policy._trees(examples), policy.pad_id, policy.device)
        _, loss = policy._surrogate(batch, examples, 16)
        for p, d in zip(policy.model.parameters(), direction, strict=True):
            p -= shift * d.view_as(p)
        return float(loss)

    step = 1e-3  # the model's norms and rotations stay in float32 whatever its dtype
    slope = (surrogate(step) - surrogate(-step)) / (2 * step)
    assert slope == pytest.approx(float(found.norm()), rel=1e-3)


def test_one_forward_gives_both_turns_what_two_forwards_give(micro: Policy) -> None:
    turns = [turn for group in sampled_groups(micro, 8, 4, seed=3) for t in group for turn in t.turns]
    assert len(merge_examples([Example(turn) for turn in turns])) <= len(turns) // 2
    together = micro.turn_logprobs(turns)
    apart = [micro.turn_logprobs([turn])[0] for turn in turns]
    plain = [_plain_logprobs(micro, turn) for turn in turns]
    for a, b, c in zip(together, apart, plain, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
        assert a == pytest.approx(c, abs=1e-5)


def test_sampler_and_trainer_agree(micro: Policy) -> None:
    turns = [turn for group in sampled_groups(micro, 8, 4, seed=4) for t in group for turn in t.turns]
    for turn, scored in zip(turns, micro.turn_logprobs(turns), strict=True):
        assert list(turn.logprobs) == pytest.approx(scored, abs=1e-5)


def test_pads_and_neighbours_change_nothing(micro: Policy) -> None:
    groups = sampled_groups(micro, 6, 4, seed=5)
    examples = Phase2(kl=0.1, advantage=LeaveOneOut()).credit(groups)
    whole = gradient(micro, examples, 24)
    parts = torch.stack([gradient(micro, [example], 24) for example in examples]).sum(0)
    assert distance(parts, whole) < 1e-5
    old, micro.pad_id = micro.pad_id, 5
    assert distance(gradient(micro, examples, 24), whole) < 1e-5
    micro.pad_id = old


def test_tokens_after_the_end_are_not_there_to_be_trained(micro: Policy) -> None:
    for group in sampled_groups(micro, 16, 8, seed=6):
        for turn in itertools.chain.from_iterable(t.turns for t in group):
            assert micro.end_ids[0] not in turn.tokens[:-1]
            assert turn.truncated == (turn.tokens[-1] != micro.end_ids[0])


def test_an_example_of_weight_and_kl_zero_has_no_gradient(micro: Policy) -> None:
    turns = [turn for group in sampled_groups(micro, 4, 2, seed=7) for t in group for turn in t.turns]
    assert float(gradient(micro, [Example(turn, 0.0, 0.0) for turn in turns]).abs().max()) == 0.0


def test_chunks_of_the_vocabulary_change_nothing(micro_folder: Path) -> None:
    whole, chunked = (HF(path=str(micro_folder), max_new_tokens=2, logits_bound=n).load("cpu") for n in (1 << 20, 12))
    examples = Phase2(kl=0.1, advantage=LeaveOneOut()).credit(sampled_groups(whole, 6, 4, seed=8))
    with torch.no_grad():
        for a, b in zip(whole.model.parameters(), chunked.model.parameters(), strict=True):
            a *= 1.1
            b *= 1.1
    assert distance(gradient(chunked, examples, 24), gradient(whole, examples, 24)) < 1e-5


def test_micro_batches_change_nothing(micro_folder: Path) -> None:
    whole, parts = (HF(path=str(micro_folder), max_new_tokens=2, microbatch_tokens=n).load("cpu") for n in (9999, 40))
    examples = Phase2(kl=0.1, advantage=LeaveOneOut()).credit(sampled_groups(whole, 6, 4, seed=9))
    assert distance(gradient(parts, examples, 24), gradient(whole, examples, 24)) < 1e-5


def test_kl_estimators_agree_in_expectation_at_the_samplers_policy(micro_folder: Path) -> None:
    """exact, k1 and k3 have one mean; the gradients of exact and k2 agree, k1's is 0 in expectation."""
    values, slopes = {}, {}
    for kl in ("exact", "k1", "k2", "k3"):
        policy = HF(path=str(micro_folder), max_new_tokens=2, kl=kl).load("cpu")
        torch.manual_seed(2)
        with torch.no_grad():
            for p in policy.model.parameters():
                p += 0.02 * torch.randn_like(p)
        context = tuple(policy.chat.encode_opening([{"role": "user", "content": ASK}]))
        turns = [Turn(context, (token,), "", UNGRADED) for token in range(len(policy.tokenizer))]
        probability = [math.exp(x[0]) for x in policy.turn_logprobs(turns)]
        examples = [Example(turn, 0.0, p) for turn, p in zip(turns, probability, strict=True)]
        stats = policy.accumulate_gradients(examples, 1.0)
        values[kl] = sum(p * (s.kl or 0.0) for p, s in zip(probability, stats, strict=True))
        slopes[kl] = gradient(policy, examples)
    assert values["k1"] == pytest.approx(values["exact"], rel=1e-3)
    assert values["k3"] == pytest.approx(values["exact"], rel=1e-3)
    assert torch.allclose(slopes["k2"], slopes["exact"], atol=1e-5)
    assert float(slopes["k1"].norm()) < 1e-4 < float(slopes["exact"].norm())
    assert float((slopes["k3"] - slopes["exact"]).norm()) > 1e-4


def test_an_unknown_kl_estimator_names_the_nearest(micro_folder: Path) -> None:
    with pytest.raises(ValueError, match="nearest: exact"):
        HF(path=str(micro_folder), kl="exat").load("cpu")


def test_no_bonus_is_no_bonus() -> None:
    assert NoBonus()([0.0], 1.0) == 0.0


def _plain_logprobs(policy: Policy, turn: Turn) -> list[float]:
    """One turn, one forward of the model itself."""
    ids = torch.tensor([[*turn.context, *turn.tokens]])
    with torch.no_grad():
        logp = policy.model(input_ids=ids).logits[0].log_softmax(-1)
    begin = len(turn.context)
    return [float(logp[begin + i - 1, token]) for i, token in enumerate(turn.tokens)]


def test_the_reference_is_asked_only_where_a_kl_is_in_force_or_logged(
    micro: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    forward = micro.reference.model.get_decoder().forward
    monkeypatch.setattr(
        micro.reference.model.get_decoder(), "forward", lambda **given: (asked.append(1), forward(**given))[1]
    )
    examples = [Example(t.turns[0], 1.0) for group in sampled_groups(micro, 2, 2, seed=12) for t in group]
    measured = []
    for _ in range(KL_EVERY + 1):
        stats, _ = micro.step(examples, 4)
        measured.append([stat.kl is not None for stat in stats])
    assert len(asked) == 2
    assert [all(row) for row in measured] == [True, *[False] * (KL_EVERY - 1), True]
    assert not any(any(row) for row in measured[1:KL_EVERY])
    micro.step([dataclasses.replace(examples[0], kl=0.1), *examples[1:]], 4)
    assert len(asked) == 3
    micro.turn_logprobs([examples[0].turn])
    assert len(asked) == 3


def test_rows_without_weight_and_kl_are_measured_without_a_backward(micro: Policy) -> None:
    groups = sampled_groups(micro, 6, 4, seed=13)
    examples = [Example(t.turns[1], float(i % 2), 0.0) for i, group in enumerate(groups) for t in group]
    trains = {i: trains for batch, trains, _ in micro._batches(examples) for i, _ in batch.spans}
    assert sorted(trains) == list(range(24))
    weighted = {turn.context + turn.tokens for turn, weight in ((e.turn, e.weight) for e in examples) if weight}
    assert not all(trains.values())
    assert all(trains[i] == (e.turn.context + e.turn.tokens in weighted) for i, e in enumerate(examples))
    only = gradient(micro, [e for e in examples if e.weight], 24)
    assert distance(gradient(micro, examples, 24), only) < 1e-5
    assert all(stat.tokens and stat.logprob < 0 for stat in micro.accumulate_gradients(examples, 24))


@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_the_head_has_no_backward_for_tokens_without_weight_and_kl(
    micro: Policy, monkeypatch: pytest.MonkeyPatch, kl: float
) -> None:
    """Attempt 2 alone is trained; the rows hold attempt 1 as well, whose terms are still told."""
    turns = [turn for group in sampled_groups(micro, 6, 4, seed=14) for t in group for turn in t.turns]
    examples = [Example(turn, float(turn.index), kl * turn.index) for turn in turns]
    read, terms = [], micro.scorer._terms
    monkeypatch.setattr(loss, "SMALL", 1)
    monkeypatch.setattr(
        micro.scorer,
        "_terms",
        lambda hidden, *rest: (read.append((hidden.requires_grad, len(hidden))), terms(hidden, *rest))[1],
    )
    stats = micro.accumulate_gradients(examples, 24)
    for index, wanted in ((1, True), (0, False)):
        counted = sum(len(turn.tokens) for turn in turns if turn.index == index)
        assert sum(tokens for with_gradient, tokens in read if with_gradient == wanted) == counted
    only = gradient(micro, [e for e in examples if e.weight], 24)
    assert distance(gradient(micro, examples, 24), only) < 1e-5
    for turn, stat, values in zip(turns, stats, micro.turn_logprobs(turns), strict=True):
        assert stat.logprob == pytest.approx(sum(values), abs=1e-5)
        assert stat.tokens == len(turn.tokens)
