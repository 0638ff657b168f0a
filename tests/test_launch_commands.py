"""Accelerate and the harness take the commands of docs/multi_gpu.md and gin/machine/ that start several processes."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser

from harness import config
from harness.run import make_parser

FILES = [config.ROOT / "docs" / "multi_gpu.md", *sorted((config.GIN_HOME / "gin" / "machine").glob("*.yaml"))]


def commands() -> list[str]:
    """Every `accelerate launch ...` that names a script, continued lines joined, without what stands behind it."""
    texts = [re.sub(r"\\\n[# ]*", "", path.read_text()) for path in FILES]
    found = [
        line for text in texts for line in re.findall(r"accelerate launch [^\n`#']*-m harness\.run[^\n`#']*", text)
    ]
    return [line for line in found if "..." not in line]


def test_commands_are_found() -> None:
    assert len(commands()) >= 5


@pytest.mark.parametrize("command", commands())
def test_accelerate_and_the_harness_take_the_command(command: str) -> None:
    launcher = launch_command_parser().parse_args(shlex.split(re.sub(r"\$\w+", "1", command))[2:])
    assert launcher.module
    assert launcher.training_script == "harness.run"
    asked = make_parser("run").parse_args(launcher.training_script_args)
    number = launcher.num_processes
    if launcher.config_file:
        number = yaml.safe_load((config.ROOT / launcher.config_file).read_text())["num_processes"]
    assert asked.processes == number
    assert all((config.ROOT / file).is_file() for file in asked.gin)
    assert asked.gin
