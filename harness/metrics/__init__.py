"""Every number a results table shows, computed from attempt records: pure functions, no torch, no pandas, no files.

An attempt *record* is one line of `eval.jsonl` (docs/results_format.md): a mapping with `id`, `sample` and `attempts`,
each attempt a mapping with `correct`, `answer`, `text`, `status`, `tokens`, `truncated`, `by`. One record is one
trajectory; records of one problem share the `id` and differ in `sample`.

All rates are fractions in [0, 1]. With several samples per problem a rate is the mean over problems of the problem's
mean over its samples, so that a problem sampled more often weighs no more; with one sample each it is count / n.
Rates that need two attempts compare the *first* with the *last* one, which for two attempts are the paper's t1 and t2.

Differs from the paper (arXiv 2409.12917v2, section 3): fix rate, break rate, answer change, the status rates, tokens,
majority@k and pass@k are ours. The paper's "edit distance ratio" names no distance; here it is the insertion/deletion
distance on characters, whose maximum under the paper's normalisation is 1 (plain Levenshtein's would be 1/2 for equal
lengths).
Above 300 lines because every metric stands beside its definition.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Indel
from rapidfuzz.process import cpdist

__all__ = [
    "QUANTITIES",
    "Table",
    "edit_ratio",
    "majority",
    "majority_at",
    "majority_curve",
    "pass_at",
    "summarize",
    "tabulate",
]

Record = Mapping[str, Any]
Floats = NDArray[np.float64]

STATUSES = ("no_answer", "truncated", "timeout", "error")
QUANTITIES = (
    "t1", "t2", "delta", "i_to_c", "c_to_i", "answer_change", "edit_ratio", "unchanged", "wrong_changed",
    "right_changed", "mended",
)  # fmt: skip
"""What `Table.values` gives per problem; `t2` and `delta` speak of the last attempt. `wrong_changed`, `right_changed`:
attempt 1 is wrong (right) and the last attempt's answer is another; `mended`: wrong_changed, and the last one is right.
"""


def edit_ratio(first: str, second: str) -> float:
    """Insertion/deletion distance of two texts over the sum of their lengths, in characters.

    Returns:
        A number in [0, 1]: 0 for equal texts (two empty ones included), 1 when they share no character in order.

    Source: the normalisation is arXiv 2409.12917v2, section 4; the choice of distance is ours.
    """
    return float(Indel.normalized_distance(first, second))


@dataclass(frozen=True)
class Table:
    """The records of one evaluation as columns; N records (trajectories) with k attempts each, sorted by (id, sample).

    Attributes:
        ids: The problem of each record, N strings.
        samples: The sample number of each record, N integers.
        correct: [N, k] booleans.
        truncated: [N, k] booleans; a length limit cut the response.
        tokens: [N, k] token counts, the end-of-sequence token included where written.
        sampled: [N, k] booleans: the attempt was written by the policy, not given to it or by the reference model.
        status: k lists of N strings.
        answers: k lists of N extracted answers; None where there is none.
        texts: k lists of N responses.
        extra_tokens: [N] tokens of turns that are no attempt (Self-Refine's feedback), where the record says so.
        flags: {flag: [N, k] booleans}: what a verifier remarked on an attempt that it graded.
    """

    ids: list[str]
    samples: list[int]
    correct: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    tokens: Floats
    sampled: NDArray[np.bool_]
    status: list[list[str]]
    answers: list[list[Any]]
    texts: list[list[str]]
    extra_tokens: Floats
    flags: Mapping[str, NDArray[np.bool_]]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def turns(self) -> int:
        """Attempts per record, k."""
        return self.correct.shape[1]

    @cached_property
    def _starts(self) -> NDArray[np.intp]:
        new = [i for i, key in enumerate(self.ids) if i == 0 or key != self.ids[i - 1]]
        return np.asarray(new, dtype=np.intp)

    @cached_property
    def problems(self) -> list[str]:
        """The distinct problem ids, sorted: the order of every per-problem array, P of them."""
        return [self.ids[i] for i in self._starts]

    @cached_property
    def counts(self) -> NDArray[np.intp]:
        """Samples per problem, [P]."""
        return np.diff(np.append(self._starts, len(self.ids)))

    def per_problem(self, column: Any) -> Floats:
        """Means of a column over each problem's samples: [N] or [N, k] -> [P] or [P, k], in the order of `problems`."""
        array = np.asarray(column, dtype=float)
        if len(self._starts) == len(self.ids):
            return array
        sums = np.add.reduceat(array, self._starts, axis=0)
        return sums / self.counts.reshape(-1, *[1] * (array.ndim - 1))

    def column(self, quantity: str) -> Floats:
        """One of `QUANTITIES` for every record, [N]. With one attempt, all but `t1` and `t2` are NaN.

        Raises:
            ValueError: no such quantity.
        """
        if quantity not in QUANTITIES:
            raise ValueError(f"no quantity is called {quantity!r}; there are {', '.join(QUANTITIES)}")
        first, last = self.correct[:, 0], self.correct[:, -1]
        if quantity == "t1":
            return first.astype(float)
        if quantity == "t2":
            return last.astype(float)
        if self.turns < 2:
            return np.full(len(self), np.nan)
        if quantity == "delta":
            return last.astype(float) - first
        if quantity == "i_to_c":
            return (~first & last).astype(float)
        if quantity == "c_to_i":
            return (first & ~last).astype(float)
        if quantity == "answer_change":
            pairs = zip(self.answers[0], self.answers[-1], strict=True)
            return np.asarray([a != b for a, b in pairs], dtype=float)
        if quantity in ("wrong_changed", "right_changed", "mended"):
            held = (self.column("answer_change") > 0) & (first if quantity == "right_changed" else ~first)
            return (held & last if quantity == "mended" else held).astype(float)
        if quantity == "edit_ratio":
            distances = cpdist(self.texts[0], self.texts[-1], scorer=Indel.normalized_distance, dtype=np.float64)
            return np.asarray(distances, dtype=float)
        pairs = zip(self.texts[0], self.texts[-1], strict=True)
        return np.asarray([a.strip() == b.strip() for a, b in pairs], dtype=float)

    def values(self, quantity: str) -> Floats:
        """One of `QUANTITIES` for every problem, [P], in the order of `problems`: what paired statistics work on."""
        return self.per_problem(self.column(quantity))

    def pools(self, *attempts: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """The votes each problem's samples cast with the given attempts, one vote per attempt.

        Args:
            attempts: Indices of m attempts, from 0; -1 is the last.

        Returns:
            votes: [P, n, m] integer code of each answer within its problem, -1 for no answer.
            right: [P, n, m] whether that attempt is correct.

        Raises:
            ValueError: the problems do not all have the same number of samples.
        """
        if len(set(self.counts.tolist())) > 1:
            low, high = int(self.counts.min()), int(self.counts.max())
            raise ValueError(f"problems have between {low} and {high} samples; a pool needs the same number for each")
        size, width = int(self.counts[0]), len(attempts)
        answers = list(zip(*(self.answers[i] for i in attempts), strict=True))
        votes = np.empty((len(self.problems), size, width), dtype=np.intp)
        for row in range(len(votes)):
            flat = [answer for given in answers[row * size : (row + 1) * size] for answer in given]
            votes[row] = np.reshape(_codes(flat), (size, width))
        return votes, self.correct[:, list(attempts)].reshape(-1, size, width)


def tabulate(records: Iterable[Record]) -> Table:
    """Sorts records by (id, sample) and turns them into columns.

    Raises:
        ValueError: no records, records with different numbers of attempts, or two with the same (id, sample).
    """
    given = list(records)
    if not given:
        raise ValueError("no records to summarise")
    keys = [(str(r["id"]), int(r.get("sample", 0))) for r in given]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    if len(set(keys)) < len(keys):
        twice = next(one for one, two in itertools.pairwise(order) if keys[one] == keys[two])
        raise ValueError(f"problem {keys[twice][0]!r} has two records for sample {keys[twice][1]}")
    attempts = [given[i]["attempts"] for i in order]
    turns = len(attempts[0])
    odd = next((i for i, mine in zip(order, attempts, strict=True) if len(mine) != turns), order[0])
    if turns == 0 or len(given[odd]["attempts"]) != turns:
        raise ValueError(
            f"problem {keys[odd][0]!r} has {len(given[odd]['attempts'])} attempts; the first one has {turns}"
        )
    every = list(itertools.chain.from_iterable(attempts))
    shape = (len(order), turns)

    def values(key: str, default: Any) -> list[Any]:
        try:
            return list(map(itemgetter(key), every))  # a thousand runs are a million attempts: the usual case is quick
        except KeyError:
            return [a.get(key, default) for a in every]

    def flat(column: Iterable[Any], kind: Any) -> NDArray[Any]:
        return np.fromiter(column, dtype=kind, count=len(every)).reshape(shape)

    def lists(key: str, default: Any) -> list[list[Any]]:
        column = values(key, default)
        return [column[turn::turns] for turn in range(turns)]

    flags = [a.get("flag") for a in every]
    return Table(
        ids=[keys[i][0] for i in order],
        samples=[keys[i][1] for i in order],
        correct=flat(map(itemgetter("correct"), every), bool),
        truncated=flat(values("truncated", False), bool),
        tokens=flat(values("tokens", 0), float),
        sampled=flat((by == "policy" for by in values("by", "policy")), bool),
        status=lists("status", "ok"),
        answers=lists("answer", None),
        texts=lists("text", ""),
        extra_tokens=np.asarray([given[i].get("extra_tokens", 0) for i in order], dtype=float),
        flags={flag: flat((own == flag for own in flags), bool) for flag in sorted(filter(None, set(flags)))},
    )


def summarize(records: Iterable[Record] | Table, values: Mapping[str, Floats] | None = None) -> dict[str, Any]:
    """Every metric of one evaluation.

    Args:
        records: The records of one (run, when, task, temperature), in any order, or their `tabulate`d form.
        values: `Table.values` of every quantity, where the caller has them already.

    Returns:
        A plain dict (JSON-ready). Rates are fractions in [0, 1], counts are integers over records, token numbers are
        means; lists have one entry per attempt. What two attempts are needed for is None where there is one.

        - `n` records, `problems`, `samples` (per problem; None if uneven), `turns`
        - `acc` and `correct` (integer counts) per attempt: Acc@t1 ... Acc@tk; `acc_records` weighs every record alike,
          where `acc` weighs every problem alike (they differ where problems have unequal numbers of records)
        - `delta` = Acc@tk - Acc@t1; `i_to_c`, `c_to_i`: fractions of *all* problems, so `delta = i_to_c - c_to_i`;
          `i_to_c_count`, `c_to_i_count`
        - `fix_rate` P(right at tk | wrong at t1), `break_rate` P(wrong at tk | right at t1), over records; None where
          the condition never occurs
        - `answer_change`: the extracted answers differ (two missing answers are the same answer); `edit_ratio`;
          `unchanged`: the last text is a copy of the first, surrounding space aside
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
    """
    table = records if isinstance(records, Table) else tabulate(records)
    first, last = table.correct[:, 0], table.correct[:, -1]
    fixed, broken = int((~first & last).sum()), int((first & ~last).sum())
    two = table.turns > 1

    def rate(column: Any) -> float:
        return float(table.per_problem(column).mean())

    def rates(columns: Any) -> list[float]:
        return [float(x) for x in table.per_problem(columns).mean(axis=0)]

    even = len(set(table.counts.tolist())) == 1
    summary: dict[str, Any] = {
        "n": len(table),
        "problems": len(table.problems),
        "samples": int(table.counts[0]) if even else None,
        "turns": table.turns,
        "acc": rates(table.correct),
        "acc_records": [float(x) for x in table.correct.mean(axis=0)],
        "correct": [int(x) for x in table.correct.sum(axis=0)],
        "i_to_c_count": fixed if two else None,
        "c_to_i_count": broken if two else None,
        "fix_rate": _ratio(fixed, int((~first).sum())) if two else None,
        "break_rate": _ratio(broken, int(first.sum())) if two else None,
    }
    for quantity in ("delta", "i_to_c", "c_to_i", "answer_change", "edit_ratio", "unchanged"):
        per_problem = values[quantity] if values else table.values(quantity)
        summary[quantity] = float(per_problem.mean()) if two else None
    statuses, met = np.asarray(table.status, dtype=object).T, set().union(*table.status)
    for status in STATUSES:
        hit = statuses == status if status in met else np.zeros(table.correct.shape, dtype=bool)
        summary[status] = rates(hit | table.truncated if status == "truncated" else hit)
    summary["tokens"] = rates(table.tokens)
    summary["tokens_per_problem"] = rate((table.tokens * table.sampled).sum(axis=1) + table.extra_tokens)
    summary["flags"] = {flag: int(held.sum()) for flag, held in table.flags.items()}
    if even and table.counts[0] > 1 and table.sampled[:, 0].all():
        ks = _powers(int(table.counts[0]))
        votes, right = table.pools(0)
        summary["majority"] = {k: majority_at(votes, right, k) for k in ks}
        summary["pass"] = {
            k: float(np.mean([pass_at(len(row), int(row.sum()), k) for row in right[:, :, 0]])) for k in ks
        }
        summary["majority_last"] = {k: majority_at(*table.pools(-1), k) for k in ks} if two else None
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


def majority(answers: Sequence[Hashable | None], correct: Sequence[bool]) -> float:
    """Probability that a majority vote over one problem's answers is right; ties are broken uniformly at random.

    Args:
        answers: The extracted answers; None abstains.
        correct: Whether each is right (equal answers are graded alike; were they not, their mean is taken).

    Returns:
        A number in [0, 1]; 0 when nobody votes.
    """
    return float(_vote(np.asarray([_codes(answers)]), np.asarray([correct], dtype=float))[0])


def majority_at(votes: NDArray[np.intp], right: NDArray[Any], k: int, *, subsets: int = 200, seed: int = 0) -> float:
    """majority@k: the mean of `majority_curve`, over problems."""
    return float(majority_curve(votes, right, k, subsets=subsets, seed=seed).mean())


def majority_curve(
    votes: NDArray[np.intp], right: NDArray[Any], k: int, *, subsets: int = 200, seed: int = 0
) -> Floats:
    """Expected majority@k of each problem when k of its n samples are drawn without replacement.

    Args:
        votes: [P, n] or [P, n, m] answer codes of n samples with m ballots each, -1 for no answer (`Table.pools`).
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


def _codes(answers: Sequence[Hashable | None]) -> list[int]:
    seen: dict[Hashable, int] = {}
    return [-1 if answer is None else seen.setdefault(answer, len(seen)) for answer in answers]


def _powers(size: int) -> list[int]:
    ks = [2**i for i in range(size.bit_length()) if 2**i <= size]
    return ks if ks[-1] == size else [*ks, size]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
