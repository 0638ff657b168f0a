"""vLLM as the sampler (`hf.sampler = 'vllm'`, extra `vllm`): token ids in, token ids and log-probabilities out.

One engine in each process, on the GPU that also trains, with weights handed over at every refresh: whole weights by
vLLM's `reload_weights`, a LoRA adapter as an adapter. The trainer compares vLLM's log-probabilities with its own at
every update on fresh samples, and stops above `hf.sampler_tolerance`. Which versions have been run: docs/models.md.

Not covered: tensor parallelism, one engine for several processes. A row's tokens follow from its own seed, but vLLM's
kernels do not promise the same bits in another batch.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.policy.sampling import Reply

if TYPE_CHECKING:
    from harness.policy import HF


class VLLM:
    """The engine of one process, on the base model until the first `load_weights`; it starts when it is first used.

    Args:
        spec: The policy's settings.
        window: The model's longest conversation in tokens.
        dtype: What forwards compute in: `bfloat16` or `float32`, as the trainer's.
        device: The trainer's device.

    Raises:
        ValueError: vLLM is not installed, or the device is a GPU that is not the first visible one, which vLLM would
            not use.
    """

    def __init__(self, spec: HF, window: int, dtype: str, device: torch.device) -> None:
        if device.type == "cuda" and device.index and "RANK" not in os.environ:
            raise ValueError(
                f"hf.sampler = 'vllm' runs on the first visible GPU, not on {device}: "
                f"CUDA_VISIBLE_DEVICES={device.index} ... --device cuda"
            )
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the model stays in this process, within reach
        if device.type == "cpu":
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
        try:
            import vllm  # type: ignore[import-not-found]
        except ImportError as error:
            raise ValueError("hf.sampler = 'vllm' needs vLLM: pip install -e '.[vllm]'") from error
        self._vllm: Any = vllm
        self._window, self._planned = window, 0
        self._spec, self._dtype, self._device = spec, dtype, device
        self._adapters = 0
        self._adapter: Any = None

    def plan_for(self, tokens: int) -> None:
        """Makes room for a conversation of so many tokens; vLLM reserves memory for the longest, not for the window.

        Plans that come after the engine has started change nothing: `max_conversation_tokens` then stays what it was.
        """
        if "_llm" not in self.__dict__:
            self._planned = max(self._planned, tokens)

    @property
    def max_conversation_tokens(self) -> int:
        """Longest conversation in tokens: what was planned for, at most the model's window; the window without plan."""
        return min(self._planned or self._window, self._window)

    @functools.cached_property
    def _llm(self) -> Any:
        spec = self._spec
        adapters = {"enable_lora": True, "max_lora_rank": _lora_slots(spec.lora_rank)} if spec.lora_rank else {}
        return self._vllm.LLM(
            model=spec.model_source,
            revision=None if os.path.isdir(spec.model_source) else spec.revision,
            dtype=self._dtype,
            skip_tokenizer_init=not spec.stop,  # token ids alone pass, but stop texts are found in text
            max_model_len=self.max_conversation_tokens,
            gpu_memory_utilization=spec.vllm_memory,
            distributed_executor_backend="external_launcher" if "RANK" in os.environ else None,
            logprobs_mode="processed_logprobs",  # after the temperature, as the trainer scores them
            seed=0,
            **adapters,
        )

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Takes the trained weights, by their names in the checkpoint, and forgets what it has cached of the old ones.

        Raises:
            RuntimeError: vLLM kept its cache.
        """
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        self._forget()

    def refresh_adapter(self, save: Callable[[str], Any]) -> None:
        """Takes the trained adapter, which `save` writes into a folder, and forgets what it has cached of the old one.

        Raises:
            RuntimeError: vLLM kept its cache.
        """
        from vllm.lora.request import LoRARequest  # type: ignore[import-not-found]

        self._adapters += 1
        folder = tempfile.mkdtemp(prefix="score-harness-adapter-")
        try:
            save(folder)
            request = LoRARequest(f"adapter{self._adapters}", self._adapters, folder)
            if self._adapter is not None:
                self._llm.llm_engine.remove_lora(self._adapter.lora_int_id)
            self._llm.llm_engine.add_lora(request)  # read now; the folder may go
            self._adapter = request
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._forget()

    def _forget(self) -> None:
        if self._llm.reset_prefix_cache() is False:
            raise RuntimeError("vLLM could not forget what it had cached of the old weights")

    def open_sampler(self, prompts: Sequence[Sequence[int]], samples: int, end_ids: Sequence[int]) -> Conversations:
        """Opens `samples` conversations on each prompt; answers as `harness.policy.sampling.Sampler` does.

        Args:
            prompts: Token ids of each prompt.
            samples: Conversations opened on each prompt, next to each other.
            end_ids: Tokens that end a reply (and belong to it).
        """
        contexts = [list(prompt) for prompt in prompts for _ in range(samples)]
        return Conversations(self, contexts, list(end_ids), list(self._spec.stop))

    def generate(self, contexts: Sequence[Sequence[int]], settings: Sequence[dict[str, Any]]) -> list[Any]:
        """One completion (`token_ids`, `logprobs`, `finish_reason`) of each context."""
        adapter = {"lora_request": self._adapter} if self._adapter is not None else {}
        outputs = self._llm.generate(
            [{"prompt_token_ids": list(context)} for context in contexts],
            [self._vllm.SamplingParams(**one) for one in settings],
            use_tqdm=False,
            **adapter,
        )
        return [output.outputs[0] for output in outputs]


class Conversations:
    """Conversations in progress; vLLM's prefix cache keeps what was read before."""

    def __init__(self, engine: VLLM, contexts: list[list[int]], end_ids: list[int], stops: list[str]) -> None:
        self._engine, self._contexts, self._end_ids, self._stops = engine, contexts, end_ids, stops

    def sample_reply(self, uniform_BN: Tensor, temperature: float, limit_B: Tensor | None = None) -> list[Reply]:
        """Writes one reply in every conversation; each row's seed comes from its own stream of uniforms.

        Args:
            uniform_BN: Uniforms in [0, 1); the first of a row becomes its seed, N is the limit of tokens of a reply.
            temperature: 0 is greedy.
            limit_B: Lower limits of single rows; a row with a limit of 0 gets an empty, truncated reply.
        """
        count, limit = uniform_BN.shape
        limits = [limit] * count if limit_B is None else limit_B.clamp(max=limit).tolist()
        texts = {"stop": self._stops, "include_stop_str_in_output": True, "detokenize": True}
        ending = texts if self._stops else {"detokenize": False}
        settings = [
            {
                "temperature": temperature, "top_p": 1.0, "top_k": 0, "max_tokens": most, "logprobs": 0,
                "stop_token_ids": self._end_ids, "seed": int(seed * 2**31), **ending,
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
            at_text = isinstance(getattr(found, "stop_reason", None), str)
            if found.finish_reason == "stop" and tokens[-1] not in self._end_ids and not at_text:
                raise RuntimeError("vLLM left the end token out of a reply: its log-probability cannot be trained")
            logprobs = [step[token].logprob for step, token in zip(found.logprobs, tokens, strict=True)]
            replies.append(Reply(tokens, logprobs, truncated=tokens[-1] not in self._end_ids and not at_text))
            context += tokens
        return replies

    def append_tokens(self, ids: Sequence[Sequence[int]]) -> None:
        """Appends given tokens to every conversation."""
        for context, more in zip(self._contexts, ids, strict=True):
            context += more


def _lora_slots(rank: int) -> int:
    """The smallest rank that vLLM has room for and that holds `rank`."""
    return next((known for known in (8, 16, 32, 64, 128, 256, 320, 512) if known >= rank), rank)
