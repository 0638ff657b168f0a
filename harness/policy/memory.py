"""Running out of memory: what it looks like to torch, and one clear error for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def is_full(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU or (torch's allocator has no class for it) on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def advise_on_oom(setting: str) -> Iterator[None]:
    """Turns running out of memory into a ValueError that names the setting to lower."""
    try:
        yield
    except RuntimeError as error:
        if not is_full(error):
            raise
        reason = " ".join(str(error).split())
        raise ValueError(f"out of memory: lower {setting}, or use a machine with more ({reason})") from error
