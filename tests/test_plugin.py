"""A stranger's package, installed by pip: method, task, verifier, policy and metric; the pinned API it uses."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import synthetic
from rich.console import Console

import harness
from harness import config, leaderboard, metrics, plots, report, scaling
from harness.training.display import final_table

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
    for name in ("method.raft", "task.round_products", "verifier.within", "policy.late_learner", "metric.same_length"):
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
        ("method.raft", "task.round_products", "verifier.within", "policy.late_learner", "metric.same_length"),
        "score-harness-example 1.2.3",
    )
    assert (info["spent"]["responses"], info["spent"]["updates"]) == (6 * 8 * 4, 6)
    board = harness_run(installed, "harness.leaderboard", str(tmp_path / "r"))
    assert board.returncode == 0, board.stderr
    assert re.search(r"^\| raft", board.stdout, re.MULTILINE)
    rows = [json.loads(line) for line in (folder / "eval.jsonl").read_text().splitlines()]
    texts = [[attempt["text"] for attempt in row["attempts"]] for row in rows if row["when"] == "after"]
    share = sum(len(last) == len(first) for first, last in texts) / len(texts)
    (header,) = re.findall(r"^\| Method \| fix rate .*", board.stdout, re.MULTILINE)
    cells = re.findall(r"^\| raft .*", board.stdout, re.MULTILINE)[1].split(" | ")
    assert cells[header.split(" | ").index("same length")].startswith(f"{100 * share:.1f} [")
    assert "Same length: the texts have as many characters." in board.stdout
    assert re.search(rf"same length .* {100 * share:.1f} \[", done.stdout)  # the table at the run's end
    sheet = harness_run(installed, "harness.leaderboard", str(tmp_path / "r"), "--format", "csv")
    (line,) = [
        line for line in csv.DictReader(sheet.stdout.splitlines()) if line["kind"] == "row" and line["method"] == "raft"
    ]
    assert float(line["same_length"]) == pytest.approx(share, abs=1e-6)
    assert float(line["same_length_lo"]) < share < float(line["same_length_hi"])
    script = "import harness, sys\nruns = harness.load(sys.argv[1]).runs\nprint(runs[runs.final].same_length.item())"
    frame = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "r")], capture_output=True, text=True, env=installed
    )
    assert float(frame.stdout) == pytest.approx(share)


def divide(table: metrics.Table) -> float:
    return len(table) / 0


@pytest.mark.parametrize(
    ("of", "told"),
    [
        (lambda table: [0.5], "metric 'odd' gave shape (1,) for a table of 60 records"),
        (divide, "metric 'odd' failed: ZeroDivisionError: division by zero"),
        (lambda table: [float("nan")] * len(table), "metric 'odd' gave NaN or infinity"),
        (lambda table: [2] * len(table), "metric 'odd' gave 2 to 2, not 0 to 1"),
    ],
)
def test_a_plugins_metric_at_fault_is_one_clear_error(
    tmp_path: Path, of: Any, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(metrics.METRICS, "odd", metrics.Metric("odd", "odd", of))
    for seed in (1, 2):
        records = synthetic.records((0.5, 0.2, 0.1, 0.5), seed)
        synthetic.write_run(tmp_path, "row", seed, records)
    for command in (leaderboard, report, plots, scaling):
        assert command.main([str(tmp_path)]) == 2
        assert capsys.readouterr().err == f"{command.__name__.rpartition('.')[2]}: {told}\n"
    screen = Console(record=True, width=100)
    screen.print(final_table("row", records))
    shown = screen.export_text()
    assert told in " ".join(shown.split())
    assert re.search(r"answer change .*\d", shown)  # the run's own table goes on without it


@pytest.mark.parametrize("name", ["t3", "seeds", "Odd", "x_lo", "delta"])
def test_a_metric_cannot_have_another_columns_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"no metric can be called|registered twice"):
        metrics.metric(name, "x")(lambda table: table.changed)
    assert metrics.METRICS["delta"].label == "Δ(t1,t{last})"


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


def test_the_guide_to_metrics_quotes_the_plugin_and_its_second_example_works() -> None:
    guide = (config.ROOT / "docs" / "adding_a_metric.md").read_text()
    plugin, example = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert plugin == (PLUGIN / "score_example" / "metric.py").read_text()
    parameters = list(inspect.signature(metrics.metric).parameters)
    assert f"`metric({', '.join([*parameters[:2], '*', *parameters[2:]])})`" in guide
    assert all(f"| `{name}` |" in guide for name in parameters)
    made: dict[str, Any] = {}
    exec(example, {"Table": metrics.Table, "metric": lambda *_, **told: lambda of: made.update(told, of=of)})
    table = metrics.tabulate(synthetic.records((0.3, 0.5, 0.1, 0.2), 1))
    found = metrics.Metric("x", "x", made["of"], made["interval"], made["given"])
    firsts = zip(*table.texts, table.correct[:, 0], strict=True)
    longer = [len(last) > len(first) for first, last, right in firsts if not right]
    assert 0 < sum(longer) < len(longer)
    assert found.table_mean(table) == pytest.approx(sum(longer) / len(longer))


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
