"""harness.runs.schema: one description of run.json and of evaluations for writer and reader; formats 1 and 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest

from harness import config, evaluate, run
from harness.core import Problem, Trajectory, Turn, Verdict
from harness.runs import format1, reader, schema
from harness.runs.integrity import count_records, file_sha256
from harness.runs.schema import EvalKey
from harness.runs.store import RunStore
from harness.training.evaluate import trajectory_to_record
from harness.training.evaluations import Draft, EvalSpec, Split
from harness.training.loop import Position
from harness.training.verify import verify_run

SMALL = ["run.steps = 2", "run.problems = 2", "run.samples = 2", "arithmetic.test_size = 12", "hf.max_new_tokens = 12"]
ADDED = ("bindings", "parent", "difference", "digest")


def start(out: Path, *extra: str) -> int:
    words = [word for binding in SMALL for word in ("--bind", binding)]
    return run.main(["--gin", "gin/score_no_shaping.gin", "--out", str(out), "--device", "cpu", *words, *extra])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written")
    assert start(out) == 0
    return out


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written, tmp_path / "r")
    return tmp_path / "r/arithmetic/arithmetic/score_no_shaping/seed0"


def info_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def make_format_1(folder: Path, **fields: Any) -> None:
    info = {key: value for key, value in info_of(folder).items() if key not in ADDED}
    (folder / "run.json").write_text(json.dumps({**info, "format": 1, **fields}))


def test_a_run_says_its_bindings_parent_and_difference_as_json(folder: Path) -> None:
    info = info_of(folder)
    assert info["format"] == schema.FORMAT == 2
    assert info["bindings"] == config.parse_bindings((folder / "config.gin").read_text())
    assert info["bindings"]["run.steps"] == "2"
    assert (info["parent"], info["difference"]) == ("score_full", {"score_phase2.bonus": "@bonus.none()"})
    assert info["digest"] == schema.digest_of(info)


def test_a_finished_run_of_format_1_reads_the_same_from_gin_text(folder: Path, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(format1, "upgrade_format1", lambda *_: pytest.fail("format 2 is read without gin text"))
        (new,), _ = reader.read_runs(folder)
    make_format_1(folder)
    (old,), troubles = reader.read_runs(folder)
    assert not troubles
    assert (old.bindings, old.parent, old.difference.keys()) == (new.bindings, new.parent, new.difference.keys())
    assert (old.info["format"], old.model_name, old.grader_of("arithmetic")) == (
        1,
        new.model_name,
        new.grader_of("arithmetic"),
    )


def test_an_unfinished_run_of_format_1_goes_on_as_format_2(folder: Path, written: Path, tmp_path: Path) -> None:
    whole = (folder / "eval.jsonl").read_bytes()
    make_format_1(folder, status="interrupted")
    (folder / "eval.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:5]))  # killed while evaluating
    shutil.rmtree(folder / "model")
    assert start(tmp_path / "r") == 2  # not without --resume
    assert start(tmp_path / "r", "--resume") == 0
    assert (folder / "eval.jsonl").read_bytes() == whole
    now, then = info_of(folder), info_of(written / folder.relative_to(tmp_path / "r"))
    assert [now[key] for key in ("format", *ADDED[:3])] == [then[key] for key in ("format", *ADDED[:3])]
    assert now["digest"] == schema.digest_of(now)


@pytest.mark.parametrize(
    ("entry", "value"),
    [("spent", {"trajectories": 16, "responses": 31, "updates": 2}), ("model", "another"), ("digest", None)],
)
def test_a_digit_changed_in_run_json_is_seen(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], entry: str, value: Any
) -> None:
    changed = {**info_of(folder), entry: value}
    if value is None:
        del changed[entry]
    (folder / "run.json").write_text(json.dumps(changed))
    runs, (trouble,) = reader.read_runs(folder)
    assert (runs, trouble.message) == ([], "run.json: its digest differs: something in it was changed after the run")
    assert verify_run(folder).files == ["run.json: its digest differs: something in it was changed after the run"]
    assert start(tmp_path / "r") == 2
    assert "its digest differs" in " ".join(capsys.readouterr().err.split())


def test_an_interrupted_supplement_gives_no_new_digest_to_a_changed_run_json(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = file_sha256(folder / "eval.jsonl")
    (folder / "evaluating").mkdir()
    commit = {"records": [], "before": digest, "after": digest, "supplements": []}
    (folder / "evaluating" / "commit.json").write_text(json.dumps(commit))
    changed = json.dumps({**info_of(folder), "model": "another"})
    (folder / "run.json").write_text(changed)
    assert evaluate.main([str(folder), "--bind", "run.evaluations = [@evaluation.blind()]"]) == 2
    assert "its digest differs" in " ".join(capsys.readouterr().err.split())
    assert (folder / "run.json").read_text() == changed


def test_run_json_written_in_another_way_is_the_same(folder: Path) -> None:
    (folder / "run.json").write_text(json.dumps(info_of(folder), ensure_ascii=False, separators=(",", ":")))
    (run_of,), troubles = reader.read_runs(folder)
    assert (run_of.was_trained, troubles) == (True, [])


@pytest.mark.parametrize("missing", ["bindings", "parent", "difference"])
def test_what_format_2_must_have(folder: Path, missing: str) -> None:
    info = {key: value for key, value in info_of(folder).items() if key != missing}
    (folder / "run.json").write_text(json.dumps({**info, "digest": schema.digest_of(info)}))
    (trouble,) = reader.read_runs(folder)[1]
    assert trouble.message.startswith(f"run.json: {missing} is nothing, not")


def test_every_update_of_run_json_has_its_digest(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    for fields in ({"format": 2, "spent": ("a", 1.5)}, {"error": "naïve \ud800"}, {"status": "done"}):
        store.update_run_json(**fields)
        assert info_of(tmp_path)["digest"] == schema.digest_of(info_of(tmp_path))
    old = RunStore(tmp_path)
    old.update_run_json(format=1)
    assert "digest" not in info_of(tmp_path)


def trajectory(by: Any, count: int) -> Trajectory:
    authors, verdict = [by, *["policy"] * (count - 1)], Verdict(1.0, True, answer="x")
    turns = [Turn((), (1,), "x", verdict, index=i, by=author) for i, author in enumerate(authors)]
    return Trajectory(Problem("p", "q", "x"), tuple(turns))


def every_evaluation() -> list[EvalSpec]:
    found = []
    for split in get_args(Split):
        for draft in get_args(Draft):
            found.append(EvalSpec(split, attempts=1 if draft == "blind" else 2, draft=draft))
        found += [EvalSpec(split, attempts=3), EvalSpec(split, samples=2, temperature=0.5)]
        found.append(EvalSpec(split, samples=2, temperature=0.5, draft="reference"))
    return found


def test_an_evaluation_holds_its_own_records_alone_and_all_have_keys_of_their_own() -> None:
    asked = every_evaluation()
    records = []
    for evaluation in asked:
        by = {"own": "policy", "blind": "policy", "reference": "reference"}.get(evaluation.draft, "given")
        more = {"split": evaluation.split} if evaluation.split != "test" else {}
        more |= {"draft": evaluation.control} if evaluation.control else {}
        record = (
            trajectory_to_record(trajectory(by, evaluation.attempts), "after", "t", 0, evaluation.temperature) | more
        )
        assert schema.record_fault(json.loads(json.dumps(record))) == ""
        records.append(record)
    for evaluation in asked:
        assert [evaluation.matches_record(record) for record in records] == [evaluation is other for other in asked]
    assert len({schema.key_of(record) for record in records}) == len(count_records(records)) == len(asked)
    assert [e for e, r in zip(asked, records, strict=True) if schema.key_of(r).is_main] == [
        e for e in asked if e.split == "test" and not e.temperature and not e.control
    ]


def test_the_label_of_an_evaluation_is_what_run_json_has_always_said() -> None:
    assert EvalKey("after", "t", "test", 0.0, "policy", 2).label == "after t test T=0 policy 2"
    assert EvalKey("before", "t", "train", 0.7, "given", 2, "wrong").label == "before t train T=0.7 given 2 wrong"
    record = trajectory_to_record(trajectory("policy", 2), "after", "t", 0, -0.0)
    assert schema.key_of(record) == EvalKey("after", "t", "test", 0.0, "policy", 2)


@pytest.mark.parametrize("flops", [3, 2**53 + 2, 10**16, 2**64, 10**24])
def test_a_large_models_operations_pass_what_a_count_may_be(flops: int, tmp_path: Path) -> None:
    """A model of 1.5 billion parameters makes 10^16 operations in a few updates; its run must be readable."""
    store = RunStore(tmp_path)
    told = {"format": 2, "task_version": "1", "bindings": {}, "parent": "", "difference": {}}
    store.update_run_json(**told, status="done", spent=Position(step=1, flops=flops).spent)
    info, fault = reader._info(tmp_path)
    assert (info["spent"]["flops"], fault) == (float(flops), "")
    assert schema.info_fault(info) == ""
    assert schema.info_fault({**info, "spent": {"updates": 1, "flops": -1.0}}) != ""
    assert schema.info_fault({**info, "spent": {"updates": 1.5}}) != ""
