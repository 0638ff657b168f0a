"""An error before the first record: nothing is left, or the corrected command takes the folder over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import run
from harness.runs.store import RunStore, is_blank

SMALL = ["run.steps = 2", "run.problems = 2", "run.samples = 2", "arithmetic.test_size = 4", "hf.max_new_tokens = 8"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # harness.run sets it: undone after the test


def start(out: Path, *words: str, gin: str = "base") -> int:
    bindings = [word for binding in SMALL for word in ("--bind", binding)]
    return run.main(["--gin", gin, "--out", str(out), *bindings, *words])


def folder(out: Path, name: str = "base") -> Path:
    return out / "arithmetic" / "arithmetic" / name / "seed0"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--device", "cuda:77"), "cuda"),
        (("--bind", "hf.path=/no/such/model", "--bind", "hf.name=arithmetic"), "/no/such/model"),
        (("--tracker", "no_such_tracker"), "no_such_tracker"),
    ],
)
def test_nothing_computed_leaves_no_folder(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results" / "runs"
    assert start(out, *words) in (1, 2)
    said = capsys.readouterr().err
    assert message in said
    assert "--resume" not in said
    assert list(tmp_path.iterdir()) == []
    out.mkdir(parents=True)  # what was there before stays
    assert start(out, *words) in (1, 2)
    assert list(out.iterdir()) == []


def test_a_folder_that_was_there_is_taken_over_by_the_corrected_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = folder(tmp_path)
    where.mkdir(parents=True)
    (where / "console.log").write_text("kept\n")
    assert start(tmp_path, "--bind", "hf.path=/no/such/model", "--bind", "hf.name=arithmetic", "--seed", "0") == 1
    said = capsys.readouterr().err
    assert f"Nothing was computed, and the corrected command takes over {where}" in said
    assert "--resume" not in said
    assert json.loads((where / "run.json").read_text())["status"] == "failed"
    assert is_blank(where)
    assert start(tmp_path) == 0  # another config than the one that failed
    info = RunStore(where).read_info()
    assert info is not None
    assert (info["status"], info["error"]) == ("done", None)
    assert "embedded:arithmetic" in (where / "config.gin").read_text()
    assert (where / "console.log").read_text() == "kept\n"
    assert not is_blank(where)


def test_what_was_computed_stays_and_is_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: RunStore, line: object) -> None:
        raise OSError("No space left on device [/x] \x1b[2J")

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "append_step", full)  # the disk is full at the first update
        assert start(tmp_path, gin="score_full") == 1
    said = capsys.readouterr().err
    where = folder(tmp_path, "score_full")
    assert "No space left on device [/x] \\x1b[2J" in said
    assert f"What was computed is kept in {where}" in said
    assert "--resume" in said
    assert len((where / "eval.jsonl").read_text().splitlines()) == 4
    # A start that computes nothing more says so, and does not repeat the mistake.
    assert start(tmp_path, "--resume", "--device", "cuda:77", gin="score_full") == 1
    said = capsys.readouterr().err
    assert f"{where} is as it was before this start" in said
    assert "cuda:77 --resume" not in said
    assert start(tmp_path, gin="score_full") == 2  # not blank: --resume is asked for, as ever
    assert start(tmp_path, "--bind", "progress.alpha = 3.0", "--resume", gin="score_full") == 2
    assert "progress.alpha: 10.0 -> 3.0" in capsys.readouterr().err
    assert start(tmp_path, "--resume", gin="score_full") == 0
    assert len((where / "eval.jsonl").read_text().splitlines()) == 8


def test_a_run_in_other_hands_has_an_exit_status_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = RunStore(folder(tmp_path))
    store.acquire_lock()
    assert start(tmp_path) == 3
    assert "in use by process" in capsys.readouterr().err
    assert [path.name for path in store.folder.iterdir()] == [".lock"]
    store.release_lock()
