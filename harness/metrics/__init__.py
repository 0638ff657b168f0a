"""Every number a results table shows, computed from attempt records: pure functions, no torch, no pandas, no files.

An attempt *record* is one line of `eval.jsonl` (docs/results_format.md): a mapping with `id`, `sample` and `attempts`,
each attempt a mapping with `correct`, `answer`, `text`, `status`, `tokens`, `truncated`, `by`. One record is one
trajectory; records of one problem share the `id` and differ in `sample`.

All rates are fractions in [0, 1]. With several samples per problem a rate is the mean over problems of the problem's
mean over its samples, so that a problem sampled more often weighs no more; with one sample each it is count / n.
Rates that need two attempts compare the *first* with the *last* one, which for two attempts are the paper's t1 and t2.

The status rates, tokens, majority@k and pass@k are no part of the paper (arXiv 2409.12917v2, section 3); of the other
metrics `harness.metrics.entries` says what is. How they are shown with intervals: `harness.metrics.intervals`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from harness.core import Status
from harness.metrics.entries import edit_ratio
from harness.metrics.table import METRICS, Floats, Metric, MetricError, Record, Table, encode_answers, metric, tabulate

__all__ = [
    "METRICS",
    "Metric",
    "MetricError",
    "Table",
    "edit_ratio",
    "majority_accuracy",
    "majority_at",
    "majority_curve",
    "metric",
    "pass_at",
    "summarize",
    "tabulate",
]

FAILURES = tuple(status for status in get_args(Status) if status != "ok")


def summarize(records: Iterable[Record] | Table, entries: Iterable[Metric] | None = None) -> dict[str, Any]:
    """Every metric of one evaluation.

    Args:
        records: The records of one (run, when, task, temperature), in any order, or their `tabulate`d form.
        entries: The metrics wanted; all, unless told otherwise.

    Returns:
        A plain dict (JSON-ready). Rates are fractions in [0, 1], counts are integers over records, token numbers are
        means; lists have one entry per attempt. What two attempts are needed for is None where there is one.

        - `n` records, `problems`, `samples` (per problem; None if uneven), `turns`
        - `acc` and `correct` (integer counts) per attempt: Acc@t1 ... Acc@tk; `acc_records` weighs every record alike,
          where `acc` weighs every problem alike (they differ where problems have unequal numbers of records)
        - every metric of `METRICS` by its name: a mean over problems, of a conditional rate the sum of its hits over
          the sum of its cases (None where there is none); `i_to_c_count`, `c_to_i_count`
        - `no_answer`, `truncated`, `timeout`, `error` per attempt. `truncated` counts the length limit itself
          (the attempt's flag or its status), the others the grader's status
        - `tokens` per attempt and `tokens_per_problem`: what the policy wrote for one trajectory (given attempts cost
          nothing)
        - `majority`, `majority_last`, `pass`: {k: value} for k = 1, 2, 4, ... and the number of samples, where problems
          have several samples each: majority@k of first and of last attempts, unbiased pass@k of first attempts; None
          where first attempts were not sampled from the policy
        - `flags`: {flag: how many attempts carry it}; {} where the verifier had nothing to remark

    Raises:
        ValueError: as `tabulate`.
        MetricError: a metric is at fault.
    """
    table = records if isinstance(records, Table) else tabulate(records)
    first, last = table.correct[:, 0], table.correct[:, -1]
    fixed, broken = int((~first & last).sum()), int((first & ~last).sum())
    two = table.num_attempts > 1

    def rate(column: Any) -> float:
        return float(table.per_problem(column).mean())

    def rates(columns: Any) -> list[float]:
        return [float(x) for x in table.per_problem(columns).mean(axis=0)]

    even = len(set(table.sample_counts.tolist())) == 1
    summary: dict[str, Any] = {
        "n": len(table),
        "problems": len(table.problem_ids),
        "samples": int(table.sample_counts[0]) if even else None,
        "turns": table.num_attempts,
        "acc": rates(table.correct),
        "acc_records": [float(x) for x in table.correct.mean(axis=0)],
        "correct": [int(x) for x in table.correct.sum(axis=0)],
        "i_to_c_count": fixed if two else None,
        "c_to_i_count": broken if two else None,
    }
    summary |= {entry.name: entry.table_mean(table) for entry in (METRICS.values() if entries is None else entries)}
    statuses, met = np.asarray(table.status, dtype=object).T, set().union(*table.status)  # [N, k], and which occur
    for status in FAILURES:
        # A comparison of N * k objects is slow, and most runs have none of most failures.
        hit = statuses == status if status in met else np.zeros(table.correct.shape, dtype=bool)
        summary[status] = rates(hit | table.truncated if status == "truncated" else hit)
    summary["tokens"] = rates(table.tokens)
    summary["tokens_per_problem"] = rate((table.tokens * table.sampled).sum(axis=1) + table.extra_tokens)
    summary["flags"] = {flag: int(held.sum()) for flag, held in table.flags.items()}
    if even and table.sample_counts[0] > 1 and table.sampled[:, 0].all():
        ks = _powers(int(table.sample_counts[0]))
        votes, right = table.vote_pools(0)
        summary["majority"] = {k: majority_at(votes, right, k) for k in ks}
        summary["pass"] = {
            k: float(np.mean([pass_at(len(row), int(row.sum()), k) for row in right[:, :, 0]])) for k in ks
        }
        summary["majority_last"] = {k: majority_at(*table.vote_pools(-1), k) for k in ks} if two else None
    else:
        summary.update({"majority": None, "pass": None, "majority_last": None})
    return summary


def pass_at(n: int, c: int, k: int) -> float:
    """Unbiased pass@k of one problem: 1 - C(n-c, k) / C(n, k).

    Args:
        n: Samples drawn.
        c: Those that are correct.
        k: The k of pass@k.

    Raises:
        ValueError: not 0 <= c <= n or not 1 <= k <= n.

    Source: Chen et al. 2021, arXiv 2107.03374, equation 1, in its numerically stable product form.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def majority_accuracy(answers: Sequence[Hashable | None], correct: Sequence[bool]) -> float:
    """Probability that a majority vote over one problem's answers is right; ties are broken uniformly at random.

    Args:
        answers: The extracted answers; None abstains.
        correct: Whether each is right (equal answers are graded alike; were they not, their mean is taken).

    Returns:
        A number in [0, 1]; 0 when nobody votes.
    """
    return float(_vote(np.asarray([encode_answers(answers)]), np.asarray([correct], dtype=float))[0])


def majority_at(votes: NDArray[np.intp], right: NDArray[Any], k: int, *, subsets: int = 200, seed: int = 0) -> float:
    """majority@k: the mean of `majority_curve`, over problems.

    Args:
        votes, right, k, subsets, seed: As in `majority_curve`.
    """
    return float(majority_curve(votes, right, k, subsets=subsets, seed=seed).mean())


def majority_curve(
    votes: NDArray[np.intp], right: NDArray[Any], k: int, *, subsets: int = 200, seed: int = 0
) -> Floats:
    """Expected majority@k of each problem when k of its n samples are drawn without replacement.

    Args:
        votes: [P, n] or [P, n, m] answer codes of n samples with m ballots each, -1 for no answer (`Table.vote_pools`).
        right: The same shape: whether each is correct.
        k: Samples that vote, 1 <= k <= n.
        subsets: Random subsets averaged over; where there are no more than that, all of them are (an exact value).
        seed: Of the subsets' generator; equal arguments give equal bits.

    Returns:
        [P] probabilities that the vote is right, ties broken uniformly at random, no vote counting as wrong.

    Raises:
        ValueError: k out of range.
    """
    rows, size = votes.shape[:2]
    if not 1 <= k <= size:
        raise ValueError(f"majority@{k} needs between 1 and {size} samples per problem")
    votes, grades = votes.reshape(rows, size, -1), np.asarray(right, dtype=float).reshape(rows, size, -1)

    def vote(picked: NDArray[np.intp], graded: Floats) -> Floats:
        return _vote(picked.reshape(rows, -1), graded.reshape(rows, -1))

    if math.comb(size, k) <= subsets:
        picks = list(itertools.combinations(range(size), k))
        return np.mean([vote(votes[:, pick], grades[:, pick]) for pick in picks], axis=0)
    rng = np.random.default_rng(seed)
    total = np.zeros(rows)
    for _ in range(subsets):
        pick = np.argpartition(rng.random((rows, size)), k - 1, axis=1)[:, :k, None]
        total += vote(np.take_along_axis(votes, pick, 1), np.take_along_axis(grades, pick, 1))
    return total / subsets


def _vote(votes: NDArray[np.intp], grades: Floats) -> Floats:
    """[P, k] codes and grades -> [P] expected grade of the most voted answer (uniform over tied answers)."""
    rows, width = len(votes), int(votes.max(initial=0)) + 1
    cast = votes >= 0
    slots = (votes + np.arange(rows)[:, None] * width)[cast]
    ballots = np.bincount(slots, minlength=rows * width).reshape(rows, width)
    graded = np.bincount(slots, weights=grades[cast], minlength=rows * width).reshape(rows, width)
    top = ballots.max(axis=1, keepdims=True)
    winners = (ballots == top) & (top > 0)
    share = np.where(winners, graded / np.maximum(ballots, 1), 0.0).sum(axis=1)
    return share / np.maximum(winners.sum(axis=1), 1)


def _powers(size: int) -> list[int]:
    ks = [2**i for i in range(size.bit_length()) if 2**i <= size]
    return ks if ks[-1] == size else [*ks, size]
