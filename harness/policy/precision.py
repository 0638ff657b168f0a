"""Mixed precision: trained weights in float32 under bfloat16 autocast; frozen linear weights stored in bfloat16.

A trained weight stays float32 (an update of 5e-6 is lost in bfloat16); autocast rounds it to bfloat16 wherever a matrix
is multiplied. A weight that never changes can be rounded once: `cast_frozen_to_bf16` does that to the matrices of
frozen linear layers alone, so under autocast a halved model computes bit for bit what the float32 one does, in half the
memory.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from harness.registry import nearest_hint

DTYPES = ("auto", "float32", "bfloat16")


def uses_bf16(dtype: str, device: torch.device) -> bool:
    """Whether forwards are in bfloat16; `auto` means: on CUDA.

    Raises:
        ValueError: another dtype (float16 would need a scaled loss).
    """
    if dtype not in DTYPES:
        raise ValueError(f"hf.dtype {dtype!r} is not known{nearest_hint(dtype, DTYPES)}: one of {', '.join(DTYPES)}")
    return dtype == "bfloat16" or (dtype == "auto" and device.type == "cuda")


def autocast_scope(half: bool, device: torch.device, cache: bool = True) -> AbstractContextManager[Any]:
    """The scope of every forward.

    Args:
        half: Whether forwards are in bfloat16 (`uses_bf16`); without, the scope does nothing.
        device: Of the model.
        cache: Whether the rounded weights are kept until the scope is left.
    """
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=cache) if half else nullcontext()


def cast_frozen_to_bf16(model: Any) -> Any:
    """Rounds the frozen linear layers' weights to bfloat16, in place; a tied head is untied from its embedding.

    Only float32 weights: packed ones of a quantised model hold no numbers that could be rounded.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            for name, p in module.named_parameters(recurse=False):
                if not p.requires_grad and p.dtype == torch.float32:
                    setattr(module, name, nn.Parameter(p.detach().to(torch.bfloat16), requires_grad=False))
    return model
