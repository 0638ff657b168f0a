"""The command line end to end, on a real if very small model: run, stop, kill, resume, refuse."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.runs.store import RunStore

pytestmark = pytest.mark.slow  # every test starts the command line in a process of its own

SMALL = [
    "run.steps = 6", "run.problems = 4", "run.samples = 2", "run.checkpoint_every = 2", "arithmetic.test_size = 300",
    "hf.max_new_tokens = 12",
]  # fmt: skip


def command(out: Path, *extra: str, gin: str = "gin/score_full.gin", small: list[str] = SMALL) -> list[str]:
    bindings = [word for binding in small for word in ("--bind", binding)]
    return [sys.executable, "-m", "harness.run", "--gin", gin, "--out", str(out), "--device", "cpu", *bindings, *extra]


def run(out: Path, *extra: str, gin: str = "gin/score_full.gin", small: list[str] = SMALL):
    return subprocess.run(command(out, *extra, gin=gin, small=small), capture_output=True, text=True, timeout=250)


def folder(out: Path, name: str = "score_full") -> Path:
    return out / "arithmetic" / "arithmetic" / name / "seed0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    done = run(out)
    assert done.returncode == 0, done.stderr
    assert "Acc@t1" in done.stdout
    assert "answer change" in done.stdout
    assert "python -m harness.leaderboard" in done.stdout
    return out


def test_a_run_leaves_everything_later_tools_read(finished: Path) -> None:
    store = RunStore(folder(finished))
    info = store.read_info()
    assert info is not None
    assert info["status"] == "done"
    spent = info["spent"]
    assert (spent["trajectories"], spent["responses"], spent["updates"]) == (48, 96, 6)
    lines = [json.loads(line) for line in (folder(finished) / "metrics.jsonl").read_text().splitlines()]
    assert spent["sampled_tokens"] == round(sum(8 * (s["length_t1"] + s["length_t2"]) for s in lines))
    assert spent["trained_tokens"] == spent["sampled_tokens"]  # every attempt has a KL coefficient
    read = spent["read_tokens"] + spent["sampled_tokens"]
    core = info["engine"]["parameters_without_embeddings"]
    assert 0 < core < info["engine"]["parameters"]
    rows, rest = divmod(spent["flops"] - 2 * core * read, 8 * core)  # each conversation is sampled once
    assert rest == 0
    assert read / 2 < rows <= read  # and fitted once, in one row with those that are equal to it
    assert info["budget"] == {"steps": 6, "problems": 4, "samples": 2}
    assert info["plugins"]["method.score"].startswith("score-harness")
    records = store.read_records()
    assert [(r["when"], len(r["attempts"])) for r in records] == [("before", 2)] * 300 + [("after", 2)] * 300
    steps = [json.loads(line) for line in (folder(finished) / "metrics.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps] == list(range(1, 7))
    assert [s["phase"] for s in steps] == ["1_phase1"] * 2 + ["2_phase2"] * 4
    wanted = {
        "reward_t1", "reward_t2", "acc_t1", "acc_t2", "kl_t1", "kl_t2", "answer_change", "edit_ratio", "truncated_t1",
        "no_answer_t1", "error_t1", "length_t1", "entropy_t1", "grad_norm", "bonus_t2", "bonus_farming", "sampler_gap",
        "advantage_variance_conditioned", "advantage_variance_batch_mean", "advantage_variance_leave_one_out",
    }  # fmt: skip
    assert wanted <= set(steps[-1])
    assert all(s["sampler_gap"] < 1e-5 for s in steps)
    assert (folder(finished) / "model" / "model.safetensors").exists()
    assert not (folder(finished) / "checkpoint").exists()


def test_a_run_that_is_done_says_so(finished: Path) -> None:
    again = run(finished)
    assert again.returncode == 0
    assert "done already" in again.stdout


def test_the_same_key_with_another_config_is_refused_by_binding(finished: Path) -> None:
    other = run(finished, "--bind", "progress.alpha = 3.0")
    assert other.returncode == 2
    assert "progress.alpha: 10.0 -> 3.0" in other.stderr


def test_the_saved_config_runs_again_to_the_same_result(finished: Path, tmp_path: Path) -> None:
    again = run(tmp_path, gin=str(folder(finished) / "config.gin"), small=[])
    assert again.returncode == 0, again.stderr
    assert (folder(tmp_path) / "eval.jsonl").read_bytes() == (folder(finished) / "eval.jsonl").read_bytes()


def test_kill_9_at_random_moments_then_resume_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    moments = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(
            command(tmp_path, "--resume"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(moments.uniform(4, 8))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = run(tmp_path, "--resume")
    assert done.returncode == 0, done.stderr
    assert (folder(tmp_path) / "eval.jsonl").read_bytes() == (folder(finished) / "eval.jsonl").read_bytes()
    killed, whole = ((RunStore(folder(out)).read_info() or {})["spent"] for out in (tmp_path, finished))
    assert killed == whole


def _until(path: Path, lines: int) -> None:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().count("\n") >= lines:
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} never had {lines} lines")


def test_interrupt_saves_locks_and_resumes_exactly(finished: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(command(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _until(folder(tmp_path) / "metrics.jsonl", 1)
    locked = run(tmp_path, "--resume") if process.poll() is None else None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    if locked is not None and locked.returncode != 0:
        assert f"in use by process {process.pid}" in locked.stderr
    if process.returncode == 130:  # else it was done before the signal came
        assert "--resume" in err
        assert json.loads((folder(tmp_path) / "run.json").read_text())["status"] == "interrupted"
        refused = run(tmp_path)
        assert refused.returncode == 2
        assert "unfinished" in refused.stderr
        assert "--resume" in refused.stderr
    done = run(tmp_path, "--resume")
    assert done.returncode == 0, done.stderr
    assert (folder(tmp_path) / "eval.jsonl").read_bytes() == (folder(finished) / "eval.jsonl").read_bytes()


def test_a_half_written_folder_is_taken_up(finished: Path, tmp_path: Path) -> None:
    target = folder(tmp_path)
    target.mkdir(parents=True)
    source = (folder(finished) / "eval.jsonl").read_text()
    (target / "eval.jsonl").write_text(source[: len(source) // 3])  # ends inside a line
    (target / "config.gin").write_text((folder(finished) / "config.gin").read_text())
    done = run(tmp_path, "--resume")
    assert done.returncode == 0, done.stderr
    assert (target / "eval.jsonl").read_text() == source


def test_a_damaged_run_json_is_named(tmp_path: Path) -> None:
    folder(tmp_path).mkdir(parents=True)
    (folder(tmp_path) / "run.json").write_text('{"status": "do')
    refused = run(tmp_path)
    assert refused.returncode == 2
    assert "run.json is damaged" in refused.stderr


def test_an_error_before_the_first_record_leaves_no_folder(micro_folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "no_template"
    subprocess.run(["cp", "-r", str(micro_folder), str(bad)], check=True)
    (bad / "chat_template.jinja").unlink()
    failed = run(tmp_path / "out", "--bind", f"hf.path = '{bad}'")
    assert failed.returncode == 1
    assert "no chat template" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "--resume" not in failed.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--help", "--list", "--print-config"])
def test_looking_around_imports_no_torch(flag: str) -> None:
    script = (
        "import sys\nfrom harness.run import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules, 'torch was imported'\n"
    )
    args = [flag, *(["--gin", "gin/score_full.gin"] if flag == "--print-config" else [])]
    done = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {"--help": "--resume", "--list": "method.score", "--print-config": "run.seed = 0"}[flag] in done.stdout
