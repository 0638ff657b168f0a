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
        """The user's turn after `replies` (at least one)."""
        ...


@register("dialogue", "intrinsic")
@dataclass(frozen=True)
class Intrinsic:
    """The task's own instruction after each attempt; it never tells whether the attempt was right."""

    def plan(self, attempts: int) -> Sequence[bool]:
        return (True,) * attempts

    def ask(self, task: Task, problem: Problem, replies: Sequence[str]) -> str:
        return task.chat(problem, replies)[-1]["content"]


@register("dialogue", "self_refine")
@dataclass(frozen=True)
class SelfRefine:
    """Self-Refine (Madaan et al. 2023, arXiv 2303.17651): feedback on the attempt, then an attempt that uses it.

    Differs from the paper: SCoRe does not print the prompts of its Self-Refine row; these two are ours. The feedback is
    an unscored turn of the conversation: not graded, counted in the cost.

    Attributes:
        feedback: Asks for feedback on the last attempt; does not say whether it was right.
        refine: Asks for the next attempt; the task's own form of an answer follows it.
    """

    feedback: str = (
        "Check the solution above step by step and write down every error in it. Do not write a new solution yet."
    )
    refine: str = "Now write a new solution that follows this feedback."

    def plan(self, attempts: int) -> Sequence[bool]:
        return (True, *(False, True) * (attempts - 1))

    def ask(self, task: Task, problem: Problem, replies: Sequence[str]) -> str:
        if len(replies) % 2:
            return self.feedback
        return f"{self.refine} {task.chat(problem, replies[::2])[-1]['content']}"
