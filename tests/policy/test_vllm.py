"""The vLLM sampler against a stand-in with vLLM's interface; tests/policy/test_real_vllm.py runs vLLM itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from harness.core import Example
from harness.policy import HF
from harness.policy.vllm import VLLM


class StandIn:
    """Greedy or sampled completions by whole forwards, each row under its own seed; weights by `load_weights`."""

    def __init__(self, model: str, **settings: Any) -> None:
        assert settings["skip_tokenizer_init"]
        assert settings["logprobs_mode"] == "processed_logprobs"
        self.net = AutoModelForCausalLM.from_pretrained(model).eval()
        self.resets = 0
        self.forgets = True

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        assert method == "reload_weights"
        own = dict(self.net.named_parameters())
        for name, weight in kwargs["weights_iterator"]:
            own[name].data.copy_(weight)

    def reset_prefix_cache(self) -> bool:
        self.resets += 1
        return self.forgets

    @torch.no_grad()
    def generate(self, prompts: list[dict[str, list[int]]], parameters: list[Any], use_tqdm: bool) -> list[Any]:
        return [self._one(p["prompt_token_ids"], s) for p, s in zip(prompts, parameters, strict=True)]

    def _one(self, prompt: list[int], s: Any) -> Any:
        generator, tokens, logprobs = torch.Generator().manual_seed(s.seed), [], []
        while len(tokens) < s.max_tokens and not (tokens and tokens[-1] in s.stop_token_ids):
            logits = self.net(torch.tensor([[*prompt, *tokens]])).logits[0, -1]
            values = (logits / (s.temperature or 1.0)).log_softmax(-1)
            pick = torch.multinomial(values.exp(), 1, generator=generator) if s.temperature else values.argmax()[None]
            tokens.append(int(pick))
            logprobs.append({int(pick): SimpleNamespace(logprob=float(values[pick]))})
        reason = "stop" if tokens[-1] in s.stop_token_ids else "length"
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tokens, logprobs=logprobs, finish_reason=reason)])


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = StandIn, SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)


CHATS = [[{"role": "user", "content": text}] for text in ("a", "ab", "bba")]


def two_turns(policy: Any, temperature: float) -> list[Any]:
    policy.refresh()
    session = policy.open(CHATS, 2, 3, temperature)
    first = session.reply()
    session.ask(["b"] * 6)
    return [*first, *session.reply()]


def test_ids_go_in_and_ids_with_the_trainers_logprobs_come_out(vllm: None, micro_folder: Path) -> None:
    own, other = (HF(path=str(micro_folder), max_new_tokens=6, sampler=name).load("cpu") for name in ("own", "vllm"))
    for a, b in zip(two_turns(own, 0.0), two_turns(other, 0.0), strict=True):
        assert (a.tokens, a.context, a.truncated) == (b.tokens, b.context, b.truncated)
    turns = two_turns(other, 1.0)
    for turn, scored in zip(turns, other.turn_logprobs(turns), strict=True):
        assert list(turn.logprobs) == pytest.approx(scored, abs=1e-5)
    assert len({turn.tokens for turn in turns}) > 4


def test_new_weights_are_handed_over_before_sampling(vllm: None, micro_folder: Path) -> None:
    policy = HF(path=str(micro_folder), max_new_tokens=6, sampler="vllm", lr=0.05).load("cpu")
    turns = two_turns(policy, 1.0)
    policy.step([Example(turn, 1.0, 0.0) for turn in turns], len(turns))
    with pytest.raises(RuntimeError, match=r"call policy\.refresh"):
        policy.open(CHATS, 1, 0, 1.0)
    again = two_turns(policy, 1.0)
    for turn, scored in zip(again, policy.turn_logprobs(again), strict=True):
        assert list(turn.logprobs) == pytest.approx(scored, abs=1e-5)


def test_a_cache_that_vllm_keeps_stops_the_run(vllm: None, micro_folder: Path) -> None:
    policy = HF(path=str(micro_folder), max_new_tokens=6, sampler="vllm").load("cpu")
    turns = two_turns(policy, 1.0)
    policy.step([Example(turn, 1.0, 0.0) for turn in turns], len(turns))
    policy.vllm._llm.forgets = False  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match="could not forget"):
        policy.refresh()


def test_memory_is_planned_for_the_conversations_asked_for(vllm: None, micro_folder: Path) -> None:
    policy = HF(path=str(micro_folder), max_new_tokens=6, sampler="vllm").load("cpu")
    assert policy.max_conversation_tokens == policy.window
    policy.require_room(CHATS[2], ["b"])
    opening, ask = len(policy.chat.encode_opening(CHATS[2])), len(policy.chat.encode_followup("b", ()))
    assert opening + 6 + ask + 6 <= policy.max_conversation_tokens < policy.window
    planned = policy.max_conversation_tokens
    policy.require_room(CHATS[2], ["b"], further=1)
    assert policy.max_conversation_tokens == planned + 6 + ask
    assert policy.vllm._llm is not None  # type: ignore[union-attr]
    policy.require_room(CHATS[2], ["b"] * 3)
    assert policy.max_conversation_tokens == planned + 6 + ask, "the engine runs: its plan stands"


def test_another_gpu_than_the_first_is_refused(micro_folder: Path) -> None:
    spec = HF(path=str(micro_folder), sampler="vllm")
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES=1"):
        VLLM(spec, 64, "bfloat16", torch.device("cuda:1"))


def test_a_sampler_that_is_not_the_policy_stops_training(vllm: None, micro_folder: Path) -> None:
    policy = HF(path=str(micro_folder), max_new_tokens=6, sampler="vllm").load("cpu")
    with torch.no_grad():
        for p in policy.vllm._llm.net.parameters():  # type: ignore[union-attr]
            p += 0.3
    turns = two_turns(policy, 1.0)
    before = [p.clone() for p in policy.model.parameters()]
    with pytest.raises(ValueError, match=r"nats per token, more than hf\.sampler_tolerance"):
        policy.step([Example(turn, 1.0, 0.0) for turn in turns], len(turns), fresh=True)
    assert all(torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))


def test_without_vllm_one_line_says_what_to_install(micro_folder: Path) -> None:
    if "vllm" not in sys.modules:
        with pytest.raises(ValueError, match="pip install"):
            two_turns(HF(path=str(micro_folder), sampler="vllm").load("cpu"), 1.0)
    with pytest.raises(ValueError, match=r"hf\.sampler must be 'own' or 'vllm', not 'vlm'"):
        HF(sampler="vlm")


def test_the_page_on_models_has_the_gaps_that_vllm_itself_had() -> None:
    root = Path(__file__).parents[2]
    told = json.loads((root / "benchmarks" / "results" / "vllm.json").read_text())
    page = (root / "docs" / "models.md").read_text()
    cells: dict[str, dict[bool, str]] = {}
    for gap in told["gaps"]:
        first, *_, last = nats = gap["nats_per_token"]
        assert len(nats) == told["updates"] + 1
        cells.setdefault(f"{gap['model']}, {gap['dtype']}", {})[gap["lora_rank"] > 0] = f"{first:.3f}, {last:.3f}"
    assert {f"{name}, bfloat16" for name in ("llama3", "gemma2", "mistral")} <= set(cells)
    table = [f"| {name} | {found.get(False, '-')} | {found.get(True, '-')} |" for name, found in cells.items()]
    assert "\n".join(["| --- | --- | --- |", *table, ""]) in page
    versions = ", ".join(f"{name} {told['versions'][name]}" for name in ("vllm", "torch", "transformers", "peft"))
    assert versions in page
