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

from harness import config, suite
from harness import run as run_command
from harness.runs.store import IN_USE, RunStore
from harness.training import grid
from harness.training.experiment import Experiment
from harness.training.grid import Clock, Launch, Suite, build_cells, settle_cell

TINY = ["run.steps = 2", "run.problems = 2", "run.samples = 2", "arithmetic.test_size = 4", "hf.max_new_tokens = 8"]


@pytest.fixture(autouse=True)
def _prepared() -> None:
    for name, root in (("run", Experiment), ("suite", Suite)):
        config.prepare_gin(root, name)


def suite_file(folder: Path, rows: list[str], bindings: list[str], **more: object) -> Path:
    lines = [f"suite.{key} = {value!r}" for key, value in {"rows": rows, "bindings": bindings, **more}.items()]
    (folder / "suite.gin").write_text("\n".join(lines) + "\n")
    return folder / "suite.gin"


def command(file: Path, out: Path, *words: str) -> list[str]:
    words = ("--gin", str(file), "--out", str(out), "--device", "cpu", *words)
    return [sys.executable, "-m", "harness.suite", *words]


def run(file: Path, out: Path, *words: str):
    return subprocess.run(command(file, out, *words), capture_output=True, text=True, timeout=250)


@pytest.mark.slow
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


@pytest.mark.slow
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
    store.acquire_lock()  # nobody holds it any more
    store.release_lock()
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


@pytest.mark.slow
def test_a_cluster_engine_runs_a_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitit = pytest.importorskip("submitit", reason="submitit is not installed")
    monkeypatch.setenv("PYTHONPATH", str(config.ROOT))
    (cell,) = build_cells(Suite(["base"], bindings=TINY[3:]), tmp_path / "out", ["--device", "cpu"])
    executor = submitit.AutoExecutor(folder=str(tmp_path / "logs"), cluster="local")
    job = executor.submit(Launch(cell))
    assert job.result() == "done"
    assert cell.status == "done"
    refused = run(suite_file(tmp_path, ["base"], TINY[3:]), tmp_path / "out", "--cluster", "slrm")
    assert refused.returncode == 2
    assert "slrm" in refused.stdout


def test_a_process_that_dies_without_a_word_is_recorded(tmp_path: Path) -> None:
    (cell,) = build_cells(Suite(["base"], launcher=("python", "-c", "import os; os.kill(os.getpid(), 9)")), tmp_path)
    with pytest.raises(RuntimeError, match="base seed 0: killed by SIGKILL"):
        Launch(cell)()
    assert (cell.status, cell.run_info["error"]) == ("failed", "killed by SIGKILL")


def test_another_processs_cell_and_a_finished_one_are_left_alone(tmp_path: Path) -> None:
    (cell,) = build_cells(Suite(["base"]), tmp_path)
    cell.folder.mkdir(parents=True)
    store = RunStore(cell.folder)
    store.acquire_lock()
    store.update_run_json(status="running", name="base")
    before = (cell.folder / "run.json").read_bytes()
    assert settle_cell(cell, IN_USE) is None
    assert settle_cell(cell, 1) is None  # locked: whatever this exit status means, the run is not ours
    assert (cell.folder / "run.json").read_bytes() == before
    store.update_run_json(status="done")
    store.release_lock()
    before = (cell.folder / "run.json").read_bytes()
    for code in (2, 1, -9, IN_USE):
        assert settle_cell(cell, code) is None
    assert (cell.folder / "run.json").read_bytes() == before


@pytest.mark.parametrize("text", ['{"status": "do', "[]", "\\xff", "null", "[" * 3000])
def test_a_damaged_run_json_is_never_overwritten(text: str, tmp_path: Path) -> None:
    (cell,) = build_cells(Suite(["base"]), tmp_path)
    cell.folder.mkdir(parents=True)
    path = cell.folder / "run.json"
    path.write_bytes(text.encode().replace(b"\\xff", b"\xff"))
    before = path.read_bytes()
    error = settle_cell(cell, 1)
    assert error is not None
    assert "run.json" in error
    assert path.read_bytes() == before
    assert cell.status == "damaged"


def test_a_refusal_is_told_and_changes_nothing(tmp_path: Path) -> None:
    (cell,) = build_cells(Suite(["base"]), tmp_path)
    cell.folder.mkdir(parents=True)
    RunStore(cell.folder).update_run_json(status="interrupted", error=None)
    (cell.folder / "console.log").write_text("error: an older one\nbusy\nerror: task x is now version 2;\n  move it\n")
    assert settle_cell(cell, 2) == "task x is now version 2; move it"
    assert cell.status == "interrupted"


