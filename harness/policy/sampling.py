"""Sampling of several replies in one conversation, on one growing key-value cache.

Each prompt is prefilled once and its cache repeated for its samples; rows that end leave the batch, by changing places
with rows behind them, so that no other is copied; the next turn appends to every row's own cache, so nothing is read
twice and no token is re-tokenised. Each row draws from its own stream of uniforms, so what else is in the batch changes
no token.

Not covered: models without an attention cache (state-space layers); speculative or continuous batching.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.generation.stopping_criteria import StopStringCriteria

from harness.policy.loss import logits_from_hidden

COARSE = 4096  # the largest vocabulary that is drawn from in float32
KEEP = 0.75  # the batch is compacted when fewer than this share of its rows is still being written


class GrowingLayer(DynamicLayer):
    """A cache layer with room for all B rows of a batch and for more columns than are filled.

    New columns are written in place; one forward may read and extend the first rows alone.
    """

    room: tuple[Tensor, Tensor]  # keys and values of all rows, [B, heads, columns, size]; columns of no row are 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:  # room is made when the number of rows is known
            self.lazy_initialization(key_states, value_states)
            self.room = key_states, value_states
            return self._show(key_states.shape[0], key_states.shape[2])
        old, rows = self.get_seq_length(), key_states.shape[0]
        new = old + key_states.shape[2]
        if self.room[0].shape[2] < new:
            self._make_room(1, new)
        for room, states in zip(self.room, (key_states, value_states), strict=True):
            room[:rows, :, old:new] = states
        return self._show(rows, new)

    def repeat_rows(self, times: int) -> None:
        """Every row `times` times, next to each other."""
        width = self.get_seq_length()
        self._make_room(times, width)
        self._show(self.room[0].shape[0], width)

    def swap_rows(self, some: Tensor, others: Tensor) -> None:
        """Row some[i] and row others[i] change places, for each i; all rows are shown again."""
        width = self.get_seq_length()
        for room in self.room:
            kept = room[some, :, :width]
            room[some, :, :width] = room[others, :, :width]
            room[others, :, :width] = kept
        self._show(self.room[0].shape[0], width)

    def take_columns(self, order_BT: Tensor) -> None:
        """The columns order_BT of each row, in this order, take the place of all."""
        row_B1 = torch.arange(len(order_BT), device=order_BT.device)[:, None]
        for room in self.room:
            room[:, :, : order_BT.shape[1]] = room[row_B1, :, order_BT].transpose(1, 2)
        self._show(len(order_BT), order_BT.shape[1])

    def _make_room(self, times: int, width: int) -> None:
        """Room for at least `width` columns of every row `times` times."""
        filled = self.get_seq_length()

        def spread(old: Tensor) -> Tensor:
            columns = width + max(32, width // 4)
            room = old.new_zeros(len(old) * times, old.shape[1], columns, old.shape[3])
            room.unflatten(0, (-1, times))[..., :filled, :] = old[:, None, :, :filled]
            return room

        self.room = spread(self.room[0]), spread(self.room[1])

    def _show(self, rows: int, width: int) -> tuple[Tensor, Tensor]:
        keys, values = self.room
        self.keys, self.values = keys[:rows, :, :width], values[:rows, :, :width]
        return self.keys, self.values


@dataclass
class Reply:
    """One sampled reply: its token ids, their log-probabilities, and whether the length limit cut it off."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    truncated: bool = False


