"""Sampling: the cache changes no token, rows are independent of their neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import build

from harness.policy import HF
from harness.policy.engine import Policy, advise_on_sampler
from harness.policy.sampling import GrowingLayer, Sampler, fine_uniforms, sample_tokens

TEXTS = ["a", "ab", "b", "aab", "ba", "bbbb"]


@pytest.fixture(scope="module")
def policy(micro_folder: Path) -> Policy:
    return HF(path=str(micro_folder), max_new_tokens=6).load("cpu")


def conversations(policy: Policy, texts: list[str], samples: int, seed: int = 0, temperature: float = 1.0):
    session = policy.open([[{"role": "user", "content": text}] for text in texts], samples, seed, temperature)
    first = session.reply()
    session.ask(["b"] * len(first))
    return first, session.reply()


def test_reusing_the_cache_at_turn_two_changes_no_token(policy: Policy) -> None:
    """Every second reply again, from its whole context in one fresh prefill, under the same uniforms."""
    first, second = conversations(policy, TEXTS, samples=4)
    uniform = torch.rand(len(first), 6, generator=torch.Generator().manual_seed(3))
    session = policy.open([[{"role": "user", "content": text}] for text in TEXTS], 4, 0, 1.0)
    session.reply()
    session.ask(["b"] * len(first))
    reused = session._samplers[0].sample_reply(uniform, 1.0)
    fresh = Sampler(policy.model, [turn.context for turn in second], 1, policy.end_ids, policy.pad_id)
    for a, b in zip(reused, fresh.sample_reply(uniform, 1.0), strict=True):
        assert a.tokens == b.tokens
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


def test_the_context_of_turn_two_extends_turn_one_token_by_token(policy: Policy) -> None:
    for first, second in zip(*conversations(policy, TEXTS, samples=8), strict=True):
        assert second.context[: len(first.context + first.tokens)] == first.context + first.tokens
        rest = second.context[len(first.context + first.tokens) :]
        end, user, assistant, b = 1, 2, 3, 5
        closed = () if first.tokens[-1] == end else (end,)  # a truncated reply is closed by the template
        assert rest == (*closed, user, b, end, assistant)


def test_a_row_is_the_same_whatever_shares_its_batch(micro_folder: Path, policy: Policy) -> None:
    together = conversations(policy, TEXTS, samples=4)
    narrow = HF(path=str(micro_folder), max_new_tokens=6, sample_rows=4).load("cpu")
    apart = conversations(narrow, TEXTS, samples=4)
    for a, b in zip(together, apart, strict=True):
        assert [turn.tokens for turn in a] == [turn.tokens for turn in b]


def test_a_cache_layer_moves_rows_and_columns_in_place() -> None:
    """Two rows, three samples of each; one leaves, the others grow past the room; it comes back with nothing added."""
    layer: Any = GrowingLayer()
    states = torch.arange(1.0, 13.0).view(2, 1, 3, 2)
    layer.update(states, -states)
    layer.repeat_rows(3)
    repeated = states.repeat_interleave(3, dim=0)
    assert torch.equal(layer.keys, repeated)
    assert torch.equal(layer.values, -repeated)
    first, last = torch.tensor([0]), torch.tensor([5])
    layer.swap_rows(first, last)
    more = torch.full((5, 1, 40, 2), 7.0)
    keys, _ = layer.update(more, -more)
    assert torch.equal(keys, torch.cat([repeated[[5, 1, 2, 3, 4]], more], dim=2))
    layer.swap_rows(first, last)
    whole = torch.cat([repeated, torch.full((6, 1, 40, 2), 7.0)], dim=2)
    whole[0, :, 3:] = 0  # finite, so that a mask can hide it
    assert torch.equal(layer.keys, whole)
    order = torch.tensor([[1, 2], *[[0, 3]] * 5])
    layer.take_columns(order)
    assert torch.equal(layer.values, -torch.stack([row[:, taken] for row, taken in zip(whole, order, strict=True)]))


def test_greedy_takes_the_likeliest_token(policy: Policy) -> None:
    first, _ = conversations(policy, TEXTS, samples=1, temperature=0.0)
    for turn in first:
        ids = torch.tensor([[*turn.context, *turn.tokens]])
        likeliest = policy.model(input_ids=ids).logits[0, len(turn.context) - 1 : -1].argmax(-1).tolist()
        assert list(turn.tokens) == likeliest


def test_draw_inverts_the_distribution() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log().expand(4, 3)
    token, logprob = sample_tokens(logits, torch.tensor([0.0, 0.4999, 0.5, 0.9999]), 1.0)
    assert token.tolist() == [0, 0, 1, 2]
    assert logprob.exp().tolist() == pytest.approx([0.5, 0.5, 0.25, 0.25])


def test_draw_reaches_every_part_of_a_large_vocabulary_and_no_masked_token() -> None:
    """A flat tail of 1e-8 each behind one likely token: a sum in float32 would stand still there."""
    size, masked, rows = 152_000, 1_000, 32
    logits = torch.zeros(1, size)
    logits[0, 0], logits[0, -masked:] = 18.4, float("-inf")
    likely = float(logits.double().softmax(-1)[0, 0])
    place = (torch.arange(rows).double() + 0.5) / rows  # evenly over the tail
    token, _ = sample_tokens(logits.expand(rows, size), likely + (1 - likely) * place, 1.0)
    assert token.tolist() == pytest.approx((place * (size - masked)).tolist(), abs=100)
    last, logprob = sample_tokens(logits, torch.tensor([1 - 2.0**-24]), 1.0)
    assert int(last) < size - masked
    assert bool(torch.isfinite(logprob).all())


def test_uniforms_of_small_vocabularies_stay_as_they_are() -> None:
    uniform = torch.rand(4, 3)
    assert fine_uniforms(uniform, 4_096, torch.Generator()) is uniform
    fine = fine_uniforms(uniform, 4_097, torch.Generator())
    assert fine.dtype == torch.float64
    assert bool(((fine >= uniform) & (fine < uniform + 2.0**-24)).all())


def test_samples_follow_the_models_distribution(policy: Policy) -> None:
    session = policy.open([[{"role": "user", "content": "a"}]], 20_000, 0, 1.0)
    replies = session.reply()
    counts = torch.bincount(torch.tensor([turn.tokens[0] for turn in replies]), minlength=6) / len(replies)
    ids = torch.tensor([policy.chat.encode_opening([{"role": "user", "content": "a"}])])
    expected = policy.model(input_ids=ids).logits[0, -1].softmax(-1)
    assert torch.allclose(counts, expected, atol=0.015)


def test_given_replies_are_read_like_sampled_ones(policy: Policy) -> None:
    session = policy.open([[{"role": "user", "content": "a"}]] * 2, 1, 0, 1.0)
    given = session.give(["ab", "b"])
    session.ask(["b"] * 2)
    second = session.reply()
    assert [turn.by for turn in given] == ["given"] * 2
    assert given[0].tokens == (4, 5, 1)
    scored = policy.turn_logprobs(second)
    for turn, values in zip(second, scored, strict=True):
        assert list(turn.logprobs) == pytest.approx(values, abs=1e-5)


@pytest.mark.parametrize(
    ("sampler", "device", "parameters", "advised"),
    [("own", "cuda", 400_000_000, True), ("own", "cuda", 10_000_000, False), ("own", "cpu", 400_000_000, False),
     ("vllm", "cuda", 400_000_000, False)],
)  # fmt: skip
def test_a_large_model_on_a_gpu_is_told_of_vllm(sampler: str, device: str, parameters: int, advised: bool) -> None:
    assert (advise_on_sampler(sampler, device, parameters) is not None) == advised


def test_a_stop_text_ends_a_reply_and_changes_nothing_before_it(tmp_path: Path) -> None:
    """A byte-level tokenizer: the stop text spans tokens and need not end where one does."""
    folder = build("qwen2.5", tmp_path)
    policy = HF(path=str(folder), max_new_tokens=24).load("cpu")
    free, text = conversations(policy, TEXTS, samples=8), policy.tokenizer.decode
    stop = next(
        some for some in (text(turn.tokens[8:12])[1:4] for turn in free[0]) if some.isascii() and some.isalpha()
    )
    stopping = HF(path=str(folder), max_new_tokens=24, stop=["never written", stop]).load("cpu")
    cut = conversations(stopping, TEXTS, samples=8)
    stopped = 0
    for a, b in zip(free[0], cut[0], strict=True):
        prefixes = range(1, len(a.tokens) + 1)
        length = next((n for n in prefixes if stop in text(a.tokens[:n])), len(a.tokens))
        stopped += length < len(a.tokens)
        assert b.tokens == a.tokens[:length]
        assert b.logprobs == pytest.approx(a.logprobs[:length], abs=1e-5)
        assert b.truncated == (a.truncated and stop not in text(b.tokens))
    assert stopped
    for first, second in zip(*cut, strict=True):
        read = first.context + first.tokens
        assert second.context[: len(read)] == read
        assert (
            first.tokens[-1] in policy.end_ids or second.context[len(read)] in policy.end_ids
        )  # closed by the template
    for turn, values in zip(cut[1], stopping.turn_logprobs(cut[1]), strict=True):
        assert list(turn.logprobs) == pytest.approx(values, abs=1e-4)


def test_a_stop_text_that_cannot_be_kept_is_refused(micro_folder: Path) -> None:
    with pytest.raises(ValueError, match="list of texts"):
        HF(stop="[DONE]")
    with pytest.raises(ValueError, match=r"hf\.stop .* tokenizer"):
        HF(path=str(micro_folder), stop=["[DONE]"]).load("cpu")


def test_a_tokenizer_without_chat_template_is_refused_by_name(micro_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "no_template"
    shutil.copytree(micro_folder, folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match=r"no_template.*no chat template"):
        HF(path=str(folder)).load("cpu")


def test_a_model_that_cannot_be_had_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Nobody/Nothing.*--bind"):
        HF(path="Nobody/Nothing").load("cpu")
    with pytest.raises(ValueError, match="no complete Hugging Face model"):
        HF(path=str(tmp_path)).load("cpu")
    with pytest.raises(ValueError, match="no embedded model 'arithmetics'"):
        HF(path="embedded:arithmetics").load("cpu")


def test_saved_state_continues_exactly(micro_folder: Path, tmp_path: Path) -> None:
    from harness.core import Example

    def step(policy: Policy) -> None:
        first, second = conversations(policy, TEXTS, samples=2, seed=1)
        policy.step([Example(turn, 0.5 + turn.index, 0.1) for turn in first + second], 12)

    a, b = (HF(path=str(micro_folder), max_new_tokens=6, lr=1e-2).load("cpu") for _ in range(2))
    step(a)
    a.save(tmp_path / "state")
    step(a)
    b.load(tmp_path / "state")
    step(b)
    for x, y in zip(a.model.parameters(), b.model.parameters(), strict=True):
        assert torch.equal(x, y)
    base = HF(path=str(micro_folder), max_new_tokens=6).load("cpu")
    for x, y in zip(b.reference.model.parameters(), base.model.parameters(), strict=True):
        assert torch.equal(x, y)  # the reference is the base model still
