"""Which GPUs a process may use, by the names under which it hands them on to processes that it starts."""

from __future__ import annotations

import os
from collections.abc import Sequence

VISIBLE = "CUDA_VISIBLE_DEVICES"


def count_devices() -> int:
    """The number of GPUs that torch sees; imports torch, and leaves CUDA as it is."""
    import torch

    return torch.cuda.device_count()


def visible_devices() -> list[str]:
    """The GPUs that torch sees, as CUDA_VISIBLE_DEVICES writes them: ["0", "1"], or the caller's own ["2", "5"]."""
    count, listed = count_devices(), os.environ.get(VISIBLE)
    names = map(str, range(count)) if listed is None else (name.strip() for name in listed.split(","))
    return list(names)[:count]  # CUDA stops at the first entry that it does not know


def group_devices(names: Sequence[str], size: int | None) -> list[tuple[str, ...]]:
    """GPUs in groups of `size`, one group for each run that works at a time; what is left over stays idle.

    Args:
        names: As of `visible_devices`.
        size: GPUs that one run takes; None, or more than there are: all of them.
    """
    if not names:
        return []
    size = min(size or len(names), len(names))
    return [tuple(names[i : i + size]) for i in range(0, len(names) - size + 1, size)]
