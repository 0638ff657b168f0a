"""Controls: the second attempt asked for after another draft than the policy's own; where these drafts come from.

A *draft* is what precedes the correction instruction. Drafts are context only: nobody trains on them, and their
records say `by: given`. The second attempt is greedy, as in the evaluation that every run has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from harness.core import Group, Message, Policy, Problem, Task, Trajectory, Turn, Verdict, Verifier
from harness.grading import VERIFIER_SECONDS, grade_responses
from harness.runs.schema import draft_fits
from harness.seeds import derive_seed
from harness.training.dialogue import Dialogue
from harness.training.evaluations import EvalSpec
from harness.training.rollout import sample_rollouts

SOMEBODY = "Somebody answered:"
"""The user's words before a draft that is presented as somebody else's."""


def ask_after_drafts(
    policy: Policy,
    task: Task,
    dialogue: Dialogue,
    evaluation: EvalSpec,
    problems: Sequence[Problem],
    batch: range,
    *,
    seed: int,
    verifier_seconds: float = VERIFIER_SECONDS,
) -> list[Group]:
    """One trajectory on each problem of a batch: the draft and the attempt after it (`blind`: that attempt alone).

    `right`, `wrong` and `other` drafts take the place of the policy's own attempt 1. In a `blind` and
    in a `relabelled` conversation there is no such turn, and two user turns in a row are refused by many chat
    templates; so everything is in the first user turn, blank lines between: the problem as the task asks it, then for
    `relabelled` "Somebody answered:" and the draft, then the dialogue's instruction after attempt 1. From there on the
    dialogue is the usual one.

    Args:
        evaluation: A control.
        problems: All problems of the evaluation, as drafts of `other` problems come from these.
        batch: Places in `problems` of those to ask.
        seed: Of the drafts that are sampled.
        verifier_seconds: As in `grade_responses`.

    Raises:
        GradingError, ValueError: as `sample_rollouts`; `other` needs two problems.
    """
    kind, asked = evaluation.draft, [problems[i] for i in batch]

    def first_attempts(of: Sequence[Problem], number: int | None = None) -> list[Turn]:
        """The policy's attempts 1 (the given ones, where there are such): greedy, or the sample of a number."""
        groups = sample_rollouts(
            policy, task, dialogue, of, samples=1, attempts=1, seed=derive_seed(seed, "draft", number or 0),
            temperature=0.0 if number is None else 1.0, verifier_seconds=verifier_seconds,
        )  # fmt: skip
        return [group[0].attempts[0] for group in groups]

    def second_attempts(of: Sequence[Problem], task: Task, dialogue: Dialogue, attempts: int) -> list[Group]:
        return sample_rollouts(
            policy, task, dialogue, of, samples=1, attempts=attempts, seed=seed, temperature=0.0,
            verifier_seconds=verifier_seconds,
        )  # fmt: skip

    def graded(pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """Verdicts that all processes share: a grader's time limit may strike in one of them alone."""
        return (
            policy.ranks.shard_map(lambda part, _: grade_responses(task.verifier, part, verifier_seconds), pairs)
            if pairs
            else []
        )

    if kind in ("blind", "relabelled"):
        drafts = first_attempts(asked) if kind == "relabelled" else None
        texts = {p.id: turn.text for p, turn in zip(asked, drafts, strict=True)} if drafts else {}
        retold = _OneTurn(task, dialogue, texts)
        groups = second_attempts([_bare(p) for p in asked], cast(Task, retold), retold, 1)
        if drafts is None:
            return groups
        told = [dataclasses.replace(turn, by="given", logprobs=()) for turn in drafts]
        return [[Trajectory(p, (draft, *group[0].turns))] for p, draft, group in zip(asked, told, groups, strict=True)]
    if kind == "other":
        others = [find_other(problems, i) for i in batch]
        found = [turn.text for turn in first_attempts(others)]
    else:
        found = _find(evaluation, asked, graded, first_attempts)
    given = [dataclasses.replace(p, given=(text,)) for p, text in zip(asked, found, strict=True)]
    return second_attempts(given, task, dialogue, 2)


def find_other(problems: Sequence[Problem], place: int) -> Problem:
    """Whose draft the problem at a place gets: half of them further on, or the next one after that which is another.

    Raises:
        ValueError: all are one problem.
    """
    mine, size = _name(problems[place]), len(problems)
    for step in range(size):
        other = problems[(place + size // 2 + step) % size]
        if _name(other) != mine:
            return other
    raise ValueError("drafts of another problem (evaluation.other_first) need at least two problems")


def require_room(policy: Policy, task: Task, dialogue: Dialogue, evaluation: EvalSpec) -> None:
    """Checks before any training that a control can be asked: that its conversations fit the limits of length.

    Args:
        policy: Knows the limits of length.
        task, dialogue: What the conversations are made of.
        evaluation: A control; see `EvalSpec.draft`.

    Raises:
        ValueError: one does not, as `Policy.require_room`; `other` has one problem only.
    """
    problems = evaluation.select_problems(task)
    if evaluation.draft == "other":
        find_other(problems, 0)
    for problem in problems:
        _require_room(policy, task, dialogue, evaluation, problem)


def _require_room(policy: Policy, task: Task, dialogue: Dialogue, evaluation: EvalSpec, problem: Problem) -> None:
    if evaluation.draft in ("blind", "relabelled"):
        retold = _OneTurn(task, dialogue, {problem.id: ""} if evaluation.draft == "relabelled" else {})
        chat = retold.chat(problem, [])
        asks = [retold.ask(task, problem, [""] * n) for n in range(1, len(retold.plan(1)))]
        if evaluation.draft == "blind":
            return policy.require_room(chat, asks)
        try:
            return policy.require_room(chat, asks, drafts=problem.given)
        except ValueError as error:
            told = f"evaluation.relabelled, problem {problem.id!r}: {error}, or leave that evaluation out"
            raise ValueError(told) from error
    asks = [dialogue.ask(task, problem, [""] * n) for n in range(1, len(dialogue.plan(2)))]
    right = problem.solution if evaluation.draft == "right" and problem.given else None
    return policy.require_room(task.chat(problem, []), asks, [right] if right else problem.given)


@dataclass(frozen=True)
class _OneTurn:
    """A task and a dialogue in which the user's first turn holds the problem, a draft (or none) and the second prompt.

    Attributes:
        task, dialogue: What it is made of.
        drafts: {problem id: draft}; without one the problem is asked again with nothing between.
    """

    task: Task
    dialogue: Dialogue
    drafts: Mapping[str, str]

    @property
    def verifier(self) -> Verifier:
        return self.task.verifier

    def chat(self, problem: Problem, answers: Sequence[str]) -> list[Message]:
        *before, last = self.task.chat(problem, [])
        draft = self.drafts.get(problem.id)
        told = [] if draft is None else [SOMEBODY, draft]
        ask = self.dialogue.ask(self.task, problem, [draft or ""])
        return [*before, {**last, "content": "\n\n".join([last["content"], *told, ask])}]

    def plan(self, attempts: int) -> Sequence[bool]:
        return self.dialogue.plan(attempts + 1)[1:]

    def ask(self, task: Task, problem: Problem, replies: Sequence[str]) -> str:
        return self.dialogue.ask(self.task, problem, [self.drafts.get(problem.id, ""), *replies])


def _find(
    evaluation: EvalSpec,
    problems: Sequence[Problem],
    graded: Callable[[Sequence[tuple[Problem, str]]], list[Verdict]],
    sample: Callable[[Sequence[Problem], int], list[Turn]],
) -> list[str]:
    """A right or a wrong draft for each problem; where none was found, the last one that was tried.

    Both are of one form, so that only being right tells them apart: samples of the policy's own attempt 1 at
    temperature 1, the first that fits of at most `draws`. In a repair task both are texts that the data give: the
    reference solution and the wrong program. (A reference solution after which a model never learnt to go on would
    measure its form.)
    """

    def fits(verdict: Verdict) -> bool:
        return draft_fits(evaluation.draft, verdict.correct, verdict.answer, verdict.status)

    def fixed(problem: Problem) -> str | None:
        if not problem.given:
            return None
        return problem.solution if evaluation.draft == "right" else problem.given[0]

    texts: list[str] = [fixed(p) or "" for p in problems]
    known = [i for i, p in enumerate(problems) if fixed(p) is not None]
    verdicts = graded([(problems[i], texts[i]) for i in known])
    found = {i for i, verdict in zip(known, verdicts, strict=True) if fits(verdict)}
    for number in range(evaluation.draws):
        missing = [i for i in range(len(problems)) if i not in found]
        if not missing:
            break
        for i, turn in zip(missing, sample([_bare(problems[i]) for i in missing], number), strict=True):
            texts[i] = turn.text
            if fits(turn.verdict):
                found.add(i)
    return texts


def _bare(problem: Problem) -> Problem:
    """A problem without its given attempts: the policy writes attempt 1."""
    return dataclasses.replace(problem, given=())


def _name(problem: Problem) -> str:
    return problem.meta.get("problem", problem.id)
