"""The files of gin/on/: every model file puts a row on its model; the launcher's files are ones accelerate reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness import config
from harness.training.experiment import Experiment

ON = config.ROOT / "gin" / "on"
MODELS = sorted(path.stem for path in ON.glob("*.gin") if re.search(r"^hf\.path", path.read_text(), re.M))
PAIRS = sorted(path.stem for path in ON.glob("*_qwen2.5_*.gin"))


@pytest.mark.parametrize(
    "name", [name for name in MODELS if not name.startswith("embedded") and not name.endswith("_package")]
)
def test_a_model_file_puts_a_row_on_the_model(name: str) -> None:
    config.prepare(Experiment, "run")
    config.parse(["gin/score_full.gin", f"gin/on/{name}.gin"], [])
    policy = config.build("run").policy
    assert policy.path.count("/") == 1
    assert policy.checkpoint_layers
    assert policy.max_prompt_tokens == 2048
    assert policy.chat == ("plain" if name.endswith("_base") else "template")
    assert policy.path.endswith(("-Instruct", "-it")) == (policy.chat == "template" and "qwen3" not in name)


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_file_is_a_task_and_a_model(name: str) -> None:
    task, _, model = name.partition("_")
    lines = [line for line in (ON / f"{name}.gin").read_text().splitlines() if not line.startswith("#")]
    assert lines == [f"include 'gin/on/{task}.gin'", f"include 'gin/on/{model}.gin'"]
    assert (ON / f"{model}.gin").is_file()


@pytest.mark.parametrize("path", sorted(ON.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_launchers_file_is_one_accelerate_reads(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    settings: Any = load_config_from_file(str(path))
    assert settings.num_processes == 8
    assert settings.mixed_precision == "no"  # the harness rounds forwards itself
    assert f"--config_file gin/on/{path.name} -m harness.run" in path.read_text()
    assert f"--processes {settings.num_processes}" in path.read_text()
