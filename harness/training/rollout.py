"""Policy x task x dialogue -> graded trajectories."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

from harness.core import Group, Policy, Problem, Task, Trajectory, Turn, Verdict
from harness.grading import VERIFIER_SECONDS, grade_responses
from harness.training.dialogue import Dialogue


def sample_rollouts(
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
    verifier_seconds: float = VERIFIER_SECONDS,
) -> list[Group]:
    """Samples and grades `samples` trajectories of `attempts` attempts on each problem.

    A problem with `given` attempts starts from those, in turn: they are attempt 1, and context only. With an
    `offline_share`, that share of each problem's trajectories starts from first attempts of the *reference* model: they
    are context only as well, but count as sampled responses. Of several processes each takes its share of the
    problems, and all return the whole.

    Args:
        policy: Writes the attempts; its sampler gets the current weights first.
        task: Its `chat` opens a conversation, its verifier grades.
        dialogue: How many turns an attempt takes, and what the user says between them.
        problems: P problems; all of them have `given` attempts, or none.
        samples: G trajectories of each problem, its group.
        attempts: K scored attempts of each trajectory.
        seed: Of all draws. The offline share is drawn from `seed + 1`.
        temperature: Of sampling; 0 is greedy.
        offline_share: In [0, 1]; `round(G * offline_share)` trajectories of each problem are offline.
        verifier_seconds: Longest time of one grading, as in `grade_responses`.

    Returns:
        P groups of G trajectories, in the order of `problems`; a group's offline trajectories come last.

    Raises:
        GradingError: as `grade_responses`.
        ValueError: the policy gives its own tokens log-probabilities that are not finite.
    """
    policy.refresh()

    def mine(share: Sequence[Problem], begin: int) -> list[Group]:
        """One process's share of the problems, of which the first is number `begin`."""
        place = begin, len(problems)
        converse = functools.partial(
            _converse, policy, task, dialogue, share, attempts, temperature, place, verifier_seconds
        )
        fixed = [bool(problem.given) for problem in share]
        if any(fixed):
            if not all(fixed):
                raise ValueError("a batch mixes problems with given first attempts and problems without")
            return converse(samples, seed, [p.given[i % len(p.given)] for p in share for i in range(samples)])
        offline = round(samples * offline_share)
        if not offline:
            return converse(samples, seed)
        own = converse(samples - offline, seed) if samples > offline else [[] for _ in share]
        chats = [task.chat(problem, []) for problem in share]
        # seed + 1: with `seed` the offline half would be drawn by the same uniforms as the policy's own half.
        first = policy.open(chats, offline, seed + 1, temperature, reference=True, place=place).reply()
        return [[*a, *b] for a, b in zip(own, converse(offline, seed + 1, first), strict=True)]

    return policy.ranks.shard_map(mine, problems)


def _converse(
    policy: Policy,
    task: Task,
    dialogue: Dialogue,
    problems: Sequence[Problem],
    attempts: int,
    temperature: float,
    place: tuple[int, int],
    verifier_seconds: float,
    samples: int,
    seed: int,
    first: Sequence[str] | Sequence[Turn] | None = None,
) -> list[Group]:
    """`samples` graded conversations on each problem.

    `first` has precomputed first attempts, one per conversation: texts (repair tasks) or turns of the reference model
    (offline first attempts). Without it the policy samples them.
    """
    chats = [task.chat(problem, []) for problem in problems]
    session = policy.open(chats, samples, seed, temperature, place=place)
    each = [problem for problem in problems for _ in range(samples)]
    rows: list[list[Turn]] = [[] for _ in each]
    attempt = 0
    for number, scored in enumerate(dialogue.plan(attempts)):
        if number:
            replies = [[turn.text for turn in row] for row in rows]
            session.ask([dialogue.ask(task, p, texts) for p, texts in zip(each, replies, strict=True)])
        if first is not None and number == 0:
            turns = session.give([item.tokens if isinstance(item, Turn) else item for item in first])
            if isinstance(first[0], Turn):
                turns = [dataclasses.replace(turn, by="reference") for turn in turns]
        else:
            turns = session.reply()
            _check_finite(each, turns)
        pairs = list(zip(each, (turn.text for turn in turns), strict=True))
        verdicts = grade_responses(task.verifier, pairs, verifier_seconds) if scored else None
        for i, turn in enumerate(turns):
            verdict = verdicts[i] if verdicts else Verdict(0.0, False)  # unscored (feedback): no metric reads it
            if turn.truncated and verdict.status == "no_answer":
                verdict = dataclasses.replace(verdict, status="truncated")
            rows[i].append(dataclasses.replace(turn, verdict=verdict, scored=scored, index=attempt))
        attempt += scored
    trajectories = [Trajectory(problem, tuple(row)) for problem, row in zip(each, rows, strict=True)]
    return [trajectories[i : i + samples] for i in range(0, len(trajectories), samples)]


def _check_finite(problems: Sequence[Problem], turns: Sequence[Turn]) -> None:
    """Raises ValueError where a policy's weights are broken: what it then writes means nothing."""
    for problem, turn in zip(problems, turns, strict=True):
        if not math.isfinite(sum(turn.logprobs)):
            raise ValueError(
                f"the policy's log-probabilities of its reply to problem {problem.id!r} are not finite: "
                "its weights are broken (a learning rate that is too high does this)"
            )
