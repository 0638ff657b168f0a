"""Model folders of real architectures at tiny width: random weights, a byte-level BPE tokenizer, a chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factories import byte_tokenizer, write_model
from tokenizers import AddedToken

TEMPLATES = Path(__file__).parent / "templates"
TEXT = "Problem: 47*6+58 = ? Think step by step; there might be an error in the solution above. Answer: 282;340."
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
GEMMA = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
LLAMA = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|pad|>"]
SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.3,
}  # fmt: skip
# {name: (architecture, special tokens, pad, bos, ends, template, what differs from SHAPE)}
FAMILIES: dict[str, tuple[str, list[str], str, str | None, list[str], str, dict[str, Any]]] = {
    "qwen2.5": ("Qwen2", CHATML, "<|endoftext|>", None, ["<|im_end|>", "<|endoftext|>"], "qwen2.5",
                {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", CHATML, "<|endoftext|>", None, ["<|im_end|>", "<|endoftext|>"], "qwen3",
              {"tie_word_embeddings": True, "head_dim": 16}),
    "llama3": ("Llama", LLAMA, "<|pad|>", "<|begin_of_text|>", ["<|end_of_text|>", "<|eot_id|>"], "llama3",
               {"rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0,
                                    "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                    "original_max_position_embeddings": 64}}),
    "mistral": ("Mistral", CHATML, "<|endoftext|>", None, ["<|im_end|>", "<|endoftext|>"], "qwen2.5",
                {"sliding_window": 64}),
    "gemma2": ("Gemma2", GEMMA, "<pad>", "<bos>", ["<eos>", "<end_of_turn>"], "gemma",
               {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 12}),
    "gemma3": ("Gemma3", GEMMA, "<pad>", "<bos>", ["<eos>", "<end_of_turn>"], "gemma",
               {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 12,
                "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}),
}  # fmt: skip


def tokenizer(special: list[str], pad: str, eos: str, bos: str | None = None) -> Any:
    """A byte-level BPE tokenizer of 320 tokens, without a chat template."""
    import transformers

    bpe = byte_tokenizer([TEXT] * 4, 320, special)
    names = {"pad_token": pad, "eos_token": eos, **({"bos_token": bos} if bos else {})}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, **names)


def build(family: str, folder: Path, **shape: Any) -> Path:
    """Writes the tiny model of a family into `folder / family`; `shape` overrides its sizes."""
    architecture, special, pad, bos, ends, template, differs = FAMILIES[family]
    fast = tokenizer(special, pad, ends[0], bos)
    if family == "qwen3":  # marks of thought are tokens, but plain ones: they belong to a reply's text
        fast.add_tokens([AddedToken(mark, special=False) for mark in ("<think>", "</think>")])
    fast.chat_template = (TEMPLATES / f"{template}.jinja").read_text()
    ids = fast.convert_tokens_to_ids(ends)
    return write_model(folder / family, fast, architecture, ids, **{**SHAPE, **differs, **shape})
