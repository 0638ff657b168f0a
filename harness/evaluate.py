"""Evaluation: every test problem, k attempts, greedy by default; one record per problem and sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from harness.core import Task, Trajectory
from harness.dialogue import Dialogue
from harness.rollout import rollout
from harness.seeds import derive

if TYPE_CHECKING:
    from harness.policy.engine import Policy

BATCH = 256


def evaluate(
    policy: Policy,
    task: Task,
    dialogue: Dialogue,
    *,
    when: str,
    attempts: int = 2,
    samples: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
    done: int = 0,
    record: Callable[[Sequence[dict[str, Any]]], None],
) -> None:
    """Evaluates on `task.test` in batches of `BATCH` problems and hands each batch's records to `record`.

    Args:
        when: `before` or `after` training.
        done: Records already written by an interrupted evaluation, a whole number of batches (`whole`).
    """
    problems = task.test
    for begin in range(done // samples, len(problems), BATCH):
        batch = problems[begin : begin + BATCH]
        groups = rollout(
            policy,
            task,
            dialogue,
            batch,
            samples=samples,
            attempts=attempts,
            seed=derive(seed, "evaluate", when, task.name, begin),
            temperature=temperature,
        )
        record([line(t, when, task.name, i, temperature) for group in groups for i, t in enumerate(group)])


def whole(count: int, problems: int, samples: int) -> int:
    """How many of `count` written records belong to whole batches, or to a finished evaluation."""
    return count if count >= problems * samples else count // (BATCH * samples) * (BATCH * samples)


def line(trajectory: Trajectory, when: str, task: str, sample: int, temperature: float) -> dict[str, Any]:
    """One record of eval.jsonl; holds no time and no path, so equal runs give equal bytes."""
    return {
        "when": when,
        "task": task,
        "id": trajectory.problem.id,
        "sample": sample,
        "temperature": temperature,
        "attempts": [
            {
                "text": turn.text,
                "answer": turn.verdict.answer,
                "reward": turn.verdict.reward,
                "correct": turn.verdict.correct,
                "status": turn.verdict.status,
                "tokens": len(turn.tokens),
                "truncated": turn.truncated,
                "by": turn.by,
                **({"flag": turn.verdict.flag} if turn.verdict.flag else {}),
            }
            for turn in trajectory.attempts
        ],
    }