@pytest.mark.slow
def test_a_cell_in_other_hands_is_left_and_one_over_its_time_is_ended_cleanly(tmp_path: Path) -> None:
    bindings = [*TINY[1:], "run.steps = 100000", "run.evaluate_before = False"]
    file, out = suite_file(tmp_path, ["score_full"], bindings), tmp_path / "out"
    (cell,) = build_cells(Suite(["score_full"], bindings=bindings, cell_minutes=1e-6), out, ["--device", "cpu"])
    process = suite._start(cell)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not cell.steps_done:
        time.sleep(0.1)
    second = run(file, out)  # another suite on the same grid: it says so, with an exit status of its own
    assert second.returncode == IN_USE, second.stdout + second.stderr
    assert "another process works on it" in second.stdout
    assert cell.status == "running"
    clock = Clock(cell, process)
    while (code := clock.poll()) is None:
        time.sleep(0.1)
    reason = "longer than suite.cell_minutes = 1e-06"
    assert settle_cell(cell, code, clock.reason) == reason
    assert (cell.status, cell.run_info["error"]) == ("failed", reason)
    assert RunStore(cell.folder).last_checkpoint() is not None  # cleanly: it can be gone on with
    with pytest.raises(ValueError, match="cell_minutes"):
        Suite(["base"], cell_minutes=-1)


def test_a_cell_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "GRACE_SECONDS", 0.3)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(100)"
    (cell,) = build_cells(Suite(["base"], launcher=("python", "-c", deaf), cell_minutes=0.01), tmp_path)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="longer than"):
        Launch(cell)()
    assert time.monotonic() - began < 30


def test_bindings_of_the_rows_reach_every_cell_and_what_no_row_would_see_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = suite_file(tmp_path, ["score_full", "base"], ["run.problems = 2"]), str(tmp_path / "out")

    def main(*words: str, files: tuple[str, ...] = (str(file),)) -> tuple[int, str]:
        gin = [word for name in files for word in ("--gin", name)]
        code = suite.main([*gin, "--out", out, *words])
        said = capsys.readouterr()
        return code, said.out + said.err

    binds = ("--bind", "run.steps = 2", "--bind", "suite.seeds=[0, 1]", "--bind", "BETA1 = 0.5")
    code, said = main(*binds, "--commands")
    assert code == 0
    commands = [shlex.split(line) for line in said.splitlines()]
    assert len(commands) == 4
    for words in commands:
        given = [words[i + 1] for i, word in enumerate(words) if word == "--bind"]
        assert given == ["run.problems = 2", "run.steps = 2", "BETA1 = 0.5"]
    code, said = main(*binds, "--status")
    assert code == 0
    assert said.count("0/2") == 2
    for words, message in (
        (("--bind", "run.seed = 3"), "bind suite.seeds"),
        (("--bind", "run.sed = 3"), "nearest: seed"),
        (("--bind", "suite.seeds = [0]\nrun.steps = 2"), "one --bind for the suite and another"),
    ):
        code, said = main(*words, "--status")
        assert code == 2
        assert message in said
    (tmp_path / "lost.gin").write_text("run.steps = 2\n")
    code, said = main("--status", files=(str(file), str(tmp_path / "lost.gin")))
    assert code == 2
    assert "binds run.steps, which no row would see" in said
    code, said = main("--status", files=(str(file), "gin/on/math_qwen2.5_0.5b.gin"))  # includes alone
    assert code == 2
    assert "MODEL" in said
    assert "in suite.on" in said
    code, said = main("--status", files=("gin/score_full.gin",))
    assert code == 2
    assert "gin/score_full.gin is a row's file, a suite file binds suite.rows" in said


SHOW = "import os, time; print('GPU', os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True); time.sleep(0.3)"


