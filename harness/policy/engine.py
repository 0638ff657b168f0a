"""The engine: a Hugging Face causal LM that samples conversations, scores turns and takes policy-gradient steps.

Not covered: encoder-decoder models and models without an attention cache.
Above 300 lines because the policy and its sessions share the model, its chat format and its state.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from accelerate import PartialState
from torch import Tensor
from transformers import AutoTokenizer
from transformers.generation.stopping_criteria import StopStringCriteria

from harness.core import Example, Message, Turn, TurnStats, Verdict
from harness.machine import cpu_name
from harness.policy import NotFiniteError, files, selftest, sharding
from harness.policy.chat import chat_format
from harness.policy.gguf_files import read_provenance
from harness.policy.loss import (
    Batch,
    Reference,
    Scorer,
    Terms,
    merge_examples,
    pack_rows,
    set_gradient_checkpointing,
    split_microbatches,
)
from harness.policy.memory import advise_on_oom, is_full
from harness.policy.precision import autocast_scope, cast_frozen_to_bf16, uses_bf16
from harness.policy.ranks import RanksError, join_ranks
from harness.policy.sampling import Reply, Sampler, fine_uniforms
from harness.policy.tree import Row, Tree, build_trees, decoder_cost
from harness.policy.vllm import VLLM
from harness.policy.warm_start import read_warm_start
from harness.seeds import derive_seed

if TYPE_CHECKING:
    from harness.policy import HF


HELLO: list[Message] = [{"role": "user", "content": "?"}]
TREE_TOLERANCE = 1e-4  # nats per token: what float32 rounding may make of a tree against plain rows, in the self-test
KL_EVERY = 10  # updates; where no example has a KL coefficient the reference is asked that often, for the log alone
LARGE = 100_000_000  # parameters without embeddings from which vLLM is worth its start on a GPU (docs/performance.md)
UNGRADED = Verdict(0.0, False, "error")


class Policy:
    """A model, its frozen reference, its optimiser and its chat format. Build it with `HF(...).load(device)`.

    Implements `harness.core.Policy`; what is public beyond that is for this package and its tests.
    """

    def __init__(self, spec: HF, device: str) -> None:
        transformers.utils.logging.disable_progress_bar()  # one line per weight file would hide the rest
        self.spec = spec
        self.ranks = join_ranks(device)
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"--device {device}: torch finds no CUDA device here")
        if device.startswith("cuda:"):
            torch.cuda.set_device(device)
        self.device: torch.device = PartialState(cpu=device == "cpu").device  # type: ignore[assignment]
        self.half = uses_bf16(spec.dtype, self.device)
        self.sharded = self.ranks.size > 1 and sharding.is_asked()
        files.require_model(spec.model_source)
        self.tokenizer = files.load_pretrained(AutoTokenizer, spec)
        model = self._base_model()
        ends = model.generation_config.eos_token_id if model.generation_config else None
        ends = self.tokenizer.eos_token_id if ends is None else ends
        if ends is None:
            raise ValueError(
                f"neither the model nor the tokenizer at {spec.model_source!r} names an end-of-sequence token"
            )
        self.end_ids: list[int] = [ends] if isinstance(ends, int) else list(ends)
        self.chat = chat_format(spec.chat, self.tokenizer, self.end_ids, spec.template_options)
        if (closing := self.chat.unnamed_end) is not None:
            self.end_ids.append(closing)  # some models name the end of a text alone, not that of a turn
            self.chat = chat_format(spec.chat, self.tokenizer, self.end_ids, spec.template_options)
        self.stops = _stops(self.tokenizer, spec) if spec.stop else None
        self.window = files.context_window(model.config.get_text_config())
        self.rows = model.get_input_embeddings().weight.shape[0]
        opening, follow = self.chat.encode_opening(HELLO), self.chat.encode_followup("?", ())
        self._require_rows([*opening, *follow, *self.end_ids], "the chat template")
        self._frame = max(len(opening), len(self.chat.encode_opening([{"role": "system", "content": ""}, *HELLO])))
        self.cut_prompts = 0
        self.microbatch_tokens = spec.microbatch_tokens
        self.pad_id: int = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.end_ids[0]
        if spec.lora_rank:
            if self.sharded:
                raise ValueError("hf.lora_rank needs no FSDP: launch with --multi_gpu, or train all weights")
            model = _with_adapter(model, spec)
            self.reference = Reference(cast_frozen_to_bf16(model) if self.half else model, model.disable_adapter)
        else:
            base = copy.deepcopy(model).requires_grad_(False)
            self.reference = Reference((cast_frozen_to_bf16(base) if self.half else base).to(self.device))
        # No data-parallel wrapper: it averages gradients, where a sum is meant, and waits for equally many backwards.
        ends_of = [model.get_input_embeddings(), model.get_output_embeddings()]
        outside = {id(p) for part in ends_of for p in part.parameters()}  # tied ones are one tensor
        self._core_size = sum(p.numel() for p in model.parameters() if id(p) not in outside)
        self.scorer = Scorer(model, self.reference, spec.kl, spec.temperature, spec.logits_bound).to(self.device)
        self.model = self.scorer.model
        with self.autocast_scope(), advise_on_oom("hf.lora_rank or a smaller model"):
            # Its few tokens are drawn from anywhere in the distribution, where bfloat16 rounds logits most: twice the
            # limit of fresh samples (SmolLM2 has 0.051 here and 0.01 to 0.03 on its own samples).
            limit = self.logprob_tolerance * (2 if self.half else 1)
            selftest.check_engine(self.scorer, opening, follow, self.pad_id, limit)
            # Whether scoring reads what trajectories begin with alike only once, where that saves enough.
            self.shares_prompts = spec.share_prompts and selftest.takes_trees(
                self.scorer, opening, follow, self.logprob_tolerance if self.half else TREE_TOLERANCE
            )
        self._cost = decoder_cost(model)
        # Some models mask rows of the vocabulary by a bias of -inf: those stay, and are no accident.
        self._infinite = frozenset(name for name, p in self._trained() if files.find_nonfinite({name: p}))
        self._untrained = {name: p.detach().clone() for name, p in self._trained()} if spec.lora_rank else None
        self.sampled: Any = self.model  # what samples: the trained weights themselves, or a whole copy of sharded ones
        dtype = "bfloat16" if self.half else "float32"
        self.vllm = VLLM(spec, self.window, dtype, self.device) if spec.sampler == "vllm" else None
        if advice := advise_on_sampler(spec.sampler, self.device.type, self._core_size):
            warnings.warn(advice, stacklevel=2)
        if self.sharded:
            self.sampled = None if self.vllm else copy.deepcopy(self.reference.model)
            sharding.shard_parameters(self.scorer, list(model._no_split_modules or []), self.device)
        self._stale = False
        self.optimizer = self._fresh_optimizer()

    @property
    def temperature(self) -> float:
        """Of sampling in training, and of the policy whose gradient is taken."""
        return self.spec.temperature

    @property
    def logprob_tolerance(self) -> float:
        """Largest mean difference per token between the own sampler's log-probabilities and the trainer's, in nats."""
        return self.spec.sampler_tolerance * (0.5 if self.half else 0.02)

    # -- sampling -----------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Hands new weights to the copy that samples; the processes call it together, before they sample."""
        if self._stale and self.vllm and self.spec.lora_rank:
            self.vllm.refresh_adapter(self.model.save_pretrained)
        elif self._stale and self.vllm:
            self.vllm.load_weights(
                (name, sharding.gather_tensor(p.detach())) for name, p in self.model.named_parameters()
            )
        elif self._stale and self.sharded:
            into = dict(self.sampled.named_parameters(remove_duplicate=False))
            for name, p in self.model.named_parameters(remove_duplicate=False):
                sharding.copy_to_shard(sharding.gather_tensor(p.detach()), into[name])
        self._stale = False

    def open(
        self, chats: Sequence[Sequence[Message]], samples: int, seed: int, temperature: float, reference: bool = False,
        place: tuple[int, int] | None = None,
    ) -> Session:  # fmt: skip
        """Opens `samples` conversations on each chat, next to each other.

        Args:
            chats: P openings.
            samples: G conversations on each.
            seed: Of the draws.
            temperature: 0 is greedy.
            reference: Whether the reference model writes the replies.
            place: The first chat's number in its batch, and how many chats the batch has: what is sampled depends on
                these alone, not on which process does it. The chats are the whole batch unless given.
        """
        return Session(self, chats, samples, seed, temperature, reference, place or (0, len(chats)))

    def encode_prompt(self, chat: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of a conversation's opening, under the limits of length.

        Raises:
            ValueError: it is longer than `hf.max_prompt_tokens` (and `hf.long_prompts` is not `cut`), or fills the
                model's window.
        """
        return self._prompt(chat)[0]

    def _prompt(self, chat: Sequence[Message]) -> tuple[tuple[int, ...], bool]:
        """`encode_prompt`, and whether it was cut."""
        ids, limit = tuple(self.chat.encode_opening(chat)), self.spec.max_prompt_tokens
        cut = bool(limit) and len(ids) > limit and self.spec.long_prompts == "cut"
        if cut:
            ids = ids[-limit:]
        longest = min(limit or self.window, self.window - 1)
        if len(ids) > longest:
            name = "hf.max_prompt_tokens" if limit and limit <= longest else "the model's context window"
            begin = chat[-1]["content"].strip().partition("\n")[0][:80]
            raise ValueError(
                f"a prompt has {len(ids)} tokens, more than {longest} ({name}): {begin!r}. "
                "Raise the limit, or let its oldest tokens go: --bind \"hf.long_prompts = 'cut'\""
            )
        self._require_rows(ids, "a prompt")
        return ids, cut

    def require_room(
        self,
        chat: Sequence[Message],
        asks: Sequence[str],
        given: Sequence[str] = (),
        attempts: int | None = None,
        further: int = 0,
        drafts: Sequence[str] | None = None,
    ) -> None:
        """Checks that the longest conversation that can come of an opening fits the model's window.

        Args:
            asks: What the user says after each reply but the last.
            given: Fixed first replies, of which one takes the first reply's place.
            attempts: How many replies count at their longest; all of them unless given. Others (Self-Refine's feedback
                and what follows it) are seldom so long: where they are, the last attempt is cut short.
            further: Replies that may follow where there is room; vLLM plans its memory for them, nothing else.
            drafts: Where not None, the opening will also hold a draft: one of these, or a reply of the policy.

        Raises:
            ValueError: it does not, or the prompt alone is too long (see `encode_prompt`).
        """
        if drafts is not None:
            self.require_room(chat, [*asks, ""], given, attempts, further)  # the draft takes as much as one more reply
            total = len(self.encode_prompt(chat)) + max(
                [self.spec.max_new_tokens, *(len(text.encode()) for text in drafts)]
            )
            if self.spec.max_prompt_tokens and self.spec.long_prompts != "cut" and total > self.spec.max_prompt_tokens:
                raise ValueError(
                    f"a prompt that holds a draft can come to {total} tokens: "
                    f"raise hf.max_prompt_tokens = {self.spec.max_prompt_tokens}"
                )
            return
        limit, counted = self.spec.max_new_tokens, attempts or len(asks) + 1
        replies = counted - bool(given)
        follows = [len(self.chat.encode_followup(ask, ())) for ask in asks]
        follow = sum(follows)
        # Texts have at most as many tokens as bytes, so most conversations need no tokenising here.
        most = self._frame + sum(len(message["content"].encode()) for message in chat)
        rest = max((len(text.encode()) + 2 for text in given), default=0) + follow + replies * limit
        if self.vllm:
            more = further + len(asks) + 1 - counted
            self.vllm.plan_for(most + rest + more * (limit + max(follows, default=0)))
        if most <= (self.spec.max_prompt_tokens or self.window) and most + rest <= self.window:
            return
        prompt = len(self.encode_prompt(chat))
        first = max((len(self.chat.encode_given(text)) for text in given), default=0)
        if (total := prompt + first + follow + replies * limit) > self.window:
            begin = chat[-1]["content"].strip().partition("\n")[0][:80]
            room = (self.window - prompt - first - follow) // replies if replies else 0
            raise ValueError(
                f"a conversation can come to {total} tokens, more than the model's window of {self.window}: a prompt "
                f"of {prompt}, replies of up to {replies} x {limit} (hf.max_new_tokens), {first + follow} of what is "
                f"said and given: {begin!r}. "
                + (f"At most hf.max_new_tokens = {room} fits" if room > 0 else "Even empty replies find no room")
            )

    @property
    def max_conversation_tokens(self) -> int:
        """Tokens that one conversation can come to: the model's window, or less where vLLM planned for less."""
        return min(self.window, self.vllm.max_conversation_tokens) if self.vllm else self.window

    def _require_rows(self, ids: Iterable[int], where: str) -> None:
        """Raises ValueError for a token that the model has no embedding of."""
        if (largest := max(ids, default=0)) >= self.rows:
            token = self.tokenizer.convert_ids_to_tokens(largest)
            raise ValueError(
                f"{where} has the token {token!r} (id {largest}), but the model at {self.spec.model_source!r} has rows "
                "for "
                f"{self.rows} tokens only: its tokenizer belongs to another model, or was extended without it"
            )

    def autocast_scope(self) -> AbstractContextManager[Any]:
        """The scope of every forward."""
        return autocast_scope(self.half, self.device, cache=not self.sharded)

    # -- scoring and training -------------------------------------------------------------------------------------

    @torch.no_grad()
    def turn_logprobs(self, turns: Sequence[Turn], reference: bool = False) -> list[list[float]]:
        """Log-probability of each token of each turn at the training temperature, from one forward per trajectory."""
        found: list[list[float]] = [[] for _ in turns]
        for trees in split_microbatches(self._trees([Example(turn) for turn in turns]), self.microbatch_tokens):
            batch = pack_rows(trees, self.pad_id, self.device)
            with self.autocast_scope(), advise_on_oom("hf.microbatch_tokens"):
                terms: Terms = self.scorer(batch, compare=reference)
            column = terms.reference if terms.reference is not None else terms.logprob
            values, at = column.tolist(), 0
            for example, count in batch.spans:
                found[example], at = values[at : at + count], at + count
        return found

    def step(
        self, examples: Sequence[Example], denominator: float, fresh: bool = False
    ) -> tuple[list[TurnStats], float]:
        """One gradient update on the surrogate of `harness.policy.loss`.

        Args:
            examples: What to train on. An example with weight and kl of 0 is measured but has no gradient.
            denominator: D of the surrogate.
            fresh: Whether the turns were sampled from the very weights that are about to change.

        Returns:
            Statistics of each example before the update, and the norm of the gradient before clipping.

        Raises:
            NotFiniteError: a weight, a log-probability, a KL or the gradient is NaN or infinite.
            ValueError: of fresh samples, the sampler's log-probabilities are not the trainer's; or memory runs out.
                After either no update was made and no gradient is left.
        """
        try:
            for example in examples:
                _require_finite("an example's weight (its reward, advantage or bonus)", example.weight)
                _require_finite("an example's KL coefficient", example.kl)
            stats = self.accumulate_gradients(examples, denominator)
            for stat in stats:
                _require_finite("the log-probability of a turn", stat.logprob)
                _require_finite("the KL of a turn", stat.kl or 0.0)
            if fresh:
                _check_logprob_gap(
                    examples, stats, self.spec.sampler_tolerance if self.vllm else self.logprob_tolerance
                )
            norm = sharding.gather_tensor(
                torch.nn.utils.clip_grad_norm_(self.scorer.parameters(), self.spec.max_grad_norm)
            )
            _require_finite("the gradient's norm", float(norm))
        except Exception:
            self.optimizer.zero_grad()
            raise
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._stale = True
        return stats, float(norm)

    def measure_gradient(self, examples: Sequence[Example], denominator: float) -> dict[str, float]:
        """What the gradient that `step` would take is made of: attempts' rewards and KL terms apart. No update.

        A part is the same surrogate with all other weights and coefficients at 0, so the parts sum to the gradient.

        Returns:
            For each part (`reward_t1`, `kl_t1`, ...) that is not 0: `gradient_norm_PART`; `gradient_share_PART`, its
            projection on the whole gradient over the latter's norm (they sum to 1, one may be negative);
            `gradient_cosine_PART_PART`. And `gradient_norm`, before clipping, and `gradient_clipped`, 0 or 1.

        Raises:
            ValueError: the weights are sharded.
        """
        if self.sharded:
            raise ValueError("run.gradient_probe_every needs whole weights in each process: launch without FSDP")
        parts: dict[str, Tensor] = {}
        for kind in ("weight", "kl"):
            for index in sorted({e.turn.index for e in examples if getattr(e, kind)}):
                alone = [
                    dataclasses.replace(
                        e, **{"weight": 0.0, "kl": 0.0, kind: getattr(e, kind) if e.turn.index == index else 0.0}
                    )
                    for e in examples
                ]
                parts[f"{'reward' if kind == 'weight' else 'kl'}_t{index + 1}"] = self._gradient(alone, denominator)
        parts = {name: part for name, part in parts.items() if part.any()}
        whole = sum(parts.values(), torch.zeros(1, dtype=torch.float64))
        norm, norms = float(whole.norm()), {name: float(part.norm()) for name, part in parts.items()}
        found = {"gradient_norm": norm, "gradient_clipped": float(norm > self.spec.max_grad_norm)}
        found |= {f"gradient_norm_{name}": value for name, value in norms.items()}
        if norm:
            found |= {f"gradient_share_{name}": float(part @ whole) / norm**2 for name, part in parts.items()}
        for a, b in itertools.combinations(parts, 2):
            found[f"gradient_cosine_{a}_{b}"] = float(parts[a] @ parts[b]) / (norms[a] * norms[b])
        return found

    def _gradient(self, examples: Sequence[Example], denominator: float) -> Tensor:
        """The surrogate's gradient as one vector of float64 in the host's memory; leaves none behind."""
        try:
            self.accumulate_gradients(examples, denominator)
            return torch.cat(
                [(torch.zeros_like(p) if p.grad is None else p.grad).detach().flatten().cpu().double()
                 for _, p in self._trained()]
            )  # fmt: skip
        finally:
            self.optimizer.zero_grad()

    def encoded(self, examples: Sequence[Example]) -> list[Example]:
        """The examples with the tokens of every target that a method has set as text alone.

        A target ends where the model's window does, as a reply would.
        """
        return [
            example
            if turn.tokens or (turn.truncated and not turn.text)  # a reply that found no room stays empty
            else dataclasses.replace(
                example,
                turn=dataclasses.replace(
                    turn, tokens=tuple(self.chat.encode_given(turn.text)[: max(0, self.window - len(turn.context))])
                ),
            )
            for example in examples
            for turn in (example.turn,)
        ]

    def accumulate_gradients(self, examples: Sequence[Example], denominator: float) -> list[TurnStats]:
        """Puts the surrogate's gradient into the parameters' `.grad`, micro-batch by micro-batch; no update.

        Every process is given all examples and computes its share of their rows; the gradients are then summed. Where
        memory runs out, the share is computed anew in micro-batches of half the size: another order of the same sum.

        Raises:
            ValueError: memory runs out in the halved micro-batches as well.
        """

        def share() -> dict[int, TurnStats]:
            self.optimizer.zero_grad()
            try:
                return self._accumulate_share(examples, denominator)
            except RuntimeError as error:
                # Sharded weights travel in every forward: one process alone cannot go back.
                if not is_full(error) or self.sharded or self.microbatch_tokens < self.spec.microbatch_tokens:
                    raise
            self.optimizer.zero_grad()  # outside the handler: its traceback would keep the activations
            self.microbatch_tokens = max(1, self.microbatch_tokens // 2)
            warnings.warn(f"out of memory: micro-batches are halved to {self.microbatch_tokens} tokens", stacklevel=2)
            return self._accumulate_share(examples, denominator)

        found: dict[int, TurnStats] = {}
        with advise_on_oom("hf.microbatch_tokens (or set hf.checkpoint_layers)"):
            parts = self.ranks.all_gather_object(share)
        for part in parts:
            found |= part
        if self.ranks.size > 1 and not self.sharded:
            for _, p in self._trained():
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                self.ranks.all_reduce_sum(p.grad)
        return [found.get(i, TurnStats()) for i in range(len(examples))]  # a turn without tokens is in no row

    def _accumulate_share(self, examples: Sequence[Example], denominator: float) -> dict[int, TurnStats]:
        found: dict[int, TurnStats] = {}
        compare = any(example.kl for example in examples) or self._updates() % KL_EVERY == 0
        for batch, trains, counts in self._batches(examples):
            with (
                set_gradient_checkpointing(self.model, self.spec.checkpoint_layers and trains),
                torch.set_grad_enabled(trains),
            ):
                terms, loss = self._surrogate(batch, examples, denominator, compare)
                if trains:
                    (loss if counts else 0.0 * loss).backward()
            columns, at = [[] if column is None else column.tolist() for column in terms], 0
            for example, count in batch.spans if counts else ():
                logprob, entropy, kl, _ = (sum(column[at : at + count]) for column in columns)
                sampled = examples[example].turn.logprobs
                pairs = zip(sampled, columns[0][at : at + count], strict=True) if sampled else ()
                gap = sum(abs(a - b) for a, b in pairs)
                found[example], at = TurnStats(logprob, kl if compare else None, entropy, count, gap), at + count
        return found

    def _updates(self) -> int:
        """Updates of this optimiser so far; a checkpoint holds them."""
        return int(next(iter(self.optimizer.state.values()), {}).get("step", 0))

    def _trees(self, examples: Sequence[Example]) -> list[Tree]:
        return self._planted(merge_examples(examples))

    def _planted(self, rows: Sequence[Row]) -> list[Tree]:
        return build_trees(rows, self._cost if self.shares_prompts else None, min(self.microbatch_tokens, self.window))

    def _batches(self, examples: Sequence[Example]) -> Iterator[tuple[Batch, bool, bool]]:
        """This process's micro-batches, whether they have a gradient, and whether they count.

        Rows of which no example has a weight or a KL coefficient are only measured: they need no backward.

        Sharded weights travel in every forward and gradient, so all processes must make equally many: a process that
        has fewer goes through a batch again that counts for nothing.
        """
        parts: tuple[list[Row], list[Row]] = [], []
        for row in merge_examples(examples):
            parts[any(examples[i].weight or examples[i].kl for i, _, _ in row.spans)].append(row)
        measured, trained = parts
        if not trained:  # the optimiser still wants a gradient, of zero
            measured, trained = trained, measured
        size, limit = self.ranks.size, self.microbatch_tokens
        for rows, trains in ((trained, True), (measured, False)):
            trees = self._planted(rows)
            if size > 1:  # dealt by size, so that the shares are nearly equal in tokens
                trees = sorted(trees, key=lambda tree: len(tree.ids), reverse=True)
            shares = [list(split_microbatches(trees[rank::size], limit)) for rank in range(size)]
            mine = shares[self.ranks.rank]
            total = max(map(len, shares)) if self.sharded else len(mine)
            for number in range(total):
                counts = number < len(mine)
                batch = pack_rows(mine[number] if counts else trees[-1:], self.pad_id, self.device)
                yield batch, trains, counts

    def _surrogate(
        self, batch: Batch, examples: Sequence[Example], denominator: float, compare: bool = True
    ) -> tuple[Terms, Tensor]:
        weights, kls = (
            [getattr(examples[i], name) for i, count in batch.spans for _ in range(count)] for name in ("weight", "kl")
        )
        trained = [bool(weight or kl) for weight, kl in zip(weights, kls, strict=True)]
        with self.autocast_scope():
            terms: Terms = self.scorer(batch, compare, trained)
        weight_N, kl_N = (torch.tensor(values, device=self.device) for values in (weights, kls))
        each_N = -weight_N * terms.logprob if terms.kl is None else kl_N * terms.kl - weight_N * terms.logprob
        return terms, each_N.sum() / denominator

    # -- state ----------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Back to the base model's weights, with a fresh optimiser."""
        base = self._untrained or (self._base_model() if self.half else self.reference.model).state_dict()
        self._copy_weights(base, self.spec.model_source)
        self.optimizer = self._fresh_optimizer()

    def save(self, folder: Path) -> None:
        """Writes what training changes, whole: the trained weights and the optimiser's state.

        Raises:
            RanksError: the processes' weights have come apart.
            NotFiniteError: a weight is NaN or infinite; nothing is written.
        """
        self._require_finite_weights()
        if self.ranks.size > 1 and not self.sharded:
            sums = self.ranks.all_gather_object(
                lambda: sum(float(p.detach().double().sum()) for _, p in self._trained())
            )
            if len(set(sums)) > 1:
                raise RanksError(f"the processes no longer hold equal weights (sums: {sums}): are the GPUs alike?")
        weights = self._gathered(self._trained())
        state = self.optimizer.state_dict()
        moments = {i: self._gathered(of.items()) for i, of in state["state"].items()}
        if self.ranks.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(weights, folder / "weights.pt")
            torch.save({**state, "state": moments}, folder / "optimizer.pt")

    def export(self, folder: Path) -> None:
        """Writes a Hugging Face folder that `from_pretrained` reads (with LoRA, the adapter's folder).

        It is written beside and takes its place when it is whole and on the disk; a folder of that name is replaced.

        Raises:
            NotFiniteError: a weight is NaN or infinite; nothing is written.
        """
        self._require_finite_weights()
        weights = self._gathered(self.model.state_dict().items()) if self.sharded else None
        if self.ranks.is_first:
            with files.whole_folder(folder) as beside:
                self.model.save_pretrained(beside, state_dict=weights)
                self.tokenizer.save_pretrained(beside)

    def adopt(self, folder: Path) -> None:
        """Takes the trained weights from `export`; the reference stays the base model.

        Raises:
            ValueError: they are not all there, have other shapes than this model's, or are not finite.
        """
        if self.spec.lora_rank:
            from peft import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict

            weights = files.read_file(lambda: load_peft_weights(str(folder)), folder)
            files.require_alike(weights, get_peft_model_state_dict(self.model), folder)
            set_peft_model_state_dict(self.model, weights)
        else:
            spec = dataclasses.replace(self.spec, path=str(folder), warm_start="")
            self._copy_weights(files.causal_model(spec).state_dict(), folder)

    def load(self, folder: Path) -> None:
        """Takes weights and optimiser state from `save`, whatever number of processes wrote them; the reference stays
        the base model.

        Raises:
            ValueError: a file is damaged, belongs to another model, or holds numbers that are not finite; nothing was
                taken of it.
        """
        weights, state = (files.load_tensors(folder / name) for name in ("weights.pt", "optimizer.pt"))
        trained = dict(self._trained())
        files.require_moments(state, list(trained.values()), folder / "optimizer.pt")
        self._copy_weights(weights, folder / "weights.pt")
        if self.sharded:
            state["state"] = {
                i: {k: sharding.shard_like(v, p) for k, v in state["state"][i].items()}
                for i, (_, p) in enumerate(self._trained())
                if i in state["state"]
            }
        self.optimizer.load_state_dict(state)

    def describe(self) -> dict[str, Any]:
        """What run.json records of the engine."""
        return {
            "model": type(self.model).__name__,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "parameters_without_embeddings": self._core_size,
            "device": str(self.device),
            "device_name": torch.cuda.get_device_name() if self.device.type == "cuda" else cpu_name(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "precision": "bf16" if self.half else "no",
            "attention": self.model.config._attn_implementation,
            "shares_prompts": self.shares_prompts,
            "processes": self.ranks.size,
            "sharded": self.sharded,
            "window": self.window,
            "sampler": self.spec.sampler,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            **({"gguf": origin} if (origin := read_provenance(self.spec.model_source)) else {}),
            **({"warm_start": origin} if (origin := read_warm_start(self.spec.model_source)) else {}),
        }

    def _gathered(self, tensors: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
        """Whole tensors in the first process's memory, one after another; the others only help to gather them."""
        found = {}
        for name, value in tensors:
            value = sharding.gather_tensor(value.detach()).cpu()
            if self.ranks.is_first:
                found[name] = value
        return found

    def _require_finite_weights(self) -> None:
        """Raises NotFiniteError in all processes where a trained weight of any is NaN, or infinite but was not so."""
        name = files.find_nonfinite(dict(self._trained()), self._infinite)
        if self.ranks.any_rank(name is not None):
            raise NotFiniteError(f"a trained weight ({name or 'of another process'})")

    def _trained(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)

    @torch.no_grad()
    def _copy_weights(self, weights: Mapping[str, Tensor], source: object) -> None:
        files.require_alike(weights, dict(self._trained()), source, self._infinite)
        for name, p in self._trained():
            sharding.copy_to_shard(weights[name], p)
        self._stale = True

    def _base_model(self) -> Any:
        """The model as it is before training, in float32 and without dropout."""
        return files.causal_model(self.spec).eval()  # dropout would make sampler and trainer two different policies

    def _fresh_optimizer(self) -> Any:
        return torch.optim.Adam([p for _, p in self._trained()], lr=self.spec.lr, betas=self.spec.betas)


class Session:
    """B = len(chats) * samples conversations in progress; every reply extends its own cache.

    Only as many rows as fit `sample_rows` are decoded at once; the split changes no token.
    """

    def __init__(
        self, policy: Policy, chats: Sequence[Sequence[Message]], samples: int, seed: int, temperature: float,
        reference: bool, place: tuple[int, int],
    ) -> None:  # fmt: skip
        self.policy, self.seed, self.temperature, self._asked = policy, seed, temperature, 0
        if policy._stale and (policy.sharded or policy.vllm):
            raise RuntimeError("the copy that samples has old weights: call policy.refresh() in every process first")
        model = policy.reference.model if reference else policy.sampled
        self._first, self._of = (number * samples for number in place)
        opened = [policy._prompt(chat) for chat in chats]
        policy.cut_prompts += sum(cut for _, cut in opened)
        prompts = [prompt for prompt, _ in opened]
        self.contexts: list[tuple[int, ...]] = [prompt for prompt in prompts for _ in range(samples)]
        engine = None if reference else policy.vllm
        per_batch = len(prompts) if engine else max(1, policy.spec.sample_rows // samples)
        self._scope = policy.reference.scope if reference else nullcontext
        with self._scope(), policy.autocast_scope(), advise_on_oom("hf.sample_rows"):
            self._samplers: list[Any] = [
                engine.open_sampler(part, samples, policy.end_ids)
                if engine
                else Sampler(model, part, samples, policy.end_ids, policy.pad_id, policy.stops)
                for part in (prompts[i : i + per_batch] for i in range(0, len(prompts), per_batch))
            ]
        self._sizes = [len(prompts[i : i + per_batch]) * samples for i in range(0, len(prompts), per_batch)]
        self._replies: list[tuple[int, ...]] = [()] * len(self.contexts)
        self._pending = self._replies  # given replies the model has not read yet

    def reply(self) -> list[Turn]:
        """The policy writes the next reply in every conversation; ungraded turns come back.

        A conversation that has filled the model's window gets an empty reply, marked as truncated.

        Raises:
            NotFiniteError: the model gave NaN or infinite log-probabilities.
        """
        limit = self.policy.spec.max_new_tokens
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "reply", self._asked))
        uniform_BN = fine_uniforms(torch.rand(self._of, limit, generator=generator), self.policy.rows, generator)
        uniform_BN = uniform_BN[self._first : self._first + len(self.contexts)]
        room = torch.tensor([self.policy.max_conversation_tokens - len(context) for context in self.contexts]).clamp(
            min=0
        )
        limits = room.to(self.policy.device).split(self._sizes) if int(room.min()) < limit else None
        replies: list[Reply] = []
        with self._scope(), self.policy.autocast_scope(), advise_on_oom("hf.sample_rows"):
            for i, (sampler, rows) in enumerate(zip(self._samplers, uniform_BN.split(self._sizes), strict=True)):
                replies += sampler.sample_reply(rows, self.temperature, limits and limits[i])
        for reply in replies:
            _require_finite("the log-probability of a sampled token", sum(reply.logprobs))
        turns = [
            Turn(
                context=context,
                tokens=tuple(reply.tokens),
                text=self.policy.chat.decode_reply(reply.tokens),
                verdict=UNGRADED,
                index=self._asked,
                truncated=reply.truncated,
                logprobs=tuple(reply.logprobs),
            )
            for context, reply in zip(self.contexts, replies, strict=True)
        ]
        return self._written(turns)

    def give(self, replies: Sequence[str | Sequence[int]]) -> list[Turn]:
        """Puts a fixed reply (a text, or token ids) into every conversation; the model reads it at the next `ask`."""
        chat = self.policy.chat
        self._pending = [tuple(chat.encode_given(reply) if isinstance(reply, str) else reply) for reply in replies]
        turns = [
            Turn(
                context,
                ids,
                # The blank that a template puts before a reply is not part of a text that was given without it.
                chat.decode_reply(ids).removeprefix(chat.reply_indent if isinstance(reply, str) else ""),
                UNGRADED,
                index=self._asked,
                by="given",
            )
            for context, ids, reply in zip(self.contexts, self._pending, replies, strict=True)
        ]
        return self._written(turns)

    def ask(self, texts: Sequence[str]) -> None:
        """Appends `texts[i]` as the user's turn of conversation i, after the last reply.

        Of a conversation that outgrows the model's window only what fits is read: its next reply is empty.
        """
        follow = [
            tuple(self.policy.chat.encode_followup(text, reply))
            for text, reply in zip(texts, self._replies, strict=True)
        ]
        self.contexts = [c + r + f for c, r, f in zip(self.contexts, self._replies, follow, strict=True)]
        over = [len(context) - self.policy.max_conversation_tokens for context in self.contexts]
        unread = [
            (given + ids)[: max(0, len(given + ids) - max(0, more))]
            for given, ids, more in zip(self._pending, follow, over, strict=True)
        ]
        at = 0
        with self._scope(), self.policy.autocast_scope(), advise_on_oom("hf.sample_rows"):
            for sampler, size in zip(self._samplers, self._sizes, strict=True):
                sampler.append_tokens(unread[at : at + size])
                at += size
        self._pending = [()] * len(self.contexts)

    def _written(self, turns: list[Turn]) -> list[Turn]:
        self._replies = [turn.tokens for turn in turns]
        self._asked += 1
        return turns


def advise_on_sampler(sampler: str, device: str, parameters: int) -> str | None:
    """A hint where another sampler is likely faster; nothing is chosen for the user.

    Args:
        sampler: `hf.sampler`.
        device: Its type, as torch names it.
        parameters: Of the model, without embeddings.
    """
    if sampler == "own" and device == "cuda" and parameters >= LARGE:
        return "on a GPU, vLLM is likely to sample a model of this size faster: --bind \"hf.sampler = 'vllm'\""
    return None


def _require_finite(what: str, value: float) -> None:
    if not math.isfinite(value):
        raise NotFiniteError(what, value)


def _check_logprob_gap(examples: Sequence[Example], stats: Sequence[TurnStats], tolerance: float) -> None:
    gaps = [s.gap / s.tokens for e, s in zip(examples, stats, strict=True) if e.turn.logprobs]
    if gaps and not (mean := sum(gaps) / len(gaps)) <= tolerance:
        raise ValueError(
            f"the sampler's log-probabilities differ from the trainer's by {mean:.3g} nats per token, more than "
            f"hf.sampler_tolerance allows here ({tolerance:.3g}): the samples are not the policy's own"
        )


def _stops(tokenizer: Any, spec: HF) -> StopStringCriteria:
    try:
        return StopStringCriteria(tokenizer, list(spec.stop))
    except ValueError as error:  # it writes "abcdef" to learn how the tokenizer joins tokens
        raise ValueError(
            f"hf.stop = {list(spec.stop)} needs a tokenizer of plain text at {spec.model_source!r}"
        ) from error


def _with_adapter(model: Any, spec: HF) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ValueError("hf.lora_rank needs peft: pip install -e '.[peft]' -c constraints.txt") from error
    targets = spec.lora_targets if isinstance(spec.lora_targets, str) else list(spec.lora_targets)
    settings = LoraConfig(r=spec.lora_rank, lora_alpha=spec.lora_alpha, target_modules=targets, task_type="CAUSAL_LM")  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # one adapter to begin with, in every run and every process
        return get_peft_model(model, settings).eval()
