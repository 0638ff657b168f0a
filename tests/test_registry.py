"""The registry: one holder per name, strangers' failures named, tasks that cannot be used refused."""

from __future__ import annotations

import importlib.metadata
import zlib
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
        registry.get_entry("method", "scor")
    assert registry.get_entry("method", "score").source.startswith("score-harness")


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
    assert registry.get_entry("method", "score")


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
    config.prepare_gin(Experiment, "run")
    config.parse_gin(["gin/score_full.gin"], [])
    good = config.build_root("run")
    with pytest.raises(ValueError, match=message):
        Experiment(
            name="x", method=good.method, task=good.task, policy=good.policy, dialogue=good.dialogue, steps=2,
            problems=2, samples=2, eval_tasks=(Fixed(Exact(), problems=problems),),
        )  # fmt: skip


CREDITS = {
    "its own line": ("[Example(t.turns[1], weight=t.reward) for g in groups for t in g]", "AttributeError", ""),
    "a line of this package": (
        "reinforce(groups, advantage=None, kl=[0.0])", "TypeError", "credit.py:"
    ),
    "a line of a library": ("[Example(np.zeros((2, 2)) @ np.zeros(3))]", "ValueError", ""),
}  # fmt: skip


@pytest.mark.parametrize("what", CREDITS)
def test_an_error_in_a_plugins_credit_keeps_the_plugins_line(what: str, tmp_path: Path) -> None:
    credit, kind, raised = CREDITS[what]
    module = f"credit_plugin_{list(CREDITS).index(what)}"
    (tmp_path / f"{module}.py").write_text(
        "import numpy as np\n"
        "from harness import Example, Phase, register, reinforce\n"
        f"@register('method', '{module}')\n"
        "class Mine:\n"
        "    def phases(self, budget):\n"
        "        return [Phase('mine', budget.steps, self.credit)]\n"
        "    def credit(self, groups):\n"
        f"        return {credit}\n"
    )
    (tmp_path / "mine.gin").write_text(f"import {module}\ninclude 'gin/base.gin'\nrun.method = @method.{module}()\n")
    config.prepare_gin(Experiment, "run")
    config.parse_gin([str(tmp_path / "mine.gin")], [])
    with pytest.raises(config.ConfigError) as told:
        config.build_root("run")
    assert kind in str(told.value)
    assert f"{tmp_path / module}.py:8" in str(told.value)
    assert raised in str(told.value)
    assert "phase 'mine'" in str(told.value)


@pytest.mark.parametrize(
    "body",
    [
        "    def __init__(self):\n        self.x = 1 + 'a'\n",
        "    def __init__(self):\n        self.x = {}['a']\n",
        "    def phases(self, budget):\n        return budget.stepps\n",
        "    def phases(self, budget):\n        return [1 + None]\n",
    ],
)
def test_an_error_in_a_plugins_other_code_is_one_message_with_its_line(body: str, tmp_path: Path) -> None:
    module = f"broken_{zlib.crc32(body.encode())}"
    (tmp_path / f"{module}.py").write_text(
        f"from harness import register\n@register('method', '{module}')\nclass Mine:\n{body}"
    )
    (tmp_path / "mine.gin").write_text(f"import {module}\ninclude 'gin/base.gin'\nrun.method = @method.{module}()\n")
    config.prepare_gin(Experiment, "run")
    config.parse_gin([str(tmp_path / "mine.gin")], [])
    with pytest.raises(config.ConfigError, match=rf"{module}.py:5\)"):
        config.build_root("run")


def test_a_module_of_the_same_name_elsewhere_is_refused(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same_name_plugin.py").write_text("")
        (tmp_path / folder / f"{folder}.gin").write_text("import same_name_plugin\ninclude 'gin/base.gin'\n")
    config.prepare_gin(Experiment, "run")
    config.parse_gin([str(tmp_path / "one" / "one.gin")], [])
    with pytest.raises(config.ConfigError, match=r"one/same_name_plugin.py, not .*two/same_name_plugin.py"):
        config.parse_gin([str(tmp_path / "two" / "two.gin")], [])


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        ("Verdict(0.0, False, 'fine')", "its status 'fine' is none of ok, no_answer, truncated, timeout, error"),
        ("Verdict(1.0, True, 'right') if text else Verdict(0.0, False)", "its status 'right' is none of"),
        ("text == problem.answer", "is no Verdict"),
        ("Verdict(0.0, problem.id, 'ok')", "neither True nor False"),
        ("Verdict(0.0, text.correct)", "AttributeError: 'str' object has no attribute 'correct' ("),
    ],
)
def test_a_plugins_verifier_that_gives_no_verdict_is_refused_before_a_model_is_loaded(
    verdict: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from harness import run

    module = f"odd_verdict_{zlib.crc32(verdict.encode())}"
    (tmp_path / f"{module}.py").write_text(
        f"from harness import Verdict, register\n@register('verifier', '{module}')\nclass Mine:\n"
        f"    def __call__(self, problem, text):\n        return {verdict}\n"
    )
    (tmp_path / "mine.gin").write_text(
        f"import {module}\ninclude 'gin/base.gin'\narithmetic.verifier = @verifier.{module}()\n"
        "hf.path = '/no/such/model'\n"
    )
    assert run.main(["--gin", str(tmp_path / "mine.gin"), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "Nothing was computed, and no folder is left" in said
    assert not (tmp_path / "out").exists()
