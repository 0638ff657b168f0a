"""What must not go by in silence: numbers that are not finite, memory that runs out, files that are not whole."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from archs import make

from harness.core import Example, Turn
from harness.policy import HF, NotFiniteError
from harness.policy.engine import Policy
from harness.policy.precision import cast_frozen_to_bf16

CHATS = [[{"role": "user", "content": text}] for text in ("a", "ab", "b")]


def turns_of(policy: Policy, samples: int = 2) -> list[Turn]:
    session = policy.open(CHATS, samples, 0, 1.0)
    first = session.reply()
    session.ask(["b"] * len(first))
    return [*first, *session.reply()]


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in policy._trained()}


def unchanged(policy: Policy, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(p, before[name]) and p.grad is None for name, p in policy._trained())


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", 0.0), ("temperature", -1.0), ("temperature", float("nan")), ("max_new_tokens", 0),
        ("max_new_tokens", 2.5), ("max_new_tokens", True), ("lr", "x"), ("lr", -1e-3), ("lr", float("inf")),
        ("max_grad_norm", 0), ("max_grad_norm", None), ("betas", (0.9, 1.0)), ("betas", "ab"), ("betas", 0.9),
        ("microbatch_tokens", 0), ("sample_rows", -1), ("logits_bound", 0), ("lora_rank", -1), ("lora_alpha", 0),
        ("max_prompt_tokens", -5), ("vllm_memory", 0.0), ("vllm_memory", 2.0), ("sampler_tolerance", 0.0), ("path", 3),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_meant_is_refused_by_name(setting: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"hf\.{setting} must be"):
        HF(**{setting: value})


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"weight": float("nan")}, "an example's weight"),
        ({"weight": float("inf")}, "an example's weight"),
        ({"kl": float("nan")}, "an example's KL coefficient"),
        ({"weight": 3e38}, "the gradient's norm"),
    ],
)
def test_what_is_not_finite_stops_before_the_optimiser(micro: Policy, change: dict[str, float], what: str) -> None:
    examples = [Example(turn, 1.0, 0.1) for turn in turns_of(micro)]
    before = weights(micro)
    with pytest.raises(NotFiniteError, match="no update") as caught:
        micro.step([*examples[:-1], dataclasses.replace(examples[-1], **change)], 1.0)
    assert caught.value.what.startswith(what)
    assert unchanged(micro, before)
    assert not micro.optimizer.state_dict()["state"]
    _, norm = micro.step(examples, 1.0)  # nothing is left of it
    assert 0 < norm < float("inf")


def test_weights_that_have_left_the_numbers_are_noticed_everywhere(micro: Policy, tmp_path: Path) -> None:
    turns = turns_of(micro)
    with torch.no_grad():
        next(iter(micro.model.parameters()))[:] = float("nan")
    with pytest.raises(NotFiniteError, match="log-probability of a sampled token"):
        turns_of(micro)
    with pytest.raises(NotFiniteError, match="log-probability of a turn"):
        micro.step([Example(turn) for turn in turns], 1.0, fresh=True)
    for write in (micro.save, micro.export):
        with pytest.raises(NotFiniteError, match="a trained weight"):
            write(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_step_that_is_far_too_long_stops_the_next_one(micro_folder: Path) -> None:
    policy = HF(path=str(micro_folder), max_new_tokens=2, lr=1e22).load("cpu")
    turns = turns_of(policy)
    policy.step([Example(turn, 1.0, 0.1) for turn in turns], 1.0, fresh=True)
    with pytest.raises(NotFiniteError):
        policy.step([Example(turn, 1.0, 0.1) for turn in turns], 1.0)


@pytest.mark.parametrize("kl", ["exact", "k1", "k2", "k3"])
def test_rows_of_the_vocabulary_that_a_model_masks_add_nothing(kl: str, tmp_path: Path) -> None:
    """A bias of -inf on the last rows, as some models have: values and gradient are those without the rows."""
    folder = make("phi", tmp_path)
    found = safetensors.torch.load_file(folder / "model.safetensors")
    found["lm_head.bias"][-20:] = float("-inf")
    safetensors.torch.save_file(found, folder / "model.safetensors", metadata={"format": "pt"})
    policy = HF(path=str(folder), max_new_tokens=6, kl=kl).load("cpu")
    turns = turns_of(policy)
    assert all(token < 300 for turn in turns for token in turn.tokens)
    stats, norm = policy.step([Example(turn, 1.0, 0.1) for turn in turns], 1.0, fresh=True)
    assert all(stat.kl is not None and abs(stat.kl) < 1e-4 for stat in stats)
    assert 0 < stats[0].entropy < float("inf")
    assert 0 < norm < float("inf")
    after, before = weights(policy), dict(policy.reference.model.named_parameters())
    assert bool(torch.isneginf(after["lm_head.bias"][-20:]).all())
    finite = {name: p for name, p in after.items() if name != "lm_head.bias"}
    assert all(bool(torch.isfinite(p).all()) for p in finite.values())
    assert any(not torch.equal(p, before[name]) for name, p in finite.items())
    policy.save(tmp_path / "state")  # these infinities were there before
    policy.load(tmp_path / "state")


# -- memory ------------------------------------------------------------------------------------------------------------


def short_of_memory(policy: Policy, tokens: int) -> list[int]:
    """Lets the real allocator fail in every forward of more than `tokens` padded tokens; notes their sizes."""
    seen = []

    def allocate(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["input_ids"].numel())
        if seen[-1] > tokens:
            torch.empty(1 << 50)

    policy.model.model.register_forward_pre_hook(allocate, with_kwargs=True)
    return seen


def test_where_memory_runs_out_the_microbatch_is_halved_and_the_gradient_stays(micro_folder: Path) -> None:
    spec = HF(path=str(micro_folder), max_new_tokens=4, microbatch_tokens=64)
    whole, halved = spec.load("cpu"), spec.load("cpu")
    turns = turns_of(whole, samples=6)
    examples = [Example(turn, 1.0 + turn.index, 0.1) for turn in turns]
    expected = whole.accumulate_gradients(examples, 7.0)
    seen = short_of_memory(halved, 32)
    with pytest.warns(UserWarning, match="halved to 32 tokens"):
        found = halved.accumulate_gradients(examples, 7.0)
    assert max(seen) > 32
    for a, b in zip(found, expected, strict=True):
        assert dataclasses.astuple(a) == pytest.approx(dataclasses.astuple(b), abs=1e-5)
    for (_, p), (_, q) in zip(halved._trained(), whole._trained(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-5)  # type: ignore[arg-type]
    seen.clear()
    halved.step(examples, 7.0)
    assert max(seen) <= 32  # it stays so


def test_where_that_is_not_enough_the_error_names_the_setting(micro_folder: Path) -> None:
    policy = HF(path=str(micro_folder), max_new_tokens=4, microbatch_tokens=64).load("cpu")
    examples = [Example(turn) for turn in turns_of(policy)]
    before = weights(policy)
    short_of_memory(policy, 4)
    with pytest.warns(UserWarning, match="halved"), pytest.raises(ValueError, match=r"out of memory: .*hf\.microbatch"):
        policy.step(examples, 1.0)
    assert unchanged(policy, before)
    with pytest.raises(ValueError, match=r"out of memory: lower hf\.sample_rows"):
        policy.open([CHATS[0] * 1, CHATS[1], CHATS[1]], 2, 0, 1.0)


# -- lengths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["gpt2", "mistral", "mpt"])
def test_a_conversation_that_outgrows_the_window_has_empty_truncated_attempts(arch: str, tmp_path: Path) -> None:
    """gpt2 has a row of its table for each position of the window, and none beyond."""
    folder = make(arch, tmp_path, **({"n_positions": 160} if arch == "gpt2" else {}))
    policy = HF(path=str(folder), max_new_tokens=12).load("cpu")
    free = HF(path=str(folder), max_new_tokens=12).load("cpu")
    policy.window = 160
    chats = [[{"role": "user", "content": text}] for text in ("5", "Problem: 47*6+58 = ? Think step by step.")]
    turns = []
    for one in (policy, free if arch != "gpt2" else policy):
        session = one.open(chats, 2, 0, 1.0)
        rows = [session.reply()]
        for _ in range(2):
            session.ask(
                ["Think.", "There might be an error.", "Think.", "Think step by step; there might be an error."]
            )
            rows.append(session.reply())
        turns.append(rows)
    found, expected = turns
    empty = [turn for row in found for turn in row if not turn.tokens]
    assert empty
    assert len(empty) < 8
    for turn in empty:
        assert turn.truncated
        assert turn.text == ""
        assert len(turn.context) >= 160
    for a, b in zip(itertools.chain(*found), itertools.chain(*expected), strict=True):
        if a.tokens and len(b.context + b.tokens) <= 160:
            assert a.tokens == b.tokens  # the others go on as if there were no full row beside them
    written = [turn for row in found for turn in row]
    for turn, scored in zip(written, policy.turn_logprobs(written), strict=True):
        assert list(turn.logprobs) == pytest.approx(scored, abs=1e-4)
    examples = policy.encoded([Example(turn, 1.0, 0.1) for turn in written])
    assert [e.turn.tokens for e in examples] == [turn.tokens for turn in written]
    stats, norm = policy.step(examples, len(examples), fresh=True)
    assert [s.tokens for s in stats] == [len(turn.tokens) for turn in written]
    assert 0 < norm < float("inf")
    target = dataclasses.replace(empty[0], tokens=(), text="Answer: 340.", logprobs=())
    assert policy.encoded([Example(target)])[0].turn.tokens == ()  # no room for a target either


def test_a_conversation_without_room_is_found_beforehand(micro: Policy) -> None:
    """A prompt of 43 tokens, 5 between two replies of at most 2, a window of 64."""
    ask, chat = "b", [{"role": "user", "content": "a" * 40}]
    micro.require_room(chat, [ask] * 2)  # 59
    micro.require_room(chat, [ask] * 2, given=["ab"])  # 60
    with pytest.raises(
        ValueError, match=r"80 tokens, more than the model's window of 64: .* 6 x 2 .*'a+'\. Even empty"
    ):
        micro.require_room(chat, [ask] * 5)
    micro.spec = dataclasses.replace(micro.spec, max_new_tokens=9)
    with pytest.raises(ValueError, match=r"66 tokens.* 2 x 9 .*At most hf\.max_new_tokens = 8 fits"):
        micro.require_room(chat, [ask])
    with pytest.raises(ValueError, match=r"69 tokens.* 1 x 9 .*At most hf\.max_new_tokens = 4 fits"):
        micro.require_room(chat, [ask], given=["a", "a" * 11])  # the longer one, and its end


# -- files -------------------------------------------------------------------------------------------------------------


def test_an_export_is_whole_or_not_there(micro: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leftover = tmp_path / ".model.partial"
    leftover.mkdir()
    (leftover / "config.json").write_text("{}")
    micro.export(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "model").iterdir()} == {"0o644"}
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    micro.step([Example(turn) for turn in turns_of(micro)], 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(micro.tokenizer, "save_pretrained", full)  # the weights are written by then
        with pytest.raises(OSError, match="No space"):
            micro.export(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    micro.export(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "model.safetensors").read_bytes() != before["model.safetensors"]


def poisoned(name: str) -> Callable[[dict[str, Any]], Any]:
    def change(found: dict[str, Any]) -> Any:
        key = next(key for key in found if name in key)
        found[key].flatten()[0] = float("nan")
        return found

    return change


def reshaped(found: dict[str, Any]) -> Any:
    key = next(key for key in found if "embed" in key)
    return {**found, key: found[key][:1]}  # [1, d] would be broadcast into [V, d]


def moment(alter: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], Any]:
    def change(found: Any) -> Any:
        found["state"][0]["exp_avg"] = alter(found["state"][0]["exp_avg"])
        return found

    return change


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("weights.pt", reshaped, "shape"),
        ("weights.pt", poisoned("embed"), "not finite"),
        ("weights.pt", lambda found: dict(list(found.items())[1:]), "has no weights"),
        ("weights.pt", lambda found: list(found), "no weights by name"),
        ("optimizer.pt", lambda found: {}, "no optimiser's state"),
        ("optimizer.pt", lambda found: {**found, "param_groups": []}, "another model"),
        ("optimizer.pt", moment(lambda value: value * float("nan")), "not finite"),
        ("optimizer.pt", moment(lambda value: value[:1]), "another model"),
        ("weights.pt", None, "is damaged"),
        ("optimizer.pt", None, "is damaged"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_not_this_models_is_refused_whole(
    micro: Policy, tmp_path: Path, file: str, change: Callable[[Any], Any] | None, message: str
) -> None:
    micro.step([Example(turn) for turn in turns_of(micro)], 1.0)
    micro.save(tmp_path)
    path = tmp_path / file
    if change:
        torch.save(change(torch.load(path, weights_only=True)), path)
    else:
        path.write_bytes(path.read_bytes()[:-100])
    before, moments = weights(micro), copy.deepcopy(micro.optimizer.state_dict())
    with pytest.raises(ValueError, match=message) as caught:
        micro.load(tmp_path)
    assert file in str(caught.value)
    assert all(torch.equal(p, before[name]) for name, p in micro._trained())
    now = micro.optimizer.state_dict()["state"]
    assert all(torch.equal(now[i]["exp_avg"], of["exp_avg"]) for i, of in moments["state"].items())


def edited(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_models_that_are_not_whole_or_not_the_files_own_are_refused(micro_folder: Path, tmp_path: Path) -> None:
    def fresh(name: str) -> Path:
        return Path(shutil.copytree(micro_folder, tmp_path / name))

    def refused(folder: Path, message: str, **spec: Any) -> None:
        with pytest.raises(ValueError, match=message):
            HF(path=str(folder), **spec).load("cpu")

    missing = fresh("missing")
    found = safetensors.torch.load_file(missing / "model.safetensors")
    renamed = {("language_model." + name if "layers.1." in name else name): value for name, value in found.items()}
    safetensors.torch.save_file(renamed, missing / "model.safetensors", metadata={"format": "pt"})
    refused(missing, r"missing weights of LlamaForCausalLM \(model\.layers\.1.*drawn at random")
    nan = fresh("nan")
    found["model.norm.weight"][0] = float("nan")
    safetensors.torch.save_file(found, nan / "model.safetensors", metadata={"format": "pt"})
    refused(nan, "NaN|nan")
    refused(nan / "model.safetensors", "is a file")
    quantised = fresh("quantised")
    edited(quantised, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    refused(quantised, r"is quantised \(bitsandbytes\)")
    remote = fresh("remote")
    code = {"AutoConfig": "configuration_my.C", "AutoModelForCausalLM": "modeling_my.M"}
    edited(remote, model_type="mymodel", auto_map=code)
    marker = tmp_path / "ran"
    for name in ("configuration_my", "modeling_my"):
        (remote / f"{name}.py").write_text(f"open({str(marker)!r}, 'w')")
    refused(remote, "the harness runs none")
    assert not marker.exists()
    refused(fresh("misspelt"), r"cannot load the model .*sdpaa", attention="sdpaa")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    refused(adapter, "LoRA adapter .*[Mm]erge", lora_rank=4)


def test_an_adapter_that_a_lora_run_has_left_is_refused_as_a_model(micro_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is an extra")
    policy = HF(path=str(micro_folder), max_new_tokens=2, lora_rank=2, lr=0.05).load("cpu")
    policy.step([Example(turn) for turn in turns_of(policy)], 1.0)
    policy.export(tmp_path / "model")
    assert {os.stat(path).st_mode & 0o044 for path in (tmp_path / "model").iterdir()} == {0o044}
    for rank in (0, 2):
        with pytest.raises(ValueError, match="LoRA adapter"):
            HF(path=str(tmp_path / "model"), lora_rank=rank).load("cpu")
    again = HF(path=str(micro_folder), max_new_tokens=2, lora_rank=2).load("cpu")
    again.adopt(tmp_path / "model")  # as harness.evaluate takes it
    turns = turns_of(policy)
    assert again.turn_logprobs(turns) == policy.turn_logprobs(turns)
    path = tmp_path / "model" / "adapter_model.safetensors"
    found = safetensors.torch.load_file(path)
    safetensors.torch.save_file({name: value * float("nan") for name, value in found.items()}, path)
    with pytest.raises(ValueError, match="not finite"):
        again.adopt(tmp_path / "model")


def test_packed_weights_are_not_rounded() -> None:
    layer = torch.nn.Linear(4, 4).requires_grad_(False)
    layer.weight = torch.nn.Parameter(torch.zeros(8, 1, dtype=torch.uint8), requires_grad=False)
    cast_frozen_to_bf16(layer)
    assert layer.weight.dtype == torch.uint8
    assert layer.bias.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("bindings", "found"),
    [
        (["hf.max_new_tokens = 32", "run.dialogue = @self_refine()"], None),  # a row that is shipped for this model
        (["hf.max_new_tokens = 200"], r"replies of up to 2 x 200"),
        (["hf.max_new_tokens = 90", "run.attempts = 3"], r"replies of up to 3 x 90"),
        (["hf.max_new_tokens = 32", "run.evaluations = [@evaluation.attempts()]"], None),
    ],
)
def test_a_run_measures_its_conversations_before_anything_else(
    bindings: list[str], found: str | None, embedded: Policy
) -> None:
    """The embedded model's window is 256. Ten attempts of 32 tokens would pass it, and are seldom so long."""
    from harness import config
    from harness.training.experiment import Experiment
    from harness.training.loop import _check_prompt_lengths

    config.prepare_gin(Experiment, "run")
    config.parse_gin([str(config.ROOT / "gin" / "score_full.gin")], bindings)
    experiment = config.build_root("run")
    policy = copy.copy(embedded)
    policy.spec = experiment.policy
    if found is None:
        _check_prompt_lengths(experiment, policy)
        return
    with pytest.raises(ValueError, match=f"window of 256: .*{found}"):
        _check_prompt_lengths(experiment, policy)
