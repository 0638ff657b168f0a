"""harness.metrics.stats against the paper's integers, scipy's bootstrap, hand-worked values, simulated coverage."""

import math

import numpy as np
import pytest
from scipy import stats as sps

from harness.metrics import stats

# Counts derived from the percentages of arXiv 2409.12917v2, Tables 1-3. n, t1, t2, i->c, c->i, p, Wilson bounds in %.
PAPER = {
    "MATH Base": (500, 263, 207, 23, 79, "2e-8", 37.2, 45.8),
    "MATH Self-Refine": (500, 264, 259, 16, 21, "0.51", 47.4, 56.1),
    "MATH STaR D": (500, 277, 206, 27, 98, "1e-10", 37.0, 45.6),
    "MATH STaR D+": (500, 268, 270, 13, 11, "0.84", 49.6, 58.3),
    "MATH Pair-SFT D": (500, 262, 271, 27, 18, "0.23", 49.8, 58.5),
    "MATH Pair-SFT D+": (500, 275, 275, 0, 0, "1", 50.6, 59.3),
    "MATH SCoRe": (500, 300, 322, 29, 7, "3e-4", 60.1, 68.5),
    "HumanEval Base": (164, 88, 93, 13, 8, "0.38", 49.1, 64.1),
    "HumanEval Self-Refine": (164, 88, 86, 16, 18, "0.86", 44.8, 59.9),
    "HumanEval Pair-SFT": (164, 92, 89, 7, 10, "0.63", 46.6, 61.7),
    "HumanEval SCoRe": (164, 86, 106, 25, 5, "3e-4", 57.1, 71.5),
}


@pytest.mark.parametrize("row", PAPER)
def test_the_papers_table_reproduces(row):
    n, t1, t2, fixed, broken, p, lo, hi = PAPER[row]
    assert t2 == t1 + fixed - broken
    interval = stats.wilson_interval(t2, n)
    assert interval.mean == t2 / n
    assert (round(100 * interval.lo, 1), round(100 * interval.hi, 1)) == (lo, hi)
    got = stats.mcnemar_test(fixed, broken)
    assert f"{got:.0e}".replace("e-0", "e-") == p if "e" in p else round(got, len(p.partition(".")[2])) == float(p)


@pytest.mark.parametrize(
    ("t2", "lo", "hi"), [(297, 55.0, 63.6), (307, 57.1, 65.6), (313, 58.3, 66.7), (292, 54.0, 62.6)]
)
def test_the_papers_ablation_intervals(t2, lo, hi):
    assert [round(100 * x, 1) for x in stats.wilson_interval(t2, 500)[1:]] == [lo, hi]


def test_mcnemar_is_symmetric_and_is_scipys_binomial_test():
    assert stats.mcnemar_test(0, 0) == 1.0
    for b in range(25):
        for c in range(b):
            assert (
                stats.mcnemar_test(b, c)
                == stats.mcnemar_test(c, b)
                == pytest.approx(sps.binomtest(b, b + c).pvalue, rel=1e-9)
            )
        assert stats.mcnemar_test(b, b) == 1.0


def test_wilson_is_scipys():
    for n in (1, 2, 7, 164, 500):
        for k in range(n + 1):
            bounds = sps.binomtest(k, n).proportion_ci(0.9, method="wilson")
            assert stats.wilson_interval(k, n, 0.9)[1:] == pytest.approx((bounds.low, bounds.high), rel=1e-9)
    for k, n in [(0, 0), (3, 2), (-1, 5)]:
        with pytest.raises(ValueError, match="do not fit"):
            stats.wilson_interval(k, n)


