"""The GPU checks at toy size on a CPU, and the command that goes through them: order, limits, nothing done twice."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, memory

HAS_CUDA = torch.cuda.is_available()


@pytest.mark.skipif(HAS_CUDA, reason="there is a CUDA device")
def test_without_cuda_it_says_so_and_how_to_try_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "no CUDA device here (to go through the script: --tiny --device cpu)" in capsys.readouterr().err


def test_a_step_of_both_stages_at_toy_size(tmp_path: Path) -> None:
    folder = gpu.random_model(gpu.TINY, tmp_path / "model", "cpu")
    found = gpu.stages(gpu.TOY, "cpu", folder)
    assert found["trajectories"] == 12
    assert found["stage1_largest_kl"] == 0.0
    assert found["stage2_grad_norm"] > 0


@pytest.mark.slow
def test_what_has_ended_is_not_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole command on one check: a process of its own, a report that names the commit, and a second start."""
    words = ["--tiny", "--device", "cpu", "--only", "agreement_0.5b", "--out", str(tmp_path / "out")]
    words += ["--work", str(tmp_path / "work")]
    assert gpu.main(words) == 0
    assert "agreement_0.5b: to do, at most 2 min" in capsys.readouterr().out
    path = tmp_path / "out" / "gpu_cpu_tiny.json"
    told = path.read_bytes()
    check = json.loads(told)["checks"]["agreement_0.5b"]
    assert check["trainer_and_reference"] == {"mean": 0.0, "max": 0.0}
    assert len(check["commit"].rstrip("+")) == 40
    assert gpu.main(words) == 0
    assert path.read_bytes() == told
    assert "agreement_0.5b: ended before" in capsys.readouterr().out


def test_the_order_is_new_checks_then_those_that_did_not_end_well_and_the_study_last() -> None:
    names = ["a", "b", "c", "d", "e", "study"]
    checks = {"a": {"failed": "x"}, "b": {}, "c": {"left_out": "y"}, "study": {"runs": {}}}
    assert gpu.order(names, checks) == ["d", "e", "a", "c", "study"]
    assert gpu.order(names, checks, again=["b"]) == ["b", "d", "e", "a", "c", "study"]
    assert gpu.order(names, checks, only=["a", "b"]) == ["a"]


def test_a_check_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    log, result = tmp_path / "log", tmp_path / "result"
    ends = [sys.executable, "-c", f"open({str(result)!r}, 'w').write('{{\"a\": 1}}')"]
    assert gpu.run_part(ends, 20, log, result) == {"a": 1}
    breaks = gpu.run_part([sys.executable, "-c", "raise SystemExit('no such thing')"], 20, log, result)
    assert breaks == {"failed": "exit status 1: no such thing\n"}
    code = "import subprocess, sys\np = subprocess.Popen(['sleep', '60'])\n"
    code += "open(sys.argv[1], 'w').write(str(p.pid))\np.wait()"
    late = gpu.run_part([sys.executable, "-c", code, str(tmp_path / "pid")], 1.0, log, result)
    assert late["failed"] == "longer than its 0.0 minutes"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_memory_model_counts_real_parameters() -> None:
    """As the model cards say: 0.49 B, 1.54 B, 3.09 B, 7.61 B parameters."""
    found = {name: memory.parts(shape, memory.Load()) for name, shape in memory.SHAPES.items()}
    billions = {name: round(parts["parameters"] / 1e9, 2) for name, parts in found.items()}
    assert billions == {"0.5b": 0.49, "1.5b": 1.54, "3b": 3.09, "7b": 7.62}
    # Half the rows: what the harness takes for a model of this size.
    whole, shared = (memory.parts(memory.SHAPES["7b"], memory.Load(processes=n, rows=128)) for n in (1, 8))
    assert shared["Adam"] == pytest.approx(whole["Adam"] / 8)
    assert max(memory.peaks(whole, 1)) > 80e9 > max(memory.peaks(shared, 8))
