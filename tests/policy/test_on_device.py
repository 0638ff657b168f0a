"""The engine on a GPU against plain transformers on the CPU: log-probabilities, gradients, trees, adapters, files.

Runs where there is a CUDA device. SCORE_HARNESS_DEVICE=cpu takes the same tests to the CPU, in bfloat16 as well, which
proves the tests; `python -m benchmarks.gpu` starts them either way.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import transformers
from tiny import build

from harness.core import Example, Turn
from harness.policy import HF
from harness.policy.engine import Policy

DEVICE = os.environ.get("SCORE_HARNESS_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device"),
]
CHATS = [[{"role": "user", "content": text}] for text in ("Problem: 1+1 = ?", "Problem: 47*6+58 = ? Think.", "5")]
SHAPE = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
         "initializer_range": 0.08}  # fmt: skip
FAMILIES = ("llama3", "qwen2.5", "gemma2", "mistral")
# Largest mean difference per token from the CPU's float32, in nats, and relative error of the gradient.
NATS, GRADIENT = {"float32": 1e-4, "bfloat16": 0.05}, {"float32": 1e-3, "bfloat16": 0.1}


def load(folder: Path, **options: object) -> Policy:
    attention = "eager" if folder.name == "gemma2" else "auto"
    return HF(path=str(folder), max_new_tokens=24, attention=attention, **options).load(DEVICE)  # type: ignore[arg-type]


def two_turns(policy: Policy, samples: int = 3) -> list[Turn]:
    policy.refresh()
    session = policy.open(CHATS, samples, seed=0, temperature=1.0)
    first = session.reply()
    session.ask(["There might be an error in the solution above.", "?", "b"] * samples)
    return [*first, *session.reply()]


def gap(found: list[list[float]], expected: list[list[float]]) -> float:
    """Mean difference per token."""
    pairs = [abs(x - y) for a, b in zip(found, expected, strict=True) for x, y in zip(a, b, strict=True)]
    return sum(pairs) / len(pairs)


def gradient(policy: Policy, turns: list[Turn], kl: float = 0.0) -> torch.Tensor:
    """The whole gradient as one vector of the CPU; leaves none behind."""
    policy.accumulate_gradients([Example(turn, 1.0 - 0.3 * (i % 3), kl) for i, turn in enumerate(turns)], len(turns))
    found = torch.cat([p.grad.flatten().cpu().double() for _, p in policy._trained() if p.grad is not None])
    policy.optimizer.zero_grad()
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_sampler_trainer_and_gradient_are_plain_transformers(family: str, dtype: str, tmp_path: Path) -> None:
    folder = build(family, tmp_path, **SHAPE)
    policy = load(folder, dtype=dtype)
    assert policy.device.type == DEVICE
    turns = two_turns(policy)
    attention = "eager" if family == "gemma2" else "sdpa"
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention
    ).eval()
    expected, loss = [], torch.zeros(())
    for i, turn in enumerate(turns):
        ids = torch.tensor([[*turn.context, *turn.tokens]])
        logprobs = model(input_ids=ids).logits[0].log_softmax(-1)[len(turn.context) - 1 : -1]
        column = logprobs.gather(1, ids[0, len(turn.context) :, None])[:, 0]
        expected.append(column.tolist())
        loss = loss - (1.0 - 0.3 * (i % 3)) * column.sum() / len(turns)
    assert gap([list(turn.logprobs) for turn in turns], expected) <= NATS[dtype]
    assert gap(policy.turn_logprobs(turns), expected) <= NATS[dtype]
    loss.backward()
    wanted = torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])
    assert float((gradient(policy, turns) - wanted).norm()) <= GRADIENT[dtype] * float(wanted.norm())


@pytest.mark.parametrize("rank", [0, 4], ids=["whole", "lora"])
def test_trees_and_layers_computed_again_give_one_gradient(rank: int, tmp_path: Path) -> None:
    folder = build("llama3", tmp_path, **SHAPE)
    plain = load(folder, dtype="bfloat16", lora_rank=rank, share_prompts=False)
    other = load(folder, dtype="bfloat16", lora_rank=rank, checkpoint_layers=True)
    assert other.shares_prompts
    turns = two_turns(plain)
    wanted, found = (gradient(policy, turns, kl=0.1) for policy in (plain, other))
    assert float(wanted.norm()) > 0
    assert float((found - wanted).norm()) <= GRADIENT["bfloat16"] * float(wanted.norm())


@pytest.mark.parametrize("rank", [0, 4], ids=["whole", "lora"])
def test_an_untrained_policy_is_its_reference_and_updates_move_it_alone(rank: int, tmp_path: Path) -> None:
    policy = load(build("qwen2.5", tmp_path, **SHAPE), dtype="bfloat16", lora_rank=rank, lr=1e-2)
    turns = two_turns(policy)
    before = policy.turn_logprobs(turns, reference=True)
    assert before == policy.turn_logprobs(turns)
    stats = []
    for _ in range(3):
        stats, norm = policy.step([Example(turn, 1.0, 0.01) for turn in turns], len(turns), fresh=True)
        assert norm > 0
        turns = two_turns(policy)
    assert max(stat.kl or 0.0 for stat in stats) > 0
    fixed = policy.turn_logprobs(turns, reference=True)
    assert gap(fixed, policy.turn_logprobs(turns)) > 1e-3
    policy.restart()
    assert policy.turn_logprobs(turns) == fixed


def test_a_checkpoint_of_the_device_is_one_of_the_cpu(tmp_path: Path) -> None:
    folder = build("llama3", tmp_path, **SHAPE)
    policy = load(folder, lr=1e-3, dtype="float32")
    turns = two_turns(policy)
    policy.step([Example(turn, 1.0, 0.01) for turn in turns], len(turns), fresh=True)
    policy.save(tmp_path / "state")
    policy.export(tmp_path / "model")
    scored = policy.turn_logprobs(turns)
    other = HF(path=str(folder), lr=1e-3).load("cpu")
    other.load(tmp_path / "state")
    exported = HF(path=str(tmp_path / "model")).load("cpu")
    for one in (other, exported):
        assert gap(one.turn_logprobs(turns), scored) <= NATS["float32"]
    again = load(folder, lr=1e-3, dtype="float32")
    again.load(tmp_path / "state")
    for one in (policy, again):
        one.step([Example(turn, 1.0, 0.01) for turn in turns], len(turns))
    assert gap(again.turn_logprobs(turns), policy.turn_logprobs(turns)) <= NATS["float32"]
