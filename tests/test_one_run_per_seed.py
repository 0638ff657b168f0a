"""A seed counts once: copies, second runs, links and folders that contradict their run.json are told, never pooled."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import synthetic

from harness.analysis import leaderboard, plots, scaling, tables
from harness.runs import reader

RATES = synthetic.RATES["score_full"]


def write(root: Path, seed: int, draw: int | None = None, **more: Any) -> Path:
    draw = seed if draw is None else draw
    more = {"logged": synthetic.steps(4, draw), **more}
    rows = synthetic.records(RATES, draw, problems=12) + synthetic.records(RATES, draw, problems=6, samples=4)
    return synthetic.seal(synthetic.write_run(root, "score_full", seed, rows, **more))


def tables_of(root: Path) -> str:
    return tables.render_markdown(leaderboard.build_board(root)).split(f"## {tables.LEFT_OUT}")[0].rstrip()


def told(root: Path) -> dict[str, str]:
    return {trouble.path: trouble.message for trouble in leaderboard.build_board(root).troubles}


@pytest.mark.parametrize("copy", ["suite_copy", "a_copy"])
def test_a_suite_copied_beside_itself_changes_no_table(copy: str, tmp_path: Path) -> None:
    synthetic.write_suite(tmp_path / "suite", problems=10, samples=4)
    alone = tables_of(tmp_path), scaling.render_markdown(scaling.scaling_curves(reader.read_runs(tmp_path)[0]))
    shutil.copytree(tmp_path / "suite", tmp_path / copy)
    assert (
        tables_of(tmp_path),
        scaling.render_markdown(scaling.scaling_curves(reader.read_runs(tmp_path)[0])),
    ) == alone
    first, second = sorted(["suite", copy])
    run = "runs/synthetic/tiny/score_full/seed2"
    assert told(tmp_path)[f"{second}/{run}"] == (
        f"seed 2 of this row is in the tables from {first}/{run}: this is a copy"
    )
    (scope,) = plots.read_scopes(tmp_path)[0]
    assert [run.seed for run in scope.runs["score_full"]] == [1, 2, 3]


def test_of_two_runs_of_one_seed_the_first_whole_one_stays(tmp_path: Path) -> None:
    """As after `make run`, which writes to results/runs beside results/embedded."""
    for seed in (0, 1):
        write(tmp_path / "embedded", seed)
    alone = tables_of(tmp_path)
    write(tmp_path / "later", 0, draw=7)
    assert tables_of(tmp_path) == alone
    place = "runs/synthetic/tiny/score_full/seed0"
    message = told(tmp_path)[f"later/{place}"]
    assert message == (
        f"seed 0 of this row is in the tables from embedded/{place}: this is another run of it, which differs"
    )
    (tmp_path / "embedded" / place / "eval.jsonl").unlink()
    assert [run.label for run in reader.read_runs(tmp_path)[0]] == [
        "embedded/runs/synthetic/tiny/score_full/seed1", f"later/{place}",
    ]  # fmt: skip


def test_another_version_of_a_task_or_another_model_is_no_second_run(tmp_path: Path) -> None:
    write(tmp_path / "a", 0)
    write(tmp_path / "b", 0, draw=2, task_version="2", eval_tasks={"synthetic": "2"})
    write(tmp_path / "c", 0, draw=3, model="org/other")
    runs, troubles = reader.read_runs(tmp_path)
    assert (len(runs), troubles) == (3, [])
    assert len(scaling.scaling_curves(runs)) == 3
    write(tmp_path / "d", 0, draw=4, policy="renamed", model="tiny")  # one model under two names is one row
    assert "is in the tables from a/" in next(iter(told(tmp_path).values()))


def test_a_seed_copied_to_another_seed_is_seen(tmp_path: Path) -> None:
    first = write(tmp_path, 0)
    copied = first.with_name("seed1")
    shutil.copytree(first, copied)
    runs, (trouble,) = reader.read_runs(tmp_path)
    assert [run.seed for run in runs] == [0]
    assert trouble.message == "run.json: seed is 0; the folder says 1"
    info = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps({**info, "seed": 1}))
    runs, (trouble,) = reader.read_runs(tmp_path)
    assert [run.seed for run in runs] == [0]
    assert (trouble.left_out, trouble.message) == (
        True, "its records and training log are those of runs/synthetic/tiny/score_full/seed0: a copy",
    )  # fmt: skip
    (copied / "metrics.jsonl").write_text((copied / "metrics.jsonl").read_text().replace("0.3", "0.4"))
    runs, (trouble,) = reader.read_runs(tmp_path)
    assert [run.seed for run in runs] == [0, 1]  # a training of its own may end in the same answers
    assert not trouble.left_out
    assert "its training log is not" in trouble.message


def test_an_untrained_row_has_the_same_records_for_every_seed(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        rows = synthetic.records(synthetic.RATES["base"], 0, problems=6)
        synthetic.seal(synthetic.write_run(tmp_path, "base", seed, rows, trained=False))
    runs, troubles = reader.read_runs(tmp_path)
    assert ([run.seed for run in runs], troubles) == ([0, 1, 2], [])


@pytest.mark.parametrize(("level", "key"), [(1, "name"), (2, "policy"), (3, "task")])
def test_a_folder_that_contradicts_its_run_json_is_left_out(level: int, key: str, tmp_path: Path) -> None:
    folder = write(tmp_path, 0)
    for _ in range(level):
        folder = folder.parent
    folder.rename(folder.with_name("moved"))
    runs, (trouble,) = reader.read_runs(tmp_path)
    assert not runs
    assert trouble.message.startswith(f"run.json: {key} is ")
    assert trouble.message.endswith('; the folder says "moved"')


@pytest.mark.parametrize("name", ["seed-1", "seed1.5", "seed00", "seed", "seed0.bak", "copy of seed0", "seed\u0661"])
def test_a_run_in_a_folder_that_is_no_seed_is_told(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path, 0)
    folder.rename(folder.with_name(name))
    runs, (trouble,) = reader.read_runs(tmp_path)
    assert not runs
    assert trouble.path.endswith(name)
    assert "a run's folder is called seed0, seed1, ..." in trouble.message


def test_links_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", 0)
    root = tmp_path / "results"
    write(root, 1)
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(root / "runs")
    (root / "loop").symlink_to(root)
    (root / "top").symlink_to("/")
    (root / "nowhere").symlink_to("nowhere")
    place = root / "runs" / "synthetic" / "tiny" / "score_full"
    (place / "seed2").symlink_to(place / "seed1")
    (place / "seed3").symlink_to("nowhere")
    runs, troubles = reader.read_runs(root)
    here = "runs/synthetic/tiny/score_full"
    assert {run.label for run in runs} == {f"linked/{here}/seed0", f"{here}/seed1"}
    assert {trouble.path: trouble.message for trouble in troubles} == {
        "loop": "is a link to a folder above the results: not followed",
        "top": "is a link to a folder above the results: not followed",
        f"{here}/seed2": f"is a link to {here}/seed1, which is read there",
        f"{here}/seed3": "is no folder",
    }


def test_what_cannot_be_listed_or_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, 0)
    real_open, real_list = open, os.scandir

    def refused(path: Any, *rest: Any, **more: Any) -> Any:
        if Path(path).name == "eval.jsonl":
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, *rest, **more)

    monkeypatch.setattr("builtins.open", refused)  # the tests may run as root, whom no permission stops
    runs, (trouble,) = reader.read_runs(tmp_path)
    assert (runs, trouble.message) == ([], "eval.jsonl cannot be read: Permission denied")
    monkeypatch.undo()

    def unlisted(path: Any) -> Any:
        if Path(path) == folder.parent:
            raise PermissionError(13, "Permission denied", str(path))
        return real_list(path)

    monkeypatch.setattr(os, "scandir", unlisted)
    runs, (trouble,) = reader.read_runs(tmp_path)
    assert (runs, trouble.message) == ([], "cannot be listed: Permission denied")


def test_runs_at_different_depths_and_with_names_that_are_no_text(tmp_path: Path) -> None:
    write(tmp_path, 0)
    write(tmp_path / "runs" / "synthetic" / "tiny" / "score_full", 1)
    bad = tmp_path / os.fsdecode(b"b\xff")
    shutil.copytree(tmp_path / "runs" / "synthetic", bad)
    board = leaderboard.build_board(tmp_path)
    assert board.sections[0].rows[0].seeds == (0, 1)
    for render in tables.FORMATS.values():
        render(board).encode()
    assert any("b\\xff" in trouble.path or "b\\udcff" in trouble.path for trouble in board.troubles)


def test_digests_and_counts_in_run_json_are_compared(tmp_path: Path) -> None:
    folder = write(tmp_path, 0)
    assert len(reader.read_runs(tmp_path)[0]) == 1
    eval_file, text = folder / "eval.jsonl", (folder / "eval.jsonl").read_text()
    eval_file.write_text(text.replace("+ 1 =", "+ 2 =", 1))
    runs, (trouble,) = reader.read_runs(tmp_path)
    assert (runs, trouble.message) == ([], "eval.jsonl is not what it was when the run ended (its SHA-256 differs)")
    eval_file.write_text(text)
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({key: value for key, value in info.items() if key != "sha256"}))
    eval_file.write_text("".join(text.splitlines(keepends=True)[:-1]))
    for whens in (("before", "after"), ("after",)):
        runs, (trouble,) = reader.read_runs(tmp_path, whens=whens)
        assert (runs, trouble.message) == (
            [], "eval.jsonl holds 23 records of 'after synthetic test T=0.7 policy 2'; the run ended with 24",
        )  # fmt: skip
    (folder / "config.gin").write_text("x = 1\n")
    eval_file.write_text(text)
    (folder / "run.json").write_text(json.dumps(info))
    assert reader.read_runs(tmp_path)[1][0].message.startswith("config.gin is not what it was")
