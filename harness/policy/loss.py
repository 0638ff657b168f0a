"""Log-probabilities, KL and entropy of turns, and the surrogate loss; one forward serves all turns of a trajectory, and
where prompts are shared (`harness.policy.tree`) all trajectories of a problem.

The surrogate of a batch of examples, with D its denominator (trajectories, examples or tokens):

    L = (1 / D) * sum over examples of [ -weight * sum_t log pi(y_t | s_t) + kl * sum_t K_t ]

whose gradient at the sampling policy is the REINFORCE estimate of Eq. 3 or Eq. 4 (arXiv 2409.12917v2) with per-turn
advantages as weights. s_t is everything before token y_t. K_t is one of:

- `exact`: KL(pi(.|s_t) || ref(.|s_t)) summed over the vocabulary. Its gradient is the exact gradient of each token's
  KL at the sampled prefixes; the dependence of the prefixes on the policy is left out.
- `k2`: (log pi - log ref)^2 / 2 at the sampled token. Its gradient, (log pi - log ref) * grad log pi, is in
  expectation that of `exact`.
- `k1`: log pi - log ref at the sampled token. Unbiased as a *value*, but as a loss its gradient is grad log pi, which
  is zero in expectation: it pulls towards nothing. Kept to show that.
- `k3`: ref/pi - 1 - log(ref/pi) at the sampled token. Unbiased and positive as a value; as a loss its expected
  gradient is that of the *forward* KL(ref || pi) where pi covers ref.

Pads, tokens of the context and given turns have weight and kl of exactly 0: they are not even gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from harness.core import Example
from harness.policy.tree import Row, Tree, attention_masks
from harness.registry import nearest_hint

ESTIMATORS = ("exact", "k1", "k2", "k3")
LEAST = torch.finfo(torch.float32).min
SMALL = 4096  # the largest vocabulary whose head is too cheap to leave tokens out: small models train as they did


def merge_examples(examples: Sequence[Example]) -> list[Row]:
    """Puts examples into as few rows as possible: a turn whose sequence another's context extends shares its row.

    Exact, because x2 = [x1, y1, p1] extends x1 + y1 token by token; and causal attention does not look ahead. A turn
    without tokens (its conversation had filled the window) is in no row: there is nothing to score.

    Example: two samples of one problem, with the contexts and tokens of their attempts:

        0: x1 + y1         1: x1 + y1 + p1 + y2          2: x1 + z1
        -> rows x1 + y1 + p1 + y2, with the spans of 1 and 0; and x1 + z1, with the span of 2

    Args:
        examples: E examples with token ids.

    Returns:
        Rows, sorted by ids from high to low; `Row.spans` has (index of the example, first place, end) of its tokens.
    """
    sequences = [example.turn.context + example.turn.tokens for example in examples]
    written = [i for i, example in enumerate(examples) if example.turn.tokens]
    rows: list[Row] = []
    # From high to low, so that a sequence comes right after those that extend it.
    for i in sorted(written, key=lambda i: sequences[i], reverse=True):
        ids = sequences[i]
        if not rows or rows[-1].ids[: len(ids)] != ids:
            rows.append(Row(ids))
        rows[-1].spans.append((i, len(examples[i].turn.context), len(ids)))
    return rows


def split_microbatches(trees: Sequence[Tree], tokens: int) -> Iterator[list[Tree]]:
    """Trees sorted by size and cut so that no padded batch exceeds `tokens` (a larger tree goes alone)."""
    batch: list[Tree] = []
    for tree in sorted(trees, key=lambda tree: len(tree.ids), reverse=True):
        if batch and len(batch[0].ids) * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(tree)
    if batch:
        yield batch


class Batch(NamedTuple):
    """A micro-batch of B trees and the N tokens that are scored in it.

    Attributes:
        ids_BT: Token ids.
        rows_N: Row of each token, `sources_N` the place it is predicted from, `places_N` its own.
        spans: (index of the example, how many of the N tokens are its own), in order.
        positions_BT: Each token's depth, and `ends_BT` the end of its subtree; None where all trees are plain rows.
    """

    ids_BT: Tensor
    rows_N: Tensor
    sources_N: Tensor
    places_N: Tensor
    spans: list[tuple[int, int]]
    positions_BT: Tensor | None
    ends_BT: Tensor | None

    def tree_arguments(self, config: Any) -> dict[str, Any]:
        """What a decoder is told of trees; nothing of plain rows."""
        if self.positions_BT is None or self.ends_BT is None:
            return {}
        mask = attention_masks(config, self.positions_BT, self.ends_BT)
        return {"position_ids": self.positions_BT, "attention_mask": mask}


class Terms(NamedTuple):
    """Per-token results, shape [N] each: N selected tokens in the order of the batch's spans."""

    logprob: Tensor
    entropy: Tensor
    kl: Tensor | None  # None, as the next, where the reference was not asked
    reference: Tensor | None  # the reference's log-probability of the token


