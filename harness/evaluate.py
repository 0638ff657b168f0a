"""Evaluation: greedy two attempts on the test split by default; one record per problem and sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from harness.core import Task, Trajectory
from harness.dialogue import Dialogue
from harness.evaluations import Evaluation, Split
from harness.rollout import rollout
from harness.seeds import derive

if TYPE_CHECKING:
    from harness.policy.engine import Policy

GREEDY = Evaluation()


def evaluate(
    policy: Policy,
    task: Task,
    dialogue: Dialogue,
    evaluation: Evaluation = GREEDY,
    *,
    when: str,
    seed: int = 0,
    done: int = 0,
    record: Callable[[Sequence[dict[str, Any]]], None],
) -> None:
    """Evaluates in batches of problems and hands each batch's records to `record`.

    Args:
        when: `before` or `after` training.
        done: Records already written by an interrupted evaluation, a whole number of batches (`whole`).
    """
    problems, samples = evaluation.chosen(task), evaluation.samples
    for begin in range(done // samples, len(problems), evaluation.batch):
        groups = rollout(
            policy,
            task,
            dialogue,
            problems[begin : begin + evaluation.batch],
            samples=samples,
            attempts=evaluation.attempts,
            offline_share=float(evaluation.fixed_first),
            seed=derive(seed, "evaluate", when, task.name, begin, *evaluation.stream),
            temperature=evaluation.temperature,
        )
        split = {"split": evaluation.split} if evaluation.split != "test" else {}
        record(
            [
                line(t, when, task.name, i, evaluation.temperature) | split
                for group in groups
                for i, t in enumerate(group)
            ]
        )


def whole(count: int, task: Task, evaluation: Evaluation = GREEDY) -> int:
    """How many of `count` written records belong to whole batches, or to a finished evaluation."""
    per_batch = evaluation.batch * evaluation.samples
    return count if count >= expected(task, evaluation) else count // per_batch * per_batch


def expected(task: Task, evaluation: Evaluation = GREEDY) -> int:
    """Records of a finished evaluation."""
    return len(evaluation.chosen(task)) * evaluation.samples


PROBED: tuple[Split, ...] = ("validation", "train")


def probe(policy: Policy, task: Task, dialogue: Dialogue, problems: int) -> dict[str, float]:
    """Accuracy of greedy second attempts in mid-training: after the policy's own first attempts and after fixed ones.

    Fixed ones are the base model's, which never change: where they go well and its own do not, the policy has learnt to
    correct what it no longer writes (arXiv 2409.12917v2, figure 5).

    Returns:
        `acc_t2_own_validation`, `acc_t2_fixed_validation` and the same of `train`; fractions of `problems` problems.
    """
    found: dict[str, float] = {}
    for split in PROBED:
        for name, fixed in (("own", False), ("fixed", True)):
            right: list[bool] = []

            def record(lines: Sequence[dict[str, Any]], right: list[bool] = right) -> None:
                right.extend(entry["attempts"][-1]["correct"] for entry in lines)

            evaluation = Evaluation(split, problems=problems, fixed_first=fixed)
            evaluate(policy, task, dialogue, evaluation, when="probe", record=record)
            found[f"acc_t2_{name}_{split}"] = sum(right) / len(right)
    return found


def line(trajectory: Trajectory, when: str, task: str, sample: int, temperature: float) -> dict[str, Any]:
    """One record of eval.jsonl; holds no time and no path, so equal runs give equal bytes.

    Where one problem has several fixed first attempts (repair), each is a `Problem` and its `meta` says which `problem`
    and which `sample` of it the record is: means then weigh problems alike.
    """
    meta = trajectory.problem.meta
    extra = sum(len(turn.tokens) for turn in trajectory.turns if not turn.scored)
    return {
        "when": when,
        "task": task,
        "id": meta.get("problem", trajectory.problem.id),
        "sample": meta.get("sample", sample),
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
    } | ({"extra_tokens": extra} if extra else {})
