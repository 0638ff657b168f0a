"""The engine: a Hugging Face causal LM that samples conversations, scores turns and takes policy-gradient steps.

Not covered: encoder-decoder models and models without an attention cache.
Above 300 lines because the policy and its sessions share the model, its chat format and its state.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from accelerate import PartialState
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.stopping_criteria import StopStringCriteria

from harness.core import Example, Message, Turn, Verdict
from harness.policy import sharding
from harness.policy.chat import chat_format
from harness.policy.gguf_files import read_provenance
from harness.policy.loss import Reference, Row, Scorer, Terms, checkpointing, merge, microbatches, pack
from harness.policy.precision import autocast, halve, is_half
from harness.policy.ranks import RanksError, join
from harness.policy.sampling import Reply, Sampler
from harness.policy.vllm import VLLM
from harness.seeds import derive

if TYPE_CHECKING:
    from harness.policy import HF


HELLO: list[Message] = [{"role": "user", "content": "?"}]
UNGRADED = Verdict(0.0, False, "error")


@dataclass(frozen=True)
class TurnStats:
    """What a step saw of one example: sums over its tokens, before the update.

    Attributes:
        logprob: Of the whole turn, in nats.
        kl: The estimator's value summed over the turn's tokens.
        entropy: Summed over the turn's tokens.
        tokens: How many there were.
    """

    logprob: float
    kl: float
    entropy: float
    tokens: int


class Policy:
    """A model, its frozen reference, its optimiser and its chat format. Build it with `HF(...).load(device)`."""

    def __init__(self, spec: HF, device: str) -> None:
        transformers.utils.logging.disable_progress_bar()  # one line per weight file says nothing here
        self.spec = spec
        self.ranks = join(device)
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"--device {device}: torch finds no CUDA device here")
        if device.startswith("cuda:"):
            torch.cuda.set_device(device)
        self.device: torch.device = PartialState(cpu=device == "cpu").device  # type: ignore[assignment]
        self.half = is_half(spec.dtype, self.device)
        self.sharded = self.ranks.size > 1 and sharding.is_asked()
        self.tokenizer = _pretrained(AutoTokenizer, spec)
        model = self._base_model()
        ends = model.generation_config.eos_token_id if model.generation_config else None
        ends = self.tokenizer.eos_token_id if ends is None else ends
        if ends is None:
            raise ValueError(f"neither the model nor the tokenizer at {spec.folder!r} names an end-of-sequence token")
        self.end_ids: list[int] = [ends] if isinstance(ends, int) else list(ends)
        self.chat = chat_format(spec.chat, self.tokenizer, self.end_ids, spec.template_options)
        closing = self.chat.closing
        if closing is not None and closing in self.tokenizer.all_special_ids and closing not in self.end_ids:
            self.end_ids.append(closing)  # some models name the end of a text alone, not that of a turn
            self.chat = chat_format(spec.chat, self.tokenizer, self.end_ids, spec.template_options)
        self.stops = _stops(self.tokenizer, spec) if spec.stop else None
        self.window = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
        self.cut_prompts = 0
        self.pad_id: int = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.end_ids[0]
        if spec.lora_rank:
            if self.sharded:
                raise ValueError("hf.lora_rank needs no FSDP: launch with --multi_gpu, or train all weights")
            model = _with_adapter(model, spec)
            self.reference = Reference(halve(model) if self.half else model, model.disable_adapter)
        else:
            base = copy.deepcopy(model).requires_grad_(False)
            self.reference = Reference((halve(base) if self.half else base).to(self.device))
        # No data-parallel wrapper: it averages gradients, where a sum is meant, and waits for equally many backwards.
        self.scorer = Scorer(model, self.reference, spec.kl, spec.temperature, spec.logits_bound).to(self.device)
        self.model = self.scorer.model
        with self.autocast():
            self.scorer.check(self.model, torch.tensor([self.chat.opening(HELLO)]).to(self.device))
        self._untrained = {name: p.detach().clone() for name, p in self._trained()} if spec.lora_rank else None
        self.sampled: Any = self.model  # what samples: the trained weights themselves, or a whole copy of sharded ones
        dtype = "bfloat16" if self.half else "float32"
        self.vllm = VLLM(spec, self.window, dtype, self.device) if spec.sampler == "vllm" else None
        if self.sharded:
            self.sampled = None if self.vllm else copy.deepcopy(self.reference.model)
            sharding.shard(self.scorer, list(model._no_split_modules or []), self.device)
        self._stale = False
        self.optimizer = self._fresh_optimizer()

    # -- sampling -----------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Hands new weights to the copy that samples; the processes call it together, before they sample."""
        if self._stale and self.vllm and self.spec.lora_rank:
            self.vllm.refresh_adapter(self.model.save_pretrained)
        elif self._stale and self.vllm:
            self.vllm.refresh((name, sharding.whole(p.detach())) for name, p in self.model.named_parameters())
        elif self._stale and self.sharded:
            into = dict(self.sampled.named_parameters(remove_duplicate=False))
            for name, p in self.model.named_parameters(remove_duplicate=False):
                sharding.put(sharding.whole(p.detach()), into[name])
        self._stale = False

    def open(
        self, chats: Sequence[Sequence[Message]], samples: int, seed: int, temperature: float, reference: bool = False,
        place: tuple[int, int] | None = None,
    ) -> Session:  # fmt: skip
        """Opens `samples` conversations on each chat, next to each other.

        Args:
            place: The first chat's number in its batch, and how many chats the batch has: what is sampled depends on
                these alone, not on which process does it. The chats are the whole batch unless given.
        """
        return Session(self, chats, samples, seed, temperature, reference, place or (0, len(chats)))

    def prompt(self, chat: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of a conversation's opening, under the limits of length.

        Raises:
            ValueError: it is longer than `hf.max_prompt_tokens` (and `hf.long_prompts` is not `cut`), or fills the
                model's window.
        """
        ids, limit = tuple(self.chat.opening(chat)), self.spec.max_prompt_tokens
        if limit and len(ids) > limit and self.spec.long_prompts == "cut":
            self.cut_prompts += 1
            ids = ids[-limit:]
        longest = min(limit or self.window, self.window - 1)
        if len(ids) > longest:
            name = "hf.max_prompt_tokens" if limit and limit <= longest else "the model's context window"
            begin = chat[-1]["content"].strip().partition("\n")[0][:80]
            raise ValueError(
                f"a prompt has {len(ids)} tokens, more than {longest} ({name}): {begin!r}. "
                "Raise the limit, or let its oldest tokens go: --bind \"hf.long_prompts = 'cut'\""
            )
        return ids

    def autocast(self) -> AbstractContextManager[Any]:
        """The scope of every forward."""
        return autocast(self.half, self.device, cache=not self.sharded)

    # -- scoring and training -------------------------------------------------------------------------------------

    @torch.no_grad()
    def logprobs(self, turns: Sequence[Turn], reference: bool = False) -> list[list[float]]:
        """Log-probability of each token of each turn at the training temperature, from one forward per trajectory."""
        found: list[list[float]] = [[] for _ in turns]
        for batch in microbatches(merge([Example(turn) for turn in turns]), self.spec.microbatch_tokens):
            ids_BT, where, spans = pack(batch, self.pad_id, self.device)
            with self.autocast():
                terms: Terms = self.scorer(ids_BT, where)
            values, at = (terms.reference if reference else terms.logprob).tolist(), 0
            for example, count in spans:
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
            ValueError: of fresh samples, the sampler's log-probabilities are not the trainer's (no update is made).
        """
        stats = self.accumulate(examples, denominator)
        if fresh:
            _compare(examples, stats, self.spec.sampler_tolerance)
        norm = sharding.whole(torch.nn.utils.clip_grad_norm_(self.scorer.parameters(), self.spec.max_grad_norm))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._stale = True
        return stats, float(norm)

    def encoded(self, examples: Sequence[Example]) -> list[Example]:
        """The examples with the tokens of every target that a method has set as text alone."""
        return [
            example
            if example.turn.tokens
            else dataclasses.replace(
                example, turn=dataclasses.replace(example.turn, tokens=tuple(self.chat.given(example.turn.text)))
            )
            for example in examples
        ]

    def accumulate(self, examples: Sequence[Example], denominator: float) -> list[TurnStats]:
        """Adds the surrogate's gradient to the parameters' `.grad`, micro-batch by micro-batch; no update.

        Every process is given all examples and computes its share of their rows; the gradients are then summed.
        """
        found: dict[int, TurnStats] = {}
        for part in self.ranks.together(lambda: self._accumulate_share(examples, denominator)):
            found |= part
        if self.ranks.size > 1 and not self.sharded:
            for _, p in self._trained():
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                self.ranks.add(p.grad)
        return [found[i] for i in range(len(examples))]

    def _accumulate_share(self, examples: Sequence[Example], denominator: float) -> dict[int, TurnStats]:
        found: dict[int, TurnStats] = {}
        for batch, counts in self._batches(merge(examples)):
            with checkpointing(self.model, self.spec.checkpoint_layers):
                terms, loss, spans = self._surrogate(batch, examples, denominator)
                (loss if counts else 0.0 * loss).backward()
            columns, at = [column.tolist() for column in terms], 0
            for example, count in spans if counts else ():
                logprob, kl, entropy, _ = (sum(column[at : at + count]) for column in columns)
                found[example], at = TurnStats(logprob, kl, entropy, count), at + count
        return found

    def _batches(self, rows: list[Row]) -> Iterator[tuple[list[Row], bool]]:
        """This process's micro-batches, and whether they count.

        Sharded weights travel in every forward, so all processes must make equally many: a process that has fewer
        goes through a batch again that counts for nothing.
        """
        size, limit = self.ranks.size, self.spec.microbatch_tokens
        if size > 1:  # dealt by length, so that the shares are nearly equal in tokens
            rows = sorted(rows, key=lambda row: len(row.ids), reverse=True)
        shares = [list(microbatches(rows[rank::size], limit)) for rank in range(size)]
        mine = shares[self.ranks.rank]
        total = max(map(len, shares)) if self.sharded else len(mine)
        for number in range(total):
            counts = number < len(mine)
            yield mine[number] if counts else rows[-1:], counts

    def _surrogate(
        self, batch: Sequence[Row], examples: Sequence[Example], denominator: float
    ) -> tuple[Terms, Tensor, list[tuple[int, int]]]:
        ids_BT, where, spans = pack(batch, self.pad_id, self.device)
        with self.autocast():
            terms: Terms = self.scorer(ids_BT, where)
        weight_N, kl_N = (
            torch.tensor([getattr(examples[i], name) for i, count in spans for _ in range(count)], device=self.device)
            for name in ("weight", "kl")
        )
        return terms, (kl_N * terms.kl - weight_N * terms.logprob).sum() / denominator, spans

    # -- state ----------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Back to the base model's weights, with a fresh optimiser."""
        base = self._untrained or (self._base_model() if self.half else self.reference.model).state_dict()
        self._take(base)
        self.optimizer = self._fresh_optimizer()

    def save(self, folder: Path) -> None:
        """Writes what training changes, whole: the trained weights and the optimiser's state.

        Raises:
            RanksError: the processes' weights have come apart.
        """
        if self.ranks.size > 1 and not self.sharded:
            sums = self.ranks.together(lambda: sum(float(p.detach().double().sum()) for _, p in self._trained()))
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
        """Writes a Hugging Face folder that `from_pretrained` reads (with LoRA, the adapter's folder)."""
        weights = self._gathered(self.model.state_dict().items()) if self.sharded else None
        if self.ranks.is_first:
            self.model.save_pretrained(folder, state_dict=weights)
            self.tokenizer.save_pretrained(folder)

    def adopt(self, folder: Path) -> None:
        """Takes the trained weights from `export`; the reference stays the base model."""
        spec = dataclasses.replace(self.spec, path=str(folder))
        if self.spec.lora_rank:
            from peft import load_peft_weights, set_peft_model_state_dict

            set_peft_model_state_dict(self.model, load_peft_weights(str(folder)))
        else:
            self._take(_pretrained(AutoModelForCausalLM, spec, dtype=torch.float32).state_dict())

    def load(self, folder: Path) -> None:
        """Takes weights and optimiser state from `save`, whatever number of processes wrote them; the reference stays
        the base model."""
        self._take(torch.load(folder / "weights.pt", map_location="cpu", weights_only=True))
        state = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
        if self.sharded:
            state["state"] = {
                i: {k: sharding.like(v, p) for k, v in state["state"][i].items()}
                for i, (_, p) in enumerate(self._trained())
                if i in state["state"]
            }
        self.optimizer.load_state_dict(state)

    def describe(self) -> dict[str, Any]:
        """What run.json records of the engine."""
        return {
            "model": type(self.model).__name__,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "device": str(self.device),
            "device_name": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
            "precision": "bf16" if self.half else "no",
            "attention": self.model.config._attn_implementation,
            "processes": self.ranks.size,
            "sharded": self.sharded,
            "window": self.window,
            "sampler": self.spec.sampler,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            **({"gguf": origin} if (origin := read_provenance(self.spec.folder)) else {}),
        }

    def _gathered(self, tensors: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
        """Whole tensors in the first process's memory, one after another; the others only help to gather them."""
        found = {}
        for name, value in tensors:
            value = sharding.whole(value.detach()).cpu()
            if self.ranks.is_first:
                found[name] = value
        return found

    def _trained(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)

    @torch.no_grad()
    def _take(self, weights: Mapping[str, Tensor]) -> None:
        for name, p in self._trained():
            sharding.put(weights[name], p)
        self._stale = True

    def _base_model(self) -> Any:
        """The model as it is before training, in float32 and without dropout."""
        attention = {} if self.spec.attention == "auto" else {"attn_implementation": self.spec.attention}
        model = _pretrained(AutoModelForCausalLM, self.spec, dtype=torch.float32, **attention)
        return model.eval()  # dropout would make the sampler and the trainer two different policies

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
        prompts = [policy.prompt(chat) for chat in chats]
        self.contexts: list[tuple[int, ...]] = [prompt for prompt in prompts for _ in range(samples)]
        engine = None if reference else policy.vllm
        per_batch = len(prompts) if engine else max(1, policy.spec.sample_rows // samples)
        self._scope = policy.reference.scope if reference else nullcontext
        with self._scope(), policy.autocast():
            self._samplers: list[Any] = [
                engine.sampler(part, samples, policy.end_ids)
                if engine
                else Sampler(model, part, samples, policy.end_ids, policy.pad_id, policy.stops)
                for part in (prompts[i : i + per_batch] for i in range(0, len(prompts), per_batch))
            ]
        self._sizes = [len(prompts[i : i + per_batch]) * samples for i in range(0, len(prompts), per_batch)]
        self._replies: list[tuple[int, ...]] = [()] * len(self.contexts)
        self._pending = self._replies  # given replies the model has not read yet

    def reply(self) -> list[Turn]:
        """The policy writes the next reply in every conversation; ungraded turns come back."""
        limit = self.policy.spec.max_new_tokens
        generator = torch.Generator().manual_seed(derive(self.seed, "reply", self._asked))
        uniform_BN = torch.rand(self._of, limit, generator=generator)[self._first : self._first + len(self.contexts)]
        room = torch.tensor([self.policy.window - len(context) for context in self.contexts])
        if int(room.min()) < 1:
            raise ValueError(
                f"a conversation of {max(map(len, self.contexts))} tokens fills the model's window of "
                f"{self.policy.window}: lower hf.max_new_tokens or hf.max_prompt_tokens"
            )
        limits = room.to(self.policy.device).split(self._sizes) if int(room.min()) < limit else None
        replies: list[Reply] = []
        with self._scope(), self.policy.autocast():
            for i, (sampler, rows) in enumerate(zip(self._samplers, uniform_BN.split(self._sizes), strict=True)):
                replies += sampler.reply(rows, self.temperature, limits and limits[i])
        turns = [
            Turn(
                context=context,
                tokens=tuple(reply.tokens),
                text=self.policy.chat.text(reply.tokens),
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
        self._pending = [tuple(chat.given(reply) if isinstance(reply, str) else reply) for reply in replies]
        turns = [
            Turn(context, ids, chat.text(ids), UNGRADED, index=self._asked, by="given")
            for context, ids in zip(self.contexts, self._pending, strict=True)
        ]
        return self._written(turns)

    def ask(self, texts: Sequence[str]) -> None:
        """The user says `texts[i]` in conversation i, after the last reply."""
        follow = [tuple(self.policy.chat.follow(text, reply)) for text, reply in zip(texts, self._replies, strict=True)]
        self.contexts = [c + r + f for c, r, f in zip(self.contexts, self._replies, follow, strict=True)]
        unread = [given + ids for given, ids in zip(self._pending, follow, strict=True)]
        at = 0
        with self._scope(), self.policy.autocast():
            for sampler, size in zip(self._samplers, self._sizes, strict=True):
                sampler.extend(unread[at : at + size])
                at += size
        self._pending = [()] * len(self.contexts)

    def _written(self, turns: list[Turn]) -> list[Turn]:
        self._replies = [turn.tokens for turn in turns]
        self._asked += 1
        return turns


def _compare(examples: Sequence[Example], stats: Sequence[TurnStats], tolerance: float) -> None:
    gaps = [
        abs(sum(e.turn.logprobs) - s.logprob) / s.tokens
        for e, s in zip(examples, stats, strict=True)
        if e.turn.logprobs
    ]
    if gaps and (mean := sum(gaps) / len(gaps)) > tolerance:
        raise ValueError(
            f"the sampler's log-probabilities differ from the trainer's by {mean:.3f} nats per token, more than "
            f"hf.sampler_tolerance = {tolerance}: the samples are not the policy's own"
        )


def _stops(tokenizer: Any, spec: HF) -> StopStringCriteria:
    try:
        return StopStringCriteria(tokenizer, list(spec.stop))
    except ValueError as error:  # it writes "abcdef" to learn how the tokenizer joins tokens
        raise ValueError(f"hf.stop = {list(spec.stop)} needs a tokenizer of plain text at {spec.folder!r}") from error


def _with_adapter(model: Any, spec: HF) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ValueError("hf.lora_rank needs peft: pip install -e '.[peft]' -c constraints.txt") from error
    settings = LoraConfig(
        r=spec.lora_rank, lora_alpha=spec.lora_alpha, target_modules=spec.lora_targets, task_type="CAUSAL_LM"
    )  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # one adapter to begin with, in every run and every process
        return get_peft_model(model, settings).eval()


def _pretrained(auto: Any, spec: HF, **options: Any) -> Any:
    """`from_pretrained` with one clear error where the model cannot be had."""
    local = os.path.isdir(spec.folder)
    try:
        return auto.from_pretrained(spec.folder, revision=None if local else spec.revision, **options)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        if local:
            raise ValueError(f"the folder {spec.folder!r} holds no complete Hugging Face model: {reason}") from error
        raise ValueError(
            f"cannot load the model {spec.folder!r}: no such folder here, and the hub did not give it ({reason}). "
            "To use a local copy: --bind \"hf.path = '/path/to/model'\""
        ) from error
