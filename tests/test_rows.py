"""Every row, for a few steps on the embedded model; the supervised rows' credit by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import config
from harness.core import Budget, Problem, Trajectory, Turn, Verdict
from harness.run import main
from methods.pair_sft import PairSFT
from methods.sft import SFTOracle, corrections
from methods.star import STaR

ROWS = sorted(path.stem for path in (config.ROOT / "gin").glob("*.gin"))


@pytest.mark.parametrize("name", ROWS)
def test_every_row_runs(name: str, tmp_path: Path) -> None:
    bindings = [
        "run.steps = 8", "run.problems = 4", "run.samples = 2", "arithmetic.test_size = 12", "hf.max_new_tokens = 24",
    ]  # fmt: skip
    words = [word for binding in bindings for word in ("--bind", binding)]
    assert main(["--gin", f"gin/{name}.gin", "--out", str(tmp_path), "--device", "cpu", *words]) == 0
    folder = next(tmp_path.rglob("run.json")).parent
    info = json.loads((folder / "run.json").read_text())
    assert (info["name"], info["status"]) == (name, "done")
    records = (folder / "eval.jsonl").read_text().splitlines()
    if name == "base":
        assert len(records) == 12
        assert info["spent"]["updates"] == 0
        return
    assert len(records) == 24
    assert info["spent"]["updates"] == 8
    offline = 8 * 4 if name == "score_offline_prompts" else 0  # those first attempts are drawn from the base model
    assert info["spent"]["responses"] + offline >= 8 * 4 * 2 * 2 - 16


def trajectory(problem: Problem, *answers: tuple[str, bool]) -> Trajectory:
    turns = tuple(
        Turn((1, 9) * (i + 1), (i, ord(text)), text, Verdict(float(right), right), index=i)
        for i, (text, right) in enumerate(answers)
    )
    return Trajectory(problem, turns)


PROBLEM = Problem("p", "q", "r", solution="the worked answer")
MENDED = trajectory(PROBLEM, ("x", False), ("a", True))
BROKEN = trajectory(PROBLEM, ("b", True), ("y", False))
KEPT = trajectory(PROBLEM, ("c", True), ("d", True))
LOST = trajectory(PROBLEM, ("z", False), ("w", False))
GROUP = [MENDED, BROKEN, KEPT, LOST]


def test_corrections_are_wrong_then_right() -> None:
    assert [e.turn for e in corrections([GROUP])] == [MENDED.turns[1]]
    assert corrections([[LOST], [KEPT], [BROKEN]]) == []


def test_sft_oracle_aims_at_the_solution_after_every_wrong_attempt() -> None:
    examples = SFTOracle().credit([GROUP])
    assert [(e.turn.text, e.turn.tokens, e.turn.context) for e in examples] == [
        ("the worked answer", (), MENDED.turns[1].context),
        ("the worked answer", (), LOST.turns[1].context),
    ]
    with pytest.raises(ValueError, match="'bare' has none"):
        SFTOracle().credit([[trajectory(Problem("bare", "q", "r"), ("x", False), ("a", True))]])


def test_pair_sft_pairs_wrong_first_attempts_with_any_right_response_of_the_problem() -> None:
    examples = PairSFT().credit([GROUP])
    assert [e.turn.context for e in examples] == [MENDED.turns[1].context, LOST.turns[1].context]
    assert {e.turn.text for e in examples} <= {"a", "b", "c", "d"}
    assert PairSFT().credit([GROUP]) == examples  # the random choice is a function of the data
    assert PairSFT().credit([[LOST]]) == []
    plus = PairSFT(right_share=1.0).credit([GROUP])
    assert len(plus) == 4


def test_star_keeps_corrections_and_in_d_plus_right_right_as_well() -> None:
    assert [e.turn for e in STaR().credit([GROUP])] == [MENDED.turns[1]]
    assert [e.turn for e in STaR(keep_right=True).credit([GROUP])] == [MENDED.turns[1], KEPT.turns[1]]
    phases = STaR().phases(Budget(10, 4, 2))
    assert [(p.steps, p.refresh_every, p.restart) for p in phases] == [(3, 3, True), (4, 4, True), (3, 3, True)]
