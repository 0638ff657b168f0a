"""Damage, odd verifiers, numbers that are not finite, kills, full disks: told in one sentence, and nothing is lost."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import Problem, Verdict, config, register, run, verify
from harness.evaluate import main as run_evaluate
from harness.runs.integrity import file_sha256
from harness.runs.store import RunStore, StoreError, dump_json_line, is_disk_full, read_jsonl
from harness.tasks.arithmetic import Arithmetic
from harness.training.experiment import Experiment

pytestmark = pytest.mark.slow  # whole runs, through the command line

SMALL = [
    "run.steps = 3", "run.problems = 3", "run.samples = 2", "run.checkpoint_every = 1", "arithmetic.test_size = 6",
    "hf.max_new_tokens = 6",
]  # fmt: skip
ODD_TEXT = "a\u2028b\u2029c\x85d\x0be\x00f\ud800g"
HERE = Path(__file__).parent


@register("verifier", "odd_verifier")
@dataclass(frozen=True)
class Odd:
    """Right in every other problem, and odd in a way from call `after` on."""

    how: str = ""
    after: int = 14  # the first update: 6 problems x 2 attempts come before it
    where: str = ""

    calls = [0]  # noqa: RUF012 - one count for all instances

    def __call__(self, problem: Problem, text: str) -> Any:
        self.calls[0] += 1
        right = len(problem.id) % 2 == 0
        verdict = Verdict(float(right), right, "ok", ODD_TEXT)
        if self.calls[0] <= self.after or not self.how:
            return verdict
        if self.how == "raises":
            raise RuntimeError("cannot grade this")
        if self.how == "hangs":
            time.sleep(100)
        if self.how == "removes":
            Path(self.where).unlink(missing_ok=True)
        odd = {
            "nan": {"reward": float("nan")}, "inf": {"reward": float("inf")}, "number": {"answer": 7},
            "text": {"correct": "no"}, "status": {"status": "weird"},
        }  # fmt: skip
        return None if self.how == "none" else dataclasses.replace(verdict, **odd.get(self.how, {}))


@register("task", "odd_task")
@dataclass(frozen=True)
class OddTask(Arithmetic):
    """Arithmetic with something wrong in its problems."""

    fault: str = ""

    @property
    def test(self) -> tuple[Problem, ...]:
        problems = list(super().test)
        if self.fault == "twice":
            problems[3] = dataclasses.replace(problems[3], id=problems[2].id)
        if self.fault == "trained":
            problems[3] = dataclasses.replace(self.train[5], id="other")
        if self.fault == "trained id":
            problems[3] = dataclasses.replace(problems[3], id=self.train[5].id)
        if self.fault == "surrogate":
            problems[3] = dataclasses.replace(problems[3], prompt="\udc80")
        return tuple(problems)


def start(out: Path, *bindings: str, resume: bool = False) -> int:
    Odd.calls[0] = 0
    words = [word for binding in (*SMALL, *bindings) for word in ("--bind", binding)]
    more = ["--resume"] if resume else []
    return run.main(["--gin", "gin/score_full.gin", "--out", str(out), "--device", "cpu", *words, *more])


def odd(how: str = "", **more: Any) -> list[str]:
    return [
        "run.task = @task.arithmetic()", "arithmetic.verifier = @verifier.odd_verifier()",
        f"odd_verifier.how = {how!r}", *(f"odd_verifier.{name} = {value!r}" for name, value in more.items()),
    ]  # fmt: skip


def folder(out: Path) -> Path:
    return out / "arithmetic" / "arithmetic" / "score_full" / "seed0"


def info(where: Path) -> dict[str, Any]:
    return json.loads((where / "run.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    assert start(out) == 0
    return folder(out)


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, folder(tmp_path))
    return folder(tmp_path)


def more(where: Path) -> int:
    bindings = ["run.evaluations = [@evaluation.attempts()]", "attempts.count = 3", "attempts.problems = 4"]
    return run_evaluate([str(where), "--device", "cpu", *(w for b in bindings for w in ("--bind", b))])


def test_every_character_comes_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(tmp_path, *odd()) == 0
    lines = (folder(tmp_path) / "eval.jsonl").read_bytes().decode().removesuffix("\n").split("\n")
    assert len(lines) == 12
    assert {a["answer"] for line in lines for a in json.loads(line)["attempts"]} == {ODD_TEXT}
    assert info(folder(tmp_path))["records"] == {
        "before arithmetic test T=0 policy 2": 6, "after arithmetic test T=0 policy 2": 6
    }  # fmt: skip
    before = file_sha256(folder(tmp_path) / "eval.jsonl")
    assert start(tmp_path, *odd()) == 0
    assert verify.main([str(folder(tmp_path))]) == 0
    out = capsys.readouterr().out
    assert "the same" in out
    assert str(folder(tmp_path)) in out, "on a pipe a run's folder stands in one line"
    assert file_sha256(folder(tmp_path) / "eval.jsonl") == before


def test_lone_surrogates_and_halves_of_pairs_are_json(tmp_path: Path) -> None:
    assert json.loads(dump_json_line({"a": "\udfff\ud800 \U0001f600"}))["a"] == "\udfff\ud800 \U0001f600"
    with pytest.raises(ValueError, match="JSON"):
        dump_json_line({"a": float("nan")})
    store = RunStore(tmp_path)
    store.write_checkpoint({"step": 1, "text": "\ud83d" + "\ude00"}, lambda folder: None)
    found = store.last_checkpoint()
    assert found is not None
    assert found[0]["step"] == 1


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda d: d.replace(b"e", b"\xff", 1), "line 1"),
        (lambda d: d[:1] + b"#" + d[1:], "line 1"),
        (lambda d: d.replace(b"\n", b"\n\n", 1), "line 2"),
        (lambda d: b"\xef\xbb\xbf" + d, "line 1"),
        (lambda d: d[:-9], "line 12 is cut off"),
        (lambda d: d[: d.rindex(b"\n", 0, -1) + 1], "SHA-256"),
        (lambda d: d.replace(b"Compute", "Com\u2028pute".encode(), 1), "SHA-256"),
    ],
)
def test_a_finished_run_is_only_read(
    copy: Path, tmp_path: Path, harm: Callable[[bytes], bytes], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once with its SHA-256, once as a run of before these were recorded, where the lines themselves must tell."""
    path = copy / "eval.jsonl"
    harmed = harm(path.read_bytes())
    path.write_bytes(harmed)
    later = ("sha256", "records", "digest", "bindings", "parent", "difference")
    old = {key: value for key, value in info(copy).items() if key not in later} | {"format": 1}
    for recorded in (True, False):
        if not recorded:
            (copy / "run.json").write_text(json.dumps(old))
        if not recorded and message == "SHA-256":
            continue
        for again in (lambda: start(tmp_path), lambda: start(tmp_path, resume=True), lambda: more(copy)):
            assert again() == 2
            told = capsys.readouterr().err
            assert (message if not recorded else "SHA-256") in told
            assert "Traceback" not in told
            assert path.read_bytes() == harmed


