"""The GPU checks: the whole of them where there is a CUDA device; here, that they refuse clearly and what they read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, memory

HAS_CUDA = torch.cuda.is_available()


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not HAS_CUDA, reason="no CUDA device")
def test_every_gpu_check_passes(tmp_path: Path) -> None:
    assert gpu.main(["--out", str(tmp_path)]) == 0


@pytest.mark.skipif(HAS_CUDA, reason="there is a CUDA device")
def test_without_cuda_it_says_so_and_how_to_try_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "no CUDA device here (to go through the script: --tiny --device cpu)" in capsys.readouterr().err


def test_the_script_runs_at_toy_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--tiny", "--device", "cpu", "--only", "agreement_0.5b", "--only", "stages_0.5b"]
    assert gpu.main([*words, "--out", str(tmp_path)]) == 0
    checks = json.loads((tmp_path / "gpu_cpu_tiny.json").read_text())["checks"]
    assert checks.keys() == {"agreement_0.5b", "stages_0.5b"}
    assert checks["agreement_0.5b"]["trainer_and_reference"] == {"mean": 0.0, "max": 0.0}
    assert checks["stages_0.5b"]["stage1_largest_kl"] == 0.0
    assert checks["stages_0.5b"]["stage2_grad_norm"] > 0


def test_the_memory_model_counts_real_parameters() -> None:
    """As the model cards say: 0.49 B, 1.54 B, 3.09 B, 7.61 B parameters."""
    found = {name: memory.parts(shape, memory.Load()) for name, shape in memory.SHAPES.items()}
    billions = {name: round(parts["parameters"] / 1e9, 2) for name, parts in found.items()}
    assert billions == {"0.5b": 0.49, "1.5b": 1.54, "3b": 3.09, "7b": 7.62}
    whole, shared = (memory.parts(memory.SHAPES["7b"], memory.Load(processes=n)) for n in (1, 8))
    assert shared["Adam"] == pytest.approx(whole["Adam"] / 8)
    assert max(memory.peaks(whole, 1)) > 80e9 > max(memory.peaks(shared, 8))
