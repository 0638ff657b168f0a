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

from collections.abc import Iterable, Sequence
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


def decoder_cost(model: Any) -> Cost:
    """Multiplications and additions of a model's decoder; a mixture's experts all count."""
    config, table = model.config.get_text_config(), model.get_input_embeddings().weight
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    weights = sum(p.numel() for p in model.get_decoder().parameters() if p is not table)
    return Cost(2.0 * weights, 4.0 * config.num_hidden_layers * width)


class Tree:
    """Rows as one sequence of T tokens: those that follow one another share the prefix that they have in common.

    Rows that begin unlike are trees side by side, which do not see each other.

    Attributes:
        ids: Token ids [T], each token of the tree once.
        positions: Each token's depth [T].
        ends: Where each token's subtree ends [T].
        spans: (index of the example, places of the tokens it is predicted from, places of its tokens).
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        """Rows in the order of their ids share most."""
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.ends: list[int] = []
        self.spans: list[tuple[int, list[int], list[int]]] = []
        path: list[int] = []  # places of the last row's tokens
        last = Row(())
        for row in rows:
            common, size = shared_prefix_length(last, row), len(self.ids)
            for place in path[common:]:
                self.ends[place] = size
            path[common:] = range(size, size + len(row.ids) - common)
            self.ids += row.ids[common:]
            self.positions += range(common, len(row.ids))
            self.ends += [0] * (len(row.ids) - common)
            self.spans += [(i, path[begin - 1 : end - 1], path[begin:end]) for i, begin, end in row.spans]
            last = row
        for place in path:
            self.ends[place] = len(self.ids)

    @property
    def branches(self) -> bool:
        """Whether it is more than one sequence."""
        return self.positions[-1] + 1 < len(self.ids)


def shared_prefix_length(one: Row, other: Row) -> int:
    """How many first tokens two rows have in common."""
    most = min(len(one.ids), len(other.ids))
    return next((k for k in range(most) if one.ids[k] != other.ids[k]), most)


def build_trees(rows: Sequence[Row], cost: Cost | None, longest: int) -> list[Tree]:
    """Trees of all rows: rows in the order of their ids are put together where that needs fewer operations.

    A tree's attention is computed over all pairs of its T tokens, that of a plain row over half of its own. Small trees
    are packed side by side in one sequence, so that little is padded. Where all trees together save too little
    (`WORTH`), and where there is no cost, each row is a tree of its own.

    Args:
        rows: Sorted by ids, as `harness.policy.loss.merge_examples` gives them.
        longest: Most tokens of a tree of several rows.
    """
    plain = [Tree([row]) for row in rows]
    if cost is None or len(rows) < 2:
        return plain

    def alone(tokens: int) -> float:
        return tokens * cost.token + tokens * tokens / 2 * cost.pair

    def together(tokens: int) -> float:
        return tokens * cost.token + tokens * tokens * cost.pair

    groups: list[tuple[int, list[Row]]] = []  # (tokens, rows)
    for row in rows:
        length = len(row.ids)
        if groups:
            size, group = groups[-1]
            grown = size + length - shared_prefix_length(group[-1], row)
            more = together(grown) - (together(size) if len(group) > 1 else alone(size))
            if grown <= longest and more < alone(length):
                groups[-1] = grown, [*group, row]
                continue
        groups.append((length, [row]))
    groups.sort(key=lambda group: group[0], reverse=True)
    spent = sum(together(size) if len(group) > 1 else alone(size) for size, group in groups)
    if spent > WORTH * sum(alone(len(row.ids)) for row in rows):
        return plain
    # Sequences are filled up, but to twice their largest tree at most: attention is computed between its trees as well.
    sequences: list[list[Any]] = []  # [tokens left, rows]
    for size, group in groups:
        fits = (sequence for sequence in sequences if size <= sequence[0])
        if (sequence := next(fits, None)) is None:
            sequences.append([min(2 * size, groups[0][0]) - size, list(group)])
        else:
            sequence[0] -= size
            sequence[1] += group
    return [Tree(parts) for _, parts in sequences]


def attention_masks(config: Any, positions_BT: Tensor, ends_BT: Tensor) -> Any:
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
