"""Real architectures and chat templates at tiny width: log-probabilities, and ids that survive the second turn."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import FAMILIES, build

from harness.core import Example
from harness.policy import HF
from harness.policy.engine import Policy

SYSTEM = "You are a math expert."
ASKED = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Problem: 47*6+58 = ?"}]
AGAIN = "There might be an error in the solution above."
EXTRA: dict[str, dict[str, Any]] = {"gemma2": {"attention": "eager"}}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    return {family: build(family, folder) for family in FAMILIES}


@pytest.fixture(scope="module", params=list(FAMILIES))
def policy(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Policy:
    spec = HF(path=str(folders[request.param]), max_new_tokens=16, **EXTRA.get(request.param, {}))
    return spec.load("cpu")


def test_sampler_and_trainer_agree_over_three_turns(policy: Policy) -> None:
    """Contexts outgrow the windows, and given replies of unlike length leave pads between a row's turns."""
    texts = ["Problem: 1+1 = ?", "Problem: 47*6+58 = ? Think step by step.", "5"]
    session = policy.open([[{"role": "user", "content": text}] for text in texts], 2, seed=0, temperature=1.0)
    first = session.reply()
    session.ask([AGAIN] * 6)
    session.give(["282;340.", "Think step by step; the solution above", "5", "", "Answer: 47*6+58", "340. 282; 340."])
    session.ask([AGAIN, "?"] * 3)
    third = session.reply()
    turns = [*first, *third]
    assert max(len(turn.context) for turn in third) > 40
    for turn, scored in zip(turns, policy.turn_logprobs(turns), strict=True):
        assert list(turn.logprobs) == pytest.approx(scored, abs=2e-4)


def test_token_ids_survive_the_second_turn_exactly(policy: Policy) -> None:
    session = policy.open([ASKED], 8, seed=1, temperature=1.0)
    first = session.reply()
    session.ask([AGAIN] * 8)
    for one, two in zip(first, session.reply(), strict=True):
        assert two.context[: len(one.context + one.tokens)] == one.context + one.tokens
        rest = policy.tokenizer.decode(two.context[len(one.context + one.tokens) :])
        assert rest.count(AGAIN) == 1
        assert SYSTEM in policy.tokenizer.decode(one.context)
        assert SYSTEM not in rest


def test_what_a_template_would_rewrite_stays(folders: dict[str, Path]) -> None:
    """Qwen3's template drops an earlier turn's thoughts, Gemma's trims it: here every token stays where it was."""
    for family, reply in (("qwen3", "<think>\n47*6 = 282\n</think>\n\n340."), ("gemma2", "  340. \n\n")):
        policy = HF(path=str(folders[family]), **EXTRA.get(family, {})).load("cpu")
        rendered = policy.tokenizer.apply_chat_template(
            [*ASKED[1:], {"role": "assistant", "content": reply}, {"role": "user", "content": AGAIN}], tokenize=False
        )
        assert reply not in rendered  # rendering the whole conversation anew would have lost it
        session = policy.open([ASKED], 1, seed=0, temperature=1.0)
        given = session.give([reply])
        session.ask([AGAIN])
        assert reply in policy.tokenizer.decode(session.contexts[0])
        assert given[0].text == reply
        assert session.contexts[0][: len(given[0].context + given[0].tokens)] == given[0].context + given[0].tokens


def test_a_rejected_system_turn_goes_to_the_head_of_the_users(folders: dict[str, Path]) -> None:
    chat = HF(path=str(folders["gemma2"]), attention="eager").load("cpu").chat
    text = chat.tokenizer.decode(chat.encode_opening(ASKED))
    assert text == f"<bos><start_of_turn>user\n{SYSTEM}\n\n{ASKED[1]['content']}<end_of_turn>\n<start_of_turn>model\n"


def test_the_default_system_text_comes_once_and_only_where_none_is_given(folders: dict[str, Path]) -> None:
    chat = HF(path=str(folders["qwen2.5"])).load("cpu").chat
    assert "created by Alibaba" in chat.tokenizer.decode(chat.encode_opening(ASKED[1:]))
    assert "created by Alibaba" not in chat.tokenizer.decode(chat.encode_opening(ASKED))
    assert "Alibaba" not in chat.tokenizer.decode(chat.encode_followup(AGAIN, ()))


def test_the_prompt_is_the_same_on_every_day(folders: dict[str, Path]) -> None:
    chat = HF(path=str(folders["llama3"])).load("cpu").chat
    text = chat.tokenizer.decode(chat.encode_opening(ASKED))
    assert "Today Date: 26 Jul 2024" in text
    assert datetime.date.today().strftime("%d %b %Y") not in text
    assert text.count("<|begin_of_text|>") == 1
    dated = HF(path=str(folders["llama3"]), template_options={"date_string": "1 Jan 2030"}).load("cpu").chat
    assert "Today Date: 1 Jan 2030" in dated.tokenizer.decode(dated.encode_opening(ASKED))


def test_thinking_is_a_binding(folders: dict[str, Path]) -> None:
    chat = HF(path=str(folders["qwen3"]), template_options={"enable_thinking": False}).load("cpu").chat
    assert chat.tokenizer.decode(chat.encode_opening(ASKED)).endswith("assistant\n<think>\n\n</think>\n\n")
    assert chat.tokenizer.decode(chat.encode_followup(AGAIN, ())).endswith("assistant\n<think>\n\n</think>\n\n")


