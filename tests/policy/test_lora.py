"""A LoRA policy: the reference is the same model with its adapter off, through training and back from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.core import Example
from harness.policy import HF

pytest.importorskip("peft", reason="peft is an extra (pip install -e '.[peft]')")


def test_the_reference_is_the_adapter_off(micro_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    policy = HF(path=str(micro_folder), max_new_tokens=4, lr=0.05, lora_rank=2).load("cpu")
    plain = HF(path=str(micro_folder), max_new_tokens=4).load("cpu")
    chats = [[{"role": "user", "content": text}] for text in ("a", "ab", "b")]
    turns = policy.open(chats, 4, seed=0, temperature=1.0).reply()
    base = plain.turn_logprobs(turns)

    stats, _ = policy.step([Example(turn, 1.0, 0.1) for turn in turns], 12)
    assert sum(abs(s.kl) for s in stats if s.kl is not None) == pytest.approx(
        0.0, abs=1e-5
    )  # an untrained adapter changes nothing
    for found, expected in zip(policy.turn_logprobs(turns, reference=True), base, strict=True):
        assert found == pytest.approx(expected, abs=1e-5)
    moved = policy.turn_logprobs(turns)
    assert max(abs(x - y) for a, b in zip(moved, base, strict=True) for x, y in zip(a, b, strict=True)) > 1e-3
    trained = {name for name, p in policy.model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora" in name for name in trained)

    reference = policy.open(chats, 4, seed=0, temperature=1.0, reference=True).reply()
    assert [t.tokens for t in reference] == [t.tokens for t in turns]

    policy.save(tmp_path)
    policy.restart()
    for found, expected in zip(policy.turn_logprobs(turns), base, strict=True):
        assert found == pytest.approx(expected, abs=1e-5)
    policy.load(tmp_path)
    assert policy.turn_logprobs(turns) == moved
