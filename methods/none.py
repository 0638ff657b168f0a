"""The base row: the model as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.core import Budget, Phase
from harness.registry import register


@register("method", "none")
@dataclass(frozen=True)
class NoTraining:
    """No training: the base model asked twice."""

    def phases(self, budget: Budget) -> Sequence[Phase]:
        return []
