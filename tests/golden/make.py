"""Writes the golden run folders and what the readers make of them: `python tests/golden/make.py`, in the repository.

The folders are handmade: a changed number in `expected/` is a changed reader, a changed statistic or a changed table.
Look at the diff, say in CHANGELOG.md that numbers move, and commit it.

`format1/` holds runs as format 1 of run.json has them, `format2/` the same runs in format 2. A folder stays as it is
when the format goes on: for another one, add an entry to FOLDERS. The test asks every folder for the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FORMATS = {"leaderboard.md": "md", "leaderboard.csv": "csv", "leaderboard.json": "json", "leaderboard.tex": "latex"}
GOLD = {"p1": "12", "p2": "7", "p3": "40", "p4": "9"}
# One letter an attempt: R right; W wrong (one less than right), V wrong otherwise (ten more), N no answer, T cut off.
# A run's records: {(when, samples of each problem): {problem: attempts of each sample}}.
Letters = Mapping[tuple[str, int], Mapping[str, str]]
GREEDY_BASE: Letters = {("before", 1): {"p1": "RR", "p2": "WW", "p3": "RV", "p4": "NW"}}
RUNS: Sequence[tuple[str, int, Letters]] = [
    ("base", 0, GREEDY_BASE),
    ("naive", 0, {**GREEDY_BASE, ("after", 1): {"p1": "RR", "p2": "RR", "p3": "WW", "p4": "TN"}}),
    ("score", 0, {
        **GREEDY_BASE,
        ("after", 1): {"p1": "RR", "p2": "WR", "p3": "RW", "p4": "VR"},
        ("after", 4): {"p1": "RR RR WR RW", "p2": "WR WW VR NR"},
    }),
    ("score", 1, {**GREEDY_BASE, ("after", 1): {"p1": "RR", "p2": "WR", "p3": "RR", "p4": "WV"}}),
]  # fmt: skip


def attempt(letter: str, gold: str) -> dict[str, Any]:
    """One attempt of a record."""
    answer = {"R": gold, "W": str(int(gold) - 1), "V": str(int(gold) + 10)}.get(letter)
    text = rf"It is \boxed{{{answer}}}." if answer else "I do not know." if letter == "N" else "Let me think: 1, 2, 3"
    status = {"N": "no_answer", "T": "truncated"}.get(letter, "ok")
    return {
        "text": text, "answer": answer, "reward": float(letter == "R"), "correct": letter == "R", "status": status,
        "tokens": len(text), "truncated": letter == "T", "by": "policy",
    }  # fmt: skip


def records_of(letters: Letters) -> list[dict[str, Any]]:
    """The records of eval.jsonl, greedy where there is one sample."""
    return [
        {
            "when": when, "task": "sums", "id": problem, "sample": i, "temperature": 0.7 if samples > 1 else 0.0,
            **({} if samples > 1 else {"prompt": f"What is {problem}?"}),
            "attempts": [attempt(letter, GOLD[problem]) for letter in word],
        }
        for (when, samples), held in letters.items()
        for problem, words in held.items()
        for i, word in enumerate(words.split())
    ]  # fmt: skip


LINEAGE = {  # what gin/ here says of each row, for format 1, in which the readers look there
    "base": ("", {}),
    "naive": ("base", {"run.method": "@naive()"}),
    "score": ("naive", {"progress.alpha": "10.0"}),
}


def keep_format1(info: dict[str, Any]) -> dict[str, Any]:
    """run.json as it was."""
    return info


def make_format2(info: dict[str, Any]) -> dict[str, Any]:
    """run.json with its bindings, parent, difference and digest, as docs/results_format.md states them."""
    parent, difference = LINEAGE[info["name"]]
    bindings = {"run.name": f"'{info['name']}'", "run.seed": str(info["seed"])}
    more = {**info, "format": 2, "bindings": bindings, "parent": parent, "difference": difference}
    told = json.dumps(more, sort_keys=True, separators=(",", ":")).encode()
    return {**more, "digest": hashlib.sha256(told).hexdigest()}


FOLDERS: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"format1": keep_format1, "format2": make_format2}


def write_runs(root: Path, adapt: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Writes every run; `adapt` turns a run.json of format 1 into another."""
    for name, seed, letters in RUNS:
        folder = root / "sums" / "tiny" / name / f"seed{seed}"
        folder.mkdir(parents=True)
        trained, rows = name != "base", records_of(letters)
        info = {
            "format": 1, "name": name, "task": "sums", "task_version": "1", "policy": "tiny", "model": "tiny",
            "seed": seed, "status": "done", "error": None, "budget": {"steps": 2, "problems": 2, "samples": 2},
            "spent": {"trajectories": 8 * trained, "responses": 16 * trained, "updates": 2 * trained},
            "graders": {"sums": "exact"}, "eval_tasks": {"sums": "1"}, "versions": {}, "plugins": {}, "device": "cpu",
            "threads": 1, "started": "2001-01-01T00:00:00Z", "seconds": 3.0, "commit": "0" * 40,
        }  # fmt: skip
        (folder / "run.json").write_text(json.dumps(adapt(info), indent=1) + "\n")
        (folder / "config.gin").write_text(f"run.name = '{name}'\nrun.seed = {seed}\n")
        (folder / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        logged = [{"phase": "1", "step": i, "phase_step": i, "acc_t1": 0.25 * i, "loss_nll": 0.5 / i} for i in (1, 2)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in logged if trained))


def read_outputs(root: Path, folder: Path) -> dict[str, bytes]:
    """{file: its bytes} of the tables of the runs under `root`, made in `folder`."""
    import harness
    from harness.leaderboard import main as leaderboard
    from harness.scaling import main as scaling

    for name, format_ in FORMATS.items():
        code = leaderboard([str(root), "--gin", str(HERE / "gin"), "--format", format_, "--out", str(folder / name)])
        assert code == 0, name
    assert scaling([str(root), "--out", str(folder / "scaling.md")]) == 0
    harness.load(root).runs.to_csv(folder / "frame_of_runs.csv", index=False, lineterminator="\n")
    return {name: (folder / name).read_bytes() for name in (*FORMATS, "scaling.md", "frame_of_runs.csv")}


def main() -> int:
    """Writes the folders and the expected outputs again, those from the first folder."""
    for name, adapt in FOLDERS.items():
        shutil.rmtree(HERE / name, ignore_errors=True)
        write_runs(HERE / name, adapt)
    (HERE / "expected").mkdir(exist_ok=True)
    read_outputs(HERE / "format1", HERE / "expected")
    return 0


if __name__ == "__main__":
    sys.exit(main())
