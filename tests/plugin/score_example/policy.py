r"""A policy of its own, without a model: it forgets that products come first, and corrects that after two updates."""

import re
from collections.abc import Sequence

from harness import Message, register
from harness.training.scripted import Scripted


@register("policy", "late_learner")
def late_learner(name: str = "late_learner") -> Scripted:
    """Attempt 1 is a * (b + c); so is attempt 2, until two updates were made."""
    return Scripted(answer, name)


def answer(chat: Sequence[Message], updates: int) -> str:
    a, b, c = map(int, re.findall(r"\d+", chat[0]["content"]))
    is_second = any(message["role"] == "assistant" for message in chat)
    return rf"\boxed{{{a * b + c if is_second and updates >= 2 else a * (b + c)}}}"
