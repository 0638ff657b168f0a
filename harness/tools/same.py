"""Are two rows the same gradient? `python -m harness.same ROW ROW`: exactly, in expectation, or not, phase by phase.

A row's credit is a pure function from graded trajectories to weighted turns, so two rows are compared by what they give
for the same trajectories: the weight and the KL coefficient of every target, up to one positive factor. Gradient
clipping and Adam take such a factor out again, but for Adam's epsilon.

Exactness is looked at on batches of the training size and on *every* small batch: two problems with four responses
each, and one problem with eight; with more than two attempts, two trajectories on one problem.
In expectation means: the expected gradient is proportional for every policy. A weight that does not depend on what is
written at an attempt adds nothing to it, so what counts is W(r1..ri) = E[weight | rewards up to attempt i] less its
mean over ri given the rewards before. These expectations are sums over all reward patterns of all trajectories of the
small batches, not samples; the probabilities of two made-up models differ from problem to problem.

Not covered: what a task or a sampler does; expectations of a credit that reads texts (compared for exactness alone);
rewards other than 0 and 1; phases of unlike sampling (there is no common batch to compare them on).
docs/equivalences.md has the equalities of the literature.
Above 300 lines because the batches, what is compared on them and how it is said are read together.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import random
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harness import config, registry
from harness.core import Budget, Credit, Group, Phase, Problem, Trajectory, Turn, Verdict
from harness.training.experiment import Experiment

Kind = Literal["always", "large", "expected", "different"]
KINDS: Mapping[Kind, str] = {
    "always": "the same in every batch",
    "large": "the same at the training batch's size, in expectation in the smallest batches",
    "expected": "the same in expectation only",
    "different": "not the same",
}
ORDER: Sequence[Kind] = ("always", "large", "expected", "different")
SIGNS: Mapping[Kind, str] = {"always": "=", "large": "=", "expected": "~", "different": "x"}
TINY = 1e-12  # what is left of a weight where a baseline takes all of it
TOLERANCE = 1e-9  # relative to the largest entry: float sums in another order differ by less
UNTRAINED = ("name", "seed", "method", "evaluations", "evaluate_before", "eval_tasks", "checkpoint_every", "attempts")
UNTRAINED += ("probe_every", "probe_problems", "eval_problems")  # fields of an experiment that no update depends on
STEPS = 12  # of the runs whose credit is asked: a credit that repeats its targets does so by the update
MOST_ATTEMPTS = 6  # two trajectories of so many attempts have 4,096 patterns of rewards
LOG = ({"kl_t1": 2.0, "reward_t2": 0.5},)  # a made-up past, for coefficients that follow training


class Chances(NamedTuple):
    """Probabilities that an attempt is right: the first; another after a wrong one; another after a right one."""

    first: float
    fixed: float
    kept: float

    def probability_right(self, earlier: Sequence[float], problem: int) -> float:
        """P(right) after the rewards of `earlier` attempts; odd problems are harder."""
        chance = self.first if not earlier else self.kept if earlier[-1] else self.fixed
        return chance * (0.6 if problem % 2 else 1.0)


CHANCES = (Chances(0.3, 0.1, 0.9), Chances(0.65, 0.45, 0.95))  # as early and as late in training


class Entry(NamedTuple):
    """What one target is trained with, summed over the examples that aim at it; `visits` counts those."""

    weight: float
    kl: float
    visits: int


NOTHING = Entry(0.0, 0.0, 0)
Vector = Mapping[Any, Entry]
Batch = tuple[Sequence[Group], Mapping[Chances, float]]
Place = tuple[int, str, tuple[float, ...]]  # problem, who wrote attempt 1, rewards up to an attempt


class Relation(NamedTuple):
    """How the second of two phases relates to the first.

    Attributes:
        kind: See `KINDS`.
        scale: Second over first, at the training batch's size where they are the same there (it may depend on the
            number of samples, which a run does not change); NaN where they are not the same.
        setup: What differs in how they sample and fit, as 'name: first -> second'.
    """

    kind: Kind
    scale: float
    setup: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A row as built by gin, with what its phases give on the common batches."""

    name: str
    experiment: Experiment
    phases: tuple[Measured, ...]


@dataclass(frozen=True)
class Measured:
    """One phase and its examples.

    Attributes:
        phase: The phase.
        large: On batches of the training size.
        small: On every small batch, one vector for each of `_shapes`.
        expected: For each of `_shapes`, W(r1..ri), centred, and the mean KL coefficient, by (chances, problem, who
            wrote attempt 1, rewards up to i). None where targets are not the trajectory's own fresh attempts, or where
            the credit looks at texts: then no expectation is taken.
    """

    phase: Phase
    large: Vector
    small: tuple[Vector, ...]
    expected: tuple[Vector, ...] | None