@dataclass(frozen=True)
class Reference:
    """The base model as it was before training: a frozen copy, or (LoRA) the same model with its adapter off."""

    model: Any
    scope: Callable[[], AbstractContextManager[Any]] = nullcontext


def logits_from_hidden(model: Any, hidden_NH: Tensor) -> Tensor:
    """Logits [N, V] of last hidden states, before the temperature, in float32 at least."""
    logits_NV = model.get_output_embeddings()(hidden_NH)
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    config = model.config.get_text_config()
    if getattr(config, "logits_scaling", None):  # Granite
        logits_NV = logits_NV / config.logits_scaling
    if getattr(config, "logit_scale", None):  # Cohere
        logits_NV = logits_NV * config.logit_scale
    if getattr(config, "final_logit_softcapping", None):  # Gemma
        cap = config.final_logit_softcapping
        logits_NV = torch.tanh(logits_NV / cap) * cap
    return logits_NV


class Scorer(nn.Module):
    """Per-token terms of selected positions; its forward is what a data-parallel wrapper wraps.

    The vocabulary is visited in chunks of positions: at most `logits_bound` logits exist at once, and backward
    computes them again.

    Args:
        model: A causal language model; its decoder and its output head are called apart.
        reference: What the KL is taken to.
        kl: The estimator, see the module's docstring.
        temperature: Logits are divided by it, as in sampling.
        logits_bound: Most logits (positions x vocabulary) held at once.

    Raises:
        ValueError: the model's logits are not `logits_from_hidden(decoder(ids))`, so chunking would score another
            model.
    """

    def __init__(self, model: Any, reference: Reference, kl: str, temperature: float, logits_bound: int) -> None:
        super().__init__()
        if kl not in ESTIMATORS:
            raise ValueError(
                f"unknown KL estimator {kl!r}{nearest_hint(kl, ESTIMATORS)}: one of {', '.join(ESTIMATORS)}"
            )
        self.model, self.reference = model, reference
        self.kl, self.temperature, self.logits_bound = kl, temperature, logits_bound

    def hidden_states(self, model: Any, ids_BT: Tensor, walk: Mapping[str, Any] | None = None) -> Tensor:
        """Last hidden states [B, T, H]; right pads need no mask under causal attention.

        Args:
            walk: Positions and mask of trees; none for plain rows.
        """
        return model.get_decoder()(input_ids=ids_BT, use_cache=False, **(walk or {})).last_hidden_state

    @torch.no_grad()
    def check_logits(self, model: Any, ids_BT: Tensor) -> None:
        """Compares the chunked path with the model's own logits on one short input."""
        own = model(input_ids=ids_BT, use_cache=False).logits.float()
        ours = logits_from_hidden(model, self.hidden_states(model, ids_BT))
        if not torch.allclose(own, ours, atol=1e-2 * float(own.abs().max()) + 1e-4):
            raise ValueError(
                f"{type(model).__name__} changes its logits after the output head in a way this engine does not know "
                "(it knows logit softcapping and scaling): its log-probabilities would be wrong"
            )

    def forward(self, batch: Batch, compare: bool = True, trained: Sequence[bool] = ()) -> Terms:
        """Terms of a batch's tokens.

        Args:
            compare: Whether the reference is asked as well.
            trained: Which of the N tokens have a weight or a KL coefficient; a large vocabulary's head has no backward
                for the others. All tokens, where none is named.
        """
        walk = batch.tree_arguments(self.model.config.get_text_config())
        inputs_N = [batch.ids_BT[batch.rows_N, batch.places_N]]
        if compare:
            with torch.no_grad(), self.reference.scope():
                inputs_N.append(
                    self.hidden_states(self.reference.model, batch.ids_BT, walk)[batch.rows_N, batch.sources_N]
                )
        hidden_NH = self.hidden_states(self.model, batch.ids_BT, walk)[batch.rows_N, batch.sources_N]
        small = self.model.get_output_embeddings().weight.shape[0] <= SMALL
        if small or not torch.is_grad_enabled() or all(trained) or not any(trained):
            return self._read_head(hidden_NH, *inputs_N)
        trained_N = torch.tensor(trained, device=hidden_NH.device)
        found = self._read_head(*(part[trained_N] for part in (hidden_NH, *inputs_N)))
        with torch.no_grad():
            rest = self._read_head(*(part[~trained_N] for part in (hidden_NH, *inputs_N)))

        def put(some: Tensor, others: Tensor) -> Tensor:
            column_N = some.new_empty(len(trained))
            column_N[trained_N], column_N[~trained_N] = some, others
            return column_N

        pairs = zip(found, rest, strict=True)
        columns: Any = (None if a is None or b is None else put(a, b) for a, b in pairs)
        return Terms(*columns)

    def _read_head(self, hidden_NH: Tensor, *inputs_N: Tensor) -> Terms:
        size = max(1, self.logits_bound // self.model.get_output_embeddings().weight.shape[0])
        recompute = torch.is_grad_enabled() and len(hidden_NH) > size
        parts: list[Any] = []
        for begin in range(0, len(hidden_NH), size):
            inputs = (part[begin : begin + size] for part in (hidden_NH, *inputs_N))
            parts.append(checkpoint(self._terms, *inputs, use_reentrant=False) if recompute else self._terms(*inputs))
        columns: Any = (None if column[0] is None else torch.cat(column) for column in zip(*parts, strict=True))
        return Terms(*columns)

    def _terms(self, hidden_NH: Tensor, targets_N: Tensor, hidden_ref_NH: Tensor | None = None) -> Terms:
        logp_NV = (logits_from_hidden(self.model, hidden_NH) / self.temperature).log_softmax(-1)
        logp_N, probs_NV = logp_NV.gather(1, targets_N[:, None])[:, 0], logp_NV.exp()
        # A token that a model masks has a logit of -inf, and 0 * -inf would be NaN, in the gradient as well.
        finite_NV = logp_NV.clamp(min=LEAST)
        entropy_N = -(probs_NV.detach() * finite_NV.detach()).sum(-1)
        if hidden_ref_NH is None:
            return Terms(logp_N, entropy_N, None, None)
        with torch.no_grad(), self.reference.scope():
            ref_NV = (logits_from_hidden(self.reference.model, hidden_ref_NH) / self.temperature).log_softmax(-1)
        ref_N = ref_NV.gather(1, targets_N[:, None])[:, 0]
        log_ratio_N = ref_N - logp_N
        if self.kl == "exact":
            kl_N = (probs_NV * (finite_NV - ref_NV.clamp_(min=LEAST))).sum(-1)
        elif self.kl == "k1":
            kl_N = -log_ratio_N
        elif self.kl == "k2":
            kl_N = log_ratio_N.square() / 2
        else:
            kl_N = log_ratio_N.exp() - 1 - log_ratio_N
        return Terms(logp_N, entropy_N, kl_N, ref_N)


@contextmanager
def set_gradient_checkpointing(model: Any, on: bool) -> Iterator[None]:
    """Has the layers keep only their inputs for backward.

    transformers ties this to `train()`, which would switch dropout on as well: here the layers alone, not what they
    are made of, are told that they train, and only for as long as a gradient is computed (sampling needs its cache).
    """
    layers = [m for m in model.modules() if on and isinstance(m, GradientCheckpointingLayer)]
    if on and not layers:
        raise ValueError(f"{type(model).__name__} has no layers that can be computed again: unset hf.checkpoint_layers")
    for layer in layers:
        layer.training = layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in layers:
            layer.training = layer.gradient_checkpointing = False


def pack_rows(trees: Sequence[Tree], pad_id: int, device: Any) -> Batch:
    """Trees as one padded batch.

    Args:
        trees: B of them; shorter ones are padded on the right to the longest, T.
        pad_id: Any token id; pads are never scored.
        device: Where the tensors are put.
    """
    width = max(len(tree.ids) for tree in trees)
    pads = [width - len(tree.ids) for tree in trees]
    rows, sources, places, spans = [], [], [], []
    for number, tree in enumerate(trees):
        for example, before, at in tree.spans:
            rows += [number] * len(at)
            sources += before
            places += at
            spans.append((example, len(at)))

    def put(values: Sequence[Any]) -> Tensor:
        return torch.tensor(values, device=device)

    positions_BT = ends_BT = None
    if any(tree.branches for tree in trees):
        positions_BT = put([[*tree.positions, *[0] * pad] for tree, pad in zip(trees, pads, strict=True)])
        # A pad sees itself, as attention to nothing would be NaN.
        ends_BT = put([[*tree.ends, *[width] * pad] for tree, pad in zip(trees, pads, strict=True)])
    ids_BT = put([[*tree.ids, *[pad_id] * pad] for tree, pad in zip(trees, pads, strict=True)])
    return Batch(ids_BT, put(rows), put(sources), put(places), spans, positions_BT, ends_BT)