def test_a_base_model_is_asked_in_plain_text(folders: dict[str, Path], tmp_path: Path) -> None:
    for family, bos in (("qwen2.5", ""), ("llama3", "<|begin_of_text|>")):
        policy = HF(path=str(folders[family]), chat="plain", max_new_tokens=4).load("cpu")
        session = policy.open([ASKED], 2, seed=0, temperature=1.0)
        first = session.reply()
        assert policy.tokenizer.decode(first[0].context) == f"{bos}{SYSTEM}\n\n{ASKED[1]['content']}\n\n"
        session.ask([AGAIN] * 2)
        rest = policy.tokenizer.decode(session.contexts[0][len(first[0].context + first[0].tokens) :])
        assert rest == f"\n\n{AGAIN}\n\n"
        assert policy.chat.encode_given("340.")[-1] == policy.tokenizer.eos_token_id
    with pytest.raises(ValueError, match=r"'plane' is not known \(nearest: plain\)"):
        HF(path=str(folders["qwen2.5"]), chat="plane").load("cpu")


def test_a_long_prompt_is_an_error_or_a_counted_cut_and_the_window_ends_a_reply(folders: dict[str, Path]) -> None:
    spec = HF(path=str(folders["qwen2.5"]), max_new_tokens=8, max_prompt_tokens=40)
    long = [{"role": "user", "content": "Problem: " + "47*6+58 " * 40}]
    with pytest.raises(ValueError, match=r"more than 40 \(hf.max_prompt_tokens\): 'Problem: 47"):
        spec.load("cpu").open([long], 1, seed=0, temperature=1.0)
    cut = dataclasses.replace(spec, long_prompts="cut").load("cpu")
    turns = cut.open([long, ASKED[1:]], 1, seed=0, temperature=1.0).reply()
    assert len(turns[0].context) == 40
    assert cut.cut_prompts == 2  # the default system text makes the short one too long as well
    cut.require_room(long, [AGAIN])
    assert cut.cut_prompts == 2  # measuring a prompt is not cutting one that is asked
    cut.window = 45
    short = cut.open([long], 2, seed=0, temperature=1.0).reply()
    assert [len(turn.tokens) for turn in short] == [5, 5]
    assert all(turn.truncated for turn in short)
    cut.window = 30
    with pytest.raises(ValueError, match="context window"):
        dataclasses.replace(spec, max_prompt_tokens=0).load("cpu").open(
            [[{"role": "user", "content": "5" * 600}]], 1, 0, 1.0
        )


def test_layers_computed_again_give_the_same_gradient(folders: dict[str, Path]) -> None:
    spec = HF(path=str(folders["qwen2.5"]), max_new_tokens=8)
    plain, again = spec.load("cpu"), dataclasses.replace(spec, checkpoint_layers=True).load("cpu")
    turns = plain.open([ASKED], 4, seed=0, temperature=1.0).reply()
    calls = []
    again.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    for policy in (plain, again):
        policy.accumulate_gradients([Example(turn, 1.0, 0.1) for turn in turns], 4)
    assert len(calls) == 2  # forward, and again in backward
    for (_, p), (_, q) in zip(plain._trained(), again._trained(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert torch.allclose(p.grad, q.grad, atol=1e-6)
    assert [t.tokens for t in again.open([ASKED], 4, seed=0, temperature=1.0).reply()] == [t.tokens for t in turns]


@pytest.mark.parametrize("family", ["qwen2.5", "gemma3"])
def test_a_halved_reference_computes_what_autocast_does(folders: dict[str, Path], family: str) -> None:
    """bfloat16: the untrained policy and its reference agree to the last bit, though one is float32 in memory."""
    policy = HF(path=str(folders[family]), max_new_tokens=8, dtype="bfloat16").load("cpu")
    weights = {p.dtype for p in policy.reference.model.model.layers.parameters() if p.dim() == 2}
    assert weights == {torch.bfloat16}
    assert {p.dtype for p in policy.model.parameters()} == {torch.float32}
    turns = policy.open([ASKED], 4, seed=0, temperature=1.0).reply()
    assert policy.turn_logprobs(turns) == policy.turn_logprobs(turns, reference=True)
    again = policy.open([ASKED], 4, seed=0, temperature=1.0, reference=True).reply()
    assert [t.tokens for t in again] == [t.tokens for t in turns]
    for turn, scored in zip(turns, policy.turn_logprobs(turns), strict=True):
        assert list(turn.logprobs) == pytest.approx(scored, abs=0.1)
    policy.step([Example(turn, 1.0, 0.1) for turn in turns], 4)
    before = {name: p.clone() for name, p in policy._trained()}
    policy.restart()
    assert any(not torch.equal(p, before[name]) for name, p in policy._trained())


def test_a_layer_that_keeps_no_keys_is_refused_by_name() -> None:
    from types import SimpleNamespace

    from harness.policy.sampling import is_windowed

    with pytest.raises(ValueError, match="jamba has layers this sampler does not know: linear_attention"):
        is_windowed(SimpleNamespace(model_type="jamba", layer_types=["full_attention", "linear_attention"]))