# -- batches --------------------------------------------------------------------------------------------------------


def _trajectory(
    problem: int, sample: int, rewards: Sequence[float], given: bool, texts: Sequence[str] = ()
) -> Trajectory:
    """Every attempt has tokens of its own; a given first attempt is the reference model's."""
    turns = tuple(
        Turn(
            (problem, sample, i), (i, int(reward)), texts[i] if texts else f"{i}: {reward}",
            Verdict(reward, bool(reward)), index=i, by="reference" if given and i == 0 else "policy",
        )
        for i, reward in enumerate(rewards)
    )  # fmt: skip
    return Trajectory(Problem(f"problem {problem}", "", "", solution="the reference solution"), turns)


@functools.lru_cache(maxsize=32)
def _sampled(turns: int, given_share: float, budget: Budget, seed: int, copies: float = 0.8) -> list[Group]:
    """One batch of the budget's size, its rewards drawn; `copies` of the unchanged answers are copies of the text."""
    rng, samples = random.Random(seed), budget.trajectories_per_problem(turns)
    chances, offline = CHANCES[seed % len(CHANCES)], round(samples * given_share)
    groups: list[Group] = []
    for problem in range(budget.problems):
        group = []
        for sample in range(samples):
            rewards: list[float] = []
            texts: list[str] = []
            for i in range(turns):
                rewards.append(float(rng.random() < chances.probability_right(rewards, problem)))
                copied = rng.random() < copies and i > 0 and rewards[i] == rewards[i - 1]
                texts.append(texts[-1] if copied else f"{problem} {sample} {i}")
            group.append(_trajectory(problem, sample, rewards, sample >= samples - offline, texts))
        groups.append(group)
    return groups


def _recorded(phase: Phase, records: Sequence[Mapping[str, Any]]) -> list[Group]:
    """The sampled trajectories of a run's eval.jsonl as one batch, first attempts first where a phase samples fewer."""
    problems: dict[str, list[Trajectory]] = {}
    for record in records:
        attempts = record["attempts"]
        if not record["temperature"] or attempts[0]["by"] != "policy" or len(attempts) < phase.turns:
            continue
        group = problems.setdefault(record["id"], [])
        rewards, texts = zip(*((a["reward"], a["text"]) for a in attempts[: phase.turns]), strict=True)
        given = len(group) % 4 >= 4 - round(4 * phase.given_share)
        group.append(_trajectory(len(problems) - 1, len(group), rewards, given, texts))
    if not problems:
        raise ValueError(f"no sampled trajectories of {phase.turns} attempts: add them with gin/eval/pool.gin")
    return list(problems.values())


