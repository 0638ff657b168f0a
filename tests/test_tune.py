"""Tuning: as many trials for every row, on validation problems alone; a rule fixed beforehand picks."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import synthetic

from harness import config
from harness.analysis import leaderboard, tables
from harness.analysis.tuned import Sensitivity, expected_best, markdown, read_trials
from harness.training.tuning import Tune
from harness.tune import main

SMALL = ["run.evaluate_before = False", "run.steps = 2", "run.problems = 4", "run.samples = 2"]
ROWS = ("naive_multi_turn_rl", "sft_self")


def test_the_expected_best_is_the_mean_over_all_draws() -> None:
    scores = [0.3, 0.7, 0.1, 0.7]
    for k, best in enumerate(expected_best(scores), 1):
        assert best == pytest.approx(fmean(max(draw) for draw in itertools.product(scores, repeat=k)))
    assert expected_best([0.4]) == [0.4]


def test_the_best_mean_is_picked_and_the_first_of_equal_ones() -> None:
    scores = {1e-4: {0: 0.5, 1: 0.7}, 1e-3: {0: 0.9, 1: 0.3}, 1e-2: {0: 0.1, 1: 0.2}}
    assert Sensitivity("row", scores).picked == 1e-4
    assert Sensitivity("row", dict(reversed(scores.items()))).picked == 1e-3
    assert Sensitivity("row", {**scores, 1.0: {0: 0.61, 1: 0.6}}).picked == 1.0


def test_every_row_has_the_same_trials(tmp_path: Path) -> None:
    tune = Tune(["score_*", "star"], [1e-4, 3e-4, 1e-3], seeds=(7, 8))
    trials = tune.trials
    assert len(trials) == 3 * len({row for row, _, _ in trials})
    for row in {row for row, _, _ in trials}:
        assert [value for name, _, value in trials if name == row] == [1e-4, 3e-4, 1e-3]
    text = tune.write_suite(tmp_path).read_text()
    assert text.count("-with-0.001.gin") == len(trials) / 3
    assert "run.eval_split = \\'validation\\'" in text or "run.eval_split = 'validation'" in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"values": [1e-3]}, "at least two different values"),
        ({"values": [1e-3, 1e-3]}, "at least two different values"),
        ({"metric": "acc"}, "tune.metric is one of"),
        ({"parameter": "lr"}, "tune.parameter is a binding's name"),
        ({"rows": ["scor_full"]}, "nearest: score_full"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(arguments: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Tune(**{"rows": ["score_full"], "values": [1e-3, 1e-2], **arguments})  # type: ignore[arg-type]


def test_only_whole_rows_are_picked_from(tmp_path: Path) -> None:
    names = {f"{row}-with-{value}": (row, value) for row in ("a", "b") for value in (1, 2)}
    rows: list[dict[str, Any]] = []
    for name in list(names)[:3]:
        rows = synthetic.records((0.4, 0.3, 0.1, 0.5), 1, split="validation")
        rows += synthetic.records((0.9, 0.1, 0.1, 0.5), 1)  # a test split is there: it is not looked at
        synthetic.write_run(tmp_path, name, 7, rows)
    found, missing = read_trials(tmp_path, names, [7], "acc_last")
    assert [row.row for row in found] == ["a"]
    assert missing == ["b-with-2 seed 7"]
    right = [r["attempts"][-1]["correct"] for r in rows if r.get("split") == "validation"]
    assert found[0].scores[1][7] == pytest.approx(fmean(right))
    assert "Not finished: b-with-2 seed 7." in markdown(found, missing, "hf.lr", "acc_last")


def test_a_tuned_row_says_so_in_the_table(tmp_path: Path) -> None:
    told = "hf.lr = 0.001 of 0.001, 0.01, by mean acc_last on validation problems; 2 trials with 1 seed each"
    for seed in (1, 2):
        config_lines = [f"run.tuned = {told!r}"] if seed else []
        synthetic.write_run(tmp_path, "row", seed, synthetic.records((0.4, 0.3, 0.1, 0.5), seed), config=config_lines)
    assert f"tuned: {told}" in tables.as_csv(leaderboard.build_board(tmp_path))


@pytest.mark.slow
def test_an_interrupted_tuning_goes_on_and_never_asks_a_test_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "tune.gin", tmp_path / "out"
    file.write_text(
        f"tune.rows = {list(ROWS)!r}\ntune.values = [1e-3, 3e-3]\ntune.seeds = [7]\ntune.problems = 20\n"
        f"tune.bindings = {SMALL!r}\n"
    )
    words = ["--gin", str(file), "--out", str(out), "--jobs", "1"]
    with subprocess.Popen([sys.executable, "-m", "harness.tune", *words], cwd=config.ROOT) as first:
        while not (done := [p for p in out.rglob("run.json") if json.loads(p.read_text()).get("status") == "done"]):
            assert first.poll() is None
            time.sleep(0.1)
        first.send_signal(signal.SIGINT)
        for child in Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGINT)  # as a terminal does
    assert first.returncode == 130
    kept = {path: path.read_bytes() for path in done}
    assert main(words) == 0
    assert {path: path.read_bytes() for path in kept} == kept
    runs = sorted(path.parent for path in out.rglob("run.json"))
    assert len(runs) == len(ROWS) * 2
    for run in runs:
        records = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
        assert {record["split"] for record in records} == {"validation"}
        assert len(records) == 20
    shown = capsys.readouterr().out
    assert shown.startswith("# Tuning of hf.lr")
    assert (out / "tuning.pdf").stat().st_size > 1000
    for row in ROWS:
        text = (out / "rows" / f"{row}.gin").read_text()
        assert f"include 'gin/{row}.gin'" in text
        assert "run.tuned = 'hf.lr = " in text
        printed = subprocess.run(
            [sys.executable, "-m", "harness.run", "--gin", str(out / "rows" / f"{row}.gin"), "--print-config"],
            cwd=config.ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert f"run.name = '{row}'" in printed.stdout
