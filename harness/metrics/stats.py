"""Intervals and tests for results tables: paired, nested over seeds, checked against scipy's by the tests.

Arrays of outcomes have the shape [seeds, problems]; every run of a comparison saw the same problems, so the design is
crossed, and everything that compares two systems works on per-problem differences. docs/statistics.md says which
interval is used where and what it can and cannot mean.
The few closed forms of scipy.stats that are needed (Wilson's bounds, the binomial test, the trimmed mean) are written
out here with scipy.special: importing scipy.stats takes as long as reading a hundred runs, and its binomial test
searches for a p value that no interval needs.
Above 300 lines because every interval and test stands beside its source.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = [
    "Equivalence",
    "Interval",
    "bootstrap_all",
    "bootstrap_bases",
    "bootstrap_interval",
    "delta_interval",
    "equivalence_all",
    "equivalence_test",
    "holm_adjust",
    "interquartile_mean",
    "iqm_interval",
    "mcnemar_test",
    "paired_test",
    "ratio_interval",
    "seeds_needed",
    "smallest_difference",
    "smallest_difference_of",
    "wilson_interval",
]

Name = TypeVar("Name", bound=Hashable)
Floats = NDArray[np.float64]
RESAMPLES = 10_000
MARGIN = 0.03  # three points: what this project calls the same, unless another margin is named beforehand
MOST_SEEDS = 1_000
COLUMNS = 256  # seeds x quantities of one matrix product: wide enough to be fast, narrow enough for memory


class Interval(NamedTuple):
    """A point estimate and its confidence bounds, in the units of what was estimated."""

    mean: float
    lo: float
    hi: float


class Equivalence(NamedTuple):
    """Whether a mean difference is shown to be small.

    Attributes:
        p: Of 'the mean lies outside the margin', the larger of the two one-sided tests.
        within: Whether the interval lies inside of the margin.
        interval: The mean with its 90 % bounds (1 - 2 * 0.05).
    """

    p: float
    within: bool
    interval: Interval


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a proportion: one run's accuracy on n problems.

    Args:
        successes: Problems that are right.
        n: Problems, one sample each.
        confidence: Of the two-sided interval.

    Raises:
        ValueError: n is not positive or successes lies outside 0..n.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes do not fit {n} trials")
    rate, z2 = successes / n, _z(confidence) ** 2
    centre, scale = (rate + z2 / (2 * n)) / (1 + z2 / n), 1 / (1 + z2 / n)
    half = scale * math.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n)))
    return Interval(rate, centre - half if successes else 0.0, centre + half if successes < n else 1.0)


def mcnemar_test(i_to_c: int, c_to_i: int) -> float:
    """Two-sided exact McNemar p: are wrong->right and right->wrong flips equally likely?

    Args:
        i_to_c: Problems wrong under the first system (attempt 1) and right under the second (attempt 2).
        c_to_i: The reverse.

    Returns:
        The binomial p value; 1 when nothing flips.
    """
    flips = i_to_c + c_to_i
    return min(1.0, 2 * float(special.bdtr(min(i_to_c, c_to_i), flips, 0.5)))


def delta_interval(i_to_c: int, c_to_i: int, n: int, confidence: float = 0.95) -> Interval:
    """Interval of the paired difference (i_to_c - c_to_i) / n of a single run, one sample per problem.

    The adjusted Wald interval of Bonett and Price (2012, J. Educ. Behav. Stat. 37:479): one pseudo-problem is added to
    each kind of flip, so it does not collapse to a point when nothing flips. It speaks of the choice of problems only,
    never of training noise.

    Args:
        i_to_c: Problems that go from incorrect to correct.
        c_to_i: The reverse.
        n: All problems, flipped or not.
        confidence: Of the two-sided interval.

    Returns:
        The plain difference with bounds, as fractions of all problems.

    Raises:
        ValueError: n is not positive, or fewer than the flips.
    """
    if n < 1 or min(i_to_c, c_to_i) < 0 or i_to_c + c_to_i > n:
        raise ValueError(f"{i_to_c} + {c_to_i} flips do not fit {n} problems")
    up, down = (i_to_c + 1) / (n + 2), (c_to_i + 1) / (n + 2)
    half = _z(confidence) * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return Interval((i_to_c - c_to_i) / n, max(-1.0, up - down - half), min(1.0, up - down + half))


def bootstrap_interval(
    values: Any, *, resamples: int = RESAMPLES, seed: int = 0, confidence: float = 0.95, seeds_vary: bool = True
) -> Interval:
    """Bootstrap interval of the mean, over problems nested over seeds, with a small-sample correction.

    Every resample draws P problems with replacement, the same for all seeds (problems are crossed with seeds), and S
    seeds with replacement; its mean is one bootstrap value. Two faults of these values with a handful of seeds are
    known: the variance between seeds comes out too small by (S-1)/S and the tails normal where Student's are due, and
    the variance of the cells (problem x seed) is counted up to three times (Owen 2007, Ann. Appl. Stat. 1:386). So the
    percentiles give the interval its shape, and it is scaled about the mean to the width of the crossed model, by

        t(df) / z * sqrt(variance of seed means / S + variance of problem means / P) / (standard deviation of resamples)

    with Satterthwaite's degrees of freedom: an interval that excludes 0 and a `paired_test` below 1 - confidence are
    the same statement, skewness aside. With one seed the factor is nearly 1, and the interval speaks of the choice of
    problems only. Simulated coverage: docs/statistics.md.

    Args:
        values: [S, P] (or [P]) outcomes per seed and problem: 0/1, a paired difference, any number. To compare two
            systems pass the difference of their arrays: pairing is by problem.
        resamples: Bootstrap resamples.
        seed: Of the resampling; equal arguments give equal bits.
        confidence: Of the two-sided interval.
        seeds_vary: Whether the S rows are independent trainings. False resamples problems only.

    Returns:
        Mean and bounds in the units of `values`.

    Raises:
        ValueError: an empty array, NaN, or more than two axes.
    """
    options = {"resamples": resamples, "seed": seed, "confidence": confidence, "seeds_vary": seeds_vary}
    return bootstrap_all({"": values}, **options)[""]


def bootstrap_all(
    values: Mapping[Name, Any],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
    seeds_vary: bool = True,
) -> dict[Name, Interval]:
    """`bootstrap_interval` for several quantities of the same seeds and problems: equal results, one pass over the
    resamples.

    Args:
        values: {name: [S, P] outcomes}; all of one shape.
        resamples, seed, confidence, seeds_vary: As in `bootstrap_interval`.
    """
    grids = {name: _grid(grid) for name, grid in values.items()}
    if len({grid.shape for grid in grids.values()}) > 1:
        raise ValueError("quantities differ in their seeds or problems")
    distinct = list({id(grid): grid for grid in grids.values()}.values())  # two names may share one array
    found: dict[int, Interval] = {}
    while distinct:
        some = max(1, COLUMNS // len(distinct[0]))
        part, distinct = distinct[:some], distinct[some:]
        means = _resampled_means(np.concatenate(part), resamples, seed)
        for grid, means_SR in zip(part, means.reshape(len(part), -1, resamples), strict=True):
            if len(grid) > 1 and seeds_vary:
                # seed + 1: which seeds are drawn must not depend on which problems are.
                draws = (means_SR * _seed_counts(len(grid), resamples, seed + 1)).sum(axis=0) / len(grid)
            else:
                draws = means_SR.mean(axis=0)
            found[id(grid)] = _widened(grid, draws, confidence, seeds_vary)
    return {name: found[id(grid)] for name, grid in grids.items()}


def bootstrap_bases(values: Any, *, resamples: int = RESAMPLES, seed: int = 0, confidence: float = 0.95) -> Interval:
    """Bootstrap interval of the mean over base models, seeds and problems: 'on bases like these', not 'on this base'.

    Bases are crossed with problems; seeds are nested in bases, since a seed on another base is another training. Every
    resample draws B bases, S seeds within each of them, and P problems, the same for all; the percentiles are scaled as
    in `bootstrap_interval`, to the width of the crossed model over the means of the seeds, [B, P]. So the p value that
    goes with it is `paired_test(values.mean(axis=1))`, and the degrees of freedom are those of B bases, not of B * S
    runs.

    Args:
        values: [B, S, P] outcomes (differences, to compare two systems) per base, seed and problem. One base gives the
            interval of `bootstrap_interval`, which speaks of that base alone.
        resamples: Bootstrap resamples.
        seed: Of the resampling; equal arguments give equal bits.
        confidence: Of the two-sided interval.

    Raises:
        ValueError: no three axes, an empty array, or NaN.
    """
    cube = np.asarray(values, dtype=float)
    if cube.ndim != 3:
        raise ValueError(f"outcomes must be a [bases, seeds, problems] array, got shape {cube.shape}")
    B, S, P = cube.shape
    runs = _grid(cube.reshape(B * S, P))
    if B == 1:
        return bootstrap_interval(runs, resamples=resamples, seed=seed, confidence=confidence)
    means_BSR = _resampled_means(runs, resamples, seed).reshape(B, S, resamples)
    rng = np.random.default_rng(seed + 1)
    bases = rng.integers(0, B, size=(resamples, B, 1))
    seeds = rng.integers(0, S, size=(resamples, B, S))
    draws = means_BSR[bases, seeds, np.arange(resamples)[:, None, None]].mean(axis=(1, 2))
    return _widened(cube.mean(axis=1), draws, confidence, seeds_vary=True)


def _widened(grid: Floats, draws: Floats, confidence: float, seeds_vary: bool) -> Interval:
    """The percentiles of resampled means, scaled about the mean as in `bootstrap_interval`."""
    tail, mean, spread = 0.5 - confidence / 2, float(grid.mean()), float(draws.std())
    if spread < 1e-12:
        return Interval(mean, mean, mean)
    error, freedom = _standard_error(grid, seeds_vary)
    stretch = _t(1 - tail, freedom) / _z(confidence) * error / spread
    lo, hi = np.quantile(draws, [tail, 1 - tail])
    return Interval(mean, mean + (float(lo) - mean) * stretch, mean + (float(hi) - mean) * stretch)


def ratio_interval(hits: Any, cases: Any, *, seeds_vary: bool = True, confidence: float = 0.95) -> Interval | None:
    """Interval of a conditional rate: the sum of `hits` over the sum of `cases`, whose number is random as well.

    One run of zeros and ones gets the Wilson interval of its cases. Anything else gets `bootstrap_interval`'s interval
    of the linearised ratio, (hits - rate * cases) / (mean of cases), which has mean 0 and, per seed and problem, the
    influence of that cell on the rate. A rate of 0 or 1 gets the Wilson interval of as many cases as the largest seed
    has.

    Args:
        hits: [S, P] (or [P]) outcomes per seed and problem, 0 where the condition does not hold; at most `cases`.
        cases: The same shape: 1 where the condition holds, else 0 (or the share of a problem's samples where it does).
        seeds_vary: As in `bootstrap_interval`.
        confidence: Of the two-sided interval.

    Returns:
        The rate with bounds in [0, 1]; None where the condition never holds.

    Raises:
        ValueError: shapes differ, an empty array, NaN.

    Source: the linearised ratio estimator, Cochran 1977, Sampling Techniques, section 6.3.
    """
    top, bottom = _grid(hits), _grid(cases)
    if top.shape != bottom.shape:
        raise ValueError(f"hits and cases must have one shape, got {top.shape} and {bottom.shape}")
    total = float(bottom.sum())
    if not total:
        return None
    rate = float(top.sum()) / total
    if len(top) == 1 and np.isin(top, (0.0, 1.0)).all() and np.isin(bottom, (0.0, 1.0)).all():
        return wilson_interval(round(float(top.sum())), round(total), confidence)
    if rate in (0.0, 1.0):
        most = max(1, round(float(bottom.sum(axis=1).max())))
        return wilson_interval(round(rate * most), most, confidence)
    _, lo, hi = bootstrap_interval(
        (top - rate * bottom) / float(bottom.mean()), seeds_vary=seeds_vary, confidence=confidence
    )
    return Interval(rate, max(0.0, rate + lo), min(1.0, rate + hi))


def paired_test(differences: Any, *, seeds_vary: bool = True) -> float:
    """Two-sided p of 'the mean paired difference is 0'.

    One row of -1, 0, 1 is tested by exact McNemar; anything else by Student's t with the standard error and
    Satterthwaite's degrees of freedom of `bootstrap_interval`.

    Args:
        differences: [S, P] (or [P]) differences per seed and problem.
        seeds_vary: As in `bootstrap_interval`.
    """
    grid = _grid(differences)
    if len(grid) == 1 and np.isin(grid, (-1.0, 0.0, 1.0)).all():
        return mcnemar_test(int((grid > 0).sum()), int((grid < 0).sum()))
    error, freedom = _standard_error(grid, seeds_vary)
    mean = float(grid.mean())
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * special.stdtr(freedom, -abs(mean) / error))


def equivalence_test(
    differences: Any, *, margin: float = MARGIN, resamples: int = RESAMPLES, seed: int = 0, seeds_vary: bool = True
) -> Equivalence:
    """Two one-sided tests (TOST): is the mean paired difference shown to lie within +-margin?

    A difference test that fails does not show equality: it may lack power. Here the null hypothesis is a difference of
    at least the margin. The tests are Student's t with the standard error and degrees of freedom of
    `bootstrap_interval`, the interval is that of `bootstrap_interval` at 90 %; skewness aside, p < 0.05 and an interval
    within the margin are the same statement. For one run of -1, 0, 1 it is the same t test over problems. Where no cell
    differs at all there is no variance to go by, and P problems cannot promise that none ever differs: then it is
    `delta_interval`'s normal approximation for one run without a flip.

    Args:
        differences: [S, P] (or [P]) differences per seed and problem.
        margin: Half-width of what counts as the same, in the units of the differences; to be named beforehand.
        resamples: Bootstrap resamples of the interval.
        seed: Of the resampling.
        seeds_vary: As in `bootstrap_interval`.

    Raises:
        ValueError: a margin that is not positive.

    Source: Schuirmann 1987, J. Pharmacokinet. Biopharm. 15:657.
    """
    options = {"margin": margin, "resamples": resamples, "seed": seed, "seeds_vary": seeds_vary}
    return equivalence_all({"": differences}, **options)[""]


def equivalence_all(
    differences: Mapping[Name, Any],
    *,
    margin: float = MARGIN,
    resamples: int = RESAMPLES,
    seed: int = 0,
    seeds_vary: bool = True,
) -> dict[Name, Equivalence]:
    """`equivalence_test` for several comparisons of the same shape: equal results, one pass over the resamples.

    Args:
        differences: {name: [S, P] differences}; all of one shape.
        margin, resamples, seed, seeds_vary: As in `equivalence_test`.
    """
    if not margin > 0:
        raise ValueError(f"a margin of equivalence is positive, not {margin}")
    grids = {name: _grid(grid) for name, grid in differences.items()}
    intervals = bootstrap_all(grids, resamples=resamples, seed=seed, confidence=0.9, seeds_vary=seeds_vary)
    found = {}
    for name, grid in grids.items():
        interval, (error, freedom) = intervals[name], _standard_error(grid, seeds_vary)
        if not grid.any():
            error, freedom = _error_without_flips(grid.shape[1])
            interval = delta_interval(0, 0, grid.shape[1], confidence=0.9)
        nearest = margin - abs(interval.mean)  # the one-sided test against the nearer bound has the larger p
        p = _t_below(-nearest / error, freedom) if error else float(nearest <= 0)
        found[name] = Equivalence(p, -margin < interval.lo and interval.hi < margin, interval)
    return found


def holm_adjust(pvalues: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values (family-wise error), in the order given.

    Source: Holm 1979, Scand. J. Statist. 6:65.
    """
    p = np.asarray(pvalues, dtype=float)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled)) if len(p) else scaled
    return adjusted.tolist()


