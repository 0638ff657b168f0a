"""Evaluations beside the greedy one: asked at a run's end or added to it later, the same bytes; never mixed."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness import config, run
from harness.evaluate import main as run_evaluate
from harness.runs import reader
from harness.training.evaluations import EvalSpec
from harness.training.experiment import Experiment

SMALL = [
    "run.steps = 4", "run.problems = 4", "run.samples = 2", "arithmetic.test_size = 40", "hf.max_new_tokens = 12",
    "hf.lr = 1e-2",  # four updates must be seen in greedy answers
]  # fmt: skip
MORE = [
    "pool.samples = 3",
    "pool.problems = 10",
    "attempts.count = 4",
    "validation.problems = 12",
    "train.problems = 8",
]


def start(out: Path, *extra: str, bind: list[str] = SMALL, gin: str = "gin/score_full.gin") -> int:
    bindings = [word for binding in bind for word in ("--bind", binding)]
    return run.main(["--gin", gin, *extra, "--out", str(out), "--device", "cpu", *bindings])


def folder(out: Path, name: str = "score_full") -> Path:
    return out / "arithmetic" / "arithmetic" / name / "seed0"


def supplement(where: Path, *extra: str, bind: list[str] = MORE) -> int:
    bindings = [word for binding in bind for word in ("--bind", binding)]
    return run_evaluate([str(where), "--device", "cpu", *extra, *bindings])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain")
    assert start(out) == 0
    return folder(out)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("asked")
    probe = ["run.probe_every = 2", "run.probe_problems = 6"]
    assert start(out, "--gin", "gin/eval/every_evaluation.gin", bind=[*SMALL, *MORE, *probe]) == 0
    return folder(out)


def records(where: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (where / "eval.jsonl").read_text().splitlines()]


def test_a_part_of_the_test_split_is_evenly_spaced_and_the_same_before_and_after(tmp_path: Path, plain: Path) -> None:
    assert start(tmp_path, bind=[*SMALL, "run.eval_problems = 8"]) == 0
    part, whole = records(folder(tmp_path)), records(plain)
    for when in ("before", "after"):
        every = [record for record in whole if record["when"] == when]
        asked = [record["id"] for record in part if record["when"] == when]
        assert asked == [record["id"] for record in every[::5]]  # 8 of 40
    assert json.loads((folder(tmp_path) / "run.json").read_text())["status"] == "done"


def test_no_test_problem_at_all_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(tmp_path, bind=[*SMALL, "run.eval_problems = 0"]) == 2
    assert "run.eval_problems must be at least 1" in " ".join(capsys.readouterr().err.split())


def test_the_greedy_records_are_the_same_bytes(plain: Path, asked: Path) -> None:
    greedy = (plain / "eval.jsonl").read_bytes()
    assert greedy.count(b"\n") == 80
    assert (asked / "eval.jsonl").read_bytes().startswith(greedy)


def test_every_evaluation_has_a_key_of_its_own(asked: Path) -> None:
    counts = Counter(reader.key_of(record) for record in records(asked))
    assert {(k.when, k.split, k.temperature, k.first, k.turns): n for k, n in counts.items()} == {
        ("before", "test", 0.0, "policy", 2): 40,
        ("after", "test", 0.0, "policy", 2): 40,
        ("after", "test", 0.7, "policy", 2): 30,
        ("after", "test", 0.0, "policy", 4): 40,
        ("after", "validation", 0.0, "policy", 2): 12,
        ("after", "train", 0.0, "policy", 2): 8,
        ("after", "test", 0.0, "reference", 2): 40,
    }
    run, troubles = reader.read_run(asked)
    assert run is not None
    assert troubles == []
    (pool,) = (e for key, e in run.evaluations.items() if key.temperature)
    assert (pool.summary["samples"], len(pool.problems)) == (3, 10)


def test_fixed_first_attempts_are_the_base_models(asked: Path) -> None:
    rows = records(asked)
    base = {r["id"]: r["attempts"][0] for r in rows if r["when"] == "before"}
    fixed = {r["id"]: r["attempts"] for r in rows if r["attempts"][0]["by"] == "reference"}
    own = {r["id"]: r["attempts"] for r in rows if r["when"] == "after" and r["attempts"][0]["by"] == "policy"}
    assert {key: a[0]["text"] for key, a in fixed.items()} == {key: a["text"] for key, a in base.items()}
    assert all(a[1]["by"] == "policy" for a in fixed.values())
    assert any(fixed[key][0]["text"] != own[key][0]["text"] for key in fixed), "training changed no answer"


def test_the_probe_logs_second_attempts_after_own_and_fixed_ones(asked: Path) -> None:
    steps = [json.loads(line) for line in (asked / "metrics.jsonl").read_text().splitlines()]
    keys = {f"acc_t2_{who}_{split}" for who in ("own", "fixed") for split in ("validation", "train")}
    assert [keys <= set(step) for step in steps] == [False, True, False, True]
    assert all(0 <= steps[1][key] <= 1 for key in keys)


def test_what_is_added_later_is_what_would_have_been_written(plain: Path, asked: Path, tmp_path: Path) -> None:
    late = folder(tmp_path)
    shutil.copytree(plain, late)
    assert supplement(late, "--gin", "gin/eval/every_evaluation.gin") == 0
    assert (late / "eval.jsonl").read_bytes() == (asked / "eval.jsonl").read_bytes()
    assert (late / "config.gin").read_bytes() == (plain / "config.gin").read_bytes()
    info = json.loads((late / "run.json").read_text())
    assert info["status"] == "done"
    assert info["supplements"][0]["records"] == 130
    assert supplement(late, "--gin", "gin/eval/every_evaluation.gin") == 0  # once is enough
    assert (late / "eval.jsonl").read_bytes() == (asked / "eval.jsonl").read_bytes()
    assert not (late / "evaluating").exists()


def test_an_interrupted_supplement_goes_on(plain: Path, asked: Path, tmp_path: Path) -> None:
    late = folder(tmp_path)
    shutil.copytree(plain, late)
    bind = ["run.evaluations = [@evaluation.pool()]", *MORE]
    assert supplement(late, bind=bind) == 0
    whole = (late / "eval.jsonl").read_bytes()
    for name in ("eval.jsonl", "run.json"):
        shutil.copy(plain / name, late)
    (late / "evaluating").mkdir()
    added = whole[len((plain / "eval.jsonl").read_bytes()) :]
    (late / "evaluating" / "eval.jsonl").write_bytes(added[: len(added) // 2])
    assert supplement(late, bind=bind) == 0
    assert (late / "eval.jsonl").read_bytes() == whole


def test_what_cannot_be_added_is_refused(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    late = folder(tmp_path)
    shutil.copytree(plain, late)
    pool = "run.evaluations = [@evaluation.pool()]"
    for bind, message in (
        ([pool, "hf.max_new_tokens = 5"], "hf.max_new_tokens: 12 -> 5"),
        ([pool, "arithmetic.test_size = 50"], "only evaluations can be added"),
        ([], "nothing to add"),
        (["run.evaluations = [@evaluation.poll()]"], "nearest: evaluation.pool"),
    ):
        assert supplement(late, bind=bind) == 2
        assert message in capsys.readouterr().err
    shutil.rmtree(late / "model")
    assert supplement(late, bind=[pool]) == 2
    assert "only a new run" in capsys.readouterr().err
    assert supplement(tmp_path / "nowhere", bind=[pool]) == 2
    assert "holds no run" in capsys.readouterr().err
    (late / "run.json").write_text('{"status": "interrupted"}')
    assert supplement(late, bind=[pool]) == 2
    assert "not done" in capsys.readouterr().err
    assert (late / "eval.jsonl").read_bytes() == (plain / "eval.jsonl").read_bytes()


def test_two_evaluations_that_could_not_be_told_apart_are_refused() -> None:
    config.prepare_gin(Experiment, "run")
    for wanted in (
        "[@evaluation.attempts()]",  # two attempts, greedy: the one that every run has
        "[@evaluation.validation(), @evaluation.validation()]",
    ):
        config.parse_gin(["gin/score_full.gin"], ["attempts.count = 2", f"run.evaluations = {wanted}"])
        with pytest.raises(config.ConfigError, match="asks twice"):
            config.build_root("run")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"split": "dev"}, "test, validation, train"),
        ({"samples": 4}, "the same answer"),
        ({"attempts": 1, "draft": "reference"}, "asks the policy nothing"),
        ({"problems": 0}, "at least 1"),
    ],
)
def test_an_impossible_evaluation_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvalSpec(**wrong)
