"""Many runs from one command: what failed is recorded, what is done is not run twice, a killed suite leaves nothing."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import config
from harness.experiment import Experiment
from harness.grid import Launch, Suite, cells
from harness.store import RunStore

TINY = ["run.steps = 2", "run.problems = 2", "run.samples = 2", "arithmetic.test_size = 4", "hf.max_new_tokens = 8"]


@pytest.fixture(autouse=True)
def _prepared() -> None:
    for name, root in (("run", Experiment), ("suite", Suite)):
        config.prepare(root, name)


def suite_file(folder: Path, rows: list[str], bindings: list[str], **more: object) -> Path:
    lines = [f"suite.{key} = {value!r}" for key, value in {"rows": rows, "bindings": bindings, **more}.items()]
    (folder / "suite.gin").write_text("\n".join(lines) + "\n")
    return folder / "suite.gin"


def command(file: Path, out: Path, *words: str) -> list[str]:
    words = ("--gin", str(file), "--out", str(out), "--device", "cpu", *words)
    return [sys.executable, "-m", "harness.suite", *words]


def run(file: Path, out: Path, *words: str):
    return subprocess.run(command(file, out, *words), capture_output=True, text=True, timeout=250)


def test_a_failed_cell_is_recorded_and_what_is_done_is_not_run_twice(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gin"
    bad.write_text("include 'gin/base.gin'\nrun.name = 'bad'\nhf.path = '/no/such/model'\nhf.name = 'arithmetic'\n")
    file, out = suite_file(tmp_path, [str(bad), "base"], TINY[3:]), tmp_path / "out"
    first = run(file, out, "--jobs", "1")
    assert first.returncode == 1, first.stderr
    folders = {name: out / "arithmetic" / "arithmetic" / name / "seed0" for name in ("bad", "base")}
    info = json.loads((folders["bad"] / "run.json").read_text())
    assert info["status"] == "failed"
    assert "/no/such/model" in info["error"]
    assert "/no/such/model" in first.stdout.replace("\n", "")
    assert json.loads((folders["base"] / "run.json").read_text())["status"] == "done"
    before = {path: path.stat().st_mtime_ns for path in folders["base"].iterdir()}
    second = run(file, out)
    assert second.returncode == 1
    assert "1 of 2 runs are done already" in second.stdout
    assert {path: path.stat().st_mtime_ns for path in folders["base"].iterdir()} == before
    listed = run(file, out, "--commands").stdout.splitlines()
    assert len(listed) == 1
    assert shlex.split(listed[0])[1:5] == ["-m", "harness.run", "--gin", str(bad)]


def test_a_stopped_and_a_killed_suite_lose_nothing_and_leave_no_process(tmp_path: Path) -> None:
    long = [*TINY[1:], "run.steps = 100000", "run.checkpoint_every = 1000"]
    file, out = suite_file(tmp_path, ["score_full"], long), tmp_path / "out"
    folder = out / "arithmetic" / "arithmetic" / "score_full" / "seed0"
    process = _started(file, out, folder, reached=1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    info = json.loads((folder / "run.json").read_text())
    assert info["status"] == "interrupted"
    found = RunStore(folder).last_checkpoint()
    assert found is not None
    process = _started(file, out, folder, reached=found[0]["step"] + 1)
    process.kill()
    process.wait(60)
    store, deadline = RunStore(folder), time.monotonic() + 60
    while time.monotonic() < deadline:  # the cell saves a checkpoint, then ends
        if json.loads((folder / "run.json").read_text())["status"] == "interrupted":
            break
        time.sleep(0.1)
    time.sleep(0.5)
    store.lock()  # nobody holds it any more
    store.close()
    again = RunStore(folder).last_checkpoint()
    assert again is not None
    assert again[0]["step"] > found[0]["step"]


def _started(file: Path, out: Path, folder: Path, reached: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(command(file, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        lines = (folder / "metrics.jsonl").read_bytes().count(b"\n") if (folder / "metrics.jsonl").exists() else 0
        if lines > reached:
            return process
        assert process.poll() is None, (folder / "console.log").read_text()
        time.sleep(0.1)
    raise AssertionError("the suite did not start")


def test_a_cluster_engine_runs_a_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitit = pytest.importorskip("submitit", reason="submitit is not installed")
    monkeypatch.setenv("PYTHONPATH", str(config.ROOT))
    (cell,) = cells(Suite(["base"], bindings=TINY[3:]), tmp_path / "out", ["--device", "cpu"])
    executor = submitit.AutoExecutor(folder=str(tmp_path / "logs"), cluster="local")
    job = executor.submit(Launch(cell))
    assert job.result() == "done"
    assert cell.status == "done"
    refused = run(suite_file(tmp_path, ["base"], TINY[3:]), tmp_path / "out", "--cluster", "slrm")
    assert refused.returncode == 2
    assert "slrm" in refused.stdout


def test_a_process_that_dies_without_a_word_is_recorded(tmp_path: Path) -> None:
    (cell,) = cells(Suite(["base"], launcher=("python", "-c", "import os; os.kill(os.getpid(), 9)")), tmp_path)
    with pytest.raises(RuntimeError, match="base seed 0: killed by SIGKILL"):
        Launch(cell)()
    assert (cell.status, cell.info["error"]) == ("failed", "killed by SIGKILL")


def test_the_grid_is_checked_before_anything_runs(tmp_path: Path) -> None:
    grid = cells(Suite(["score_full", "base"], seeds=(0, 3), on=(), bindings=TINY), tmp_path)
    assert [(cell.name, cell.seed, cell.steps) for cell in grid] == [
        ("score_full", 0, 2), ("score_full", 3, 2), ("base", 0, 0), ("base", 3, 0),
    ]  # fmt: skip
    assert grid[1].folder == tmp_path / "arithmetic" / "arithmetic" / "score_full" / "seed3"
    with pytest.raises(ValueError, match="nearest: score_full"):
        cells(Suite(["score_ful"]), tmp_path)
    with pytest.raises(config.ConfigError, match=r"(?s)row gin/base.gin: .*nearest: seed"):
        cells(Suite(["base"], bindings=["run.sed = 1"]), tmp_path)
    with pytest.raises(config.ConfigError, match="two rows of the suite"):
        cells(Suite(["base", "score_full"], bindings=["run.name = 'same'"]), tmp_path)
    config.parse(["gin/base.gin"], ["run.seed = 3"])
    config.build("run")
    grid[3].folder.mkdir(parents=True)
    RunStore(grid[3].folder).save_config(config.operative())
    with pytest.raises(config.ConfigError, match=r"another config.*\n.*arithmetic.test_size: 1000 -> 4"):
        cells(Suite(["base"], seeds=(3,), bindings=TINY), tmp_path)


def test_the_shipped_suites_build_and_smoke_has_every_row(tmp_path: Path) -> None:
    for path in sorted((config.ROOT / "gin" / "suites").glob("*.gin")):
        config.parse([str(path)], [])
        suite: Suite = config.build("suite")
        grid = cells(suite, tmp_path / path.stem)
        assert len(grid) == len(suite.files) * len(suite.seeds)
        if path.stem == "smoke":
            assert {cell.name for cell in grid} == {row.stem for row in (config.ROOT / "gin").glob("*.gin")}


def test_help_needs_no_torch() -> None:
    script = (
        "import sys, harness.suite\n"
        "try: harness.suite.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "--cluster" in done.stdout