@pytest.mark.parametrize(
    ("outer", "count", "words", "told"),
    [
        (None, 2, [], ["0", "1"]),
        (None, 2, ["--jobs", "1"], ["0", "0"]),
        (None, 1, ["--jobs", "2", "--device", "cuda"], ["0", "0"]),
        ("3,GPU-8d,5", 3, [], ["3", "GPU-8d"]),
        ("3,7,-1,5", 2, [], ["3", "7"]),  # CUDA stops at the -1, and so does torch's count
        ("3,7", 2, ["--device", "cpu"], ["3,7", "3,7"]),
        (None, 0, [], ["None", "None"]),
    ],
)
def test_a_suite_gives_each_run_a_gpu_of_its_own(
    outer: str | None, count: int, words: list[str], told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes; only the number of GPUs is made up."""
    monkeypatch.setattr(suite.devices, "count_devices", lambda: count)
    if outer is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", outer)
    file = suite_file(tmp_path, ["base"], TINY[3:], seeds=[0, 1], launcher=("python", "-c", SHOW))
    suite.main(["--gin", str(file), "--out", str(tmp_path / "out"), *words])
    logs = sorted(path.read_text().split()[1] for path in tmp_path.glob("out/*/*/*/*/console.log"))
    assert logs == sorted(told)


@pytest.mark.parametrize(
    ("launcher", "count", "groups"),
    [
        (("python", "-m"), 3, [("0",), ("1",), ("2",)]),
        (("accelerate", "launch", "--num_processes", "2", "-m"), 5, [("0", "1"), ("2", "3")]),
        (("torchrun", "--nproc_per_node=4", "-m"), 4, [("0", "1", "2", "3")]),
        (("accelerate", "launch", "--config_file", "x.yaml", "-m"), 4, [("0", "1", "2", "3")]),
        (("accelerate", "launch", "--num_processes", "8", "-m"), 2, [("0", "1")]),
        (("python", "-m"), 0, []),
    ],
)
def test_a_run_of_several_processes_takes_as_many_gpus(
    launcher: tuple[str, ...], count: int, groups: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(suite.devices, "count_devices", lambda: count)
    placed = suite._place(Suite(["base"], launcher=launcher), "auto", None)
    assert placed == (groups, len(groups) or suite._cores())
    assert suite._place(Suite(["base"], launcher=launcher), "cuda:1", None) == ([], 1)


SLURM = ["timeout_min=600", "slurm_partition=gpu", "gpus_per_node=1", "cpus_per_task=4", "mem_gb=64"]


def test_slurm_gets_the_script_that_the_docs_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """submitit's own executor writes and submits it; only `sbatch` and `srun` are stand-ins that keep the script."""
    pytest.importorskip("submitit", reason="submitit is not installed")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("srun", "exit 0"), ("sbatch", f"cp $1 {tmp_path}/script.sh; echo Submitted batch job 12")):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    file = suite_file(tmp_path, ["base"], TINY[3:], seeds=[0, 1, 2])
    options = [word for option in SLURM for word in ("--cluster-option", option)]
    assert suite.main(["--gin", str(file), "--out", str(tmp_path / "out"), "--cluster", "slurm", *options]) == 0
    flags = {line for line in (tmp_path / "script.sh").read_text().splitlines() if line.startswith("#SBATCH")}
    flags = {line for line in flags if not line.startswith(("#SBATCH --output", "#SBATCH --error"))}  # their paths
    page = (config.ROOT / "docs" / "multi_gpu.md").read_text()
    assert flags == {line.strip() for line in page.splitlines() if line.strip().startswith("#SBATCH") and "=" in line}
    assert all(f"--cluster-option {option}" in page for option in SLURM)


def test_the_launchers_words_in_the_docs_are_ones_that_accelerate_knows() -> None:
    from accelerate.commands.launch import launch_command_parser

    page = (config.ROOT / "docs" / "multi_gpu.md").read_text().replace("\\\n", " ")
    lines = [line.strip().removeprefix("srun bash -c '") for line in page.splitlines() if "-m harness.run" in line]
    lines = [line for line in lines if "--num_machines" in line]
    assert len(lines) == 2
    for line in lines:
        words = shlex.split(line.rstrip("'").replace("$HEAD", "10.0.0.1").replace("$RANK_OF_MACHINE", "1"))
        args = launch_command_parser().parse_args([w.replace("$SLURM_NODEID", "1") for w in words[2:]])
        assert (args.num_machines, args.num_processes, args.machine_rank) == (2, 16, 1)
        assert args.training_script == "harness.run"
        rest = run_command.make_parser("run").parse_args(args.training_script_args)
        assert (rest.processes, rest.model) == (16, "Qwen/Qwen2.5-1.5B-Instruct")
        config.parse_gin(rest.gin, [f"MODEL={rest.model}"])


