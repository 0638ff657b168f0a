"""Policy x task x dialogue -> graded trajectories."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.core import Group, Problem, Task, Trajectory, Turn, Verdict, Verifier
from harness.dialogue import Dialogue

if TYPE_CHECKING:
    from harness.policy.engine import Policy


def rollout(
    policy: Policy,
    task: Task,
    dialogue: Dialogue,
    problems: Sequence[Problem],
    *,
    samples: int,
    attempts: int,
    seed: int,
    temperature: float,
    offline_share: float = 0.0,
) -> list[Group]:
    """Samples and grades `samples` trajectories of `attempts` attempts on each problem.

    A problem with `given` attempts starts from those, in turn: they are attempt 1, and context only. With an
    `offline_share`, that share of each problem's trajectories starts from first attempts of the *reference* model.
    """
    offline = round(samples * offline_share)
    if offline:
        args = {"attempts": attempts, "seed": seed, "temperature": temperature}
        rest = rollout(policy, task, dialogue, problems, samples=samples - offline, **args) if samples > offline else []
        chats = [task.chat(problem, []) for problem in problems]
        replies = policy.open(chats, offline, seed + 1, temperature, reference=True).reply()
        first = [turn.tokens for turn in replies]
        mixed = _converse(policy, task, dialogue, problems, offline, attempts, seed + 1, temperature, first)
        return [[*a, *b] for a, b in zip(rest or [[] for _ in problems], mixed, strict=True)]
    fixed = [bool(problem.given) for problem in problems]
    if any(fixed) and not all(fixed):
        raise ValueError("a batch mixes problems with given first attempts and problems without")
    given = [p.given[i % len(p.given)] for p in problems for i in range(samples)] if any(fixed) else None
    return _converse(policy, task, dialogue, problems, samples, attempts, seed, temperature, given)


def _converse(
    policy: Policy,
    task: Task,
    dialogue: Dialogue,
    problems: Sequence[Problem],
    samples: int,
    attempts: int,
    seed: int,
    temperature: float,
    given: Sequence[str | Sequence[int]] | None,
) -> list[Group]:
    session = policy.open([task.chat(problem, []) for problem in problems], samples, seed, temperature)
    each = [problem for problem in problems for _ in range(samples)]
    rows: list[list[Turn]] = [[] for _ in each]
    for number, scored in enumerate(dialogue.plan(attempts)):
        if number:
            replies = [[turn.text for turn in row] for row in rows]
            session.ask([dialogue.ask(task, p, texts) for p, texts in zip(each, replies, strict=True)])
        turns = session.give(given) if given is not None and number == 0 else session.reply()
        verdicts = grade(task.verifier, list(zip(each, (turn.text for turn in turns), strict=True))) if scored else None
        for i, turn in enumerate(turns):
            verdict = verdicts[i] if verdicts else Verdict(0.0, False)
            if turn.truncated and verdict.status == "no_answer":
                verdict = dataclasses.replace(verdict, status="truncated")
            rows[i].append(dataclasses.replace(turn, verdict=verdict, scored=scored))
    trajectories = [Trajectory(problem, tuple(row)) for problem, row in zip(each, rows, strict=True)]
    return [trajectories[i : i + samples] for i in range(0, len(trajectories), samples)]


def grade(verifier: Verifier, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
    """Grades (problem, response) pairs in order, in one batch where the verifier has `batch`."""
    batch = getattr(verifier, "batch", None)
    return list(batch(pairs)) if batch else [verifier(problem, text) for problem, text in pairs]
