"""harness.scaling: a worked pool, the direction of a true effect, and the command line."""

import json

import numpy as np
import pytest
import synthetic

from harness import metrics
from harness.analysis import scaling
from harness.runs import reader
from harness.scaling import main as run_scaling


def record(p, sample, first, second, gold="g"):
    attempts = [
        {"text": a or "", "answer": a, "reward": float(a == gold), "correct": a == gold, "tokens": t,
         "status": "ok" if a else "no_answer", "truncated": False, "by": "policy"}
        for a, t in ((first, 3), (second, 5))
    ]  # fmt: skip
    return {"when": "after", "task": "t", "id": f"p{p}", "sample": sample, "temperature": 0.7, "attempts": attempts}


def test_a_pool_worked_by_hand(tmp_path):
    # Firsts: g x g x -> a vote of 2 ties or agrees; corrections: all g -> always right.
    rows = [record(0, s, "g" if s % 2 else "x", "g") for s in range(4)]
    rows += [record(1, s, "x", None) for s in range(4)]  # never right; corrections give no answer
    synthetic.write_run(tmp_path, "row", 1, rows)
    (curve,) = scaling.scaling_curves(reader.read_runs(tmp_path)[0])
    assert (curve.samples, curve.problems, curve.tokens) == (4, 2, (3.0, 5.0))
    assert curve.single.mean == 0.25
    two, four = curve.points
    assert (two.budget, four.budget) == (2, 4)
    assert [two.accuracy[s].mean for s in ("parallel", "corrected")] == [0.25, 0.5]
    # Both: one sample's two answers vote: (x, g) ties half the time, (g, g) is right.
    assert two.accuracy["both"].mean == pytest.approx(0.5 * (0.5 * 0.5 + 0.5 * 1.0))
    assert four.accuracy["parallel"].mean == 0.25
    assert four.difference.mean == two.difference.mean == 0.25
    assert two.gain["corrected"].mean == 0.25


def test_corrections_that_help_win_at_equal_budget(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for p in range(80):
        for s in range(8):
            first = rng.random() < 0.35
            second = first or rng.random() < 0.5
            wrong = [f"w{rng.integers(3)}" for _ in range(2)]
            rows.append(record(p, s, "g" if first else wrong[0], "g" if second else wrong[1]))
    for seed in (1, 2):
        synthetic.write_run(tmp_path, "row", seed, rows, logged=synthetic.steps(3, seed))  # logs of their own: no copy
    (curve,) = scaling.scaling_curves(reader.read_runs(tmp_path)[0])
    assert [point.budget for point in curve.points] == [2, 4, 8]
    assert curve.seeds == (1, 2)
    assert all(point.difference.lo > 0 for point in curve.points)
    assert all(point.p < 0.05 for point in curve.points)
    table = metrics.tabulate(rows)
    assert curve.points[-1].accuracy["parallel"].mean == pytest.approx(metrics.majority_at(*table.vote_pools(0), 8))


def test_the_command_line(tmp_path, capsys):
    root = synthetic.write_suite(tmp_path / "r", problems=12, samples=4, seeds=(1,))
    assert run_scaling([str(root), "--row", "score_full"]) == 0
    text = capsys.readouterr().out
    assert text.count("## ") == 1
    assert "temperature 0.7" in text
    assert "parallel +7.4 points" in text
    assert run_scaling([str(root), "--format", "json", "--out", str(tmp_path / "s" / "x.json")]) == 0
    data = json.loads((tmp_path / "s" / "x.json").read_text())
    assert {curve["name"] for curve in data} == {"base", "single_turn_rl", "score_full"}
    assert run_scaling([str(tmp_path / "none")]) == 2
    (tmp_path / "empty").mkdir()
    assert run_scaling([str(tmp_path / "empty")]) == 0
    assert "No finished run holds a pool" in capsys.readouterr().out