def interquartile_mean(scores: Any) -> float:
    """Interquartile mean: the mean of the middle half of all scores ([seeds, tasks] or any shape).

    Source: Agarwal et al. 2021, arXiv 2108.13264 (as rliable: scipy's 25 % trimmed mean).
    """
    return float(_middle_mean(np.ravel(np.asarray(scores, dtype=float))))


def _middle_mean(scores: Floats) -> Floats:
    """Mean over the last axis of what is left when a quarter (rounded down) is cut off at either end."""
    size = scores.shape[-1]
    cut = size // 4
    return np.partition(scores, (cut, size - cut - 1))[..., cut : size - cut].mean(axis=-1)


def iqm_interval(scores: Any, *, resamples: int = RESAMPLES, seed: int = 0, confidence: float = 0.95) -> Interval:
    """Interquartile mean with a stratified bootstrap interval: seeds are resampled within each task.

    Args:
        scores: [S, T] one score per seed and task. With one seed the interval is a point without meaning.

    Source: Agarwal et al. 2021, arXiv 2108.13264, section 4.
    """
    grid = _grid(scores)
    seeds, tasks = grid.shape
    pick = np.random.default_rng(seed).integers(0, seeds, size=(resamples, seeds, tasks))
    draws = _middle_mean(grid[pick, np.arange(tasks)].reshape(resamples, -1))
    lo, hi = np.quantile(draws, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(interquartile_mean(grid), float(lo), float(hi))


def smallest_difference(n: int, discordance: float, power: float = 0.8, confidence: float = 0.95) -> float:
    """The smallest paired difference of two proportions that a McNemar test on n problems shows with the given power.

    Args:
        n: Problems, one binary outcome each under both systems.
        discordance: Share of the problems on which the two disagree (i_to_c + c_to_i), in [0, 1].

    Returns:
        A difference as a fraction of all problems; `discordance` itself where even that is too small to be shown.

    Source: Connor 1987, Biometrics 43:207, solved for the difference d:
    d * sqrt(n) = z_a * sqrt(discordance) + z_b * sqrt(discordance - d^2).
    """
    if discordance <= 0:
        return 0.0
    za, zb = _z(confidence), float(special.ndtri(power))
    a, b = n + zb * zb, za * math.sqrt(n * discordance)
    root = (b + math.sqrt(b * b - a * (za * za - zb * zb) * discordance)) / a
    return min(root, discordance)


def smallest_difference_of(differences: Any, *, power: float = 0.8, confidence: float = 0.95) -> float:
    """As `smallest_difference`, for any [S, P] array of paired differences, from its own standard error.

    Args:
        differences: [S, P] (or [P]) differences per seed and problem.
        power: Probability of showing a true difference of that size.
        confidence: Of the two-sided test.

    Returns:
        (t quantile of `confidence` + t quantile of `power`) * standard error, in the units of the differences. Where no
        cell differs from another there is no variance to go by; it is then the standard error of `delta_interval` for
        one run without a flip, as in `equivalence_test`.
    """
    grid = _grid(differences)
    error, freedom = _standard_error(grid, seeds_vary=True)
    error, freedom = (error, freedom) if error else _error_without_flips(grid.shape[1])
    return (_t(0.5 + confidence / 2, freedom) + _t(power, freedom)) * error


def seeds_needed(
    differences: Any,
    *,
    target: float = MARGIN,
    show: Literal["difference", "equivalence"] = "difference",
    power: float = 0.8,
    confidence: float = 0.95,
) -> int | None:
    """How many seeds a comparison needs, from the variance components of the runs in hand.

    The variances between seeds, problems and cells are estimated from the array (two-way analysis of variance); the
    standard error of `bootstrap_interval` is then written for any number of seeds on the same problems. Three seeds
    know the standard deviation between seeds only to within a factor of 0.5 to 6 (95 %), so this is a plan, not a
    promise. Without any variance it is the standard error of `smallest_difference_of`, which no seed makes smaller.

    Args:
        differences: [S, P] differences per seed and problem, S >= 2.
        target: The difference to be shown with the given power; with `power` 0.5, the half-width of the interval; for
            `show` 'equivalence' the margin within which a true difference of 0 is to be shown.
        show: Whether a difference or an equivalence is to be shown.
        power: Probability of showing it.
        confidence: Of the two-sided interval of a difference; equivalence is tested at (1 - confidence) each side.

    Returns:
        The least number of seeds, at least 2; None where even 1,000 do not do, because the problems are too few.

    Raises:
        ValueError: fewer than two seeds or problems, a target that is not positive, a power outside [0.5, 1).
    """
    grid = _grid(differences)
    S, P = grid.shape
    if min(S, P) < 2:
        raise ValueError(f"{S} seeds and {P} problems show no variance between them: two of each at least")
    if not target > 0 or not 0.5 <= power < 1:
        raise ValueError(f"seeds_needed wants a positive target and a power in [0.5, 1), not {target} and {power}")
    of_seeds, of_problems = grid.mean(axis=1), grid.mean(axis=0)
    rest = grid - of_seeds[:, None] - of_problems + grid.mean()
    cells = float((rest**2).sum()) / ((S - 1) * (P - 1))
    seeds = float(of_seeds.var(ddof=1))
    problems = max(0.0, float(of_problems.var(ddof=1)) - cells / S)
    sides = (0.5 + confidence / 2, power) if show == "difference" else (confidence, 0.5 + power / 2)

    def shown(count: int) -> float:
        error, freedom = _crossed_error([((problems + cells / count) / P, P - 1), (seeds / count, count - 1)])
        error, freedom = (error, freedom) if error else _error_without_flips(P)
        return sum(_t(side, freedom) for side in sides) * error

    return next((count for count in range(2, MOST_SEEDS + 1) if shown(count) <= target), None)


def _grid(values: Any) -> Floats:
    grid = np.atleast_2d(np.asarray(values, dtype=float))
    if grid.ndim != 2 or grid.size == 0:
        raise ValueError(f"outcomes must be a non-empty [seeds, problems] array, got shape {np.shape(values)}")
    if np.isnan(grid).any():
        raise ValueError("outcomes hold NaN")
    return grid


@functools.cache
def _z(confidence: float) -> float:
    return float(special.ndtri(0.5 + confidence / 2))


def _t(probability: float, freedom: float) -> float:
    """Quantile of Student's t (with infinite degrees of freedom, of the normal distribution): what `scipy.stats.t.ppf`
    calls, without its checks, which take longer."""
    return float(special.ndtri(probability) if math.isinf(freedom) else special.stdtrit(freedom, probability))


def _t_below(value: float, freedom: float) -> float:
    """Probability of Student's t below a value; with infinite degrees of freedom, of the normal distribution."""
    return float(special.ndtr(value) if math.isinf(freedom) else special.stdtr(freedom, value))


@functools.lru_cache(maxsize=4)
def _resample_counts(size: int, resamples: int, seed: int) -> NDArray[np.uint8]:
    """[resamples, size] how often each of `size` units is drawn; one byte each, shared by all cells of a table."""
    rng, counts = np.random.default_rng(seed), np.empty((resamples, size), dtype=np.uint8)
    step = max(1, 2_000_000 // size)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, size, size=(rows, size)) + np.arange(rows)[:, None] * size
        chunk = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        counts[start : start + rows] = np.minimum(chunk, 255)
    return counts


@functools.lru_cache(maxsize=4)
def _seed_counts(size: int, resamples: int, seed: int) -> Floats:
    """`_resample_counts` as [size, resamples] numbers: how often each seed is drawn."""
    return np.ascontiguousarray(_resample_counts(size, resamples, seed).T, dtype=np.float64)


def _resampled_means(grid: Floats, resamples: int, seed: int) -> Floats:
    """[S, P] -> [S, resamples] means over resampled problems, the same problems for every seed."""
    # float32 is exact for outcomes 0 and 1 (whole sums below 2**24); for others it errs by less than 1e-5 of a value.
    size, rows = grid.shape[1], grid.astype(np.float32)
    if size * resamples <= 8_000_000:
        return (rows @ _problem_counts(size, resamples, seed)).astype(np.float64) / size
    counts, step = _resample_counts(size, resamples, seed), max(1, 2_000_000 // size)
    parts = [rows @ counts[i : i + step].T.astype(np.float32) for i in range(0, resamples, step)]
    return np.concatenate(parts, axis=1).astype(np.float64) / size


@functools.lru_cache(maxsize=2)
def _problem_counts(size: int, resamples: int, seed: int) -> NDArray[np.float32]:
    """`_resample_counts` as the matrix product needs them, [size, resamples], where that is no more than 32 MB."""
    return np.ascontiguousarray(_resample_counts(size, resamples, seed).T, dtype=np.float32)


def _standard_error(grid: Floats, seeds_vary: bool) -> tuple[float, float]:
    """Standard error of the grand mean of [S, P] and Satterthwaite's degrees of freedom.

    The squared errors of the two one-way views add up: variance of the seed means / S + variance of the problem means
    / P. In the crossed random-effects model that counts the cell variance twice, which errs on the wide side by little;
    subtracting it once (the unbiased estimate) covers worse with three seeds, as it is often cut off at 0.
    """
    S, P = grid.shape
    problems = float(grid.mean(axis=0).var(ddof=1)) / P if P > 1 else 0.0
    seeds = float(grid.mean(axis=1).var(ddof=1)) / S if S > 1 and seeds_vary else 0.0
    return _crossed_error([(problems, P - 1), (seeds, S - 1)])


def _error_without_flips(problems: int) -> tuple[float, float]:
    """Standard error and degrees of freedom of `delta_interval` where nothing flips."""
    return math.sqrt(2) / (problems + 2), math.inf


def _crossed_error(parts: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Standard error and Satterthwaite's degrees of freedom of a sum of squared errors, each with its own."""
    total = sum(part for part, _ in parts)
    if total <= 0:
        return 0.0, 1.0
    freedom = total**2 / sum(part**2 / max(1, own) for part, own in parts)
    return math.sqrt(total), max(1.0, freedom)
