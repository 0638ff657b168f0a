"""Weights, gradients and Adam's state divided among the processes (FSDP2), for models one GPU cannot train alone.

`accelerate launch --use_fsdp --fsdp_version 2` asks for it. torch's `fully_shard`, which accelerate's FSDP2 calls as
well, is called here itself: gradients must be summed over processes, not averaged. It runs on CPU (gloo) too, and that
is how it is tested; on GPUs it has not been run.

The frozen reference and the copy that samples stay whole in every process, in bfloat16 on CUDA: a sampler whose weights
come over the network at every token would crawl.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn


def is_asked() -> bool:
    """Whether the launcher asked for FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def shard_parameters(scorer: nn.Module, blocks: list[str], device: torch.device) -> None:
    """Shards a scorer's parameters, block by block and then the rest, in place.

    Args:
        blocks: Class names of the model's blocks (`_no_split_modules`).
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for module in [m for m in scorer.modules() if type(m).__name__ in blocks]:
        fully_shard(module, mesh=mesh)
    fully_shard(scorer, mesh=mesh)
    for module in scorer.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def gather_tensor(tensor: Any) -> Any:
    """A tensor from all its parts (the processes call this together); anything else as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def shard_like(value: Any, other: Any) -> Any:
    """A whole tensor divided as `other` is (each process keeps its part); scalars and undivided ones as they are."""
    if not hasattr(other, "full_tensor") or not isinstance(value, Tensor) or value.dim() == 0:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)


@torch.no_grad()
def copy_to_shard(value: Tensor, into: Any) -> None:
    """Copies a whole tensor into one that may be divided."""
    into.copy_(shard_like(value, into))
