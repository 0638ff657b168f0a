"""Architectures: read as plain transformers forwards read them, or refused by name when they are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from archs import EXACT, REFUSED, make

from harness.core import Example, Turn
from harness.policy import HF
from harness.policy.engine import Policy

CHATS = [
    [{"role": "user", "content": t}] for t in ("Problem: 1+1 = ?", "Problem: 47*6+58 = ? Think step by step.", "5")
]
QUICK = ("mpt", "phi3_longrope", "opt", "gpt2")
SLOW = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in EXACT]


def two_turns(policy: Policy, temperature: float = 1.0) -> list[Turn]:
    """Two samples on prompts of unlike length; the follow-ups are of unlike length as well."""
    session = policy.open(CHATS, 2, seed=0, temperature=temperature)
    first = session.reply()
    session.ask(["There might be an error in the solution above.", "?"] * 3)
    return [*first, *session.reply()]


@torch.no_grad()
def plain(model: torch.nn.Module, turn: Turn) -> list[float]:
    ids = torch.tensor([[*turn.context, *turn.tokens]])
    logprobs = model(input_ids=ids).logits[0].float().log_softmax(-1)
    begin = len(turn.context)
    return logprobs[begin - 1 : -1].gather(1, ids[0, begin:, None])[:, 0].tolist()


@pytest.mark.parametrize("name", SLOW)
def test_an_architecture_is_read_as_plain_forwards_read_it(name: str, tmp_path: Path) -> None:
    folder = make(name, tmp_path)
    policy = HF(path=str(folder), max_new_tokens=24).load("cpu")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    turns = [turn for turn in two_turns(policy) if turn.tokens]
    assert max(len(turn.context) for turn in turns) > 60
    for turn, scored in zip(turns, policy.turn_logprobs(turns), strict=True):
        expected = plain(model, turn)
        assert list(turn.logprobs) == pytest.approx(expected, abs=1e-4)
        assert scored == pytest.approx(expected, abs=1e-4)
    policy.accumulate_gradients([Example(turn, 1.0, 0.0) for turn in turns], 1.0)
    loss = torch.zeros(())
    for turn in turns:
        ids = torch.tensor([[*turn.context, *turn.tokens]])
        logprobs = model(input_ids=ids).logits[0].log_softmax(-1)[len(turn.context) - 1 : -1]
        loss = loss - logprobs.gather(1, ids[0, len(turn.context) :, None]).sum()
    loss.backward()
    wanted = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    found = {n: p.grad for n, p in policy._trained() if p.grad is not None}
    assert found.keys() == wanted.keys()
    error = sum(float((found[n] - wanted[n]).square().sum()) for n in wanted)
    assert error < 1e-6 * sum(float(grad.square().sum()) for grad in wanted.values())


@pytest.mark.parametrize("name", ["opt", "biogpt"])
def test_layers_computed_again_drop_nothing(name: str, tmp_path: Path) -> None:
    folder = make(name, tmp_path)
    once, again = (HF(path=str(folder), max_new_tokens=12, checkpoint_layers=on).load("cpu") for on in (False, True))
    turns = two_turns(once)
    for policy in (once, again):
        policy.accumulate_gradients([Example(turn, 1.0, 0.1) for turn in turns], len(turns))
    for (_, p), (_, q) in zip(once._trained(), again._trained(), strict=True):
        if p.grad is not None or q.grad is not None:
            assert torch.allclose(p.grad, q.grad, atol=1e-5)  # type: ignore[arg-type]


def test_longrope_is_read_up_to_its_original_window_alone(tmp_path: Path) -> None:
    policy = HF(path=str(make("phi3_longrope", tmp_path)), max_new_tokens=24).load("cpu")
    assert policy.window == 160
    assert max(len(turn.context + turn.tokens) for turn in two_turns(policy) if turn.tokens) <= 160


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_would_be_read_wrongly_is_refused_by_name(name: str, tmp_path: Path) -> None:
    folder = make(name, tmp_path)
    with pytest.raises(ValueError, match=rf"^{REFUSED[name][0]}\w+ (cannot be read as|gives other log-probabilities)"):
        HF(path=str(folder)).load("cpu")
