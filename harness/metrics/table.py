"""Attempt records as columns, and what a metric of them is; the metrics themselves are in `harness.metrics.entries`.

Above 300 lines because a metric and the table that it is a function of are read together.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from statistics import fmean
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.registry import register

Record = Mapping[str, Any]
Floats = NDArray[np.float64]
Interval = Literal["proportion", "fraction", "difference", "number"]


class MetricError(ValueError):
    """A metric that raised, or whose values do not fit the table; `name` is the metric's."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"metric {name!r} {message}")
        self.name = name


@dataclass(frozen=True)
class Metric:
    """One metric: what it is of a table of attempts, and how it is shown. Every table and export goes over the list.

    Attributes:
        name: Its name in CSV, JSON, data frames and logs: lower-case letters, digits and `_`.
        label: The heading of its column; `{last}` stands for the number of the last attempt.
        of: [N] values of a table's N records, NaN for none of them.
        interval: What the values are, and so which interval they get (docs/statistics.md). `proportion`: each 0 or 1;
            `fraction`: in [0, 1]; `difference`: each -1, 0 or 1, shown with its sign; `number`: any number, shown as it
            is, where the others are shown in percent. None: the mean over seeds alone is shown.
        given: Of a conditional rate the cases it is a rate of, [N] zeros and ones; `of` is then 0 where there is none.
            The metric is the sum of `of` over the sum of `given`. None: a mean over problems.
        attempts: Attempts that a record must have.
        place: The table its column is in: `accuracy` or `behaviour`.
        plain: Its label in ASCII, for terminals; its name unless told otherwise.
        in_summary: Whether the table at a run's end shows it.
        logged: Whether metrics.jsonl has it, of the batch of every update.
        about: A sentence for the lead of the behaviour table.
    """

    name: str
    label: str
    of: Callable[[Table], Any] = field(repr=False)
    interval: Interval | None = "fraction"
    given: Callable[[Table], Any] | None = field(default=None, repr=False)
    attempts: int = 2
    place: Literal["accuracy", "behaviour"] = "behaviour"
    plain: str = ""
    in_summary: bool = True
    logged: bool = False
    about: str = ""

    @property
    def signed(self) -> bool:
        """Whether it is shown with its sign."""
        return self.interval == "difference"

    def column_heading(self, turns: int) -> str:
        """Its label in a table of so many attempts."""
        return self.label.replace("{last}", str(turns))

    def record_values(self, table: Table) -> Floats:
        """[N] its values, of a conditional rate the hits; NaN where records have too few attempts.

        Raises:
            MetricError: it raised, or gave something else than N numbers in its range.
        """
        values = self._measure(self.of, table)
        if table.num_attempts < self.attempts:
            return values
        low, high = RANGES[self.interval or "fraction"]
        if self.interval != "number" and (values < low).any() | (values > high).any():
            raise MetricError(self.name, f"gave {values.min():g} to {values.max():g}, not {low:g} to {high:g}")
        if self.interval in ("proportion", "difference") and (values != np.round(values)).any():
            raise MetricError(self.name, f"gave fractions; the values of a {self.interval} are whole numbers")
        return values

    def record_cases(self, table: Table) -> Floats:
        """[N] where a conditional rate has a case, of another metric ones; NaN and errors as in `record_values`."""
        if self.given is None:
            return np.ones(len(table))
        cases = self._measure(self.given, table)
        if (
            table.num_attempts >= self.attempts
            and (~np.isin(cases, (0, 1)) | (self.record_values(table) > cases)).any()
        ):
            raise MetricError(self.name, "has cases that are not 0 or 1, or hits where there is no case")
        return cases

    def table_mean(self, table: Table) -> float | None:
        """Its value on a table; None with too few attempts or without a case."""
        if table.num_attempts < self.attempts:
            return None
        if self.given is None:
            return float(table.per_problem(self.record_values(table)).mean())
        cases = self.record_cases(table).sum()
        return float(self.record_values(table).sum() / cases) if cases else None

    def batch_mean(self, table: Table) -> float | None:
        """As `table_mean`, over records, and with the same last bit whatever their order: for the training log."""
        if self.given is not None or table.num_attempts < self.attempts:
            return self.table_mean(table)
        return fmean(self.record_values(table).tolist())

    def _measure(self, function: Callable[[Table], Any], table: Table) -> Floats:
        if table.num_attempts < self.attempts:
            return np.full(len(table), np.nan)
        try:
            values = np.asarray(function(table), dtype=float)
        except Exception as error:  # a plugin's function may raise anything
            raise MetricError(self.name, f"failed: {type(error).__name__}: {error}") from error
        if values.shape != (len(table),):
            raise MetricError(self.name, f"gave shape {values.shape} for a table of {len(table)} records")
        if not np.isfinite(values).all():
            raise MetricError(self.name, "gave NaN or infinity")
        return values


