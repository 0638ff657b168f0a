"""Trackers: a real TensorBoard event file beside a real run; a tracker that breaks does not break the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import run
from harness.config import ConfigError
from harness.policy import trackers

SMALL = ["run.steps = 3", "run.problems = 2", "run.samples = 2", "arithmetic.test_size = 4", "hf.max_new_tokens = 8"]


class Quiet:
    def phase(self, text: str, total: int, done: int = 0) -> None: ...
    def advance(self, line: dict[str, Any] | None = None, count: int = 1) -> None: ...


def start(out: Path, *extra: str) -> int:
    bindings = [word for binding in SMALL for word in ("--bind", binding)]
    return run.main(["--gin", "gin/naive_multi_turn_rl.gin", "--out", str(out), "--device", "cpu", *bindings, *extra])


def test_tensorboard_holds_what_the_log_holds(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    assert start(tmp_path, "--tracker", "tensorboard") == 0
    folder = tmp_path / "arithmetic" / "arithmetic" / "naive_multi_turn_rl" / "seed0"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (mirror,) = (folder / "tensorboard").iterdir()
    events = accumulator.EventAccumulator(str(mirror))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("acc_t1")]
    assert found == [(line["step"], pytest.approx(line["acc_t1"])) for line in lines]
    assert {"kl_t1", "reward_t2", "grad_norm"} <= set(events.Tags()["scalars"])
    assert "tensorboard" not in (folder / "config.gin").read_text(), "a mirror is no part of what was run"


def test_a_tracker_that_breaks_is_named_once_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaks:
        requires_logging_directory = False

        def __init__(self, project: str) -> None: ...
        def start(self) -> None: ...
        def store_init_configuration(self, values: dict[str, Any]) -> None: ...
        def log(self, values: dict[str, Any], step: int) -> None:
            raise ConnectionError("the service is gone\nwith details")

        def finish(self) -> None:
            raise AssertionError("it was left out")

    monkeypatch.setitem(trackers.LOGGER_TYPE_TO_CLASS, "wandb", Breaks)
    said: list[str] = []
    mirror = trackers.Mirror(Quiet(), ["wandb"], tmp_path, "project", {}, said.append)
    for step in (1, 2):
        mirror.advance({"step": step, "acc_t1": 0.5, "phase": "1_phase1"})
    mirror.finish()
    assert said == ["tracker wandb is left out from here on: ConnectionError: the service is gone"]


def test_a_tracker_that_is_not_there_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nearest: tensorboard"):
        trackers.check(["tensorbord"])
    missing = next(n for n in ("clearml", "dvclive", "aim") if n not in map(str, trackers.get_available_trackers()))
    with pytest.raises(ConfigError, match=f"'{missing}' is not installed"):
        trackers.check([missing])
    assert start(tmp_path, "--tracker", "tensorbord") == 2
    assert not list(tmp_path.rglob("run.json"))
