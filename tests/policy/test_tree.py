"""Prefix trees: what trajectories share is computed once; log-probabilities and gradients are those of plain rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from archs import make
from tiny import build

from harness.core import Example, Turn, TurnStats
from harness.policy import HF
from harness.policy.engine import UNGRADED, Policy
from harness.policy.loss import merge_examples, pack_rows
from harness.policy.tree import Cost, Row, Tree, attention_masks, build_trees, decoder_cost

ALWAYS = Cost(1.0, 0.0)  # attention for nothing: rows are put together whenever they begin alike
CHATS = [[{"role": "user", "content": text}] for text in ("Problem: 1+1 = ?", "Problem: 47*6+58 = ? Think.", "5")]


def branching(policy: Policy) -> list[Example]:
    """Two attempts, three samples of each of three prompts, and two attempts 2 after every attempt 1."""
    session = policy.open(CHATS, 3, seed=0, temperature=1.0)
    first = session.reply()
    session.ask(["There might be an error in the solution above.", "?", "?"] * 3)
    turns = [*first, *session.reply()]
    turns += [Turn(t.context, (*t.tokens[:1], 1, 2), "", UNGRADED, index=1) for t in turns[len(first) :] if t.tokens]
    weights = torch.randn(len(turns), generator=torch.Generator().manual_seed(0)).tolist()
    return [Example(turn, weight, 0.1) for turn, weight in zip(turns, weights, strict=True) if turn.tokens]


def moved(policy: Policy) -> Policy:
    """Away from the reference, where the KL's gradient is 0."""
    torch.manual_seed(1)
    with torch.no_grad():
        for _, p in policy._trained():
            p += 0.02 * torch.randn_like(p)
    return policy


def gradient(policy: Policy, examples: list[Example], shares: bool) -> tuple[torch.Tensor, list[TurnStats]]:
    policy.shares_prompts = shares
    stats = policy.accumulate_gradients(examples, len(examples))
    found = torch.cat([p.grad.flatten() for _, p in policy._trained() if p.grad is not None])
    policy.optimizer.zero_grad()
    return found, stats


# {name: (family, options, tolerance)}: every kind of attention; windows of 12 and 64 tokens, shorter than a row.
KINDS: dict[str, tuple[str, dict[str, Any], float]] = {
    "sdpa": ("qwen2.5", {"attention": "sdpa"}, 1e-5),
    "eager": ("qwen2.5", {"attention": "eager"}, 1e-5),
    "a window in every layer": ("mistral", {}, 1e-5),
    "windows in some layers": ("gemma3", {}, 1e-5),
    "softcapped attention, eager": ("gemma2", {}, 1e-5),
    "layers computed again": ("gemma3", {"checkpoint_layers": True}, 1e-5),
    "lora": ("qwen2.5", {"lora_rank": 2}, 1e-5),
    "bfloat16": ("qwen2.5", {"dtype": "bfloat16"}, 3e-2),  # 8 bits of mantissa: 0.4 % a rounding
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_has_the_log_probabilities_and_gradient_of_plain_rows(kind: str, tmp_path: Path) -> None:
    family, options, tolerance = KINDS[kind]
    if "lora_rank" in options:
        pytest.importorskip("peft")
    policy = moved(HF(path=str(build(family, tmp_path)), max_new_tokens=12, **options).load("cpu"))
    assert policy.describe()["shares_prompts"]
    policy._cost = ALWAYS
    examples = branching(policy)
    tokens = sum(len(tree.ids) for tree in policy._trees(examples))
    assert tokens < 0.8 * sum(len(row.ids) for row in merge_examples(examples))
    assert max(len(row.ids) for row in merge_examples(examples)) > 60
    plain, apart = gradient(policy, examples, False)
    shared, together = gradient(policy, examples, True)
    assert float((shared - plain).norm() / plain.norm()) < tolerance
    for a, b in zip(apart, together, strict=True):
        for name in ("logprob", "kl", "entropy"):
            assert getattr(b, name) / b.tokens == pytest.approx(getattr(a, name) / a.tokens, abs=max(1e-5, tolerance))
    turns = [example.turn for example in examples]
    shared_logprobs = policy.turn_logprobs(turns)
    policy.shares_prompts = False
    for a, b in zip(policy.turn_logprobs(turns), shared_logprobs, strict=True):
        assert b == pytest.approx(a, abs=max(2e-5, tolerance))


@pytest.mark.parametrize("name", ["mpt"])
def test_a_model_that_counts_columns_is_read_row_by_row(name: str, tmp_path: Path) -> None:
    policy = HF(path=str(make(name, tmp_path)), max_new_tokens=8).load("cpu")
    assert not policy.describe()["shares_prompts"]
    policy._cost = ALWAYS
    assert not any(tree.branches for tree in policy._trees(branching(policy)))


def test_the_self_test_sees_a_model_that_makes_its_own_positions(tmp_path: Path) -> None:
    policy = HF(path=str(build("qwen2.5", tmp_path))).load("cpu")
    decoder, forward = policy.model.get_decoder(), policy.model.get_decoder().forward

    def deaf(*args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    from harness.policy.selftest import takes_trees

    asked = policy.scorer, policy.chat.encode_opening(CHATS[0]), policy.chat.encode_followup("?", ()), 1e-4
    assert takes_trees(*asked)
    decoder.forward = deaf
    assert not takes_trees(*asked)


def test_a_token_sees_its_ancestors_and_nothing_else(micro: Policy) -> None:
    rows = [(1, 2, 9), (1, 2, 5, 6), (1, 2, 5, 4), (1, 3)]
    (tree,) = build_trees([Row(ids, [(i, 1, len(ids))]) for i, ids in enumerate(rows)], ALWAYS, 99)
    assert tree.ids == [1, 2, 9, 5, 6, 4, 3]
    assert tree.positions == [0, 1, 2, 2, 3, 3, 1]
    batch = pack_rows([tree, Tree([Row((7, 8))])], 0, "cpu")
    assert batch.positions_BT is not None
    assert batch.ends_BT is not None
    seen = attention_masks(micro.model.config, batch.positions_BT, batch.ends_BT)[0, 0]
    paths = [[0], [0, 1], [0, 1, 2], [0, 1, 3], [0, 1, 3, 4], [0, 1, 3, 5], [0, 6]]
    assert [row.nonzero()[:, 0].tolist() for row in seen] == paths
    for example, before, places in tree.spans:
        assert [tree.ids[place] for place in places] == list(rows[example][1:])
        assert before == paths[places[-1]][:-1]


def test_rows_are_put_together_only_where_that_saves_a_fifth(micro: Policy) -> None:
    def tokens(prompt: int, price: Cost | None, longest: int = 9999) -> int:
        rows = [Row((*range(100, 100 + prompt), i, *range(9)), [(i, prompt, prompt + 10)]) for i in range(4)]
        return sum(len(tree.ids) for tree in build_trees(rows, price, longest))

    assert tokens(90, None) == 400
    assert tokens(90, ALWAYS) == 130
    assert tokens(3, ALWAYS) == 52  # a tree would have 43: 17 % saved
    assert tokens(5, ALWAYS) == 45  # of 60
    assert tokens(90, Cost(1.0, 1.0)) == 400  # attention over all pairs of the tree costs more than it saves
    assert tokens(90, ALWAYS, longest=115) == 220  # two trees
    assert decoder_cost(micro.model).token > 0
