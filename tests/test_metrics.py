"""harness.metrics against the paper's integer table, hand-worked records and brute-force votes; its evaluate module."""

import itertools
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import metrics

ROOT = Path(__file__).parents[1]

# Counts derived from the percentages of arXiv 2409.12917v2, Tables 1-3: n, t1, t2, i->c, c->i, then printed percents
# t1, t2, delta, i->c, c->i (Self-Refine's HumanEval t2 is misprinted as 52.5 there), fix rate, break rate.
PAPER = {
    "MATH Base": (500, 263, 207, 23, 79, 52.6, 41.4, -11.2, 4.6, 15.8, 9.7, 30.0),
    "MATH Self-Refine": (500, 264, 259, 16, 21, 52.8, 51.8, -1.0, 3.2, 4.2, 6.8, 8.0),
    "MATH STaR D": (500, 277, 206, 27, 98, 55.4, 41.2, -14.2, 5.4, 19.6, 12.1, 35.4),
    "MATH STaR D+": (500, 268, 270, 13, 11, 53.6, 54.0, 0.4, 2.6, 2.2, 5.6, 4.1),
    "MATH Pair-SFT D": (500, 262, 271, 27, 18, 52.4, 54.2, 1.8, 5.4, 3.6, 11.3, 6.9),
    "MATH Pair-SFT D+": (500, 275, 275, 0, 0, 55.0, 55.0, 0, 0, 0, 0, 0),
    "MATH SCoRe": (500, 300, 322, 29, 7, 60.0, 64.4, 4.4, 5.8, 1.4, 14.5, 2.3),
    "HumanEval Base": (164, 88, 93, 13, 8, 53.7, 56.7, 3.0, 7.9, 4.9, 17.1, 9.1),
    "HumanEval Self-Refine": (164, 88, 86, 16, 18, 53.7, 52.4, -1.2, 9.8, 11.0, 21.1, 20.5),
    "HumanEval Pair-SFT": (164, 92, 89, 7, 10, 56.1, 54.3, -1.8, 4.3, 6.1, 9.7, 10.9),
    "HumanEval SCoRe": (164, 86, 106, 25, 5, 52.4, 64.6, 12.2, 15.2, 3.0, 32.1, 5.8),
}


def attempt(
    correct, answer: str | None = "", *, text=None, status="ok", tokens=5, truncated=False, by="policy"
) -> dict[str, Any]:
    answer = ("42" if correct else "13") if answer == "" else answer
    return {
        "text": f"so \\boxed{{{answer}}}" if text is None else text,
        "answer": answer,
        "reward": float(correct),
        "correct": bool(correct),
        "status": status,
        "tokens": tokens,
        "truncated": truncated,
        "by": by,
    }


def record(identity, *attempts, sample=0):
    return {"when": "after", "task": "t", "id": str(identity), "sample": sample, "attempts": list(attempts)}


def paper_records(row):
    n, t1, t2, fixed, broken, *_ = PAPER[row]
    kept = t1 - broken
    cells = [(1, 1)] * kept + [(1, 0)] * broken + [(0, 1)] * fixed + [(0, 0)] * (n - kept - broken - fixed)
    assert sum(second for _, second in cells) == t2
    return [record(f"p{i:03}", attempt(a), attempt(b)) for i, (a, b) in enumerate(cells)]


@pytest.mark.parametrize("row", PAPER)
def test_the_papers_table_reproduces(row):
    n, t1, t2, fixed, broken, *printed = PAPER[row]
    got = metrics.summarize(paper_records(row))
    assert (got["n"], got["correct"], got["i_to_c_count"], got["c_to_i_count"]) == (n, [t1, t2], fixed, broken)
    shares = [*got["acc"], got["delta"], got["i_to_c"], got["c_to_i"], got["fix_rate"], got["break_rate"]]
    assert [round(100 * x, 1) for x in shares] == pytest.approx(printed)
    assert got["delta"] == pytest.approx(got["i_to_c"] - got["c_to_i"])


