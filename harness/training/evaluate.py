"""Evaluation: greedy two attempts on the test split by default; one record per problem and sample.

`python -m harness.evaluate RUN_FOLDER` adds evaluations to a run that is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.core import Policy, Problem, Task, Trajectory
from harness.grading import VERIFIER_SECONDS
from harness.runs.schema import LONGEST_NAME
from harness.seeds import derive_seed
from harness.training.dialogue import Dialogue
from harness.training.drafts import ask_after_drafts
from harness.training.evaluations import Draft, EvalSpec, Split
from harness.training.rollout import sample_rollouts

GREEDY = EvalSpec()


def evaluate(
    policy: Policy,
    task: Task,
    dialogue: Dialogue,
    evaluation: EvalSpec = GREEDY,
    *,
    when: str,
    seed: int = 0,
    done: int = 0,
    verifier_seconds: float = VERIFIER_SECONDS,
    record: Callable[[Sequence[dict[str, Any]]], None],
) -> None:
    """Evaluates in batches of problems and hands each batch's records to `record`.

    Example of a resume: 256 problems a batch, 1 sample, `done` 600: two batches (512 records) are skipped; the third is
    asked again from problem 512, and its first 88 records, which are written already, are not handed on.

    Args:
        policy, task, dialogue: As in `sample_rollouts`.
        evaluation: Which split, how many problems, samples and attempts, at which temperature.
        when: `before` or `after` training.
        seed: Of the draws, where there are any.
        done: Records already written by an interrupted evaluation. A batch that was written in part is asked again as
            a whole, as its draws belong together, and what is missing of it is handed on.
        verifier_seconds: As in `grade_responses`.
        record: Called once a batch with its new records, in order.
    """
    problems, samples = evaluation.select_problems(task), evaluation.samples
    behind, written = divmod(done, evaluation.problems_per_batch * samples)
    for begin in range(behind * evaluation.problems_per_batch, len(problems), evaluation.problems_per_batch):
        # By the batch's first problem, not by a running count: a resumed evaluation draws what an unbroken one does.
        own_seed = derive_seed(seed, "evaluate", when, task.name, begin, *evaluation.random_stream)
        if evaluation.control:
            batch = range(begin, min(begin + evaluation.problems_per_batch, len(problems)))
            groups = ask_after_drafts(
                policy, task, dialogue, evaluation, problems, batch, seed=own_seed,
                verifier_seconds=verifier_seconds,
            )  # fmt: skip
        else:
            groups = sample_rollouts(
                policy,
                task,
                dialogue,
                problems[begin : begin + evaluation.problems_per_batch],
                samples=samples,
                attempts=evaluation.attempts,
                offline_share=float(evaluation.draft == "reference"),
                seed=own_seed,
                temperature=evaluation.temperature,
                verifier_seconds=verifier_seconds,
            )
        more = {"split": evaluation.split} if evaluation.split != "test" else {}
        more |= {"draft": evaluation.control} if evaluation.control else {}
        lines = [
            trajectory_to_record(t, when, task.name, i, evaluation.temperature) | more
            for group in groups
            for i, t in enumerate(group)
        ]
        record(lines[written:])
        written = 0


def expected_records(task: Task, evaluation: EvalSpec = GREEDY) -> list[tuple[str, int]]:
    """(id, sample) of every record of a finished evaluation, in order."""
    return [name_of(problem, i) for problem in evaluation.select_problems(task) for i in range(evaluation.samples)]


def name_of(problem: Problem, sample: int) -> tuple[str, int]:
    """(id, sample) of a record: where one problem has several fixed first attempts, each is a `Problem` whose `meta`
    names the `problem` and the `sample` of it that the record is of."""
    return problem.meta.get("problem", problem.id), problem.meta.get("sample", sample)


PROBED: tuple[Split, ...] = ("validation", "train")


def probe_second_attempts(
    policy: Policy, task: Task, dialogue: Dialogue, problems: int, verifier_seconds: float = VERIFIER_SECONDS
) -> dict[str, float]:
    """Accuracy of greedy second attempts in mid-training: after the policy's own first attempts and after fixed ones.

    Fixed ones are the base model's, which never change: where they go well and its own do not, the policy has learnt to
    correct what it no longer writes (arXiv 2409.12917v2, figure 5).

    Args:
        policy, task, dialogue: As in `sample_rollouts`.
        problems: Most problems of each split that are asked.
        verifier_seconds: As in `grade_responses`.

    Returns:
        `acc_t2_own_validation`, `acc_t2_fixed_validation` and the same of `train`; fractions of `problems` problems.
    """
    found: dict[str, float] = {}
    for split in PROBED:
        drafts: tuple[tuple[str, Draft], ...] = (("own", "own"), ("fixed", "reference"))
        for name, draft in drafts:
            right: list[bool] = []

            def record(lines: Sequence[dict[str, Any]], right: list[bool] = right) -> None:
                right.extend(entry["attempts"][-1]["correct"] for entry in lines)

            evaluation = EvalSpec(split, problems=problems, draft=draft)
            evaluate(policy, task, dialogue, evaluation, when="probe", verifier_seconds=verifier_seconds, record=record)
            found[f"acc_t2_{name}_{split}"] = sum(right) / len(right)
    return found


def measure_midway(
    policy: Policy, task: Task, dialogue: Dialogue, evaluation: EvalSpec, verifier_seconds: float = VERIFIER_SECONDS
) -> dict[str, float]:
    """A greedy evaluation in mid-training, as counts: no record is kept that a table could take for the final one.

    Args:
        policy, task, dialogue: As in `sample_rollouts`.
        evaluation: Which split, how many problems and attempts.
        verifier_seconds: As in `grade_responses`.

    Returns:
        `midway_problems`, and of these `midway_correct_t1`, `midway_correct_t2` (the last attempt), `midway_i_to_c` and
        `midway_c_to_i`.
    """
    pairs: list[tuple[bool, bool]] = []

    def record(lines: Sequence[dict[str, Any]]) -> None:
        pairs.extend((entry["attempts"][0]["correct"], entry["attempts"][-1]["correct"]) for entry in lines)

    evaluate(policy, task, dialogue, evaluation, when="midway", verifier_seconds=verifier_seconds, record=record)
    return {
        "midway_problems": len(pairs),
        "midway_correct_t1": sum(a for a, _ in pairs),
        "midway_correct_t2": sum(b for _, b in pairs),
        "midway_i_to_c": sum(b and not a for a, b in pairs),
        "midway_c_to_i": sum(a and not b for a, b in pairs),
    }


def trajectory_to_record(
    trajectory: Trajectory, when: str, task: str, sample: int, temperature: float
) -> dict[str, Any]:
    """One record of eval.jsonl; holds no time and no path, so equal runs give equal bytes.

    A repair task's records name the problem, not the given program (`name_of`): means then weigh problems alike. The
    problem's text, its gold answer and the verifier's reasons are in greedy records alone, which are read one by one;
    a pool would repeat them for every sample.

    Args:
        trajectory: A graded one.
        when: `before` or `after` training, `probe` or `midway`.
        task: The task's name.
        sample: Its number among the samples of its problem, from 0.
        temperature: It was sampled at; 0 is greedy.
    """
    problem = trajectory.problem
    name, number = name_of(problem, sample)
    text = {} if temperature else {"prompt": problem.prompt}
    if text and 0 < len(problem.answer) <= LONGEST_NAME:
        text["gold"] = problem.answer
    extra = sum(len(turn.tokens) for turn in trajectory.turns if not turn.scored)
    return {
        "when": when,
        "task": task,
        "id": name,
        "sample": number,
        "temperature": temperature,
        **text,
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
                **({"reason": turn.verdict.reason[:LONGEST_NAME]} if text and turn.verdict.reason else {}),
            }
            for turn in trajectory.attempts
        ],
    } | ({"extra_tokens": extra} if extra else {})
