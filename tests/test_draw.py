"""The endless shuffled pass over the problems: every epoch in its own order, and each order made once."""

from __future__ import annotations

import random

import pytest

from harness import seeds


def test_an_epoch_is_shuffled_once_and_drawn_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    expected: list[int] = []
    for epoch in range(3):
        order = list(range(50))
        random.Random(seeds.derive_seed(7, "problems", epoch)).shuffle(order)
        expected += order
    seeds._order.cache_clear()
    made: list[int] = []
    shuffle = random.Random.shuffle
    monkeypatch.setattr(random.Random, "shuffle", lambda self, order: (made.append(1), shuffle(self, order))[1])
    drawn = [item for begin in range(0, 150, 15) for item in seeds.epoch_indices(7, "problems", 50, begin, 15)]
    assert drawn == expected
    assert len(made) == 3