def test_several_quantities_in_one_pass_are_each_alone():
    """Also where they are too many for one matrix product."""
    rng = np.random.default_rng(5)
    grids = {i: rng.random((3, 40)) < 0.3 for i in range(stats.COLUMNS // 3 + 5)}
    together = stats.bootstrap_all(grids, resamples=500)
    assert together == {i: stats.bootstrap_interval(grid, resamples=500) for i, grid in grids.items()}
    with pytest.raises(ValueError, match="differ in their seeds or problems"):
        stats.bootstrap_all({"a": np.zeros((2, 3)), "b": np.zeros((3, 2))})


def test_mcnemar_equals_statsmodels():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables", reason="statsmodels is not installed")
    assert stats.mcnemar_test(29, 7) == pytest.approx(tables.mcnemar([[271, 7], [29, 193]], exact=True).pvalue)


def test_wilson_equals_statsmodels():
    proportion = pytest.importorskip("statsmodels.stats.proportion", reason="statsmodels is not installed")
    assert stats.wilson_interval(322, 500)[1:] == pytest.approx(
        proportion.proportion_confint(322, 500, method="wilson")
    )


def test_holm_equals_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="statsmodels is not installed")
    p = [0.04, 0.001, 0.03, 0.2, 0.03]
    assert stats.holm_adjust(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])


