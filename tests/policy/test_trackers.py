"""Trackers: a real TensorBoard event file beside a real run; a tracker that breaks does not break the run."""

from __future__ import annotations

import json
import struct
import time
import types
from pathlib import Path
from typing import Any

import pytest
import synthetic

from harness import run
from harness.config import ConfigError
from harness.metrics.stats import wilson_interval
from harness.policy import trackers
from harness.training.display import evaluation_numbers

SMALL = ["run.steps = 3", "run.problems = 2", "run.samples = 2", "arithmetic.test_size = 4", "hf.max_new_tokens = 8"]


class Quiet:
    def phase(self, text: str, total: int, done: int = 0) -> None: ...
    def advance(self, line: dict[str, Any] | None = None, count: int = 1) -> None: ...


def start(out: Path, *extra: str) -> int:
    bindings = [word for binding in SMALL for word in ("--bind", binding)]
    return run.main(["--gin", "gin/naive_multi_turn_rl.gin", "--out", str(out), "--device", "cpu", *bindings, *extra])


def numbers_of(folder: Path) -> dict[str, float]:
    return evaluation_numbers([json.loads(line) for line in (folder / "eval.jsonl").read_text().splitlines()])


def test_the_numbers_of_evaluations_come_with_their_intervals() -> None:
    rows = synthetic.records((0.5, 0.3, 0.1, 0.2), 1, problems=20) + synthetic.records(
        (0.5, 0.3, 0.1, 0.2), 1, samples=3
    )
    found = evaluation_numbers(rows)
    right = [sum(row["attempts"][i]["correct"] for row in rows[:20]) for i in (0, 1)]
    assert [found[f"synthetic/after/acc_t{i + 1}"] for i in (0, 1)] == [5 * count for count in right]
    low, high = wilson_interval(right[0], 20)[1:]
    assert found["synthetic/after/acc_t1_lo"] == pytest.approx(100 * low)
    assert found["synthetic/after/acc_t1_hi"] == pytest.approx(100 * high)
    assert found["synthetic/after/delta"] == pytest.approx(5 * (right[1] - right[0]))
    assert found["synthetic/after/delta_lo"] < found["synthetic/after/delta"] < found["synthetic/after/delta_hi"]
    assert len(found) == 15  # five metrics of the greedy evaluation; the pool is for the tables
    given = evaluation_numbers(synthetic.records((0.5, 0.3, 0.1, 0.2), 1, problems=20, given=True))
    assert {key for key in given if key[-3:] not in ("_lo", "_hi")} == {"synthetic/after/acc_t2"}


def test_tensorboard_holds_what_the_log_holds(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    assert start(tmp_path, "--tracker", "tensorboard") == 0
    folder = tmp_path / "arithmetic" / "arithmetic" / "naive_multi_turn_rl" / "seed0"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (mirror,) = (folder / "tensorboard").iterdir()
    assert mirror.name == "naive_multi_turn_rl-seed0"
    events = accumulator.EventAccumulator(str(mirror))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("train/acc_t1")]
    assert found == [(line["step"], pytest.approx(line["acc_t1"])) for line in lines]
    assert {"train/kl_t1", "train/reward_t2", "train/grad_norm"} <= set(events.Tags()["scalars"])
    told = {tag.removeprefix("eval/"): events.Scalars(tag) for tag in events.Tags()["scalars"] if tag[:5] == "eval/"}
    assert {tag: [(event.step, event.value) for event in shown] for tag, shown in told.items()} == {
        key: [(3, pytest.approx(value))] for key, value in numbers_of(folder).items()
    }
    assert "tensorboard" not in (folder / "config.gin").read_text(), "a mirror is no part of what was run"


