"""vLLM as the sampler (`hf.sampler = 'vllm'`, extra `vllm`): token ids in, token ids and log-probabilities out.

One engine in each process, on the GPU that also trains, with weights handed over at every refresh. **Not run yet**:
written against the interface of vLLM 0.10 and later (`LLM`, `SamplingParams`, `load_weights`, `logprobs_mode`), and
tested with a stand-in for it on CPU. The engine compares its log-probabilities with the trainer's at every update on
fresh samples, and stops above `hf.sampler_tolerance`.

Not covered: LoRA, tensor parallelism, one engine for several processes. A row's tokens follow from its own seed, but
vLLM's kernels do not promise the same bits in another batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from harness.policy.sampling import Reply

if TYPE_CHECKING:
    from harness.policy import HF


class VLLM:
    """The engine of one process, on the base model until the first `refresh`.

    Args:
        window: Longest conversation in tokens.

    Raises:
        ValueError: vLLM is not installed, or the policy trains an adapter.
    """

    def __init__(self, spec: HF, window: int) -> None:
        if spec.lora_rank:
            raise ValueError("hf.sampler = 'vllm' samples from whole models only: unset hf.lora_rank, or the sampler")
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the model stays in this process, within reach
        try:
            from vllm import LLM, SamplingParams  # type: ignore[attr-defined]
        except ImportError as error:
            raise ValueError("hf.sampler = 'vllm' needs vLLM: pip install -e '.[vllm]'") from error
        self._parameters = SamplingParams
        self._llm: Any = LLM(
            model=spec.folder,
            revision=None if os.path.isdir(spec.folder) else spec.revision,
            dtype="bfloat16",
            skip_tokenizer_init=True,  # token ids alone pass between vLLM and the harness
            max_model_len=window,
            gpu_memory_utilization=spec.vllm_memory,
            distributed_executor_backend="external_launcher" if "RANK" in os.environ else None,
            logprobs_mode="processed_logprobs",  # after the temperature, as the trainer scores them
            seed=0,
        )

    def refresh(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Takes the trained weights, one at a time, and forgets what it has cached of the old ones."""
        model = self._llm.llm_engine.model_executor.driver_worker.model_runner.model
        for name, weight in weights:
            model.load_weights([(name, weight)])
        self._llm.reset_prefix_cache()

    def sampler(self, prompts: Sequence[Sequence[int]], samples: int, end_ids: Sequence[int]) -> Conversations:
        """Opens `samples` conversations on each prompt; answers as `harness.policy.sampling.Sampler` does."""
        return Conversations(self, [list(prompt) for prompt in prompts for _ in range(samples)], list(end_ids))

    def generate(self, contexts: Sequence[Sequence[int]], settings: Sequence[dict[str, Any]]) -> list[Any]:
        """One completion (`token_ids`, `logprobs`, `finish_reason`) of each context."""
        outputs = self._llm.generate(
            [{"prompt_token_ids": list(context)} for context in contexts],
            [self._parameters(**one) for one in settings],
            use_tqdm=False,
        )
        return [output.outputs[0] for output in outputs]


class Conversations:
    """Conversations in progress; vLLM's prefix cache keeps what was read before."""

    def __init__(self, engine: VLLM, contexts: list[list[int]], end_ids: list[int]) -> None:
        self._engine, self._contexts, self._end_ids = engine, contexts, end_ids

    def reply(self, uniform_BN: Tensor, temperature: float, limit_B: Tensor | None = None) -> list[Reply]:
        """Writes one reply in every conversation; each row's seed comes from its own stream of uniforms."""
        count, limit = uniform_BN.shape
        limits = [limit] * count if limit_B is None else limit_B.clamp(max=limit).tolist()
        settings = [
            {
                "temperature": temperature, "top_p": 1.0, "top_k": 0, "max_tokens": most, "logprobs": 0,
                "stop_token_ids": self._end_ids, "detokenize": False, "seed": int(seed * 2**31),
            }
            for most, seed in zip(limits, uniform_BN[:, 0].tolist(), strict=True)
        ]  # fmt: skip
        replies = []
        written = [i for i, most in enumerate(limits) if most]  # the others have filled the window
        found_of = dict(
            zip(
                written,
                self._engine.generate([self._contexts[i] for i in written], [settings[i] for i in written]),
                strict=True,
            )
        )
        for i, context in enumerate(self._contexts):
            if (found := found_of.get(i)) is None:
                replies.append(Reply(truncated=True))
                continue
            tokens = list(found.token_ids)
            if found.finish_reason == "stop" and tokens[-1] not in self._end_ids:
                raise RuntimeError("vLLM left the end token out of a reply: its log-probability cannot be trained")
            logprobs = [step[token].logprob for step, token in zip(found.logprobs, tokens, strict=True)]
            replies.append(Reply(tokens, logprobs, truncated=tokens[-1] not in self._end_ids))
            context += tokens
        return replies

    def extend(self, ids: Sequence[Sequence[int]]) -> None:
        """Appends given tokens to every conversation."""
        for context, more in zip(self._contexts, ids, strict=True):
            context += more
