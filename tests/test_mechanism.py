"""harness.mechanism: counts worked by hand, and the tracked page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import config
from harness.analysis import mechanism
from harness.mechanism import main as run_mechanism
from harness.runs import reader


def record(problem: str, by: str, first: str, second: tuple[str, str]) -> dict[str, Any]:
    text, answer = second
    attempts = [
        {"text": f"say {first}", "answer": first, "by": by},
        {"text": text, "answer": answer, "by": "policy"},
    ]
    for attempt in attempts:
        attempt |= {"reward": 0.0, "correct": False, "status": "ok", "tokens": 1, "truncated": False}
    return {"when": "after", "task": "t", "id": problem, "sample": 0, "temperature": 0.0, "attempts": attempts}


def write_run(root: Path, seed: int, records: list[dict[str, Any]], metrics: list[dict[str, Any]]) -> None:
    folder = root / "t" / "model" / "row" / f"seed{seed}"
    folder.mkdir(parents=True)
    info = {"format": 1, "status": "done", "task": "t", "policy": "model", "name": "row", "seed": seed}
    info |= {"task_version": "1", "eval_tasks": {"t": "1"}, "spent": {"trajectories": 1, "responses": 2, "updates": 3}}
    (folder / "run.json").write_text(json.dumps(info))
    (folder / "config.gin").write_text("hf.max_grad_norm = 2.0\n")
    for name, lines in (("eval.jsonl", records), ("metrics.jsonl", metrics)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_counts_by_hand(tmp_path: Path) -> None:
    work = ("1 + 1 = \\boxed{2}", "2")
    metrics = [
        {"phase": "rl", "step": 1, "grad_norm": 3.0, "examples": 8},
        {"phase": "rl", "step": 2, "grad_norm": 2.0, "examples": 4},  # at the bound: nothing is cut off
        {"phase": "rl", "step": 3, "examples": 0},  # nothing to fit
    ]
    same_text = [record("a", "policy", "5", work), record("a", "reference", "6", work)]
    same_answer = [record("b", "policy", "5", work), record("b", "reference", "6", ("2", "2"))]
    copied = [record("c", "policy", "5", ("5", "5")), record("c", "reference", "6", ("6", "6"))]
    equal_firsts = [record("d", "policy", "5", work), record("d", "reference", "5", work)]
    write_run(tmp_path, 0, [*same_text, *same_answer, *copied, *equal_firsts], metrics)
    write_run(tmp_path, 1, same_text, metrics[:1])
    write_run(tmp_path, 2, same_text[:1], metrics[:1])  # never asked after fixed first attempts
    runs, troubles = reader.read_runs(tmp_path)
    assert not troubles
    assert mechanism.swapped_drafts(runs) == {"row": [(3, 1, 2), (1, 1, 1)]}
    assert mechanism.summarize_updates(runs) == [("row", "rl", 5, 0.75, 3.0, pytest.approx(7.0))]
    text = mechanism.render_markdown(runs, "here")
    assert "| row | rl | 5 | 75.0 | 3.0 | 7.0 |" in text
    assert "| row | 4 | 50 | 33, 100 | 75 |" in text


@pytest.mark.slow
def test_the_tracked_page_is_what_the_command_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(config.ROOT)
    made = tmp_path / "mechanism.md"
    assert run_mechanism(["results/embedded", "--out", str(made)]) == 0
    tracked = config.ROOT / "results" / "embedded_mechanism.md"
    assert made.read_text(encoding="utf-8") == tracked.read_text(encoding="utf-8")
    assert run_mechanism(["no/such/folder"]) == 2
    assert "no results folder" in capsys.readouterr().err
