"""The registry: one holder per name, strangers' failures named, tasks that cannot be used refused."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness import config, registry
from harness.core import Problem
from harness.tasks.arithmetic import Arithmetic
from harness.training.experiment import Experiment
from verifiers.exact import Exact


def test_a_name_has_one_holder() -> None:
    registry.load_plugins()
    with pytest.raises(ValueError, match=r"method.none is registered twice: by methods.none.NoTraining and by .*Mine"):

        @registry.register("method", "none")
        class Mine:
            pass


def test_kinds_and_names_are_named_by_the_nearest() -> None:
    with pytest.raises(ValueError, match="nearest: method"):
        registry.register("methods", "x")
    with pytest.raises(registry.UnknownName, match="nearest: score"):
        registry.get("method", "scor")
    assert registry.get("method", "score").source.startswith("score-harness")


def test_a_plugin_that_fails_is_named_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_plugin.py").write_text("raise OSError('no such device')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    real = importlib.metadata.entry_points

    def with_a_stranger(group: str):
        stranger = importlib.metadata.EntryPoint("stranger", "failing_plugin", registry.GROUP)
        return [*real(group=group), stranger]

    monkeypatch.setattr(importlib.metadata, "entry_points", with_a_stranger)
    broken = registry.load_plugins()
    assert list(broken.values()) == ["OSError: no such device"]
    assert "stranger = failing_plugin" in next(iter(broken))
    assert registry.get("method", "score")


@dataclass(frozen=True)
class Fixed(Arithmetic):
    problems: tuple[Problem, ...] = field(default=())

    @property
    def test(self) -> Sequence[Problem]:
        return self.problems


@pytest.mark.parametrize(
    ("problems", "message"),
    [
        ((), "has no test problems"),
        ((Problem("p1", "q", " "),), "test problem 'p1' has no answer"),
    ],
)
def test_a_task_that_cannot_be_graded_is_refused(problems: tuple[Problem, ...], message: str) -> None:
    config.prepare(Experiment, "run")
    config.parse(["gin/score_full.gin"], [])
    good = config.build("run")
    with pytest.raises(ValueError, match=message):
        Experiment(
            name="x", method=good.method, task=good.task, policy=good.policy, dialogue=good.dialogue, steps=2,
            problems=2, samples=2, eval_tasks=(Fixed(Exact(), problems=problems),),
        )  # fmt: skip
