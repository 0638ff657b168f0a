"""Random streams without state: every draw of a run follows from its seed and where it is used.

Nothing has to be saved for a run to be resumed, and no stream depends on what else was drawn.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

Item = TypeVar("Item")


def derive_seed(seed: int, *where: str | int) -> int:
    """A seed in [0, 2**63) for the stream of `seed` named by `where`."""
    # SHA-256, since Python's own hash of a text differs between processes; 63 bits fit a signed integer of 64.
    digest = hashlib.sha256(repr((seed, *where)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def epoch_indices(seed: int, stream: str, size: int, begin: int, count: int) -> list[int]:
    """Items `begin` to `begin + count` of an endless shuffled pass over `range(size)`; each epoch is shuffled anew.

    Example: with `size` 3 and epochs (2, 0, 1) and (1, 2, 0), `begin` 2 and `count` 3 give [1, 1, 2].

    Args:
        seed: Of the run.
        stream: Name of the stream; other names give other orders.
        size: Items of one epoch.
        begin: Number of the first item, counted over all epochs from 0.
        count: How many.
    """
    items: list[int] = []
    while len(items) < count:
        epoch, offset = divmod(begin + len(items), size)
        items += _order(derive_seed(seed, stream, epoch), size)[offset : offset + count - len(items)]
    return items


@lru_cache(maxsize=4)  # two updates of one epoch ask for the same order, of 20,000 problems say
def _order(seed: int, size: int) -> tuple[int, ...]:
    order = list(range(size))
    random.Random(seed).shuffle(order)
    return tuple(order)


def slice_pools(space: Sequence[Item], seed: int, sizes: Mapping[str, int], name: str) -> tuple[Item, ...]:
    """Shuffles `space`, cuts it into `sizes` in order and returns slice `name`; any other name gives the rest.

    Args:
        space: All items.
        seed: Of the shuffle.
        sizes: {name: how many}.
        name: The slice wanted.
    """
    items = list(space)
    random.Random(seed).shuffle(items)
    begin = 0
    for pool, size in sizes.items():
        if pool == name:
            return tuple(items[begin : begin + size])
        begin += size
    return tuple(items[begin:])


def shard_bounds(size: int, rank: int, ranks: int) -> tuple[int, int]:
    """The (begin, end) of process `rank`'s nearly equal share of `size` items.

    Args:
        size: Items.
        rank: Of the process, from 0.
        ranks: Number of processes.
    """
    return size * rank // ranks, size * (rank + 1) // ranks
