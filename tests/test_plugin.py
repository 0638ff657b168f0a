"""A stranger's package, installed by pip, is a method, a task, a verifier and a policy; the pinned API it uses."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from harness import config

PLUGIN = Path(__file__).parent / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that finds the plugin where pip has put it."""
    folder = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(PLUGIN, folder / "source")  # setuptools leaves its build files beside the source
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(folder / "site"), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": f"{folder / 'site'}{os.pathsep}{config.ROOT}", "COLUMNS": "200"}


def harness_run(env: dict[str, str], module: str, *words: str, cwd: Path = config.ROOT):
    return subprocess.run(
        [sys.executable, "-m", module, *words], capture_output=True, text=True, timeout=250, env=env, cwd=cwd
    )


@pytest.mark.slow
def test_the_plugins_names_are_listed_with_their_distribution(installed: dict[str, str]) -> None:
    listed = harness_run(installed, "harness.run", "--list")
    assert listed.returncode == 0, listed.stderr
    for name in ("method.raft", "task.round_products", "verifier.within", "policy.late_learner"):
        assert re.search(rf"{re.escape(name)} .* score-harness-example 1\.2\.3", listed.stdout)
    assert re.search(r"method\.score .* score-harness 0", listed.stdout)


@pytest.mark.slow
def test_the_plugins_row_runs_and_stands_in_the_leaderboard(installed: dict[str, str], tmp_path: Path) -> None:
    words = ["--gin", str(PLUGIN / "gin" / "raft.gin"), "--out", str(tmp_path / "r"), "--device", "cpu"]
    for binding in ("run.steps = 6", "run.problems = 8", "run.samples = 2", "hf.max_new_tokens = 24"):
        words += ["--bind", binding]
    done = harness_run(installed, "harness.run", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "r" / "round_products" / "arithmetic" / "raft" / "seed0"
    info = json.loads((folder / "run.json").read_text())
    suppliers = {name: source for name, source in info["plugins"].items() if not source.startswith("score-harness 0")}
    assert suppliers == dict.fromkeys(
        ("method.raft", "task.round_products", "verifier.within", "policy.late_learner"), "score-harness-example 1.2.3"
    )
    assert (info["spent"]["responses"], info["spent"]["updates"]) == (6 * 8 * 4, 6)
    board = harness_run(installed, "harness.leaderboard", str(tmp_path / "r"))
    assert board.returncode == 0, board.stderr
    assert re.search(r"^\| raft", board.stdout, re.MULTILINE)


@pytest.mark.slow
def test_the_plugins_policy_runs_and_is_evaluated_further_by_the_commands(
    installed: dict[str, str], tmp_path: Path
) -> None:
    gin = str(PLUGIN / "gin" / "late_learner.gin")
    words = ["--gin", gin, "--out", str(tmp_path), "--device", "cpu", "--bind", "run.steps = 4"]
    done = harness_run(installed, "harness.run", *words, "--bind", "run.problems = 4", "--bind", "run.samples = 2")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "round_products" / "late_learner" / "late_learner" / "seed0"
    info = json.loads((folder / "run.json").read_text())
    assert (info["policy"], info["engine"]["model"], info["spent"]["updates"]) == ("late_learner", "scripted", 4)
    more = harness_run(
        installed, "harness.evaluate", str(folder), "--device", "cpu",
        "--bind", "run.evaluations = [@evaluation.fixed_first()]",
    )  # fmt: skip
    assert more.returncode == 0, more.stdout + more.stderr
    right: dict[tuple[str, str], set[bool]] = {}
    for line in map(json.loads, (folder / "eval.jsonl").read_text().splitlines()):
        right.setdefault((line["when"], line["attempts"][0]["by"]), set()).add(line["attempts"][1]["correct"])
    assert right == {("before", "policy"): {False}, ("after", "policy"): {True}, ("after", "reference"): {True}}


def test_the_guide_quotes_the_plugin_as_it_is() -> None:
    guide = (config.ROOT / "docs" / "adding_a_method.md").read_text()
    quoted = {
        match[1]: match[2] for match in re.finditer(r"`tests/plugin/(\S+)`:\n\n```\w+\n(.*?)```", guide, re.DOTALL)
    }
    code = {"score_example/method.py", "score_example/policy.py"}
    assert set(quoted) == {"pyproject.toml", "gin/raft.gin", "gin/late_learner.gin", *code}
    for name, text in quoted.items():
        assert text == (PLUGIN / name).read_text()
    assert len((PLUGIN / "score_example" / "method.py").read_text().splitlines()) < 40


def test_the_reference_page_is_what_the_code_says() -> None:
    from harness.tools.plugin_reference import make_page

    page = (config.ROOT / "docs" / "plugin_reference.md").read_text()
    assert page == make_page()
    for name in (*FIELDS, *MEMBERS):
        assert f"### {name}\n" in page


FIELDS = {
    "Budget": ["steps", "problems", "samples"],
    "Example": ["turn", "weight", "kl", "bonus"],
    "Phase": [
        "name", "steps", "credit", "turns", "refresh_every", "mean_over", "given_share", "restart", "adapt",
    ],
    "Problem": ["id", "prompt", "answer", "solution", "given", "meta"],
    "Trajectory": ["problem", "turns"],
    "Turn": ["context", "tokens", "text", "verdict", "index", "by", "scored", "truncated", "logprobs"],
    "TurnStats": ["logprob", "kl", "entropy", "tokens", "gap"],
    "Verdict": ["reward", "correct", "status", "answer", "flag", "reason"],
}  # fmt: skip
MEMBERS = {
    "Method": ["phases"],
    "Policy": [
        "adopt", "cut_prompts", "describe", "encoded", "export", "load", "open", "ranks", "refresh", "require_room",
        "restart", "save", "step", "temperature",
    ],
    "PolicySpec": ["key", "load"],
    "Session": ["ask", "give", "reply"],
    "Task": ["chat", "name", "test", "train", "validation", "verifier", "version"],
    "Verifier": ["__call__"],
}  # fmt: skip
SIGNATURES = {
    "register": ["kind", "name"],
    "reinforce": ["groups", "advantage", "kl", "paid", "bonus", "gamma", "scale"],
}


def test_the_public_api_is_what_plugins_were_written_with() -> None:
    assert set(harness.__all__) == {*FIELDS, *MEMBERS, *SIGNATURES, "Group", "Message", "load"}
    for name, fields in FIELDS.items():
        assert [field.name for field in dataclasses.fields(getattr(harness, name))] == fields, name
    for name, members in MEMBERS.items():
        own = vars(getattr(harness, name))
        assert sorted(key for key in own if key in members or not key.startswith("_")) == members, name
    for name, parameters in SIGNATURES.items():
        assert list(inspect.signature(getattr(harness, name)).parameters) == parameters, name
