"""The files of gin/task and gin/protocol put a row on a benchmark: they build, and agree with the paper's Table 5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from real_data import real

from harness import config
from harness.tasks.math import load_math500
from harness.training.experiment import Experiment

HERE = Path(__file__).parent


def build(files: list[str], *bindings: str) -> Experiment:
    config.prepare_gin(Experiment, "run")
    config.parse_gin(files, bindings)
    return config.build_root("run")


def code_data(folder: Path) -> list[str]:
    """Bindings that give every code task a small file of its own."""
    mbpp = [
        {"task_id": i, "text": f"Add, as in {i}.", "prompt": f"Add, as in {i}.",
         "code": "def add(a, b):\n  return a + b",
         "test_list": ["assert add(1, 2) == 3"], "wrong_code": "def add(a, b):\n  return a", "generator": "nobody@1"}
        for i in (11, 511, *range(601, 641))
    ]  # fmt: skip
    human = [
        {"task_id": "HumanEval/0", "prompt": "def one():\n", "declaration": "def one():\n", "entry_point": "one",
         "canonical_solution": "    return 1\n", "buggy_solution": "    return 2\n",
         "test": "def check(f):\n  assert f() == 1\ncheck(one)"}
    ]  # fmt: skip
    (folder / "mbpp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mbpp))
    (folder / "human.jsonl").write_text(json.dumps(human[0]) + "\n")
    found = []
    for name in ("mbpp", "mbpp_sanitized", "humaneval", "humanevalfix"):
        found += [f"task.{name}.data = '{folder / ('human' if 'human' in name else 'mbpp')}.jsonl'"]
        found += [f"task.{name}.pin = None"]
    return ["MODEL = 'my/model'", *found, f"task.mbpp_r.data = '{folder / 'mbpp.jsonl'}'", "task.mbpp_r.verify = False"]


@pytest.mark.parametrize(
    ("file", "trained", "evaluated"),
    [
        ("mbpp", "mbpp", ["humaneval", "humanevalfix"]),
        ("mbpp_r", "mbpp", ["humaneval", "humanevalfix", "MBPP-R (rebuilt, base=nobody)"]),
        ("mbpp_sanitized", "mbpp_sanitized", ["mbpp_sanitized", "humaneval"]),
    ],
)
def test_code_files_put_any_row_on_the_benchmark(tmp_path, file, trained, evaluated):
    experiment = build(
        ["gin/score_full.gin", f"gin/task/{file}.gin", "gin/protocol/paper_mbpp.gin"], *code_data(tmp_path)
    )
    assert experiment.task.name == trained
    assert [task.name for task in experiment.evaluated_tasks] == evaluated
    assert (experiment.steps, experiment.problems * experiment.samples) == (1_500, 128)
    spec: Any = experiment.policy
    assert (spec.lr, spec.temperature) == (1e-5, 1.0)
    told = config.parse_bindings(config.operative_config())
    assert (told["score_phase1.kl_first"], told["BETA2"], told["progress.alpha"]) == ("%BETA2", "0.25", "10.0")
    (tmp_path / "saved.gin").write_text(config.operative_config())
    again = build([str(tmp_path / "saved.gin")])
    assert config.parse_bindings(config.operative_config()) == told
    assert again.task.version == experiment.task.version


def test_evaluation_only_needs_a_row_that_trains_nothing(tmp_path):
    experiment = build(["gin/base.gin", "gin/task/humaneval.gin"], *code_data(tmp_path))
    assert [len(task.test) for task in experiment.evaluated_tasks] == [1, 1]
    with pytest.raises(config.ConfigError, match="task 'humaneval' has no train problems"):
        build(["gin/score_full.gin", "gin/task/humaneval.gin"], *code_data(tmp_path))


def test_transfer_trains_on_the_rows_own_task(tmp_path):
    experiment = build(["gin/score_full.gin", "gin/eval/transfer_humaneval.gin"], *code_data(tmp_path))
    assert experiment.task.name == "arithmetic"
    assert [task.name for task in experiment.evaluated_tasks] == ["humaneval", "humanevalfix"]


def test_math_file_and_its_saved_config(tmp_path):
    rows = [
        {"problem": f"Toy {n}", "solution": "x", "answer": "1", "unique_id": n} for n in sorted(load_math500().values())
    ]
    rows += [{"problem": f"What is {i}?", "solution": "x", "answer": f"{i}"} for i in range(200)]
    (tmp_path / "math.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["MODEL = 'my/model'", f"task.math.data = '{tmp_path / 'math.jsonl'}'", "task.math.pin = None"]
    experiment = build(["gin/score_full.gin", "gin/task/math.gin", "gin/protocol/paper_math.gin"], *data)
    assert (experiment.steps, experiment.problems * experiment.samples) == (3_000, 512)
    spec: Any = experiment.policy
    assert (spec.lr, spec.temperature) == (5e-6, 1.0)
    assert (len(experiment.task.train), len(experiment.task.test)) == (200, 500)
    told = config.parse_bindings(config.operative_config())
    assert (told["task.math.split"], told["verifier.math.answer_form"]) == ("'12000/500'", "'final_answer'")
    (tmp_path / "saved.gin").write_text(config.operative_config())
    build([str(tmp_path / "saved.gin")])
    assert config.parse_bindings(config.operative_config()) == told
    with pytest.raises(config.ConfigError, match=r"answer_form alike"):
        build(["gin/score_full.gin", "gin/task/math.gin"], *data, "task.math.answer_form = 'boxed'")


def test_the_larger_split_is_one_binding_more():
    lines = (config.ROOT / "gin/task/math_5000.gin").read_text().splitlines()
    assert lines[1:] == ["include 'gin/task/math.gin'", "task.math.split = '7500/5000'"]


@pytest.mark.data
def test_the_issues_binding_works_on_the_real_files():
    experiment = build(
        ["gin/score_full.gin", "gin/task/mbpp.gin"],
        "MODEL = 'my/model'",
        *(f"task.{name}.data = '{real(file)}'" for name, file in (
            ("mbpp", "mbpp.jsonl"), ("humaneval", "humaneval.jsonl"), ("humanevalfix", "humanevalfix_python.jsonl")
        )),
    )  # fmt: skip
    assert (len(experiment.task.train), [len(task.test) for task in experiment.evaluated_tasks]) == (374, [164, 164])