@pytest.mark.parametrize("file", ["model/model.safetensors", "config.gin"])
def test_a_changed_model_or_config_is_not_used(copy: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = (copy / file).read_bytes()
    middle = len(data) // 2
    (copy / file).write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    assert more(copy) == 2
    assert f"{file} is not what it was" in capsys.readouterr().err


def test_verify_tells_another_verdict(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "eval.jsonl"
    text = path.read_text()
    path.write_text(text.replace('"correct":true', '"correct":false', 1))
    assert verify.main([str(copy)]) == 1
    told = capsys.readouterr().out
    assert "correct was False, is True" in told
    assert "eval.jsonl is not what it was" in told
    gold = json.loads(text.splitlines()[0])["gold"]
    path.write_text(text.replace(f'"gold":"{gold}"', '"gold":"another"', 1))
    assert verify.main([str(copy)]) == 1
    assert "its gold answer is not the problem's" in capsys.readouterr().out
    path.write_text(text + text.splitlines(keepends=True)[-1])
    assert verify.main([str(copy)]) == 1
    assert "has 7 records, it had 6" in capsys.readouterr().out
    assert verify.main([str(copy.parent)]) == 2


@pytest.mark.parametrize("how", ["nan", "inf", "none", "number", "text", "status", "raises", "hangs"])
def test_an_odd_verifier_ends_the_run_and_is_named(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(tmp_path, *odd(how), "run.verifier_seconds = 0.3") == 1
    told = capsys.readouterr().err
    assert "Traceback" not in told
    found = info(folder(tmp_path))
    assert found["status"] == "failed"
    assert "verifier Odd" in found["error"]
    assert "problem '" in found["error"]
    batch = json.loads((folder(tmp_path) / "failed_batch.json").read_text())
    assert batch["update"] == 1
    assert batch["problem"] in found["error"]
    assert len(read_jsonl(folder(tmp_path) / "eval.jsonl")[0]) == 6


def test_broken_weights_end_the_run_where_they_broke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(tmp_path, "hf.lr = 1e20") == 1
    assert "Traceback" not in capsys.readouterr().err
    found = info(folder(tmp_path))
    assert found["status"] == "failed"
    assert "at update 2" in found["error"]
    steps = read_jsonl(folder(tmp_path) / "metrics.jsonl")[0]
    assert [step["step"] for step in steps] == [1]
    kept = RunStore(folder(tmp_path)).last_checkpoint()
    assert kept is not None
    assert kept[0]["step"] == 1
    assert json.loads((folder(tmp_path) / "failed_batch.json").read_text())["update"] == 2


@pytest.mark.parametrize("file", ["eval.jsonl", "config.gin", "metrics.jsonl"])
def test_a_file_that_goes_in_mid_run_is_missed(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = str(folder(tmp_path) / file)
    assert start(tmp_path, *odd("removes", after=40, where=where)) == 1
    assert info(folder(tmp_path))["status"] == "failed"
    assert file in info(folder(tmp_path))["error"]
    assert "Traceback" not in capsys.readouterr().err


def test_a_resumed_run_sees_the_same_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(tmp_path, *odd("raises")) == 1
    where = folder(tmp_path)
    data = (where / "eval.jsonl").read_bytes()
    written = info(where)
    (where / "run.json").write_text(json.dumps(written | {"eval_tasks": {"arithmetic": "0"}}))
    assert start(tmp_path, *odd("raises"), resume=True) == 2
    assert "now version 1; the run saw version 0" in capsys.readouterr().err
    assert (where / "eval.jsonl").read_bytes() == data
    (where / "run.json").write_text(json.dumps(written | {"commit": "another"}))
    assert start(tmp_path, *odd("raises"), resume=True) == 1
    assert info(where)["resumed"][0]["commit"][0] == "another"


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["run.seed = -1"], "run.seed must be a whole number"),
        (["run.seed = 1.5"], "run.seed must be a whole number"),
        (["run.steps = 0"], "run.steps = 0, but row 'score_full' trains"),
        (["run.name = '..'"], "no folder name"),
        (["hf.name = '../x'"], "no folder name"),
        (["odd_task.version = ''"], "its version must be a text"),
        (["fault = 'twice'"], "stands twice in test"),
        (["fault = 'trained'"], "1 test problems are train problems"),
        (["fault = 'trained id'"], "stands in train and in test"),
        (["fault = 'surrogate'"], "lone surrogate U+DC80"),
    ],
)
def test_what_would_be_found_too_late_is_refused_at_the_start(bindings: list[str], message: str) -> None:
    config.prepare_gin(Experiment, "run")
    task = ["run.task = @task.odd_task()", "odd_task.verifier = @verifier.exact()"]
    bound = [f"odd_task.{b}" if b.startswith("fault") else b for b in bindings]
    config.parse_gin(["gin/score_full.gin"], [*SMALL[:4], *task, *bound])
    with pytest.raises(config.ConfigError, match=message.replace("+", r"\+")):
        config.build_root("run")


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("checkpoint/weights.pt", lambda d: d[:-1] + bytes([d[-1] ^ 1])),
        ("checkpoint/optimizer.pt", lambda d: b""),
        ("checkpoint/position.json", lambda d: re.sub(rb'"drawn":\d+', b'"drawn":99', d)),
        ("checkpoint/position.json", lambda d: b"[]"),
        ("metrics.jsonl", lambda d: d.split(b"\n", 1)[1]),
        ("metrics.jsonl", lambda d: d.split(b"\n", 1)[0] + b"\n" + d),
        ("eval.jsonl", lambda d: d.split(b"\n", 1)[1]),
        ("eval.jsonl", lambda d: d.split(b"\n", 1)[0] + b"\n" + d),
        ("eval.jsonl", lambda d: b"{}\n" + d),
        ("run.json", lambda d: b"[" * 200_000),
        ("config.gin", lambda d: b"\xff"),
    ],
)
def test_a_damaged_folder_is_not_gone_on_with(
    name: str, harm: Callable[[bytes], bytes], interrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = folder(tmp_path)
    shutil.copytree(interrupted, where)
    data = (where / name).read_bytes()
    (where / name).write_bytes(harm(data))
    assert (where / name).read_bytes() != data
    records = (where / "eval.jsonl").read_bytes()
    assert start(tmp_path, *odd("raises", after=40), resume=True) in (1, 2)
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert name.rpartition("/")[2].partition(".")[0] in told
    assert (where / "eval.jsonl").read_bytes() == records


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("interrupted")
    assert start(out, *odd("raises", after=40)) == 1
    assert (folder(out) / "checkpoint").is_dir()
    return folder(out)


def test_a_file_system_without_locks_is_told_from_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(StoreError, match="no file locks"):
        RunStore(tmp_path).acquire_lock()


def test_nobody_reading_the_screen_does_not_end_the_run() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as file:
        screen = run._Screen(file=file, force_terminal=False)
        for _ in range(2):
            screen.print("some text")
        assert screen.quiet


def test_a_full_disk_is_known_in_every_library() -> None:
    assert is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
    assert is_disk_full(RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 633472 vs 633360"))
    assert is_disk_full(ValueError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert not is_disk_full(ValueError("no"))


@pytest.mark.skipif(not sys.platform.startswith("linux") or shutil.which("gcc") is None, reason="needs gcc on Linux")
@pytest.mark.parametrize(("kind", "points"), [("run", 3), ("disk", 3), ("evaluate", 4)])
def test_kills_and_full_disks_cost_nothing(kind: str, points: int, tmp_path: Path) -> None:
    library = tmp_path / "kill_points.so"
    build = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "kill_points.c"), "-ldl"]
    subprocess.run(build, check=True, capture_output=True)
    command = [sys.executable, str(HERE / "killing.py"), str(library), str(tmp_path), kind, str(points)]
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == []
    assert found["tried"] == points
    assert found["calls"] > points
