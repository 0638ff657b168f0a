"""Offline, one thread, and two small real models that every test can load through `from_pretrained`."""

from __future__ import annotations

import os

# Before any Hugging Face or torch import.
for _name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"):
    os.environ[_name] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.policy.engine import Policy

MICRO = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "a", "b"]


@pytest.fixture(scope="session")
def micro_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama over six tokens: small enough to enumerate every two-turn conversation of short replies."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(MICRO)}, unk_token="<|pad|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")  # type: ignore[assignment]
    tokenizer.decoder = decoders.Fuse()  # type: ignore[assignment]
    tokenizer.add_special_tokens(MICRO[:4])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")
    fast.chat_template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(MICRO), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, pad_token_id=0, bos_token_id=None, eos_token_id=1,
        initializer_range=0.5,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "micro"
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture
def micro(micro_folder: Path) -> Policy:
    """A fresh engine on the micro model, replies of at most two tokens."""
    from harness.policy import HF

    return HF(path=str(micro_folder), max_new_tokens=2, lr=1e-3).load("cpu")


@pytest.fixture(scope="session")
def embedded() -> Policy:
    """The embedded model; shared, so tests must not train it."""
    from harness.policy import HF

    return HF(path="embedded:arithmetic", max_new_tokens=24).load("cpu")
