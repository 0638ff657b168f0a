"""Whether a testbed needs the draft: the criteria by hand, what each fit is shown, and the tracked numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.testbed_acceptance import DRAFT, FIRST, SECOND, Base, contexts, count_wrong_places, judge, main
from harness import config
from harness.core import Problem, Trajectory, Turn, Verdict
from harness.policy import EMBEDDED
from harness.training.experiment import Experiment

TRACKED = config.ROOT / "results" / "embedded_shell_game_acceptance.md"
FILES = ["--gin", "gin/base.gin", "--gin", "gin/task/embedded_shell_game.gin"]


def turn(problem: Problem, answer: str) -> Turn:
    right = answer == problem.answer
    return Turn((), (), answer, Verdict(float(right), right, "ok", answer))


def base(right: int = 45, mended: int = 3, broken: int = 2, wrong: str = "133 466", hits: int = 4) -> Base:
    """100 greedy pairs: `right` first attempts, the others `wrong`; `hits` of 8 samples right on each of 5 problems."""
    problem = Problem("p", "?", "123 456", "")
    first = [problem.answer] * right + [wrong] * (100 - right)
    second = [wrong] * broken + [problem.answer] * (right - broken + mended) + [wrong] * (100 - right - mended)
    return Base(
        [Trajectory(problem, (turn(problem, a), turn(problem, b))) for a, b in zip(first, second, strict=True)],
        [[turn(problem, problem.answer)] * hits + [turn(problem, wrong)] * (8 - hits)] * 5,
    )


def fits(draft: float, second: float, first: float) -> dict[str, np.ndarray]:
    def grid(share: float) -> np.ndarray:
        return np.tile(np.arange(100) < 100 * share, (3, 1))

    return {DRAFT: grid(draft), SECOND: grid(second), FIRST: grid(first)}


def test_wrong_places_are_counted_only_at_the_same_length() -> None:
    assert count_wrong_places("123 456", "133 466") == 2
    assert count_wrong_places("123 456", "123 45") is None
    assert count_wrong_places("123 456", None) is None


def test_a_testbed_that_meets_every_criterion() -> None:
    found = judge(base(), fits(0.9, 0.3, 0.4))
    assert [item.met for item in found] == [True] * 5
    assert found[0].found.startswith("50.0 [")  # 90 less the better of 30 and 40
    assert found[1].found.startswith("45.0 [")
    assert found[2].found == "mended 3.0 %, broken 2.0 %"
    assert found[4].found == "100.0 - 50.0 = 50.0 points"


@pytest.mark.parametrize(
    ("missed", "changed", "shares"),
    [
        (0, base(), (0.9, 0.3, 0.8)),  # one of the two fits without a draft is nearly as good
        (0, base(), (0.9, 0.8, 0.3)),
        (0, base(), (0.56, 0.3, 0.4)),  # 16 points, but not the whole interval
        (1, base(right=61), (0.9, 0.3, 0.4)),
        (1, base(right=29), (0.9, 0.3, 0.4)),
        (2, base(mended=6), (0.9, 0.3, 0.4)),
        (2, base(broken=0), (0.9, 0.3, 0.4)),
        (3, base(wrong="133 465"), (0.9, 0.3, 0.4)),
        (3, base(wrong="123 45"), (0.9, 0.3, 0.4)),
        (4, base(hits=8), (0.9, 0.3, 0.4)),
        (4, base(hits=0), (0.9, 0.3, 0.4)),
    ],
)
def test_each_criterion_can_be_missed_alone(missed: int, changed: Base, shares: tuple[float, float, float]) -> None:
    assert [i for i, item in enumerate(judge(changed, fits(*shares))) if not item.met] == [missed]


def test_only_the_fit_with_the_draft_is_shown_it() -> None:
    config.prepare_gin(Experiment, "run")
    config.parse_gin(["gin/base.gin", "gin/task/embedded_shell_game.gin"], [])
    experiment: Experiment = config.build_root("run")
    policy: Any = experiment.policy.load("cpu")
    problems = experiment.task.test[:3]
    session = policy.open([experiment.task.chat(p, []) for p in problems], 1, seed=0, temperature=0.0)
    drafts = session.reply()
    found = {form: contexts(policy, experiment, problems, drafts, form) for form in (DRAFT, SECOND, FIRST)}
    session.ask([experiment.dialogue.ask(experiment.task, p, [t.text]) for p, t in zip(problems, drafts, strict=True)])
    assert found[DRAFT] == session.contexts
    retry = experiment.dialogue.ask(experiment.task, problems[0], [""])
    for i, draft in enumerate(drafts):
        texts = {form: policy.tokenizer.decode(list(found[form][i])) for form in found}
        assert draft.text in texts[DRAFT]
        assert draft.text not in texts[SECOND] + texts[FIRST]
        assert [retry in texts[form] for form in (DRAFT, SECOND, FIRST)] == [True, True, False]


def test_the_command_measures_fits_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.md"
    sizes = ["--seeds", "3", "--updates", "2", "--problems", "4", "--samples", "1", "--test", "8", "--pool", "4"]
    status = main([*FILES, *sizes, "--out", str(out)])
    text = out.read_text()
    assert status == int("**no**" in text)
    assert "seed 3" in text
    assert "2 updates of 4 problems x 1" in text
    assert capsys.readouterr().err.count("seed 3") == 3


def test_the_tracked_numbers_are_of_the_shipped_base() -> None:
    text = TRACKED.read_text()
    provenance = json.loads((EMBEDDED / "shell_game" / "provenance.json").read_text())
    assert provenance["sha256"] in text
    assert "200 updates of 64 problems x 1" in text
    assert "**accepted**" in text
    assert text.count("| yes |") == 5
