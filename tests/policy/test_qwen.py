"""Every row on a random-weight Qwen2.5: the real architecture, a byte-level BPE tokenizer, ChatML. Two updates each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import build

from harness import config
from harness.run import main

pytestmark = pytest.mark.slow  # every row, through the command line

ROWS = sorted(path.stem for path in (config.ROOT / "gin").glob("*.gin"))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("qwen2.5", tmp_path_factory.mktemp("qwen"))


@pytest.mark.parametrize("name", ROWS)
def test_every_row_takes_two_steps_on_a_real_architecture(name: str, qwen: Path, tmp_path: Path) -> None:
    bindings = [
        "run.steps = 2", "run.problems = 2", "run.samples = 4", "arithmetic.test_size = 2", "arithmetic.train_size = 8",
        "hf.max_new_tokens = 6", f"hf.path = '{qwen}'", "hf.name = 'qwen'",
    ]  # fmt: skip
    words = [word for binding in bindings for word in ("--bind", binding)]
    assert main(["--gin", f"gin/{name}.gin", "--out", str(tmp_path), "--device", "cpu", *words]) == 0
    folder = next(tmp_path.rglob("run.json")).parent
    info = json.loads((folder / "run.json").read_text())
    assert (info["status"], info["engine"]["model"]) == ("done", "Qwen2ForCausalLM")
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == info["spent"]["updates"]
    assert info["spent"]["updates"] in (0, 2)
    fresh = [step for step in steps if "reward_t1" in step]  # fitted samples may be of older weights: those do differ
    assert bool(fresh) == bool(steps)
    assert all(step.get("sampler_gap", 0.0) < 1e-4 for step in fresh)
    assert len((folder / "eval.jsonl").read_text().splitlines()) == (4 if steps else 2)