@pytest.mark.parametrize("option", ["timeout_min=soon", "slurm_partitions=gpu", "time_min=3", "gpus_per_node=one"])
def test_a_cluster_option_that_submitit_does_not_know_is_one_message(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed")
    file = suite_file(tmp_path, ["base"], TINY[3:])
    words = ["--gin", str(file), "--out", str(tmp_path / "out"), "--cluster", "local", "--cluster-option", option]
    assert suite.main(words) == 2
    assert "submitit refuses" in capsys.readouterr().out


def test_text_of_run_json_and_of_errors_is_shown_never_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = suite_file(tmp_path, ["base"], TINY[3:]), tmp_path / "out"
    folder = out / "arithmetic" / "arithmetic" / "base" / "seed0"
    folder.mkdir(parents=True)
    error = "on [/x] [red]gloo[/red] \x1b[2J\x9b1m \u202egpj"
    (folder / "run.json").write_text(json.dumps({"status": "failed\x1b[1m", "error": error, "seconds": "[/y]"}))
    assert suite.main(["--gin", str(file), "--out", str(out), "--status"]) == 0
    said = capsys.readouterr().out
    assert "[/x] [red]gloo[/red]" in " ".join(said.split())
    assert "[/y]" in said
    assert not set(said) & {"\x1b", "\x9b", "\u202e"}
    # A cell that fails with such a text does not end the suite; nor does a plugin that cannot be imported.
    code = "import sys; sys.stderr.write('error: on [/x] \\x1b[2J'); sys.exit(1)"
    other = suite_file(tmp_path, ["base"], TINY[3:], launcher=("python", "-c", code))
    monkeypatch.setattr(config.registry, "load_plugins", lambda: {"bad [/x]": "Error: [/y] \x1b"})
    assert suite.main(["--gin", str(other), "--out", str(tmp_path / "out2"), "--jobs", "1"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "bad [/x] failed to import" in said
    assert "failed: exit status 1: on [/x] \\x1b[2J" in said
    assert "\x1b" not in said


@pytest.mark.slow
def test_the_tracked_results_can_be_continued() -> None:
    """Every tracked run of the suite has the config that the suite would run today; a fourth seed is only new."""
    config.parse_gin(["gin/suites/embedded.gin"], ["suite.seeds = [0, 1, 2, 3]"])
    found = build_cells(
        config.build_root("suite"), config.ROOT / "results" / "embedded"
    )  # raises where a config differs
    tracked = {path.parent.name for path in config.ROOT.glob("results/embedded/*/*/*/seed0")}
    assert len(tracked) == 17
    status = {(cell.name, cell.seed): cell.status for cell in found}
    assert {status[name, seed] for name in tracked for seed in range(3)} == {"done"}
    assert {status[name, 3] for name in tracked} == {"new"}


def test_the_grid_is_checked_before_anything_runs(tmp_path: Path) -> None:
    found = build_cells(Suite(["score_full", "base"], seeds=(0, 3), on=(), bindings=TINY), tmp_path)
    assert [(cell.name, cell.seed, cell.steps) for cell in found] == [
        ("score_full", 0, 2), ("score_full", 3, 2), ("base", 0, 0), ("base", 3, 0),
    ]  # fmt: skip
    assert found[1].folder == tmp_path / "arithmetic" / "arithmetic" / "score_full" / "seed3"
    with pytest.raises(ValueError, match="nearest: score_full"):
        build_cells(Suite(["score_ful"]), tmp_path)
    with pytest.raises(config.ConfigError, match=r"(?s)row gin/base.gin: .*nearest: seed"):
        build_cells(Suite(["base"], bindings=["run.sed = 1"]), tmp_path)
    with pytest.raises(config.ConfigError, match="two rows of the suite"):
        build_cells(Suite(["base", "score_full"], bindings=["run.name = 'same'"]), tmp_path)
    config.parse_gin(["gin/base.gin"], ["run.seed = 3"])
    config.build_root("run")
    found[3].folder.mkdir(parents=True)
    RunStore(found[3].folder).save_config(config.operative_config())
    with pytest.raises(config.ConfigError, match=r"another config.*\n.*arithmetic.test_size: 1000 -> 4"):
        build_cells(Suite(["base"], seeds=(3,), bindings=TINY), tmp_path)
    RunStore(found[3].folder).update_run_json(
        status="failed", error="no such model"
    )  # nothing computed: it may be begun anew
    assert len(build_cells(Suite(["base"], seeds=(3,), bindings=TINY), tmp_path)) == 1
    (found[3].folder / "eval.jsonl").write_text("{}\n")
    with pytest.raises(config.ConfigError, match="another config"):
        build_cells(Suite(["base"], seeds=(3,), bindings=TINY), tmp_path)


@pytest.mark.slow
def test_the_shipped_suites_build_and_smoke_has_every_row(tmp_path: Path) -> None:
    for path in sorted((config.ROOT / "gin" / "suites").glob("*.gin")):
        config.parse_gin([str(path)], [])
        built: Suite = config.build_root("suite")
        found = build_cells(built, tmp_path / path.stem)
        assert len(found) == len(built.row_files) * len(built.seeds)
        if path.stem == "smoke":
            assert {cell.name for cell in found} == {row.stem for row in (config.ROOT / "gin").glob("*.gin")}


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