def test_every_rate_by_hand():
    got = metrics.summarize(
        [
            record(0, attempt(0, "1", text="abcd"), attempt(1, "2", text="abxd", tokens=7)),
            record(1, attempt(0, None, status="no_answer"), attempt(0, None, status="no_answer", text="")),
            record(2, attempt(1), attempt(1)),
            record(3, attempt(0, None, status="truncated", truncated=True), attempt(0, "9", status="error")),
            record(4, attempt(0, "5", truncated=True), attempt(0, "6", status="timeout")),
        ]
    )
    assert (got["n"], got["problems"], got["samples"], got["turns"]) == (5, 5, 1, 2)
    assert got["answer_change"] == 3 / 5  # problems 0, 3, 4; two missing answers are the same answer
    assert got["unchanged"] == 1 / 5  # problem 2
    assert got["no_answer"] == [0.2, 0.2]
    assert got["truncated"] == [0.4, 0.0]
    assert (got["error"], got["timeout"]) == ([0.0, 0.2], [0.0, 0.2])
    assert got["tokens"] == pytest.approx([5.0, 5.4])
    assert got["tokens_per_problem"] == pytest.approx(10.4)
    assert (got["fix_rate"], got["break_rate"]) == (1 / 4, 0.0)
    assert got["majority"] is got["pass"] is None


def test_decisions_by_hand():
    table = metrics.tabulate(
        [
            record(0, attempt(0, "1"), attempt(1, "2")),  # wrong, changed, mended
            record(1, attempt(0, "1"), attempt(0, "3")),  # wrong, changed in vain
            record(2, attempt(0, None), attempt(0, None)),  # wrong, no answer twice: no change
            record(3, attempt(1, "2"), attempt(0, "3")),  # right, spoilt
            record(4, attempt(1, "2"), attempt(1, "2")),
            record(5, attempt(1, "2"), attempt(1, "4/2")),  # right, changed, still right
        ]
    )
    assert table.problem_values("change_if_wrong").tolist() == [1, 1, 0, 0, 0, 0]
    assert table.problem_values("change_if_right").tolist() == [0, 0, 0, 1, 0, 1]
    assert table.problem_values("right_if_changed").tolist() == [1, 0, 0, 0, 0, 0]
    rates = {
        name: metrics.METRICS[name].table_mean(table)
        for name in ("change_if_wrong", "change_if_right", "right_if_changed")
    }
    assert list(rates.values()) == [2 / 3, 2 / 3, 1 / 2]


def test_edit_ratio_is_an_insertion_deletion_distance_between_0_and_1():
    assert metrics.edit_ratio("", "") == 0
    assert metrics.edit_ratio("abc", "abc") == 0
    assert metrics.edit_ratio("abc", "xyz") == 1
    assert metrics.edit_ratio("abcd", "abxd") == 2 / 8  # one deletion, one insertion
    table = metrics.tabulate([record(0, attempt(0, text="abcd"), attempt(0, text="abxd"))])
    assert table.problem_values("edit_ratio").tolist() == [0.25]


def test_given_attempts_cost_no_tokens_and_a_copied_program_is_seen():
    got = metrics.summarize(
        [
            record(0, attempt(0, None, text="def f(): 1\n", by="given", tokens=9), attempt(0, None, text="def f(): 1")),
            record(1, attempt(0, None, text="def f(): 1", by="given", tokens=9), attempt(1, None, text="def f(): 2")),
        ]
    )
    assert got["tokens_per_problem"] == 5
    assert got["unchanged"] == 0.5
    assert got["acc"] == [0, 0.5]


def test_one_attempt_has_no_delta_and_ten_have_first_against_last():
    one = metrics.summarize([record(0, attempt(1)), record(1, attempt(0))])
    assert one["acc"] == [0.5]
    assert all(one[key] is None for key in ("delta", "i_to_c", "fix_rate", "answer_change", "edit_ratio", "unchanged"))
    ten = metrics.summarize([record(0, *[attempt(i == 9) for i in range(10)])])
    assert ten["acc"] == [0] * 9 + [1]
    assert (ten["delta"], ten["i_to_c_count"], ten["fix_rate"], ten["break_rate"]) == (1, 1, 1, None)


def test_rates_are_means_over_problems_however_many_samples_each_has():
    rows = [record("a", attempt(1), attempt(1), sample=i) for i in range(3)] + [record("b", attempt(0), attempt(0))]
    got = metrics.summarize(rows)
    assert (got["n"], got["problems"], got["samples"], got["acc"]) == (4, 2, None, [0.5, 0.5])


def test_order_of_records_does_not_matter_and_values_follow_sorted_ids():
    rows = [record(i, attempt(i % 2), attempt(1)) for i in range(7)]
    assert metrics.summarize(rows) == metrics.summarize(rows[::-1])
    table = metrics.tabulate(rows[::-1])
    assert table.problem_ids == sorted(str(i) for i in range(7))
    assert table.problem_values("i_to_c").tolist() == [1.0, 0, 1, 0, 1, 0, 1]
    with pytest.raises(ValueError, match="no metric is called 't3'"):
        table.problem_values("t3")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no records"),
        ([record(0, attempt(1)), record(0, attempt(1))], "two records for sample 0"),
        ([record(0, attempt(1)), record(1, attempt(1), attempt(1))], "has 2 attempts; the first one has 1"),
        ([record(0)], "has 0 attempts"),
    ],
)
def test_bad_records_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        metrics.summarize(rows)


