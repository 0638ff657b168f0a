"""Random streams without state: every draw of a run follows from its seed and where it is used.

Nothing has to be saved for a run to go on where it stopped, and no stream depends on what else was drawn.
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
    digest = hashlib.sha256(repr((seed, *where)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def epoch_indices(seed: int, stream: str, size: int, begin: int, count: int) -> list[int]:
    """Items `begin` to `begin + count` of an endless shuffled pass over `range(size)`; each epoch is shuffled anew."""
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
    """One of the disjoint pools a shuffled space is cut into: those of `sizes` in order; any other name is the rest."""
    items = list(space)
    random.Random(seed).shuffle(items)
    begin = 0
    for pool, size in sizes.items():
        if pool == name:
            return tuple(items[begin : begin + size])
        begin += size
    return tuple(items[begin:])


def shard_bounds(size: int, rank: int, ranks: int) -> tuple[int, int]:
    """The (begin, end) of process `rank`'s nearly equal share of `size` items."""
    return size * rank // ranks, size * (rank + 1) // ranks