class Sampler:
    """A batch of B conversations with one model; `sample_reply` and `append_tokens` alternate.

    Args:
        model: A causal language model with an attention cache.
        prompts: Token ids of each prompt.
        samples: Conversations opened on each prompt, next to each other: B = len(prompts) * samples.
        end_ids: Tokens that end a reply (and belong to it).
        pad_id: Any token id, for the masked columns.
        stops: Maps replies, [b, n] token ids, to [b] booleans: which rows end at their last token. None disables stop
            texts.
    """

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], samples: int, end_ids: Sequence[int], pad_id: int,
        stops: StopStringCriteria | None = None,
    ) -> None:  # fmt: skip
        self.model, self.pad_id, self.stops = model, pad_id, stops
        self.device = next(model.parameters()).device
        self.end_ids = torch.tensor(sorted(end_ids), device=self.device)
        config = model.config.get_text_config()
        self.counts_columns = is_windowed(config) or has_alibi(config)
        self.cache: Any = DynamicCache()
        self.cache.layer_class_to_replicate = GrowingLayer
        self.mask_BT = torch.zeros(len(prompts), 0, dtype=torch.long, device=self.device)
        self._next_BV = self._read(prompts)
        if samples > 1:
            for layer in self.cache.layers:
                layer.repeat_rows(samples)
            self.mask_BT = self.mask_BT.repeat_interleave(samples, dim=0)
            self._next_BV = self._next_BV.repeat_interleave(samples, dim=0)
        self._last: list[list[int]] = [[] for _ in range(len(prompts) * samples)]

    @torch.no_grad()
    def sample_reply(self, uniform_BN: Tensor, temperature: float, limit_B: Tensor | None = None) -> list[Reply]:
        """Writes one reply in every conversation.

        Args:
            uniform_BN: Uniforms in [0, 1), one per row and position; N is the limit of tokens of a reply.
            temperature: 0 takes the likeliest token (log-probabilities are then those at temperature 1).
            limit_B: Lower limits of single rows. A row with a limit of 0 has no room: its reply is empty and truncated.
        """
        # Place i of the batch holds the row with the original number rows[i]. Uniforms are looked up by that, so that a
        # row that leaves changes no other row's draws. The rows still being written are in the first places.
        rows, replies = torch.arange(len(self._last), device=self.device), [Reply() for _ in self._last]
        limit, logits_BV = uniform_BN.shape[1], self._next_BV
        tokens_BN = torch.full((len(rows), limit), self.pad_id, device=self.device)
        logprobs_BN = torch.zeros(len(rows), limit, device=self.device)
        length_B = torch.full((len(rows),), limit, device=self.device)
        live_B = torch.ones(len(rows), dtype=torch.bool, device=self.device)
        if limit_B is not None:
            live_B = limit_B > 0
            length_B[~live_B] = 0
        stopped_B = torch.zeros(len(rows), dtype=torch.bool, device=self.device)
        uniform_BN = uniform_BN.to(self.device)
        swaps: list[tuple[Tensor, Tensor]] = []
        for position in range(limit):
            batch = rows[: len(live_B)]
            token_B, logprob_B = sample_tokens(logits_BV, uniform_BN[batch, position], temperature)
            tokens_BN[batch[live_B], position] = token_B[live_B]
            logprobs_BN[batch[live_B], position] = logprob_B[live_B]
            ended_B = live_B & torch.isin(token_B, self.end_ids)
            if self.stops:
                newest = slice(max(0, position + 1 - self.stops.maximum_token_len), position + 1)
                stops_B = live_B & self.stops(tokens_BN[batch, newest], None)  # type: ignore[arg-type]
                stopped_B[batch] |= stops_B
                ended_B |= stops_B
            if limit_B is not None:
                ended_B |= live_B & (limit_B[batch] <= position + 1)
            length_B[batch[ended_B]] = position + 1
            live_B = live_B & ~ended_B
            left = int(live_B.sum())
            if position + 1 == limit or not left:
                break
            if left < KEEP * len(live_B):
                ended, living = (~live_B[:left]).nonzero()[:, 0], live_B[left:].nonzero()[:, 0] + left
                for values in (rows, token_B):
                    values[ended], values[living] = values[living], values[ended]
                self._swap_rows(ended, living)
                swaps.append((ended, living))
                token_B, live_B = token_B[:left], live_B.new_ones(left)
            # Rows that have ended but not yet left write into a masked column.
            logits_BV = self._forward(token_B[:, None], live_B.long()[:, None])
        for swap in reversed(swaps):
            self._swap_rows(*swap)
        if self.counts_columns:
            self._close_up()
        last_B = tokens_BN.gather(1, (length_B - 1).clamp(min=0)[:, None])[:, 0]
        ended_B = stopped_B | (torch.isin(last_B, self.end_ids) & (length_B > 0))
        for reply, tokens, logprobs, length, ended in zip(
            replies, tokens_BN.tolist(), logprobs_BN.tolist(), length_B.tolist(), ended_B.tolist(), strict=True
        ):
            reply.tokens, reply.logprobs, reply.truncated = tokens[:length], logprobs[:length], not ended
        self._last = [reply.tokens[-1:] for reply in replies]  # sampled, but not yet read by the model
        return replies

    @torch.no_grad()
    def append_tokens(self, ids: Sequence[Sequence[int]]) -> None:
        """Appends given tokens to every conversation and reads them."""
        chunks = [[*last, *more] for last, more in zip(self._last, ids, strict=True)]
        self._last = [[] for _ in chunks]
        if any(chunks):
            self._next_BV = self._read(chunks)

    @torch.no_grad()
    def _read(self, chunks: Sequence[Sequence[int]]) -> Tensor:
        """Prefills ragged chunks, padded on the left; returns the logits after each.

        Left padding of a later turn puts masked columns in the middle of the cache until `_close_up`. Attention masks
        them; but a window, or ALiBi's distance, counts columns and would see fewer tokens, so such models are padded on
        the right.
        """
        width = max(len(chunk) for chunk in chunks)
        if self.counts_columns and self.mask_BT.shape[1]:
            return self._read_padded_right(chunks, width)
        pads = [[self.pad_id] * (width - len(chunk)) for chunk in chunks]
        ids_BN = torch.tensor([pad + list(chunk) for pad, chunk in zip(pads, chunks, strict=True)], device=self.device)
        mask_BN = torch.tensor([[0] * len(p) + [1] * (width - len(p)) for p in pads], device=self.device)
        logits_BV = self._forward(ids_BN, mask_BN)
        self._close_up()
        return logits_BV

    def _read_padded_right(self, chunks: Sequence[Sequence[int]], width: int) -> Tensor:
        ids_BN = torch.tensor([[*c, *[self.pad_id] * (width - len(c))] for c in chunks], device=self.device)
        length_B = torch.tensor([len(chunk) for chunk in chunks], device=self.device)
        mask_BN = (torch.arange(width, device=self.device) < length_B[:, None]).long()
        hidden_BNH = self.model.get_decoder()(**self._inputs(ids_BN, mask_BN)).last_hidden_state
        logits_BV = logits_from_hidden(
            self.model, hidden_BNH[torch.arange(len(chunks), device=self.device), length_B - 1]
        )
        self._close_up()
        return logits_BV

    def _forward(self, ids_BN: Tensor, mask_BN: Tensor) -> Tensor:
        return self.model(**self._inputs(ids_BN, mask_BN), logits_to_keep=1).logits[:, -1].float()

    def _inputs(self, ids_BN: Tensor, mask_BN: Tensor) -> dict[str, Any]:
        rows, width = ids_BN.shape  # the rows behind them stay as they are: what they have no column of is masked
        more_BN = torch.nn.functional.pad(mask_BN, (0, 0, 0, len(self.mask_BT) - rows))
        self.mask_BT = torch.cat([self.mask_BT, more_BN], dim=1)
        mask_BT = self.mask_BT[:rows]
        positions_BN = (mask_BT.cumsum(1) - 1).clamp(min=0)[:, -width:]
        return {
            "input_ids": ids_BN,
            "attention_mask": mask_BT,
            "position_ids": positions_BN,
            "past_key_values": self.cache,
            "use_cache": True,
        }

    def _swap_rows(self, some: Tensor, others: Tensor) -> None:
        for layer in self.cache.layers:
            layer.swap_rows(some, others)
        self.mask_BT[some], self.mask_BT[others] = self.mask_BT[others], self.mask_BT[some]

    def _close_up(self) -> None:
        """Moves every row's columns to the right end, so that no hole is left inside a row."""
        keep = int(self.mask_BT.sum(1).max())
        order_BT = self.mask_BT.argsort(dim=1, stable=True)  # masked columns (0) first; the others keep their order
        places_T = torch.arange(order_BT.shape[1], device=self.device)
        if keep == len(places_T) and torch.equal(order_BT, places_T.expand_as(order_BT)):
            return
        order_BT = order_BT[:, -keep:]
        for layer in self.cache.layers:
            layer.take_columns(order_BT)
        self.mask_BT = self.mask_BT.gather(1, order_BT)


