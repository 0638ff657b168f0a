"""The memory tables of docs/multi_gpu.md: what benchmarks/memory.py computes on real shapes, and what it measured."""

from __future__ import annotations

import json

import pytest

from benchmarks import memory
from harness import config

PAGE = (config.ROOT / "docs" / "multi_gpu.md").read_text()
NEAR = 0.15  # relative, of each peak
# Parameters that the model cards give, in thousand millions: a wrong shape shows here.
PARAMETERS = {
    "Qwen/Qwen2.5-3B-Instruct": 3.09, "Qwen/Qwen3-4B": 4.0, "meta-llama/Llama-3.2-1B-Instruct": 1.24,
    "google/gemma-2-2b-it": 2.61, "HuggingFaceTB/SmolLM2-135M-Instruct": 0.135,
}  # fmt: skip


def test_the_page_has_what_the_command_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MODELS", {name: memory.MODELS[name] for name in PARAMETERS})
    lines = memory.lengths_table(1, memory.LENGTHS).splitlines()
    assert [line for line in lines if line not in PAGE] == []
    for (name, known), line in zip(PARAMETERS.items(), lines[2:], strict=True):
        told = line.split("|")
        assert told[1].strip() == f"`{name}`"
        assert float(told[2].split()[0]) == pytest.approx(known, abs=0.025)


def test_the_page_has_what_was_measured_and_the_estimate_is_near_it() -> None:
    report = json.loads((memory.RESULTS / "memory_cpu.json").read_text())
    assert memory.table(report) in PAGE
    for name, case in report["cases"].items():
        for phase, predicted in memory.predict(report, name).items():
            assert predicted == pytest.approx(case["measured"][phase], rel=NEAR), (name, phase)


def test_a_table_takes_the_place_of_the_one_with_the_same_head() -> None:
    page = "a\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n| z |\n|---|\n| 3 |\nb\n"
    assert memory.put_tables(page, ["| z |\n|---|\n| 4 |\n| 5 |"]) == page.replace("| 3 |", "| 4 |\n| 5 |")
    with pytest.raises(ValueError, match="no table with this head"):
        memory.put_tables(page, ["| w |\n|---|"])


def test_the_pages_times_of_the_main_job_are_the_measured_ones() -> None:
    found = json.loads((memory.RESULTS / "processes.json").read_text())["results"]
    one, threads, two = (f"{min(found[name]['training_s']):.1f} s" for name in found)
    assert list(found) == ["1 process, 1 thread", "1 process, 2 threads", "2 processes"]
    page = " ".join(PAGE.split())
    assert (
        f"{one} of training with one process of one thread, {threads} with two threads, {two} with two processes"
        in page
    )