def wandb_records(folder: Path) -> list[Any]:
    """What wandb keeps on the disk until it is sent: records in LevelDB's log format."""
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    data, at, held, found = next(folder.glob("*.wandb")).read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if at // 32768 != (at + 6) // 32768:  # a header never crosses a block
            at = (at // 32768 + 1) * 32768
            continue
        size, kind = struct.unpack_from("<HB", data, at + 4)
        held += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or its last part
            found.append(pb.Record.FromString(held))
            held = b""
    return found


def test_wandb_has_one_project_and_knows_a_resumed_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    told = trackers.TrackedRun(tmp_path, "score_full", 7, ("arithmetic", "embedded"), {"run.steps": "3"})
    for steps in ((1, 2), (3,)):
        said: list[str] = []
        mirror = trackers.TrackerDisplay(Quiet(), ["wandb"], told, said.append)
        for step in steps:
            mirror.advance({"step": step, "acc_t1": step / 4, "phase": "p"})
        if steps == (3,):
            mirror.report({"arithmetic/after/acc_t2": 50.0, "arithmetic/after/acc_t2_lo": 40.0}, 3)
        mirror.finish_trackers()
        assert said == []
        time.sleep(1.1)  # wandb names its folders by the second
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    records = [record for folder in folders for record in wandb_records(folder)]
    started = [record.run for record in records if record.HasField("run")]
    assert {(r.project, r.run_group, r.display_name) for r in started} == {
        ("self-correction", "score_full", "score_full-seed7")
    }
    assert len({r.run_id for r in started}) == 1
    assert {tuple(r.tags) for r in started} == {("arithmetic", "embedded")}
    assert {folder.name.rpartition("-")[2] for folder in folders} == {started[0].run_id}
    history = [
        {_key(item): json.loads(item.value_json) for item in r.history.item} for r in records if r.HasField("history")
    ]
    assert [line["train/acc_t1"] for line in history] == [0.25, 0.5, 0.75]
    assert history[-1]["eval/arithmetic/after/acc_t2_lo"] == 40.0
    (*_, summary) = [record.summary for record in records if record.HasField("summary")]
    assert "eval/arithmetic/after/acc_t2" in {_key(item) for item in summary.update}
    config = {
        _key(item): json.loads(item.value_json) for r in records if r.HasField("config") for item in r.config.update
    }
    assert config["run.steps"] == "3"
    assert config["seed"] == 7


def _key(item: Any) -> str:
    return item.key or ".".join(item.nested_key)


def test_trackio_knows_a_resumed_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "base"))  # read when trackio is imported, which is now
    pytest.importorskip("trackio", reason="trackio is not installed")
    told = trackers.TrackedRun(tmp_path / "run", "score_full", 7, ("arithmetic",), {"run.steps": "3"})
    for step in (1, 2):
        said: list[str] = []
        mirror = trackers.TrackerDisplay(Quiet(), ["trackio"], told, said.append)
        mirror.advance({"step": step, "acc_t1": step / 4, "phase": "p"})
        mirror.report({"arithmetic/after/acc_t2": 50.0}, step)
        mirror.finish_trackers()
        assert said == []
    storage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    assert storage.get_projects() == ["self-correction"]
    assert storage.get_runs("self-correction") == ["score_full-seed7"]
    logs = storage.get_logs("self-correction", "score_full-seed7")
    assert [line["train/acc_t1"] for line in logs if "train/acc_t1" in line] == [0.25, 0.5]
    assert [line["step"] for line in logs if "eval/arithmetic/after/acc_t2" in line] == [1, 2]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_service_is_told_project_group_name_and_a_lasting_id(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What accelerate's tracker is called with, also where the service is not installed."""
    calls: list[tuple[str, dict[str, Any]]] = []

    class Recorded:
        requires_logging_directory = False
        tracker = types.SimpleNamespace(name="score_full-seed7-1")  # a service may choose another name

        def __init__(self, project: str, **settings: Any) -> None:
            calls.append((project, settings))

        def start(self) -> None: ...
        def store_init_configuration(self, values: dict[str, Any]) -> None:
            assert values == {"row": "score_full", "seed": 7, "tags": "arithmetic", "hf.lr": "1e-5"}

        def finish(self) -> None: ...

    monkeypatch.setitem(trackers.LOGGER_TYPE_TO_CLASS, name, Recorded)
    told = trackers.TrackedRun(tmp_path, "score_full", 7, ("arithmetic",), {"hf.lr": "1e-5"})
    said: list[str] = []
    for _ in range(2):
        trackers.TrackerDisplay(Quiet(), [name], told, said.append).finish_trackers()
    assert said == []
    (project, first), (_, second) = calls
    assert project == "self-correction"
    assert first["group"] == second["group"] == "score_full"
    assert first["name"] == "score_full-seed7"
    if name == "wandb":
        assert first == second
        assert (first["resume"], first["dir"]) == ("allow", str(tmp_path))
        assert (tmp_path / "wandb" / "id").read_text() == first["id"] + "\n"
    else:
        assert (first["resume"], second["resume"], second["name"]) == ("never", "allow", "score_full-seed7-1")


def test_a_tracker_that_breaks_is_named_once_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaks:
        requires_logging_directory = False

        def __init__(self, project: str, **settings: Any) -> None: ...
        def start(self) -> None: ...
        def store_init_configuration(self, values: dict[str, Any]) -> None: ...
        def log(self, values: dict[str, Any], step: int) -> None:
            raise ConnectionError("the service is gone\nwith details")

        def finish(self) -> None:
            raise AssertionError("it was left out")

    monkeypatch.setitem(trackers.LOGGER_TYPE_TO_CLASS, "wandb", Breaks)
    said: list[str] = []
    mirror = trackers.TrackerDisplay(Quiet(), ["wandb"], trackers.TrackedRun(tmp_path, "row", 0), said.append)
    for step in (1, 2):
        mirror.advance({"step": step, "acc_t1": 0.5, "phase": "1_phase1"})
    mirror.finish_trackers()
    assert said == ["tracker wandb is left out from here on: ConnectionError: the service is gone"]


def test_a_tracker_that_is_not_there_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nearest: tensorboard"):
        trackers.check_trackers(["tensorbord"])
    missing = next(n for n in ("clearml", "dvclive", "aim") if n not in map(str, trackers.get_available_trackers()))
    with pytest.raises(ConfigError, match=f"'{missing}' is not installed"):
        trackers.check_trackers([missing])
    assert start(tmp_path, "--tracker", "tensorbord") == 2
    assert not list(tmp_path.rglob("run.json"))
