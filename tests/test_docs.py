"""The documentation: what the tutorial says is run, and the site is built without a broken link."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def run(words: list[str], folder: Path) -> str:
    """Runs a command there and returns what it printed; its failure is the test's."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_line(line: str, folder: Path) -> str:
    """One command line of the tutorial, smaller: 2 updates for 20, 40 problems for 200."""
    words = shlex.split(line.replace("--steps 20", "--steps 2").replace("--limit 200", "--limit 40"))
    assert words[0] == "score-harness", line
    return run([sys.executable, "-m", "harness", *words[1:]], folder)


@pytest.mark.slow
def test_the_tutorial_runs_as_written(tmp_path: Path) -> None:
    printed = {}
    for kind, name, text in FENCE.findall((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")):
        if name:
            (tmp_path / name).write_text(text, encoding="utf-8")
        elif kind == "sh":
            for line in text.strip().splitlines():
                printed[line] = run_line(line, tmp_path)
        elif kind == "python":
            printed[kind] = run([sys.executable, "-c", text], tmp_path)
    assert "Acc@t2" in printed["score-harness run score_full --steps 20 --limit 200 --out tutorial"]
    table = printed["score-harness leaderboard tutorial"]
    rows = {line.split(" ")[1] for line in table.splitlines() if line.startswith("| ")}
    assert {"score_full", "naive_multi_turn_rl", "no_bonus"} <= rows
    assert "reliance" in table
    assert (tmp_path / "tutorial" / "report.html").exists()
    assert list((tmp_path / "tutorial" / "figures").rglob("*.pdf"))
    assert printed["python"].count("score_full") == 2  # two seeds


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    """Its cells in order, in one process, but for the one that installs; `!` lines as commands."""
    cells = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["import subprocess, sys"]
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        for line in "".join(cell["source"]).splitlines():
            if line.startswith("!pip "):
                continue
            if line.startswith("!"):
                small = line[1:].replace("--steps 20", "--steps 2").replace("--limit 200", "--limit 40")
                words = ["-m", "harness", *shlex.split(small)[1:]]
                code.append(f"subprocess.run([sys.executable, *{words!r}], check=True)")
            else:
                code.append(line)
    assert "score_full" in run([sys.executable, "-c", "\n".join(code)], tmp_path)


def test_gin_in_ten_lines_is_a_gin_file(tmp_path: Path) -> None:
    ((_, name, text),) = FENCE.findall((ROOT / "docs" / "configuration.md").read_text(encoding="utf-8"))
    (tmp_path / name).write_text(text, encoding="utf-8")
    printed = run([sys.executable, "-m", "harness", "run", name, "--print-config"], tmp_path)
    for binding in ("run.steps = 50", "hf.lr = 0.0001", "run.name = 'my_row'"):
        assert binding in printed, printed


@pytest.mark.slow
def test_the_site_has_no_broken_link(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the docs extra is not installed")
    run([sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)], ROOT)
    api = (tmp_path / "api.html").read_text(encoding="utf-8")
    for name in ("harness.load", "harness.core.Example", "harness.core.Policy", "harness.credit.reinforce"):
        assert f'id="{name}"' in api, name
