"""Prefix trees of token sequences: what several rows begin with alike is computed once, forward and backward.

The samples of one problem share its prompt; attempts 2 that were sampled after one attempt 1 share that as well. Here
such rows become one: every token of the tree stands once, in the order of a walk through it (a node before its
branches, one branch after another). A token's position is its depth, and it sees its ancestors and itself:

    token i is seen by token j  if and only if  i <= j < end of i's subtree

That is exact: a causal model computes of a token what its ancestors alone determine, and a gradient that arrives at a
shared token is the sum over the branches. It needs a model that takes positions and a mask of [T, T] as they are given
(`harness.policy.selftest.takes_trees`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

WORTH = 0.8  # trees are used where they need at most this share of the operations (docs/performance.md)


@dataclass
class Row:
    """One token sequence and the spans trained in it: (index of the example, first token, end)."""

    ids: tuple[int, ...]
    spans: list[tuple[int, int, int]] = field(default_factory=list)


class Cost(NamedTuple):
    """Operations of a decoder's forward, in any unit.

    Attributes:
        token: Of one token, in the matrices.
        pair: Of one token that looks at another one, in all layers' attention.
    """

    token: float
    pair: float


def cost(model: Any) -> Cost:
    """Multiplications and additions of a model's decoder; a mixture's experts all count."""
    config, table = model.config.get_text_config(), model.get_input_embeddings().weight
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    weights = sum(p.numel() for p in model.get_decoder().parameters() if p is not table)
    return Cost(2.0 * weights, 4.0 * config.num_hidden_layers * width)


class Tree:
    """Rows that share prefixes, as one sequence of T tokens.

    Attributes:
        ids: Token ids [T], each token of the tree once.
        positions: Each token's depth [T].
        ends: Where each token's subtree ends [T].
        spans: (index of the example, places of the tokens it is predicted from, places of its tokens).
    """

    def __init__(self, row: Row) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.ends: list[int] = []
        self.spans: list[tuple[int, list[int], list[int]]] = []
        self._path: list[int] = []  # places of the last row's tokens
        self._row = Row(())
        self.add(row)

    def shared(self, row: Row) -> int:
        """How many of a row's first tokens are those of the row that was added last."""
        pairs = zip(row.ids, self._row.ids, strict=False)
        most = min(len(row.ids), len(self._row.ids))
        return next((k for k, (a, b) in enumerate(pairs) if a != b), most)

    def add(self, row: Row) -> None:
        """Grows a branch; rows come in the order of their token ids, so that the last one shares most."""
        common, size = self.shared(row), len(self.ids)
        for place in self._path[common:]:
            self.ends[place] = size
        new = len(row.ids) - common
        self._path[common:] = range(size, size + new)
        self.ids += row.ids[common:]
        self.positions += range(common, len(row.ids))
        self.ends += [size + new] * new
        for place in self._path[:common]:
            self.ends[place] = size + new
        self.spans += [(i, self._path[begin - 1 : end - 1], self._path[begin:end]) for i, begin, end in row.spans]
        self._row = row

    @property
    def branches(self) -> bool:
        """Whether it is more than one sequence."""
        return self.positions[-1] + 1 < len(self.ids)


def plant(rows: Sequence[Row], cost: Cost | None, longest: int) -> list[Tree]:
    """Trees of all rows: rows in the order of their ids are put together where that needs fewer operations.

    A tree's attention is computed over all pairs of its T tokens, that of a plain row over half of its own. Where all
    trees together save too little (`WORTH`), and where there is no cost, each row is a tree of its own.

    Args:
        rows: Sorted by ids, as `harness.policy.loss.merge` gives them.
        longest: Most tokens of a tree of several rows.
    """
    plain = [Tree(row) for row in rows]
    if cost is None or len(rows) < 2:
        return plain

    def alone(tokens: int) -> float:
        return tokens * cost.token + tokens * tokens / 2 * cost.pair

    def dense(tokens: int) -> float:
        return tokens * cost.token + tokens * tokens * cost.pair

    trees, spent = [Tree(rows[0])], alone(len(rows[0].ids))
    for row in rows[1:]:
        tree = trees[-1]
        size = len(tree.ids)
        grown = size + len(row.ids) - tree.shared(row)
        more = dense(grown) - (dense(size) if tree.branches else alone(size))
        if grown <= longest and more < alone(len(row.ids)):
            tree.add(row)
            spent += more
        else:
            trees.append(Tree(row))
            spent += alone(len(row.ids))
    return trees if spent <= WORTH * sum(alone(len(row.ids)) for row in rows) else plain


def masks(config: Any, positions_BT: Tensor, ends_BT: Tensor) -> Any:
    """Who sees whom, [B, 1, T, T], as a model's decoder takes it: one mask, or one for each kind of layer.

    Args:
        config: The text model's; says its windows, and whether attention adds its mask (eager) or chooses by it.
    """
    place_T = torch.arange(ends_BT.shape[1], device=ends_BT.device)
    sees_BTT = (place_T <= place_T[:, None]) & (place_T[:, None] < ends_BT[:, None, :])

    def mask(window: int | None) -> Tensor:
        seen_BTT = sees_BTT
        if window:
            seen_BTT = seen_BTT & (positions_BT[:, :, None] - positions_BT[:, None, :] < window)
        if config._attn_implementation == "eager":
            unseen_BTT = torch.zeros(seen_BTT.shape, device=seen_BTT.device)
            return unseen_BTT.masked_fill_(~seen_BTT, torch.finfo(torch.float32).min)[:, None]
        return seen_BTT[:, None]

    kinds, window = set(getattr(config, "layer_types", None) or ()), getattr(config, "sliding_window", None)
    if "sliding_attention" in kinds:
        return {"full_attention": mask(None), "sliding_attention": mask(window)}
    return mask(None if kinds else window)