METRICS: dict[str, Metric] = {}
"""All metrics, in the order of their columns; a plugin's after ours."""
RANGES = {"proportion": (0.0, 1.0), "fraction": (0.0, 1.0), "difference": (-1.0, 1.0), "number": (-np.inf, np.inf)}
# Names of other columns of the exports.
_COLUMNS = (
    "acc acc_first acc_last acc_records attempt binding_difference blind budget by c_to_i_count commit correct digest "
    "difference difference_hi difference_lo difference_of_last draft error final first flags gain_over_blind "
    "gain_over_other grader i_to_c_count id kind last majority majority_2 majority_last margin method model n name "
    "no_answer note other own p p_holm p_same parent pass path phase policy problem problems records reference "
    "relabelled reliance responses right role_gap same_hi same_lo sample samples seconds seed seeds seeds_for_margin "
    "smallest_shown split step task task_version temperature timeout tokens tokens_per_problem train_task "
    "train_version trained truncated turns updates version when within_margin wrong"
)
RESERVED = frozenset(_COLUMNS.split())


def metric(
    name: str,
    label: str,
    *,
    interval: Interval | None = "fraction",
    given: Callable[[Table], Any] | None = None,
    attempts: int = 2,
    place: Literal["accuracy", "behaviour"] = "behaviour",
    plain: str = "",
    in_summary: bool = True,
    logged: bool = False,
    about: str = "",
) -> Callable[[Callable[[Table], Any]], Callable[[Table], Any]]:
    """Function decorator that adds a metric, `Metric.of`, to the list.

    Args:
        name, label, interval, given, attempts, place, plain, in_summary, logged, about: As the attributes of `Metric`.

    Raises:
        ValueError: a name that is none, that other columns have, or that another metric has.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or re.fullmatch(r"t\d+|.*_(lo|hi)", name) or name in RESERVED:
        raise ValueError(f"no metric can be called {name!r}: lower-case letters, digits and _, no other column's name")
    if place == "accuracy" and (given is not None or interval in (None, "number")):
        raise ValueError(f"metric {name!r}: the accuracy table holds shares of all problems alone")

    def add(of: Callable[[Table], Any]) -> Callable[[Table], Any]:
        register("metric", name)(of)  # refuses a second holder of the name
        METRICS[name] = Metric(
            name,
            label,
            of,
            interval,
            given,
            attempts,
            place,
            plain or name.replace("_", " "),
            in_summary,
            logged,
            about,
        )
        return of

    return add


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
    def num_attempts(self) -> int:
        """Attempts per record, k."""
        return self.correct.shape[1]

    @cached_property
    def _starts(self) -> NDArray[np.intp]:
        new = [i for i, key in enumerate(self.ids) if i == 0 or key != self.ids[i - 1]]
        return np.asarray(new, dtype=np.intp)

    @cached_property
    def problem_ids(self) -> list[str]:
        """The distinct problem ids, sorted: the order of every per-problem array, P of them."""
        return [self.ids[i] for i in self._starts]

    @cached_property
    def sample_counts(self) -> NDArray[np.intp]:
        """Samples per problem, [P]."""
        return np.diff(np.append(self._starts, len(self.ids)))

    def per_problem(self, column: Any) -> Floats:
        """Means of a column over each problem's samples: [N] or [N, k] -> [P] or [P, k], in the order of
        `problem_ids`."""
        array = np.asarray(column, dtype=float)
        if len(self._starts) == len(self.ids):
            return array
        sums = np.add.reduceat(array, self._starts, axis=0)
        return sums / self.sample_counts.reshape(-1, *[1] * (array.ndim - 1))

    @cached_property
    def changed(self) -> NDArray[np.bool_]:
        """[N] whether the last attempt's answer is another than the first's; two missing answers are the same."""
        return np.asarray([a != b for a, b in zip(self.answers[0], self.answers[-1], strict=True)], dtype=bool)

    def record_values(self, quantity: str) -> Floats:
        """A metric, by its name, for every record, [N]; of a conditional rate its hits. `t1` and `t2` are whether the
        first and the last attempt are right. With fewer attempts than a metric needs it is NaN.

        Raises:
            ValueError: no such metric.
            MetricError: the metric is at fault.
        """
        if quantity in ("t1", "t2"):
            return self.correct[:, 0 if quantity == "t1" else -1].astype(float)
        if quantity not in METRICS:
            raise ValueError(f"no metric is called {quantity!r}; there are t1, t2, {', '.join(METRICS)}")
        return METRICS[quantity].record_values(self)

    def problem_values(self, quantity: str) -> Floats:
        """`record_values` for every problem, [P], in the order of `problem_ids`: what paired statistics work on."""
        return self.per_problem(self.record_values(quantity))

    def vote_pools(self, *attempts: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """The votes each problem's samples cast with the given attempts, one vote per attempt.

        Args:
            attempts: Indices of m attempts, from 0; -1 is the last.

        Returns:
            votes: [P, n, m] integer code of each answer within its problem, -1 for no answer.
            right: [P, n, m] whether that attempt is correct.

        Raises:
            ValueError: the problems do not all have the same number of samples.
        """
        if len(set(self.sample_counts.tolist())) > 1:
            low, high = int(self.sample_counts.min()), int(self.sample_counts.max())
            raise ValueError(f"problems have between {low} and {high} samples; a pool needs the same number for each")
        size, width = int(self.sample_counts[0]), len(attempts)
        answers = list(zip(*(self.answers[i] for i in attempts), strict=True))
        votes = np.empty((len(self.problem_ids), size, width), dtype=np.intp)
        for row in range(len(votes)):
            flat = [answer for given in answers[row * size : (row + 1) * size] for answer in given]
            votes[row] = np.reshape(encode_answers(flat), (size, width))
        return votes, self.correct[:, list(attempts)].reshape(-1, size, width)


def tabulate(records: Iterable[Record]) -> Table:
    """Sorts records by (id, sample) and turns them into columns.

    Example: three records, of problem 'b' sample 0 (right, right), 'a' sample 1 (wrong, right), 'a' sample 0 (wrong,
    wrong), give ids ['a', 'a', 'b'], samples [0, 1, 0] and

        correct = [[False, False], [False, True], [True, True]]          # [N, k] = [3, 2]
        per_problem(correct) = [[0, 0.5], [1, 1]]                        # [P, k] = [2, 2]

    Args:
        records: N records of one evaluation (lines of eval.jsonl), in any order.

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
    every = list(itertools.chain.from_iterable(attempts))  # N * k attempts, those of one record side by side
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


def encode_answers(answers: Sequence[Hashable | None]) -> list[int]:
    """A number for each different answer, from 0 in the order met; -1 for None."""
    seen: dict[Hashable, int] = {}
    return [-1 if answer is None else seen.setdefault(answer, len(seen)) for answer in answers]
