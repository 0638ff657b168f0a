"""What holds for every input, tried on many: credit, budgets, random streams, records and the keys of evaluations."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from factories import trajectory
from hypothesis import assume, given
from hypothesis import strategies as st

from harness import seeds
from harness.core import Budget, Example, Problem, Trajectory, Turn, Verdict
from harness.credit import (
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
from harness.runs import schema as records
from harness.runs.reader import key_of, read_records
from harness.runs.store import RunStore
from harness.training.dialogue import Intrinsic
from harness.training.evaluate import evaluate, trajectory_to_record
from harness.training.evaluations import EvalSpec
from harness.training.scripted import Scripted

# -- credit --------------------------------------------------------------------------------------------------------

Groups = list[list[Trajectory]]
OWN, AUTHORS = st.just("policy"), st.sampled_from(["policy", "reference", "given"])


@st.composite
def groups_of(draw: st.DrawFn, authors: st.SearchStrategy[Any] = OWN) -> Groups:
    """1 to 4 problems, 2 to 5 samples of each, 1 to 4 attempts, binary rewards."""
    attempts = draw(st.integers(1, 4))
    sample = st.builds(
        lambda rewards, by: trajectory(*rewards, by=by), st.lists(st.sampled_from([0.0, 1.0]), min_size=attempts,
        max_size=attempts), authors,
    )  # fmt: skip
    return draw(st.lists(st.lists(sample, min_size=2, max_size=5), min_size=1, max_size=4))


ADVANTAGES = st.sampled_from([Raw(), BatchMean(), Conditioned(), LeaveOneOut()])
OPTIONS = st.fixed_dictionaries(
    {
        "kl": st.lists(st.sampled_from([0.0, 0.01, 0.3]), min_size=1, max_size=4),
        "paid": st.lists(st.booleans(), min_size=1, max_size=4),
        "bonus": st.sampled_from([NoBonus(), Progress(10.0), Progress(10.0, "best"), Indicator(3.0)]),
        "gamma": st.sampled_from([0.0, 0.5, 1.0]),
        "scale": st.lists(st.sampled_from([1.0, 0.5, 11.0]), min_size=1, max_size=4),
    }
)


def weights_by_turn(examples: Sequence[Example]) -> dict[int, tuple[int, float, float, float]]:
    """{identity of a turn's object: (attempt, weight, kl, bonus)}; every turn object has at most one example."""
    found = {id(e.turn): (e.turn.index, e.weight, e.kl, e.bonus) for e in examples}
    assert len(found) == len(examples)
    return found


@given(groups_of(), OPTIONS)
def test_weights_of_leave_one_out_sum_to_nothing_in_every_group_and_attempt(groups: Groups, options: Any) -> None:
    examples = reinforce(groups, advantage=LeaveOneOut(), **options)
    assert len(examples) == sum(len(t.turns) for group in groups for t in group)
    by_turn = weights_by_turn(examples)
    for group in groups:
        for i in range(len(group[0].turns)):
            assert math.fsum(by_turn[id(t.turns[i])][1] for t in group) == pytest.approx(0, abs=1e-9)


@given(groups_of(AUTHORS), ADVANTAGES, OPTIONS, st.randoms(use_true_random=False))
def test_the_order_of_samples_and_problems_changes_no_weight(
    groups: Groups, advantage: Any, options: Any, rng: Any
) -> None:
    shuffled = [rng.sample(group, len(group)) for group in rng.sample(groups, len(groups))]
    before = weights_by_turn(reinforce(groups, advantage=advantage, **options))
    after = weights_by_turn(reinforce(shuffled, advantage=advantage, **options))
    assert before.keys() == after.keys()
    assert all(before[key] == pytest.approx(after[key], abs=1e-9) for key in before)


@given(groups_of(AUTHORS), ADVANTAGES, OPTIONS)
def test_exactly_the_policys_own_attempts_become_examples_in_order(
    groups: Groups, advantage: Any, options: Any
) -> None:
    examples = reinforce(groups, advantage=advantage, **options)
    own = [turn for group in groups for t in group for turn in t.turns if turn.by == "policy"]
    assert [id(e.turn) for e in examples] == [id(turn) for turn in own]
    assert all(e.kl == options["kl"][min(e.turn.index, len(options["kl"]) - 1)] for e in examples)


@given(groups_of(), st.sampled_from([BatchMean(), Conditioned(), LeaveOneOut()]), st.data())
def test_a_baseline_does_not_depend_on_the_response_it_is_for(groups: Groups, advantage: Any, data: Any) -> None:
    """Return minus advantage stays when this one return changes: the condition under which REINFORCE is unbiased."""
    values = [[t.rewards[-1] for t in group] for group in groups]
    known = [[t.rewards[:-1] for t in group] for group in groups]
    g = data.draw(st.integers(0, len(groups) - 1))
    s = data.draw(st.integers(0, len(groups[g]) - 1))
    baseline = values[g][s] - advantage(values, known)[g][s]
    if isinstance(advantage, BatchMean | Conditioned) and sum(map(len, groups)) == 1:
        return
    values[g][s] += 7.0
    assert values[g][s] - advantage(values, known)[g][s] == pytest.approx(baseline, abs=1e-9)


@given(st.lists(st.integers(-3, 3), max_size=6), st.sampled_from([0.0, 0.5, 1.0]))
def test_returns_are_the_sum_that_their_docstring_states(rewards: list[int], gamma: float) -> None:
    stated = [sum(gamma ** (j - i) * rewards[j] for j in range(i, len(rewards))) for i in range(len(rewards))]
    assert discounted_returns(rewards, gamma) == stated


# -- budgets -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.lists(st.floats(0, 1e6), min_size=1, max_size=6).filter(any))
def test_a_split_budget_adds_up_and_each_part_is_its_share_within_one_step(steps: int, shares: list[float]) -> None:
    parts = Budget(steps, 1, 1).allocate_steps(shares)
    assert sum(parts) == steps
    assert min(parts) >= 0  # the edges between phases never go back
    for part, share in zip(parts, shares, strict=True):
        assert abs(part - steps * share / sum(shares)) <= 1 + 1e-6
        assert part == 0 or share > 0


@given(st.integers(1, 40), st.integers(1, 12))
def test_trajectories_of_any_length_cost_as_many_responses_or_are_refused(samples: int, attempts: int) -> None:
    budget = Budget(1, 1, samples)
    if 2 * samples % attempts:
        with pytest.raises(ValueError, match="cannot be divided"):
            budget.trajectories_per_problem(attempts)
    else:
        assert budget.trajectories_per_problem(attempts) * attempts == 2 * samples


# -- random streams ------------------------------------------------------------------------------------------------

SEEDS = st.integers(0, 2**63 - 1)


@given(SEEDS, st.integers(1, 12), st.integers(1, 4))
def test_each_epoch_is_a_permutation(seed: int, size: int, epochs: int) -> None:
    items = seeds.epoch_indices(seed, "problems", size, 0, size * epochs)
    for epoch in range(epochs):
        assert sorted(items[epoch * size : (epoch + 1) * size]) == list(range(size))


@given(SEEDS, st.integers(1, 12), st.lists(st.integers(0, 30), max_size=5), st.integers(0, 40))
def test_what_is_drawn_does_not_depend_on_how_many_are_drawn_at_once(
    seed: int, size: int, counts: list[int], begin: int
) -> None:
    whole = seeds.epoch_indices(seed, "problems", size, begin, sum(counts))
    begins = itertools.accumulate(counts, initial=begin)
    assert [
        i for b, n in zip(begins, counts, strict=False) for i in seeds.epoch_indices(seed, "problems", size, b, n)
    ] == whole


NAMES = st.lists(st.text("a',() 0", max_size=4) | st.integers(-2, 20), max_size=4)


@given(SEEDS, NAMES, NAMES)
def test_streams_of_different_names_are_different(seed: int, one: list[Any], other: list[Any]) -> None:
    a, b = seeds.derive_seed(seed, *one), seeds.derive_seed(seed, *other)
    assert 0 <= a < 2**63
    assert (a == b) == (one == other)


@given(SEEDS, st.lists(st.integers(), unique=True, max_size=30), st.lists(st.integers(0, 9), max_size=4))
def test_pools_are_disjoint_and_lose_nothing(seed: int, space: list[int], sizes: list[int]) -> None:
    named = {f"pool{i}": size for i, size in enumerate(sizes)}
    pools = [seeds.slice_pools(space, seed, named, name) for name in (*named, "rest")]
    assert sorted(itertools.chain.from_iterable(pools)) == sorted(space)


@given(st.integers(0, 500), st.integers(1, 16))
def test_shares_of_processes_follow_each_other_and_are_nearly_equal(size: int, ranks: int) -> None:
    shares = [seeds.shard_bounds(size, rank, ranks) for rank in range(ranks)]
    assert [begin for begin, _ in shares] == [0, *(end for _, end in shares[:-1])]
    assert shares[-1][1] == size
    assert max(end - begin for begin, end in shares) - min(end - begin for begin, end in shares) <= 1


# -- records -------------------------------------------------------------------------------------------------------

LONE = st.characters(categories=["Cs"])  # half a character, which a byte-level model can write
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TURNS = st.builds(
    lambda text, answer, reward, status, truncated, tokens, flag: Turn(
        (1,), tuple(tokens), text, Verdict(float(reward), reward, status, answer, flag), truncated=truncated
    ),
    TEXTS, st.none() | TEXTS, st.booleans(), st.sampled_from(records.STATUSES), st.booleans(),
    st.lists(st.integers(0, 300), max_size=3), st.sampled_from(["", "compat"]),
)  # fmt: skip
RECORDS = st.builds(
    lambda name, prompt, turns, when, temperature, sample: trajectory_to_record(
        Trajectory(Problem(name, prompt, "a"), tuple(turns)), when, "task", sample, temperature
    ),
    TEXTS.filter(bool), TEXTS, st.lists(TURNS, min_size=1, max_size=3), st.sampled_from(records.WHENS),
    st.sampled_from([0.0, 0.7]), st.integers(0, 40),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


@given(rows=st.lists(RECORDS, max_size=4))
def test_records_are_read_as_they_were_written(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "eval.jsonl").unlink(missing_ok=True)
    store = RunStore(folder)
    store.append_records(rows)
    assert store.read_records() == rows
    faults: list[str] = []
    assert read_records(folder, bad=faults) == rows
    assert not faults
    assert records.find_faults(rows) == {}


@given(row=RECORDS, before=TEXTS, half=LONE, after=TEXTS)
def test_half_characters_survive_writing_and_are_spelt_out_by_readers(
    folder: Path, row: dict[str, Any], before: str, half: str, after: str
) -> None:
    text = before + half + after
    (folder / "eval.jsonl").unlink(missing_ok=True)
    row["attempts"][0] |= {"text": text, "answer": text}
    store = RunStore(folder)
    store.append_records([row])
    assert store.read_records() == [row]
    faults: list[str] = []
    (read,) = read_records(folder, bad=faults)
    spelt = f"{before}\\u{ord(half):04x}{after}"
    assert (read["attempts"][0]["text"], read["attempts"][0]["answer"], faults) == (spelt, spelt, [])


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a key is missing": lambda row: row.pop("temperature"),
    "a text for a truth value": lambda row: row["attempts"][0].update(correct="false"),
    "a truth value for a number": lambda row: row["attempts"][0].update(reward=True),
    "no attempt": lambda row: row.update(attempts=[]),
    "an unknown status": lambda row: row["attempts"][-1].update(status="fine"),
    "a negative count": lambda row: row.update(sample=-1),
}


@given(rows=st.lists(RECORDS, min_size=1, max_size=4), data=st.data(), what=st.sampled_from(sorted(BROKEN)))
def test_a_broken_record_is_told_with_its_place_whatever_stands_around_it(
    rows: list[dict[str, Any]], data: Any, what: str
) -> None:
    rows = json.loads(json.dumps(rows))  # attempts that are equal are no longer one object
    place = data.draw(st.integers(0, len(rows) - 1))
    BROKEN[what](rows[place])
    assert list(records.find_faults(rows)) == [place]


# -- evaluations ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Echo:
    """A task whose answer to problem i is i; with `drafts`, a repair task."""

    drafts: tuple[str, ...] = ()
    name: str = "echo"
    version: str = "1"

    @property
    def train(self) -> Sequence[Problem]:
        return [Problem(f"{i}", f"Say {i}", f"{i}", solution=f"{i}", given=self.drafts) for i in range(3)]

    validation = test = train

    def verifier(self, problem: Problem, text: str) -> Verdict:
        return Verdict(float(text == problem.answer), text == problem.answer, answer=text)

    def chat(self, problem: Problem, answers: Sequence[str]) -> list[dict[str, str]]:
        messages = [{"role": "user", "content": problem.prompt}]
        for answer in answers:
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Again."}]
        return messages


@st.composite
def evaluations(draw: st.DrawFn) -> EvalSpec:
    """Every evaluation that the constructor takes, with few samples."""
    temperature = draw(st.sampled_from([0, 0.0, 0.7, 1]))
    fields = {
        "split": draw(st.sampled_from(["test", "validation", "train"])),
        "attempts": draw(st.integers(1, 4)),
        "samples": draw(st.integers(1, 3)),
        "temperature": temperature,
        "problems": draw(st.none() | st.integers(2, 4)),  # of one problem there is no draft of another
        "draft": draw(st.sampled_from(["own", "reference", "right", "wrong", "other", "blind", "relabelled"])),
    }
    try:
        return EvalSpec(**fields)
    except ValueError:
        assume(False)
        raise


def records_of(evaluation: EvalSpec) -> list[dict[str, Any]]:
    """What the evaluation writes of a policy whose first attempts are wrong and whose later ones are right."""
    script = lambda chat, updates: chat[0]["content"].split()[-1] if len(chat) > 1 else "wrong"  # noqa: E731
    rows: list[dict[str, Any]] = []
    evaluate(Scripted(script).load(), Echo(), Intrinsic(), evaluation, when="after", record=rows.extend)
    return json.loads(json.dumps(rows))


@given(evaluations(), evaluations())
def test_records_belong_to_the_evaluations_of_their_key_and_to_no_other(one: EvalSpec, other: EvalSpec) -> None:
    rows = records_of(one)
    assert len(rows) == len(one.select_problems(Echo())) * one.samples
    assert all(one.matches_record(row) for row in rows)
    assert all(other.matches_record(row) == (other.key == one.key) for row in rows)
    assert records.find_faults(rows) == {}


@given(evaluations())
def test_the_reader_finds_the_key_of_the_evaluation_that_wrote(evaluation: EvalSpec) -> None:
    (key,) = {key_of(row) for row in records_of(evaluation)}
    assert (key.when, key.task, key.draft) == ("after", "echo", evaluation.control)
    assert (key.split, key.temperature, key.turns) == (evaluation.split, evaluation.temperature, evaluation.attempts)
    assert (key.first == "reference") == (evaluation.draft == "reference")