def _shapes(turns: int) -> list[tuple[int, int]]:
    """(problems, trajectories of each) of the batches that are enumerated: two, for baselines that need as many."""
    if turns > MOST_ATTEMPTS:
        raise ValueError(f"phases of {turns} attempts have too many patterns of rewards: at most {MOST_ATTEMPTS}")
    return [(2, 4 // turns), (1, 8 // turns)] if turns <= 2 else [(1, 2)]


@functools.lru_cache(maxsize=16)
def _enumerated(turns: int, given_share: float, problems: int, samples: int) -> list[Batch]:
    """Every batch of so many problems and trajectories of each, and how likely it is under each of `CHANCES`."""
    offline = round(samples * given_share)
    patterns = tuple(itertools.product((0.0, 1.0), repeat=turns))
    odds = {
        (chances, g, pattern): math.prod(
            chances.probability_right(pattern[:i], g) if reward else 1 - chances.probability_right(pattern[:i], g)
            for i, reward in enumerate(pattern)
        )
        for chances, g, pattern in itertools.product(CHANCES, range(problems), patterns)
    }
    found: list[Batch] = []
    for rewards in itertools.product(patterns, repeat=problems * samples):
        parts = [rewards[g * samples : (g + 1) * samples] for g in range(problems)]
        groups = [
            [_trajectory(g, s, pattern, s >= samples - offline) for s, pattern in enumerate(part)]
            for g, part in enumerate(parts)
        ]
        chance = {c: math.prod(odds[c, g, r] for g, part in enumerate(parts) for r in part) for c in CHANCES}
        found.append((groups, chance))
    return found


# -- what a phase gives ---------------------------------------------------------------------------------------------


def _key(turn: Turn) -> Hashable:
    return turn.context, turn.tokens, turn.text


def _vector(phase: Phase, credit: Credit, groups: Sequence[Group]) -> dict[Hashable, Entry]:
    """The entry of every target that has a gradient; under a mean over examples, divided by how many there are."""
    found: dict[Hashable, Entry] = {}
    examples = credit(groups)
    share = 1.0 if phase.mean_over == "trajectory" else 1 / max(1, len(examples))
    for example in examples:
        turn = example.turn
        if abs(example.weight) > TINY or example.kl:
            old = found.get(key := _key(turn), NOTHING)
            weight, kl = old.weight + share * example.weight, old.kl + share * example.kl
            found[key] = Entry(weight, kl, old.visits + 1)
    return found


def measure_phase(phase: Phase, budget: Budget, records: Sequence[Mapping[str, Any]] | None = None) -> Measured:
    """What a phase gives on the common batches.

    Args:
        phase: The phase.
        budget: Sizes the batches that are drawn.
        records: Lines of an eval.jsonl whose sampled trajectories take the place of the drawn batches.

    Raises:
        ValueError: the credit cannot work with a batch, or the records hold no trajectories of so many attempts.
    """
    sampling = phase.turns, phase.given_share
    drawn = [_sampled(*sampling, budget, seed) for seed in range(2)] if records is None else [_recorded(phase, records)]
    shapes = [_enumerated(*sampling, *shape) for shape in _shapes(phase.turns)]
    large = _vectors(phase, drawn)
    small = tuple(_vectors(phase, [groups for groups, _ in batches]) for batches in shapes)
    plain, copied = (_vectors(phase, [_sampled(*sampling, budget, 0, copies)]) for copies in (0.0, 0.8))
    own = {_key(turn) for batches in shapes for groups, _ in batches for g in groups for t in g for turn in t.turns}
    expected = None
    if (
        phase.refresh_every == 1
        and all(key in own for vector in small for _, _, key in vector)
        and _by_place(plain) == _by_place(copied)
    ):
        expected = tuple(_expected(batches, vector) for batches, vector in zip(shapes, small, strict=True))
    return Measured(phase, large, small, expected)


def _vectors(phase: Phase, batches: Sequence[Sequence[Group]]) -> dict[Any, Entry]:
    """The entries of all batches, by (number of the credit, number of the batch, target)."""
    # Where coefficients follow training, the credit of the first update and that of one after a made-up past.
    credits = [phase.adapt([]), phase.adapt(LOG)] if phase.adapt else [phase.credit]
    return {
        (number, batch, key): entry
        for number, credit in enumerate(credits)
        for batch, groups in enumerate(batches)
        for key, entry in _vector(phase, credit, groups).items()
    }


def _by_place(vector: Vector) -> dict[Any, Entry]:
    """Entries by where their target stands, whatever its text."""
    return {(number, batch, context): entry for (number, batch, (context, _, _)), entry in vector.items()}


def _expected(batches: Sequence[Batch], small: Vector) -> Vector:
    """W(r1..ri), centred, and E[kl | r1..ri], from the entries on the small batches of one shape."""
    numbers = {number for number, _, _ in small}
    found: dict[Hashable, Entry] = {}
    for number, chances in itertools.product(numbers, CHANCES):
        mass: dict[Place, float] = defaultdict(float)
        weight: dict[Place, float] = defaultdict(float)
        kl: dict[Place, float] = defaultdict(float)
        for batch, (groups, chance) in enumerate(batches):
            p = chance[chances]
            for g, t in ((g, t) for g, group in enumerate(groups) for t in group):
                for i, turn in enumerate(t.turns):
                    place = g, t.turns[0].by, t.rewards[: i + 1]
                    entry = small.get((number, batch, _key(turn)), NOTHING)
                    mass[place] += p
                    weight[place] += p * entry.weight
                    kl[place] += p * entry.kl
        for (g, by, rewards), total in mass.items():
            # Centred over the last reward: what depends on the earlier ones alone adds nothing in expectation.
            branches = [(g, by, (*rewards[:-1], r)) for r in (0.0, 1.0)]
            mean = sum(weight[b] for b in branches) / sum(mass[b] for b in branches)
            found[number, chances, (g, by, rewards)] = Entry(
                weight[g, by, rewards] / total - mean, kl[g, by, rewards] / total, 1
            )
    return found


# -- two phases, two rows -------------------------------------------------------------------------------------------


def scale_of(first: Vector, second: Vector) -> float | None:
    """The positive factor that makes the second of the first, in every weight and KL coefficient; None without one."""
    if first.keys() != second.keys():
        return None
    pairs = [pair for key, a in first.items() for pair in zip(a[:2], second[key][:2], strict=True)]
    square = sum(a * a for a, _ in pairs)
    largest = max((abs(b) for _, b in pairs), default=0.0)
    if not square:
        return None if largest else 1.0
    scale = sum(a * b for a, b in pairs) / square
    if scale <= 0 or any(abs(b - scale * a) > TOLERANCE * largest for a, b in pairs):
        return None
    return scale


def relate_examples(first: Measured, second: Measured) -> Relation:
    """How the examples of two phases of like sampling relate; 'different' without a look where batches are unlike."""
    setup = tuple(_changes(_setup(first.phase), _setup(second.phase)))
    different = Relation("different", math.nan, setup)
    if (first.phase.turns, first.phase.given_share) != (second.phase.turns, second.phase.given_share):
        return different
    large = scale_of(first.large, second.large)
    if large is not None and None not in map(scale_of, first.small, second.small):
        visits = [sum(entry.visits for entry in m.large.values()) for m in (first, second)]
        if visits[0] != visits[1]:
            setup += ("targets are repeated in the " + ("second" if visits[1] > visits[0] else "first"),)
        return Relation("always", large, setup)
    if first.expected is None or second.expected is None:
        return different
    expected = [scale_of(a, b) for a, b in zip(first.expected, second.expected, strict=True)]
    if None in expected:
        return different
    return Relation("expected", expected[-1] or math.nan, setup) if large is None else Relation("large", large, setup)


def _setup(phase: Phase) -> dict[str, Any]:
    """What decides how a phase samples and fits, beside its credit."""
    return {
        "updates": phase.steps,
        "attempts": phase.turns,
        "updates per sampling": phase.refresh_every,
        "mean over": phase.mean_over,
        "share of given first attempts": phase.given_share,
        "from the base's weights": phase.restart,
    }


def outside_differences(first: Experiment, second: Experiment) -> list[str]:
    """What differs outside the method and decides training: 'policy.max_grad_norm: 1.0 -> 1000000000.0'."""
    return _changes(*({k: v for k, v in _fields(e).items() if k not in UNTRAINED} for e in (first, second)))


def _fields(thing: Any) -> dict[str, Any]:
    return {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}


def _changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    found = []
    for name in first:
        a, b = first[name], second[name]
        if a == b:
            continue
        if type(a) is type(b) and dataclasses.is_dataclass(a):
            found += [f"{name}.{change}" for change in _changes(_fields(a), _fields(b))]
        else:
            found.append(f"{name}: {a} -> {b}")
    return found


def build_row(row: str, bindings: Sequence[str] = (), records: Sequence[Mapping[str, Any]] | None = None) -> Row:
    """A row by its name in gin/, or by the path of its file.

    Args:
        row: Name or path.
        bindings: Changes to it, as of `--bind`.
        records: A run's trajectories to compare on; None takes drawn batches alone.

    Raises:
        config.ConfigError: no such row, or a binding that cannot be used.
        ValueError: a credit cannot work with the batches.
    """
    known = row_names()
    file = f"gin/{row}.gin" if row in known else row
    if not file.endswith(".gin"):
        raise config.ConfigError(f"no row {row!r}{registry.nearest_hint(row, known)}")
    config.parse_gin([file], bindings)
    experiment: Experiment = config.build_root("run")
    short = dataclasses.replace(experiment.budget, steps=min(STEPS, experiment.steps))
    phases = tuple(
        dataclasses.replace(measure_phase(measured, experiment.budget, records), phase=phase)
        for phase, measured in zip(experiment.phases(), experiment.method.phases(short), strict=True)
    )
    return Row(Path(file).stem if not bindings else f"{Path(file).stem} with {', '.join(bindings)}", experiment, phases)


def row_names() -> list[str]:
    """The rows of gin/."""
    return sorted(path.stem for path in (config.GIN_HOME / "gin").glob("*.gin"))


def relation_sign(first: Row, second: Row, relations: Sequence[Relation]) -> str:
    """One letter for a pair of rows; `LEGEND` explains them.

    Args:
        first, second: The rows.
        relations: Of their phases, in order.
    """
    if len(first.phases) != len(second.phases) or any(relation.setup for relation in relations):
        return "p"
    worst = ORDER[max((ORDER.index(relation.kind) for relation in relations), default=0)]
    if worst == "different":
        return SIGNS[worst]
    return "o" if outside_differences(first.experiment, second.experiment) else SIGNS[worst]


LEGEND = {
    "=": "the same examples up to a scale (in batches of the training size, at least), and nothing else differs",
    "~": "the same up to a scale in expectation only",
    "o": "as = or ~, but something outside the method differs (optimiser, dialogue)",
    "p": "the phases differ: in number, updates, sampling or repeats",
    "x": "like phases, other examples",
}


def compare_rows(first: Row, second: Row) -> list[str]:
    """The answer for two rows, line by line."""
    lines = [f"{first.name} and {second.name}"]
    paired = [relate_examples(a, b) for a, b in zip(first.phases, second.phases, strict=False)]
    like = len(first.phases) == len(second.phases) and not any(relation.setup for relation in paired)
    if like:
        pairs = list(zip(first.phases, second.phases, paired, strict=True))
    else:
        lines.append("  they differ in phases or sampling; every phase of the one with every phase of the other:")
        pairs = [(a, b, relate_examples(a, b)) for a in first.phases for b in second.phases]
    for a, b, relation in pairs:
        lines.append(f"  {a.phase.name} and {b.phase.name}: {_say(relation)}")
    lines += [f"  outside the method: {change}" for change in outside_differences(first.experiment, second.experiment)]
    if not first.phases and not second.phases:
        lines.append("  nothing is trained in either")
    mark = relation_sign(first, second, paired)
    return [*lines, f"  so: {LEGEND[mark]}"]


def _say(relation: Relation) -> str:
    text = KINDS[relation.kind]
    if relation.kind != "different":
        text += f", second = {relation.scale:.6g} x first"
    return "; ".join([text, *relation.setup])


# -- every pair -----------------------------------------------------------------------------------------------------


HEAD = """# Which rows are the same gradient

Made by `python -m harness.same --all --out results/equivalences.md`; docs/equivalences.md explains it."""
PHASES = """Phases that give the same examples up to a scale, whatever the rest of their rows is. In brackets, against
the first of the line: the scale, the kind, and what differs in how they sample and fit."""


def render_page(rows: Sequence[Row]) -> str:
    """Every pair of rows as Markdown: the pairs that are the same, phases that are, and one letter for each pair."""
    marks = {
        (a.name, b.name): (relation_sign(a, b, found), found)
        for a, b in itertools.combinations(rows, 2)
        for found in [[relate_examples(x, y) for x, y in zip(a.phases, b.phases, strict=False)]]
    }
    out = [HEAD, "", "## Rows", ""]
    out += ["| row | row | phase by phase, second over first | outside the method |", "| --- | --- | --- | --- |"]
    of = {row.name: row for row in rows}
    for (a, b), (mark, found) in marks.items():
        if mark in "=~o":
            said = "; ".join(f"{m.phase.name}: {_say(r)}" for m, r in zip(of[a].phases, found, strict=True))
            changes = ", ".join(outside_differences(of[a].experiment, of[b].experiment))
            out.append(f"| {a} | {b} | {said or 'nothing is trained'} | {changes or '–'} |")
    out += ["", "## Phases", "", PHASES, ""]
    out += [f"- {', '.join(line)}" for line in _classes(rows)]
    out += ["", "## Every pair", "", *(f"- `{letter}` {meaning}" for letter, meaning in LEGEND.items()), "", "```"]
    width = max(len(row.name) for row in rows) + 4
    for i, row in enumerate(rows):
        cells = [marks[rows[j].name, row.name][0] if j < i else "." for j in range(i + 1)]
        out.append(f"{i + 1:2d} {row.name:{width}s}{' '.join(f'{cell:>2s}' for cell in cells)}")
    out += [f"{'':{width + 3}s}{' '.join(f'{i + 1:2d}' for i in range(len(rows)))}", "```"]
    return "\n".join(out) + "\n"


def _classes(rows: Sequence[Row]) -> list[list[str]]:
    """Phases grouped by relation to the first of their group; groups of one are left out."""
    groups: list[tuple[Measured, list[str]]] = []
    for name, measured in ((f"{row.name}/{m.phase.name}", m) for row in rows for m in row.phases):
        for head, members in groups:
            relation = relate_examples(head, measured)
            if relation.kind != "different":
                notes = [f"x {relation.scale:.6g}"] if not math.isclose(relation.scale, 1.0) else []
                notes += [KINDS[relation.kind]] if relation.kind != "always" else []
                notes += relation.setup
                members.append(name + (f" ({'; '.join(notes)})" if notes else ""))
                break
        else:
            groups.append((measured, [name]))
    return [members for _, members in groups if len(members) > 1]