def test_pass_at_k_is_the_share_of_subsets_with_a_hit():
    for n, c, k in itertools.product(range(1, 7), range(7), range(1, 7)):
        if c > n or k > n:
            with pytest.raises(ValueError, match="pass@k"):
                metrics.pass_at(n, c, k)
            continue
        subsets = list(itertools.combinations(range(n), k))
        expected = sum(min(s) < c for s in subsets) / len(subsets)
        assert metrics.pass_at(n, c, k) == pytest.approx(expected)
    assert metrics.pass_at(200, 3, 50) == pytest.approx(1 - math.comb(197, 50) / math.comb(200, 50))


def test_majority_breaks_ties_evenly_and_ignores_missing_answers():
    assert metrics.majority_accuracy(["a", "a", "b"], [True, True, False]) == 1
    assert metrics.majority_accuracy(["a", "b"], [True, False]) == 0.5
    assert metrics.majority_accuracy(["a", "b", None], [True, False, False]) == 0.5
    assert metrics.majority_accuracy([None, None, "a"], [False, False, True]) == 1
    assert metrics.majority_accuracy([None, None], [False, False]) == 0
    assert metrics.majority_accuracy(["a", "a", "b", "b", "c"], [True, True, False, False, False]) == 0.5


def test_majority_at_k_is_the_mean_over_all_subsets_or_approaches_it():
    rng = np.random.default_rng(0)
    pools = [[("x", "y", None, "z")[i] for i in rng.integers(0, 4, 6)] for _ in range(20)]
    rows = [
        record(f"p{p:02}", attempt(a == "x", a), attempt(a == "x", a), sample=s)
        for p, pool in enumerate(pools)
        for s, a in enumerate(pool)
    ]
    votes, right = metrics.tabulate(rows).vote_pools(0)
    for k in range(1, 7):
        exact = [
            np.mean([metrics.majority_accuracy([pool[i] for i in s], [pool[i] == "x" for i in s]) for s in subsets])
            for pool in pools
            for subsets in [list(itertools.combinations(range(6), k))]
        ]
        assert metrics.majority_curve(votes, right, k) == pytest.approx(np.array(exact))
        assert metrics.majority_curve(votes, right, k, subsets=5).mean() == pytest.approx(np.mean(exact), abs=0.08)
    summary = metrics.summarize(rows)
    assert list(summary["majority"]) == [1, 2, 4, 6]
    assert summary["majority"] == summary["majority_last"]
    assert summary["pass"][1] == pytest.approx(summary["acc"][0])
    with pytest.raises(ValueError, match="between 1 and 6"):
        metrics.majority_at(votes, right, 7)


def test_uneven_pools_are_refused():
    table = metrics.tabulate([record(0, attempt(1)), record(0, attempt(1), sample=1), record(1, attempt(1))])
    with pytest.raises(ValueError, match="between 1 and 2 samples"):
        table.vote_pools(0)


def test_importing_metrics_is_cheap():
    heavy = "{'torch', 'pandas', 'evaluate'}"
    code = f"import sys, harness.metrics, harness.metrics.stats; print(*(set(sys.modules) & {heavy}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    for key in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"):
        monkeypatch.setenv(key, "1")
    import evaluate

    return evaluate.load(str(ROOT / "harness/metrics/self_correction"), cache_dir=str(tmp_path))


@pytest.mark.slow
def test_evaluate_loads_it_by_path(loaded):
    got = loaded.compute(predictions=[["3", "5"], ["5", "5"], ["5", "3"]], references=["5", "5", "5"])
    assert got["acc"] == pytest.approx([2 / 3, 2 / 3])
    assert (got["i_to_c_count"], got["c_to_i_count"], got["answer_change"]) == (1, 1, 2 / 3)
    assert got["mcnemar_p"] == 1.0


def test_evaluate_takes_a_grader(loaded):
    def grade(text, reference):
        answer = text.rpartition("=")[2]
        return answer == reference, answer or None

    got = loaded.compute(predictions=[["x=3", "so x=5"], ["x=", "x=5"]], references=["5", "5"], grader=grade)
    assert got["acc"] == [0, 1]
    assert got["no_answer"] == [0.5, 0]
