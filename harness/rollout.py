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
) -> list[Group]:
    """Samples and grades `samples` trajectories of `attempts` attempts on each problem.

    A problem with `given` attempts starts from those, in turn: they are attempt 1, and context only.
    """
    plan = dialogue.plan(attempts)
    fixed = [bool(problem.given) for problem in problems]
    if any(fixed) and not all(fixed):
        raise ValueError("a batch mixes problems with given first attempts and problems without")
    session = policy.open([task.chat(problem, []) for problem in problems], samples, seed, temperature)
    each = [problem for problem in problems for _ in range(samples)]
    rows: list[list[Turn]] = [[] for _ in each]
    for number, scored in enumerate(plan):
        if number:
            replies = [[turn.text for turn in row] for row in rows]
            session.ask([dialogue.ask(task, p, texts) for p, texts in zip(each, replies, strict=True)])
        if number == 0 and any(fixed):
            turns = session.give([p.given[i % samples % len(p.given)] for i, p in enumerate(each)])
        else:
            turns = session.reply()
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
