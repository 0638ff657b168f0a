"""Tiny random models of many architectures, on the tokenizer of tests/policy/tiny.py: `make(name, folder)` writes one.

EXACT ones are read as plain transformers forwards read them; REFUSED ones are not, and say so when they are loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny import CHATML, SHAPE, TEMPLATES, tokenizer

WINDOWS = {"sliding_window": 12, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
MLA = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12,
    "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
    "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
}  # fmt: skip
OLD = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512, "initializer_range": 0.3}
OPT = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "dropout": 0.1,
       "max_position_embeddings": 512, "init_std": 0.3, "word_embed_proj_dim": 32}  # fmt: skip
MPT = {"d_model": 32, "n_heads": 4, "n_layers": 3, "max_seq_len": 512, "expansion_ratio": 2, "initializer_range": 0.3}
BIOGPT = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
          "max_position_embeddings": 512, "initializer_range": 0.3}  # fmt: skip
LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 160,
            "short_factor": [1.0] * 4, "long_factor": [4.0, 5.0, 6.0, 7.0]}  # fmt: skip
# {name: (classes' prefix, what differs from SHAPE)}; a config of its own names no shape that SHAPE has
EXACT: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", OLD),
    "opt": ("OPT", OPT),
    "mpt": ("Mpt", MPT),
    "bloom": ("Bloom", {"hidden_size": 32, "n_layer": 3, "n_head": 4, "initializer_range": 0.3}),
    "biogpt": ("BioGpt", BIOGPT),
    "falcon_alibi": ("Falcon", {"alibi": True, "new_decoder_architecture": False, "multi_query": False, "bias": True}),
    "gpt_neox": ("GPTNeoX", {}),
    "phi": ("Phi", {"partial_rotary_factor": 0.5}),
    "mistral": ("Mistral", {"sliding_window": 12, "head_dim": 8}),
    "phi3_longrope": ("Phi3", {"sliding_window": None, "original_max_position_embeddings": 160,
                               "rope_parameters": LONGROPE}),
    "starcoder2": ("Starcoder2", {"sliding_window": 12, "residual_dropout": 0.1, "embedding_dropout": 0.1}),
    "olmo3": ("Olmo3", WINDOWS),
    "smollm3": ("SmolLM3", {}),
    "granite": ("Granite", {"logits_scaling": 4.0, "residual_multiplier": 0.5, "embedding_multiplier": 3.0}),
    "cohere2": ("Cohere2", {"logit_scale": 0.0625, "head_dim": 8, **WINDOWS}),
    "qwen3_moe": ("Qwen3Moe", {**MOE, "head_dim": 16}),
    "deepseek_v3": ("DeepseekV3", MLA),
}  # fmt: skip
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba": ("Mamba", {"hidden_size": 32, "num_hidden_layers": 3, "state_size": 8}),
    "rwkv": ("Rwkv", {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 48}),
    "xlstm": ("xLSTM", {"hidden_size": 32, "embedding_dim": 32, "num_hidden_layers": 2, "num_heads": 2,
                        "qk_dim_factor": 0.5}),
    "openai-gpt": ("OpenAIGPT", OLD),
    "llama4": ("Llama4", {"num_local_experts": 2, "num_experts_per_tok": 1, "intermediate_size_mlp": 48, "head_dim": 8,
                          "attention_chunk_size": 16}),
    "bart": ("Bart", {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
                      "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
                      "max_position_embeddings": 512, "init_std": 0.3}),
}  # fmt: skip
UNLIKE_SHAPE = ("GPT2", "OPT", "Mpt", "Bloom", "BioGpt", "Mamba", "Rwkv", "xLSTM", "OpenAIGPT", "Bart")


def make(name: str, folder: Path, **differs: Any) -> Path:
    """Writes the tiny model of an architecture into `folder / name`."""
    import transformers

    prefix, own = {**EXACT, **REFUSED}[name]
    fast = tokenizer(CHATML, "<|endoftext|>", "<|im_end|>")
    fast.chat_template = (TEMPLATES / "qwen2.5.jinja").read_text()
    ends = fast.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    suffix = "Text" if prefix == "Llama4" else ""
    shape = {} if prefix in UNLIKE_SHAPE else SHAPE
    config = getattr(transformers, f"{prefix}{suffix}Config")(
        **{**shape, **own, "vocab_size": len(fast), "pad_token_id": fast.pad_token_id, "bos_token_id": None,
           "eos_token_id": ends[0], **differs}
    )  # fmt: skip
    kind = getattr(transformers, f"{prefix}ForCausalLM", None) or getattr(transformers, f"{prefix}LMHeadModel")
    torch.manual_seed(0)
    model = kind(config)
    with torch.no_grad():
        for p in model.parameters():  # some start with zeros (gates, biases): every path shall matter
            if p.dim() <= 1 and float(p.abs().max()) == 0:
                p.normal_(0, 0.1)
    model.generation_config.eos_token_id = ends
    model.save_pretrained(folder / name)
    fast.save_pretrained(folder / name)
    return folder / name
