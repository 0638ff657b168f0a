"""The engine: a Hugging Face causal LM that samples conversations, scores turns and takes policy-gradient steps.

Not covered: encoder-decoder models and models without an attention cache.
Above 300 lines because the policy and its sessions share the model, its chat format and its state.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.core import Example, Message, Turn, Verdict
from harness.policy.chat import ChatFormat
from harness.policy.loss import Reference, Row, Scorer, Terms, merge, microbatches, pack
from harness.policy.sampling import Reply, Sampler
from harness.seeds import derive

if TYPE_CHECKING:
    from harness.policy import HF


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
        self.accelerator = Accelerator(
            cpu=device == "cpu", mixed_precision="bf16" if device.startswith("cuda") else "no"
        )
        self.device = self.accelerator.device
        self.tokenizer = _pretrained(AutoTokenizer, spec)
        model = _pretrained(AutoModelForCausalLM, spec, dtype=torch.float32)
        model.eval()  # dropout would make the sampler and the trainer two different policies
        ends = model.generation_config.eos_token_id if model.generation_config else None
        ends = self.tokenizer.eos_token_id if ends is None else ends
        if ends is None:
            raise ValueError(f"neither the model nor the tokenizer at {spec.folder!r} names an end-of-sequence token")
        self.end_ids: list[int] = [ends] if isinstance(ends, int) else list(ends)
        self.chat = ChatFormat(self.tokenizer, self.end_ids)
        self.pad_id: int = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.end_ids[0]
        if spec.lora_rank:
            model = _with_adapter(model, spec)
            self.reference = Reference(model, model.disable_adapter)
        else:
            self.reference = Reference(copy.deepcopy(model).requires_grad_(False).to(self.device))
        scorer = Scorer(model, self.reference, spec.kl, spec.temperature, spec.logits_bound)
        self.scorer: Any = self.accelerator.prepare(scorer)
        self.model = self.accelerator.unwrap_model(self.scorer).model
        scorer.check(self.model, torch.tensor([self.chat.opening([{"role": "user", "content": "?"}])]).to(self.device))
        self._untrained = {name: p.detach().clone() for name, p in self._trained()} if spec.lora_rank else None
        self.optimizer = self._fresh_optimizer()

    # -- sampling -----------------------------------------------------------------------------------------------

    def open(
        self, chats: Sequence[Sequence[Message]], samples: int, seed: int, temperature: float, reference: bool = False
    ) -> Session:
        """Opens `samples` conversations on each chat, next to each other."""
        return Session(self, chats, samples, seed, temperature, reference)

    # -- scoring and training -------------------------------------------------------------------------------------

    @torch.no_grad()
    def logprobs(self, turns: Sequence[Turn], reference: bool = False) -> list[list[float]]:
        """Log-probability of each token of each turn at the training temperature, from one forward per trajectory."""
        found: list[list[float]] = [[] for _ in turns]
        for batch in microbatches(merge([Example(turn) for turn in turns]), self.spec.microbatch_tokens):
            ids_BT, where, spans = pack(batch, self.pad_id, self.device)
            terms: Terms = self.scorer(ids_BT, where)
            values, at = (terms.reference if reference else terms.logprob).tolist(), 0
            for example, count in spans:
                found[example], at = values[at : at + count], at + count
        return found

    def step(self, examples: Sequence[Example], denominator: float) -> tuple[list[TurnStats], float]:
        """One gradient update on the surrogate of `harness.policy.loss`.

        Args:
            examples: What to train on. An example with weight and kl of 0 is measured but has no gradient.
            denominator: D of the surrogate.

        Returns:
            Statistics of each example before the update, and the norm of the gradient before clipping.
        """
        stats = self.accumulate(examples, denominator)
        norm = self.accelerator.clip_grad_norm_(self.scorer.parameters(), self.spec.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return stats, float(norm) if norm is not None else 0.0

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
        """Adds the surrogate's gradient to the parameters' `.grad`, micro-batch by micro-batch; no update."""
        stats: list[TurnStats | None] = [None] * len(examples)
        for batch in microbatches(merge(examples), self.spec.microbatch_tokens):
            terms, loss, spans = self._surrogate(batch, examples, denominator)
            self.accelerator.backward(loss)
            columns, at = [column.tolist() for column in terms], 0
            for example, count in spans:
                logprob, kl, entropy, _ = (sum(column[at : at + count]) for column in columns)
                stats[example], at = TurnStats(logprob, kl, entropy, count), at + count
        return [item for item in stats if item is not None]

    def _surrogate(
        self, batch: Sequence[Row], examples: Sequence[Example], denominator: float
    ) -> tuple[Terms, Tensor, list[tuple[int, int]]]:
        ids_BT, where, spans = pack(batch, self.pad_id, self.device)
        terms: Terms = self.scorer(ids_BT, where)
        weight_N, kl_N = (
            torch.tensor([getattr(examples[i], name) for i, count in spans for _ in range(count)], device=self.device)
            for name in ("weight", "kl")
        )
        return terms, (kl_N * terms.kl - weight_N * terms.logprob).sum() / denominator, spans

    # -- state ----------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Back to the base model's weights, with a fresh optimiser."""
        self._take(self._untrained or self.reference.model.state_dict())
        self.optimizer = self._fresh_optimizer()

    def save(self, folder: Path) -> None:
        """Writes what training changes: the trained weights and the optimiser's state."""
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({name: p.detach() for name, p in self._trained()}, folder / "weights.pt")
        torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")

    def export(self, folder: Path) -> None:
        """Writes a Hugging Face folder that `from_pretrained` reads (with LoRA, the adapter's folder)."""
        self.model.save_pretrained(folder)
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
        """Takes weights and optimiser state from `save`; the reference stays the base model."""
        self._take(torch.load(folder / "weights.pt", map_location=self.device, weights_only=True))
        self.optimizer.load_state_dict(torch.load(folder / "optimizer.pt", map_location=self.device, weights_only=True))

    def describe(self) -> dict[str, Any]:
        """What run.json records of the engine."""
        return {
            "model": type(self.model).__name__,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "device": str(self.device),
            "device_name": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
            "precision": self.accelerator.mixed_precision,
            "processes": self.accelerator.num_processes,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def _trained(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)

    @torch.no_grad()
    def _take(self, weights: Mapping[str, Tensor]) -> None:
        for name, p in self._trained():
            p.copy_(weights[name])

    def _fresh_optimizer(self) -> Any:
        parameters = [p for _, p in self._trained()]
        return self.accelerator.prepare(torch.optim.Adam(parameters, lr=self.spec.lr, betas=self.spec.betas))


class Session:
    """B = len(chats) * samples conversations in progress; every reply extends its own cache.

    Only as many rows as fit `sample_rows` are decoded at once; the split changes no token.
    """

    def __init__(
        self, policy: Policy, chats: Sequence[Sequence[Message]], samples: int, seed: int, temperature: float,
        reference: bool,
    ) -> None:  # fmt: skip
        self.policy, self.seed, self.temperature, self._asked = policy, seed, temperature, 0
        model = policy.reference.model if reference else policy.model
        prompts = [tuple(policy.chat.opening(chat)) for chat in chats]
        self.contexts: list[tuple[int, ...]] = [prompt for prompt in prompts for _ in range(samples)]
        per_batch = max(1, policy.spec.sample_rows // samples)
        self._scope = policy.reference.scope if reference else nullcontext
        with self._scope(), policy.accelerator.autocast():
            self._samplers = [
                Sampler(model, prompts[i : i + per_batch], samples, policy.end_ids, policy.pad_id)
                for i in range(0, len(prompts), per_batch)
            ]
        self._sizes = [len(prompts[i : i + per_batch]) * samples for i in range(0, len(prompts), per_batch)]
        self._replies: list[tuple[int, ...]] = [()] * len(self.contexts)
        self._pending = self._replies  # given replies the model has not read yet

    def reply(self) -> list[Turn]:
        """The policy writes the next reply in every conversation; ungraded turns come back."""
        limit = self.policy.spec.max_new_tokens
        generator = torch.Generator().manual_seed(derive(self.seed, "reply", self._asked))
        uniform_BN = torch.rand(len(self.contexts), limit, generator=generator)
        replies: list[Reply] = []
        with self._scope(), self.policy.accelerator.autocast():
            for sampler, rows in zip(self._samplers, uniform_BN.split(self._sizes), strict=True):
                replies += sampler.reply(rows, self.temperature)
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
        with self._scope(), self.policy.accelerator.autocast():
            for sampler, size in zip(self._samplers, self._sizes, strict=True):
                sampler.extend(unread[at : at + size])
                at += size
        self._pending = [()] * len(self.contexts)

    def _written(self, turns: list[Turn]) -> list[Turn]:
        self._replies = [turn.tokens for turn in turns]
        self._asked += 1
        return turns


def _with_adapter(model: Any, spec: HF) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ValueError("hf.lora_rank needs peft: pip install -e '.[peft]' -c constraints.txt") from error
    settings = LoraConfig(
        r=spec.lora_rank, lora_alpha=spec.lora_alpha, target_modules=spec.lora_targets, task_type="CAUSAL_LM"
    )  # type: ignore[arg-type]
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
