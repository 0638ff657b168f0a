"""Time to escape: the rule, censoring, and Kaplan and Meier against a textbook and statsmodels."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import synthetic
from statsmodels.duration.survfunc import SurvfuncRight

from harness.analysis import leaderboard, tables
from harness.analysis.escape import Look, Time, has_escaped, median_time, read_looks, survival, time_to_escape
from harness.metrics.stats import delta_interval
from harness.runs import reader

# Remission of 21 patients on 6-MP (Freireich et al. 1963), the worked example of most textbooks on survival.
EVENTS = [6, 6, 6, 7, 10, 13, 16, 22, 23]
CENSORED = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
PATIENTS = [Time(i, at, True) for i, at in enumerate(EVENTS)] + [Time(i, at, False) for i, at in enumerate(CENSORED)]


def test_kaplan_meier_against_the_textbook() -> None:
    steps = survival(PATIENTS)
    assert [(step.at, step.at_risk, step.events) for step in steps] == [
        (6, 21, 3), (7, 17, 1), (10, 15, 1), (13, 12, 1), (16, 11, 1), (22, 7, 1), (23, 6, 1),
    ]  # fmt: skip
    assert [round(step.share.mean, 3) for step in steps] == [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448]
    # R's survfit(..., conf.type = "log-log"), as printed in textbooks: 0.620 to 0.952 at 6 weeks
    assert steps[0].share.lo == pytest.approx(0.620, abs=5e-4)
    assert steps[0].share.hi == pytest.approx(0.952, abs=5e-4)
    assert median_time(steps)[0] == 23
    assert math.isinf(median_time(steps)[2])


def test_kaplan_meier_against_statsmodels() -> None:
    times, seen = [time.at for time in PATIENTS], [int(time.escaped) for time in PATIENTS]
    theirs, ours = SurvfuncRight(times, seen), survival(PATIENTS)
    assert [step.at for step in ours] == list(theirs.surv_times)
    for step, share, error in zip(ours, np.asarray(theirs.surv_prob), np.asarray(theirs.surv_prob_se), strict=True):
        assert step.share.mean == pytest.approx(share, abs=1e-12)
        half = 1.959963984540054 * error / (share * abs(math.log(share)))  # Greenwood's, on the log(-log) scale
        assert step.share.lo == pytest.approx(share ** math.exp(half), abs=1e-12)
        assert step.share.hi == pytest.approx(share ** math.exp(-half), abs=1e-12)


def test_everyone_or_no_one_escapes() -> None:
    assert survival([Time(0, 5.0, False)]) == []
    assert median_time([]) == (math.inf,) * 3
    (step,) = survival([Time(0, 5.0, True), Time(1, 5.0, True)])
    assert tuple(step.share) == (0.0, 0.0, 1.0)


def look(step: int, up: int, down: int = 0, n: int = 100) -> Look:
    return Look({"updates": step}, 0.5, delta_interval(up, down, n))


def test_the_rule() -> None:
    assert not has_escaped(look(1, 4))  # four points
    assert has_escaped(look(1, 12))
    assert not has_escaped(look(1, 25, 19))  # six points, and the interval holds 0
    yes, no = (lambda step: look(step, 12)), (lambda step: look(step, 0))
    assert time_to_escape(0, [no(10), yes(20), no(30), yes(40), yes(50)]) == Time(0, 40, True)
    assert time_to_escape(0, [no(10), no(20), yes(30)]) == Time(0, 30, False)  # not confirmed
    assert time_to_escape(0, [yes(10), yes(20)]) == Time(0, 10, True)
    assert time_to_escape(0, [yes(10)]) is None
    assert time_to_escape(0, [yes(10), yes(20)], "flops") is None


def test_tables_and_logs(tmp_path: Path) -> None:
    for seed in (1, 2):
        rows = synthetic.records((0.5, 0.2, 0.1, 0.2), seed, problems=20)
        for name, collapse in (("score_full", False), ("naive_multi_turn_rl", True)):
            logged = synthetic.steps(16, seed, collapse=collapse)
            synthetic.write_run(tmp_path, name, seed, rows, logged=logged, config=["run.evaluate_every = 2"])
    board = leaderboard.build_board(tmp_path)
    naive, full = board.sections[0].escapes
    assert [(time.at, time.escaped) for time in naive.times] == [(16, False), (16, False)]
    # at step 6 delta is 9 points, with bounds from 0.2; at 4 it is 6, from -2
    assert [(time.at, time.escaped) for time in full.times] == [(6, True), (6, True)]
    text = tables.render_markdown(board)
    assert "| naive_multi_turn_rl | 0 of 2 | not reached [not reached, not reached] | &gt;16, &gt;16 |" in text
    assert "| score_full | 2 of 2 | 6 [6, not reached] | 6, 6 |" in text
    assert "\nescape," in tables.as_csv(board)
    told = {row["name"]: row for row in json.loads(tables.as_json(board))["tables"][0]["escapes"]}
    assert [time["escaped"] for time in told["score_full"]["times"]] == [True, True]
    assert told["naive_multi_turn_rl"]["median"] == [None, None, None]
    runs, _ = reader.read_runs(tmp_path, whens=("after",))
    assert len(read_looks(runs[0])) == 8
