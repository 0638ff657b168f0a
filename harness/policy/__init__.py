"""Policies: what samples and learns. Specifications here are light; the engine is imported when one is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.policy.gguf_files import convert_gguf, is_gguf
from harness.policy.known_models import find_settings
from harness.policy.warm_start import find_adapter, merge_adapter
from harness.registry import nearest_hint, register

if TYPE_CHECKING:
    from harness.policy.engine import Policy

EMBEDDED = Path(__file__).parent / "embedded"


class NotFiniteError(ValueError):
    """A number that training or sampling needs is NaN or infinite; nothing was updated with it.

    Attributes:
        what: Which number it is, as "the gradient's norm".
    """

    def __init__(self, what: str, value: float = math.nan) -> None:
        self.what = what
        super().__init__(
            f"{what} is not finite ({value}): no update was made with it. Often hf.lr is too high, or a reward or the "
            "model itself holds such a number"
        )

    def __reduce__(self) -> tuple[type[NotFiniteError], tuple[str]]:
        return type(self), (self.what,)  # processes send errors to one another


# {setting: (least value, whether it is a whole number)}; those in ABOVE must be above it.
LIMITS: dict[str, tuple[int, bool]] = {
    "lr": (0, False), "max_grad_norm": (0, False), "temperature": (0, False), "max_new_tokens": (1, True),
    "microbatch_tokens": (1, True), "sample_rows": (1, True), "logits_bound": (1, True), "lora_rank": (0, True),
    "lora_alpha": (0, False), "max_prompt_tokens": (0, True), "vllm_memory": (0, False),
    "sampler_tolerance": (0, False),
}  # fmt: skip
ABOVE = ("max_grad_norm", "temperature", "lora_alpha", "vllm_memory", "sampler_tolerance")


@register("policy", "hf")
@dataclass(frozen=True)
class HF:
    """A Hugging Face causal language model with a chat template.

    Models of harness/policy/known_models.py get some of these settings by their name, where you bind nothing else.

    Attributes:
        path: A local folder, a hub name, `embedded:NAME` for a model shipped with the harness, a `.gguf` file, or
            `package:NAME/FILE.gguf` for one inside an installed package (dequantised once, into a cached folder).
        name: Key in the results folder; the last part of `path` unless given.
        revision: Hub revision, for models from the hub.
        warm_start: A LoRA adapter's folder, or `embedded:NAME` for a shipped one, that is merged into the weights
            before anything else: policy and reference both begin there (harness/policy/warm_start.py). Needs `peft`.
        lr: Adam's learning rate (5e-6 for MATH, 1e-5 for MBPP in the paper's Table 5, arXiv 2409.12917v2).
        betas: Adam's moments.
        max_grad_norm: Gradient norm is clipped here (not stated in the paper).
        temperature: Of sampling in training, and of the policy whose gradient is taken (1.0 in Table 5).
        kl: KL estimator: exact, k1, k2 or k3; see harness/policy/loss.py for the gradient of each.
        max_new_tokens: Length limit of one reply; a reply that reaches it without ending counts as truncated.
        stop: Texts that end a reply, and belong to it, where the prompt says how an answer ends, as MBPP's [DONE]: a
            model that was not tuned on chats goes on to the next example otherwise. Looked for in the reply alone.
        microbatch_tokens: Most padded tokens in one forward and backward. Where memory runs out they are halved, once.
        sample_rows: Most conversations decoded at once.
        share_prompts: Whether training reads what trajectories of one problem begin with alike only once, where the
            model allows it and it saves at least a fifth of the operations (harness/policy/tree.py). The gradient is
            the same but for rounding; False computes every trajectory by itself, as plain rows are.
        logits_bound: Most logits (positions x vocabulary) held at once while scoring.
        lora_rank: 0 trains all weights against a frozen copy; above 0 trains a LoRA adapter of this rank (needs the
            `peft` extra) and the reference is the same model with the adapter off.
        lora_alpha: LoRA's scale, over the rank.
        lora_targets: Modules the adapter is put on, as peft names them: one text (a pattern), or a list of names.
        dtype: What forwards compute in: auto (bfloat16 on CUDA, else float32), float32 or bfloat16. Trained weights are
            float32 in any case; see harness/policy/precision.py.
        attention: transformers' attention implementation: auto, sdpa, eager, flash_attention_2 ...
        checkpoint_layers: Keep only each layer's input for backward and compute the rest again: less memory, a third
            more time.
        chat: template (the tokenizer's own chat template) or plain (texts joined by blank lines, for base models).
        template_options: What the chat template is given besides the messages, as {'enable_thinking': False}.
        max_prompt_tokens: Longest prompt of a first attempt; 0 leaves only the model's context window as a limit.
        sampler: own (harness/policy/sampling.py) or vllm (harness/policy/vllm.py).
        vllm_memory: Share of the GPU's memory for vLLM.
        sampler_tolerance: Largest mean difference per token, in nats, between the sampler's and the trainer's
            log-probabilities of fresh samples; above it training stops, because it would be off-policy unawares.
            The own sampler reads the very weights that are trained, so it is held to half of this in bfloat16 and a
            fiftieth in float32: 0.05 and 0.002 (it has stayed below 0.015 and 0.0001 on 84 architectures).
        long_prompts: What happens to a longer one: error, or cut (its oldest tokens go; counted in run.json).
    """

    path: str = "embedded:arithmetic"
    name: str | None = None
    revision: str = "main"
    warm_start: str = ""
    lr: float = 5e-6
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = 1.0
    temperature: float = 1.0
    kl: str = "exact"
    max_new_tokens: int = 512
    stop: Sequence[str] = ()
    microbatch_tokens: int = 16_384
    sample_rows: int = 1_024
    share_prompts: bool = True
    logits_bound: int = 1 << 26
    lora_rank: int = 0
    lora_alpha: int = 32
    lora_targets: str | Sequence[str] = "all-linear"
    dtype: str = "auto"
    attention: str = "auto"
    checkpoint_layers: bool = False
    chat: str = "template"
    template_options: Mapping[str, Any] | None = None
    max_prompt_tokens: int = 0
    long_prompts: str = "error"
    sampler: str = "own"
    vllm_memory: float = 0.3
    sampler_tolerance: float = 0.1

    def __post_init__(self) -> None:
        for name, (least, whole) in LIMITS.items():
            value, kind = getattr(self, name), "whole number" if whole else "number"
            good = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not good or not math.isfinite(value) or value < least or (name in ABOVE and value <= least):
                limit = f"above {least}" if name in ABOVE else f"of at least {least}"
                raise ValueError(f"hf.{name} must be a {kind} {limit}, not {value!r}")
        betas = self.betas
        pair = isinstance(betas, tuple | list) and len(betas) == 2
        if not pair or not all(isinstance(b, int | float) and 0 <= b < 1 for b in betas):
            raise ValueError(f"hf.betas must be two numbers from 0 to below 1, not {betas!r}")
        for name in ("path", "revision"):
            if not isinstance(value := getattr(self, name), str) or not value:
                raise ValueError(f"hf.{name} must be a text, not {value!r}")
        if self.vllm_memory > 1:
            raise ValueError(f"hf.vllm_memory must be a share of at most 1, not {self.vllm_memory!r}")
        for name, known in (("long_prompts", ("error", "cut")), ("sampler", ("own", "vllm"))):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"hf.{name} must be {known[0]!r} or {known[1]!r}, not {value!r}")
        if isinstance(self.stop, str) or not all(isinstance(text, str) and text for text in self.stop):
            raise ValueError(f"hf.stop must be a list of texts, not {self.stop!r}")

    @staticmethod
    def find_settings(path: str) -> Mapping[str, Any]:
        """What harness.config binds for a model that is known by its name; see harness/policy/known_models.py."""
        return find_settings(path)

    @property
    def key(self) -> str:
        """The policy's name in the results folder."""
        base = self.name or self.path.rpartition(":")[2].rstrip("/").rpartition("/")[2].removesuffix(".gguf")
        return f"{base}+{find_adapter(self.warm_start).name}" if self.warm_start else base

    @property
    def model_source(self) -> str:
        """What `from_pretrained` is given.

        Raises:
            ValueError: an embedded model that is not shipped, with the nearest that is; a .gguf file that cannot be
                found or read; an adapter that does not fit.
        """
        source = self._base_source
        return str(merge_adapter(source, self)) if self.warm_start else source

    @property
    def _base_source(self) -> str:
        if is_gguf(self.path):
            return str(convert_gguf(self.path))
        prefix, _, name = self.path.rpartition(":")
        if prefix != "embedded":
            return self.path
        shipped = sorted(path.name for path in EMBEDDED.iterdir() if path.is_dir()) if EMBEDDED.is_dir() else []
        if name not in shipped:
            raise ValueError(f"no embedded model {name!r}{nearest_hint(name, shipped)}: {', '.join(shipped) or 'none'}")
        return str(EMBEDDED / name)

    def load(self, device: str = "cpu") -> Policy:
        """Builds the engine on `device` ("cpu", "cuda", "cuda:1", or "auto": a GPU if there is one); imports torch."""
        from harness.policy.engine import Policy

        return Policy(self, device)
