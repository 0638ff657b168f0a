"""The memory table of docs/multi_gpu.md is what `python -m benchmarks.memory --lengths` prints, on the real shapes."""

from __future__ import annotations

import pytest

from benchmarks import memory
from harness import config

# Parameters that the model cards give, in thousand millions: a wrong shape shows here.
PARAMETERS = {
    "Qwen/Qwen2.5-3B-Instruct": 3.09, "Qwen/Qwen3-4B": 4.0, "meta-llama/Llama-3.2-1B-Instruct": 1.24,
    "google/gemma-2-2b-it": 2.61, "HuggingFaceTB/SmolLM2-135M-Instruct": 0.135,
}  # fmt: skip


def test_the_page_has_what_the_command_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "MODELS", {name: memory.MODELS[name] for name in PARAMETERS})
    memory.print_lengths(1, [512, 1024, 2048, 4096, 8192])
    page = (config.ROOT / "docs" / "multi_gpu.md").read_text()
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line not in page] == []
    for (name, known), line in zip(PARAMETERS.items(), lines[2:], strict=True):
        told = line.split("|")
        assert told[1].strip() == f"`{name}`"
        assert float(told[2].split()[0]) == pytest.approx(known, abs=0.025)
