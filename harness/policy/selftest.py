"""What is proved of a model when it is loaded: that its logits, and its sampler over two turns, are its own forwards.

The sampler keeps a cache, closes up the pads between a row's turns and counts positions itself. A model that keeps more
than keys and values, counts columns, or masks in its own way would be sampled wrongly without a word: here a short
conversation finds it, whatever the model is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from harness.policy.loss import Scorer, logits_from_hidden, pack_rows
from harness.policy.memory import is_full
from harness.policy.sampling import Sampler, has_alibi
from harness.policy.tree import Cost, Row, build_trees

WINDOW = 5  # of layers with a sliding window, while it is tested that a tree's mask keeps to it
PIECE = 12  # most tokens of a prompt's part: the window of a tiny model holds the whole test
NEVER = -1  # no token ends a reply of the test: their lengths are set


def check_engine(scorer: Scorer, opening: Sequence[int], follow: Sequence[int], pad_id: int, tolerance: float) -> None:
    """Compares chunked logits and sampled log-probabilities with plain forwards of the scorer's model.

    Two prompts of unlike length, a reply of 5 and one of 2 tokens, two follow-ups of unlike length, a reply of 2 and
    one of 4.

    Args:
        opening: Token ids of a short conversation's opening; `follow`: of what stands between two replies.
        tolerance: Largest mean difference per token in nats.

    Raises:
        ValueError: they differ, or the model cannot be read so at all.
    """
    model, name = scorer.model, type(scorer.model).__name__
    try:
        scorer.check_logits(model, torch.tensor([list(opening)], device=next(model.parameters()).device))
        gaps = _gaps(model, list(opening)[-PIECE:], list(follow)[-PIECE:] or list(opening)[-1:], pad_id)
    except Exception as error:  # a model of another kind fails in its own way
        if is_full(error):
            raise
        reason = " ".join(str(error).split())[:500]
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(
            f"{name} cannot be read as this engine reads models, with a cache of keys and values: {kind}{reason}"
        ) from error
    mean = sum(gaps) / len(gaps)
    if not mean <= tolerance:  # NaN is no agreement
        raise ValueError(
            f"{name} gives other log-probabilities when it is sampled from, turn by turn with a cache, than in one "
            f"forward: {mean:.2g} nats per token, more than {tolerance:.2g}. Its samples would not be its own"
        )


@torch.no_grad()
def _gaps(model: Any, opening: list[int], follow: list[int], pad_id: int) -> list[float]:
    """Absolute differences, one for each sampled token."""
    contexts = [opening, [*opening, *follow]]
    sampler, gaps = Sampler(model, contexts, 1, [NEVER], pad_id), []
    for turn, lengths in enumerate(((5, 2), (2, 4))):
        uniform_BN = torch.rand(2, max(lengths), generator=torch.Generator().manual_seed(turn))
        replies = sampler.sample_reply(uniform_BN, 1.0, torch.tensor(lengths, device=sampler.device))
        contexts = [[*context, *reply.tokens] for context, reply in zip(contexts, replies, strict=True)]
        for context, reply in zip(contexts, replies, strict=True):
            ids_BT = torch.tensor([context], device=sampler.device)
            logits_TV = model(input_ids=ids_BT, use_cache=False).logits[0].float()
            logprobs_NV = logits_TV[-len(reply.tokens) - 1 : -1].log_softmax(-1)
            plain_N = logprobs_NV.gather(1, ids_BT[0, -len(reply.tokens) :, None])[:, 0].tolist()
            gaps += [abs(a - b) for a, b in zip(plain_N, reply.logprobs, strict=True)]
        if turn == 0:
            asked = [[*follow, *opening, *follow], follow]
            sampler.append_tokens(asked)
            contexts = [[*context, *more] for context, more in zip(contexts, asked, strict=True)]
    return gaps


@torch.no_grad()
def takes_trees(scorer: Scorer, opening: Sequence[int], follow: Sequence[int], tolerance: float) -> bool:
    """Whether the scorer's model computes of a prefix tree what it computes of the plain rows.

    Five rows: two branches right behind the opening, and three that part later. Models do not that count columns
    (ALiBi) or make positions of their own, and attention kernels that take no mask of [T, T].

    Args:
        tolerance: Largest mean difference per token in nats.
    """
    model, config = scorer.model, scorer.model.config.get_text_config()
    if has_alibi(config):  # its bias is counted in columns, and may be too small to be seen here
        return False
    begin, more = list(opening)[-PIECE:], list(follow)[-PIECE:] or list(opening)[-1:]
    middle = [*begin, *more, *begin]
    rows = [[*begin, 0, *more], [*begin, 1, *begin], *([*middle, i, *more[i:], *begin] for i in range(3))]
    rows = [Row(tuple(ids), [(i, 1, len(ids))]) for i, ids in enumerate(rows)]
    rows = sorted(rows, key=lambda row: row.ids, reverse=True)
    device, window = next(model.parameters()).device, getattr(config, "sliding_window", None)
    found: list[Any] = []
    try:
        if window:
            config.sliding_window = min(window, WINDOW)
        for price in (None, Cost(1.0, 0.0)):
            batch = pack_rows(build_trees(rows, price, sum(len(row.ids) for row in rows)), 0, device)
            hidden_NH = scorer.hidden_states(model, batch.ids_BT, batch.tree_arguments(config))[
                batch.rows_N, batch.sources_N
            ]
            logprobs_NV = logits_from_hidden(model, hidden_NH).log_softmax(-1)
            found.append(logprobs_NV.gather(1, batch.ids_BT[batch.rows_N, batch.places_N][:, None])[:, 0])
    except Exception as error:  # a model that takes no such mask, or no positions, fails in its own way
        if is_full(error):
            raise
        return False
    finally:
        if window:
            config.sliding_window = window
    return bool((found[0] - found[1]).abs().mean() <= tolerance)  # NaN is no agreement
