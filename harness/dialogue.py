"""How attempts are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.core import Problem, Task
from harness.registry import register


class Dialogue(Protocol):
    """The user's side of a conversation."""

    def plan(self, attempts: int) -> Sequence[bool]:
        """One entry per turn: whether it is a scored attempt. As many True as `attempts`."""
        ...

    def ask(self, task: Task, problem: Problem, replies: Sequence[str]) -> str:
        """What the user says after `replies` (at least one)."""
        ...


@register("dialogue", "intrinsic")
@dataclass(frozen=True)
class Intrinsic:
    """The task's own instruction after each attempt; it never says whether the attempt was right."""

    def plan(self, attempts: int) -> Sequence[bool]:
        return (True,) * attempts

    def ask(self, task: Task, problem: Problem, replies: Sequence[str]) -> str:
        return task.chat(problem, replies)[-1]["content"]