def test_holm_by_hand():
    assert stats.holm_adjust([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm_adjust([0.9, 0.8]) == [1.0, 1.0]
    assert stats.holm_adjust([]) == []


def test_delta_interval_agrees_with_the_plain_wald_anchors_and_never_collapses():
    for (b, c, n), (lo, hi) in {(29, 7, 500): (2.1, 6.7), (25, 5, 164): (5.9, 18.5)}.items():
        got = stats.delta_interval(b, c, n)
        assert got.mean == (b - c) / n
        assert [100 * got.lo, 100 * got.hi] == pytest.approx([lo, hi], abs=0.4)
    still = stats.delta_interval(0, 0, 500)
    assert still.lo == -still.hi < 0
    with pytest.raises(ValueError, match="flips do not fit"):
        stats.delta_interval(3, 3, 5)


def test_delta_interval_covers():
    """Exact coverage by enumerating the trinomial, for discordances the paper's rows show."""
    n = 150
    up, down = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    fits = up + down <= n
    u, d = up[fits], down[fits]
    lo, hi = np.array([stats.delta_interval(int(x), int(y), n)[1:] for x, y in zip(u, d, strict=True)]).T
    for p, q in [(0.058, 0.014), (0.046, 0.158), (0.15, 0.03), (0.05, 0.05)]:
        mass = sps.multinomial.pmf(np.stack([u, d, n - u - d], -1), n, [p, q, 1 - p - q])
        covered = mass[(lo <= p - q) & (p - q <= hi)].sum()
        assert 0.93 <= covered <= 0.97, (p, q, covered)


def test_bootstrap_is_deterministic_and_close_to_scipys():
    values = (np.random.default_rng(3).random(200) < 0.3).astype(float)
    one, two = stats.bootstrap_interval(values), stats.bootstrap_interval(values[None, :])
    assert one == two
    assert one != stats.bootstrap_interval(values, seed=1)
    theirs = sps.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=0).confidence_interval
    assert [one.lo, one.hi] == pytest.approx([theirs.low, theirs.high], abs=0.006)


def test_bootstrap_edge_cases():
    assert stats.bootstrap_interval(np.ones((3, 20))) == (1.0, 1.0, 1.0)
    assert stats.bootstrap_interval([[0.5]]) == (0.5, 0.5, 0.5)
    for bad in ([], [[float("nan")]], np.zeros((2, 2, 2))):
        with pytest.raises(ValueError, match=r"NaN|non-empty"):
            stats.bootstrap_interval(bad)


def test_seed_noise_widens_the_interval_and_only_when_seeds_vary():
    rng = np.random.default_rng(0)
    noisy = (rng.random((3, 300)) < np.array([[0.3], [0.5], [0.7]])).astype(float)
    wide, narrow = stats.bootstrap_interval(noisy), stats.bootstrap_interval(noisy, seeds_vary=False)
    assert wide.hi - wide.lo > 5 * (narrow.hi - narrow.lo)


def test_a_conditional_rate_of_one_run_is_wilsons_and_without_a_condition_it_is_the_bootstrap():
    hits, cases = [1, 0, 0, 1, 0, 0], [1, 1, 0, 1, 0, 1]
    assert stats.ratio_interval(hits, cases) == stats.wilson_interval(2, 4)
    assert stats.ratio_interval([0, 0], [0, 0]) is None
    assert stats.ratio_interval([[0, 0, 0], [0, 0, 0]], [[1, 0, 1], [0, 0, 1]]) == stats.wilson_interval(0, 2)
    grid = np.random.default_rng(0).integers(0, 2, (3, 50)).astype(float)
    assert stats.ratio_interval(grid, np.ones((3, 50))) == pytest.approx(stats.bootstrap_interval(grid))
    with pytest.raises(ValueError, match="one shape"):
        stats.ratio_interval([1, 0], [1])


def test_a_conditional_rate_covers_over_seeds_that_differ_in_condition_and_rate():
    """Rates differ between seeds, problems differ in how often they are cases, and the mean over cases is the truth."""
    rng, held, runs = np.random.default_rng(5), 0, 400
    for _ in range(runs):
        often = rng.uniform(0.1, 0.9, 150)
        cases = (rng.random((4, 150)) < often).astype(float)
        rate = np.clip(0.4 + 0.05 * rng.standard_normal((4, 1)) + 0.3 * (rng.random(150) - 0.5), 0, 1)
        interval = stats.ratio_interval(cases * (rng.random((4, 150)) < rate), cases)
        assert interval is not None
        held += interval.lo <= 0.4 <= interval.hi
    assert 0.92 <= held / runs <= 0.98


def _coverage(seeds: int, problems: int, noise: float, runs: int) -> float:
    """Share of intervals that hold the true mean, for crossed normal seed, problem and cell effects."""
    rng, hits = np.random.default_rng(seeds * 1000 + problems), 0
    for _ in range(runs):
        seed = rng.normal(0, noise, (seeds, 1)) if seeds > 1 else np.zeros((1, 1))
        grid = 0.2 + seed + rng.normal(0, 0.3, problems) + rng.normal(0, 0.3, (seeds, problems))
        interval = stats.bootstrap_interval(grid, resamples=1_000)
        hits += interval.lo <= 0.2 <= interval.hi
    return hits / runs


@pytest.mark.parametrize(("seeds", "problems", "noise"), [(1, 200, 0.0), (3, 200, 0.05), (3, 200, 0.02), (5, 100, 0.1)])
def test_bootstrap_covers(seeds, problems, noise):
    assert 0.93 <= _coverage(seeds, problems, noise, runs=1000) <= 0.97


def test_bootstrap_covers_a_single_run_of_rare_flips():
    rng, hits, runs = np.random.default_rng(5), 0, 1000
    flips = rng.choice([-1.0, 0.0, 1.0], p=[0.014, 0.928, 0.058], size=(runs, 500))
    for row in flips:
        interval = stats.bootstrap_interval(row, resamples=1_000)
        hits += interval.lo <= 0.044 <= interval.hi
    assert 0.93 <= hits / runs <= 0.97


def test_paired_test_is_mcnemar_for_one_run_and_t_otherwise():
    row = np.r_[np.ones(29), -np.ones(7), np.zeros(464)]
    assert stats.paired_test(row) == stats.mcnemar_test(29, 7)
    values = np.random.default_rng(1).normal(0.1, 1, 80)
    assert stats.paired_test(values) == pytest.approx(sps.ttest_1samp(values, 0)[1])
    assert stats.paired_test(np.zeros((2, 9))) == 1.0
    assert stats.paired_test(np.full((2, 9), 0.5)) == 0.0


def test_paired_test_keeps_its_level():
    rng = np.random.default_rng(2)
    p = [
        stats.paired_test(rng.normal(0, 0.1, (3, 1)) + rng.normal(0, 0.3, 100) + rng.normal(0, 0.3, (3, 100)))
        for _ in range(3000)
    ]
    assert 0.03 <= np.mean(np.array(p) < 0.05) <= 0.07


def test_iqm_drops_the_outer_quarters():
    assert stats.interquartile_mean([[1, 2, 3, 4], [5, 6, 7, 100]]) == pytest.approx(np.mean([3, 4, 5, 6]))
    for size in range(1, 12):
        some = np.random.default_rng(size).random(size)
        assert stats.interquartile_mean(some) == pytest.approx(sps.trim_mean(some, 0.25))
    scores = np.random.default_rng(0).random((5, 4))
    interval = stats.iqm_interval(scores)
    assert interval.lo < interval.mean == stats.interquartile_mean(scores) < interval.hi


@pytest.mark.parametrize(
    ("n", "row"),
    [(500, (2.8, 4.0, 5.6, 6.8)), (164, (4.9, 6.9, 9.7, 11.9)), (5000, (0.9, 1.3, 1.8, 2.2))],
)
def test_smallest_difference_reproduces_the_known_table(n, row):
    got = [100 * stats.smallest_difference(n, d) for d in (0.05, 0.1, 0.2, 0.3)]
    assert got == pytest.approx(row, abs=0.06)
    assert stats.smallest_difference(500, 0) == 0
    assert stats.smallest_difference(50, 0.01) == 0.01


def test_smallest_difference_of_an_array_has_that_power():
    rng, problems = np.random.default_rng(4), 100
    d = stats.smallest_difference_of(np.random.default_rng(9).normal(0, 1, problems))
    assert d == pytest.approx(2.8016 / math.sqrt(problems), rel=0.2)
    shown = [stats.paired_test(rng.normal(2.8016 / math.sqrt(problems), 1, problems)) < 0.05 for _ in range(2000)]
    assert 0.76 <= np.mean(shown) <= 0.84


def test_equivalence_equals_statsmodels():
    weightstats = pytest.importorskip("statsmodels.stats.weightstats", reason="statsmodels is not installed")
    rng = np.random.default_rng(8)
    one = rng.normal(0, 1, 60)
    for shift, margin in [(0.0, 0.3), (0.1, 0.3), (-0.25, 0.3), (0.5, 0.3), (0.02, 1.0)]:
        two = one + rng.normal(shift, 1, 60)
        expected = weightstats.ttost_paired(one, two, -margin, margin)[0]
        got = stats.equivalence_test(one - two, margin=margin)
        assert got.p == pytest.approx(expected, rel=1e-9)
        assert got.interval == stats.bootstrap_interval(one - two, confidence=0.9)
        assert got.within == (-margin < got.interval.lo and got.interval.hi < margin)
        assert got.within == (got.p < 0.05)


def test_equivalence_at_the_edges():
    constant = stats.equivalence_test(np.full((3, 40), 0.01))
    assert (constant.p, constant.within) == (0.0, True)
    far = stats.equivalence_test(np.full((3, 40), 0.05))
    assert (far.p, far.within) == (1.0, False)
    with pytest.raises(ValueError, match="positive"):
        stats.equivalence_test(np.zeros(9), margin=0.0)
    noisy = np.random.default_rng(0).normal(0, 0.05, (3, 1)) + np.zeros((3, 500))
    assert not stats.equivalence_test(noisy).within  # a failed difference test with seeds that scatter is no equality
    assert stats.equivalence_test(noisy, seeds_vary=False).p != stats.equivalence_test(noisy).p


@pytest.mark.parametrize(("problems", "within"), [(10, False), (75, False), (76, True), (1000, True)])
def test_rows_that_never_differ_are_the_same_only_on_enough_problems(problems, within):
    """1.645 * sqrt(2) / (P + 2) < 0.03 from 76 problems on: fewer cannot promise that no answer ever differs."""
    none = stats.equivalence_test(np.zeros((3, problems)))
    assert none.within is within
    assert (none.p < 0.05) is within
    assert none.interval == stats.delta_interval(0, 0, problems, confidence=0.9)
    assert none.interval.lo < 0 < none.interval.hi


def test_many_equivalence_tests_in_one_pass_are_the_same_tests():
    rng = np.random.default_rng(5)
    grids = {name: _crossed(rng, 3, 80, 0.02) for name in "ab"} | {"zero": np.zeros((3, 80))}
    together = stats.equivalence_all(grids, margin=0.1)
    assert together == {name: stats.equivalence_test(grid, margin=0.1) for name, grid in grids.items()}


def test_equivalence_keeps_its_level_at_the_margin():
    """The true difference lies just at the margin: it is called the same in at most about 5 % of the data sets."""
    rng = np.random.default_rng(12)
    p = [
        stats.equivalence_test(
            0.03 + rng.normal(0, 0.01, (4, 1)) + rng.normal(0, 0.1, 100) + rng.normal(0, 0.1, (4, 100)), resamples=200
        ).p
        for _ in range(1500)
    ]
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.065


def _crossed(rng: np.random.Generator, seeds: int, problems: int, noise: float, mean: float = 0.0) -> np.ndarray:
    """[S, P] crossed normal effects of seeds, problems (0.1) and cells (0.3) about a mean."""
    return (
        mean + rng.normal(0, noise, (seeds, 1)) + rng.normal(0, 0.1, problems) + rng.normal(0, 0.3, (seeds, problems))
    )


def test_seeds_needed_is_the_inverse_of_the_smallest_difference():
    grid = _crossed(np.random.default_rng(3), 12, 400, 0.03)
    shown = stats.smallest_difference_of(grid)
    assert stats.seeds_needed(grid, target=shown * 1.0001) == 12
    assert stats.seeds_needed(grid, target=shown * 0.999) in (13, 14)
    half = stats.seeds_needed(grid, target=shown, power=0.5)
    assert half is not None
    assert half < 12  # half a width is narrower than what is shown four times in five
    assert stats.seeds_needed(grid, target=1.0) == 2
    assert stats.seeds_needed(grid, target=0.001) is None  # 400 problems never show a tenth of a point
    for target, power in [(0.0, 0.8), (0.03, 1.0)]:
        with pytest.raises(ValueError, match="seeds_needed wants"):
            stats.seeds_needed(grid, target=target, power=power)
    with pytest.raises(ValueError, match="two of each"):
        stats.seeds_needed(grid[0])


@pytest.mark.parametrize(("show", "truth"), [("difference", 0.04), ("equivalence", 0.0)])
def test_so_many_seeds_do_show_it(show, truth):
    """Components from a large pilot; then new data sets with that many seeds show it four times in five."""
    rng = np.random.default_rng(21)
    count = stats.seeds_needed(_crossed(rng, 60, 300, 0.04), target=0.04, show=show)
    assert count is not None
    shown = []
    for _ in range(1200):
        grid = _crossed(rng, count, 300, 0.04, truth)
        p = (
            stats.paired_test(grid)
            if show == "difference"
            else stats.equivalence_test(grid, margin=0.04, resamples=9).p
        )
        shown.append(p < 0.05)
    assert 0.74 <= np.mean(shown) <= 0.87


def test_one_base_is_the_plain_bootstrap_and_bad_shapes_are_refused():
    values = np.random.default_rng(0).random((1, 3, 50))
    assert stats.bootstrap_bases(values) == stats.bootstrap_interval(values[0])
    assert stats.bootstrap_bases(np.ones((2, 2, 5))) == (1.0, 1.0, 1.0)
    for bad in (values[0], np.zeros((2, 0, 5)), np.full((2, 2, 2), np.nan)):
        with pytest.raises(ValueError, match=r"bases, seeds, problems|non-empty|NaN"):
            stats.bootstrap_bases(bad)


def _of_bases(rng: np.random.Generator, bases: int, seeds: int, problems: int, between: float) -> np.ndarray:
    """[B, S, P]: effects of bases, of runs within them, of problems, of problems by base, of cells, about 0.2."""
    return (
        0.2 + rng.normal(0, between, (bases, 1, 1)) + rng.normal(0, 0.03, (bases, seeds, 1))
        + rng.normal(0, 0.2, problems) + rng.normal(0, 0.1, (bases, 1, problems))
        + rng.normal(0, 0.2, (bases, seeds, problems))
    )  # fmt: skip


@pytest.mark.parametrize(("bases", "seeds", "between"), [(5, 2, 0.05), (4, 3, 0.1), (5, 3, 0.0)])
def test_the_interval_over_bases_covers(bases, seeds, between):
    rng, hits, runs = np.random.default_rng(bases * 100 + seeds), 0, 700
    for _ in range(runs):
        interval = stats.bootstrap_bases(_of_bases(rng, bases, seeds, 150, between), resamples=400)
        hits += interval.lo <= 0.2 <= interval.hi
    assert 0.925 <= hits / runs <= 0.98


def test_runs_of_several_bases_are_no_independent_seeds():
    """Pooled as seeds, runs on the same few bases promise too much."""
    rng, pooled, runs = np.random.default_rng(6), 0, 300
    for _ in range(runs):
        values = _of_bases(rng, 4, 5, 150, 0.1)
        interval = stats.bootstrap_interval(values.reshape(20, 150), resamples=300)
        pooled += interval.lo <= 0.2 <= interval.hi
    assert pooled / runs < 0.85