def sample_tokens(logits_BV: Tensor, uniform_B: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """One token per row by inverting the cumulative distribution at the row's uniform; with its log-probability.

    The distribution is summed in the uniforms' own precision. float32 is enough for small vocabularies; over 152,000
    tokens its rounding would leave a tail of up to 1e-3 of the mass that is never drawn, so callers give float64 there
    (`fine_uniforms`).

    Example: probabilities (0.2, 0.5, 0.3) have the cumulative sums (0.2, 0.7, 1.0). A uniform of 0.69 takes token 1,
    one of 0.7 takes token 2.

    Args:
        logits_BV: Before the temperature.
        uniform_B: In [0, 1), float32 or float64.
        temperature: 0 takes the likeliest token; its log-probability is then that at temperature 1.

    Returns:
        token_B, and logprob_B at that temperature, in nats.
    """
    if temperature == 0:
        logprobs_BV = logits_BV.log_softmax(-1)
        token_B = logits_BV.argmax(-1)
    else:
        logprobs_BV = (logits_BV / temperature).log_softmax(-1)
        mass_BV = logprobs_BV.exp().cumsum(-1, dtype=uniform_B.dtype)
        target_B = uniform_B * mass_BV[:, -1]
        token_B = torch.searchsorted(mass_BV, target_B[:, None], right=True)[:, 0]
        # A uniform next to 1 can round up to the whole mass: the last token that has any is meant then. Of NaN the last
        # token is taken, whose log-probability says so.
        last_B = torch.searchsorted(mass_BV, mass_BV[:, -1:].contiguous())[:, 0]
        token_B = torch.minimum(token_B, last_B).clamp(max=mass_BV.shape[1] - 1)
    return token_B, logprobs_BV.gather(1, token_B[:, None])[:, 0]


def fine_uniforms(uniform_BN: Tensor, vocabulary: int, generator: torch.Generator) -> Tensor:
    """The uniforms in float64, with 24 more random bits each, for a vocabulary too large for float32 (see
    `sample_tokens`).

    Up to `COARSE` tokens they stay as they are: an error of 1e-7 in what is drawn is far below what any run could
    show, and the samples of small models stay what they were.

    Args:
        uniform_BN: In [0, 1), float32.
        vocabulary: V, number of tokens.
        generator: Of the extra bits; it is used for large vocabularies only.
    """
    if vocabulary <= COARSE:
        return uniform_BN
    return uniform_BN.double() + torch.rand(uniform_BN.shape, generator=generator).double() * 2.0**-24


def has_alibi(config: Any) -> bool:
    """Whether attention is biased by distance (MPT, BLOOM, some Falcons)."""
    return any(getattr(part, "alibi", False) for part in (config, getattr(config, "attn_config", None)))


def is_windowed(config: Any) -> bool:
    """Whether some layer sees only the last tokens (Gemma 2 and 3, Mistral).

    Raises:
        ValueError: a layer is no attention over a cache of keys and values (state-space, chunked): not covered.
    """
    kinds = set(getattr(config, "layer_types", None) or [])
    if other := kinds - {"full_attention", "sliding_attention"}:
        raise ValueError(f"{config.model_type} has layers this sampler does not know: {', '.join(sorted(other))}")
    return "sliding_attention" in kinds if kinds else bool(getattr(config, "sliding_window", None))
