"""Between messages and token ids. A reply's own ids are kept: later turns only ever *append* to them.

Differs from rendering the whole conversation again each turn: a template that would rewrite an earlier reply (strip
its <think> part, its blanks) cannot, so the context the policy is trained on is the one it was sampled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from harness.core import Message

REPLY = "\u241eREPLY\u241e"  # stands for a reply while its surroundings are rendered


class ChatFormat:
    """Renders openings and follow-ups of a conversation with a tokenizer's own chat template.

    Raises:
        ValueError: the tokenizer has no chat template, or its template drops an assistant message.
    """

    def __init__(self, tokenizer: Any, end_ids: Sequence[int]) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                f"the model at {tokenizer.name_or_path!r} has no chat template, so a second attempt cannot be asked "
                "for: use its instruction-tuned version, or put a chat_template.jinja into its folder"
            )
        self.tokenizer = tokenizer
        self.end_ids = frozenset(end_ids)
        self._follow = lru_cache(maxsize=1024)(self._follow_text)

    def opening(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation up to where the first reply begins."""
        return self._ids(self._render(messages))

    def follow(self, ask: str, reply: Sequence[int]) -> list[int]:
        """Token ids between the end of `reply` and where the next reply begins, when the user says `ask`.

        A reply that was cut off by the length limit is closed here as the template closes it.
        """
        ids = list(self._follow(ask))
        if reply and reply[-1] in self.end_ids and ids and ids[0] == reply[-1]:
            ids = ids[1:]  # the policy has written the end of its reply itself
        return ids

    def given(self, text: str) -> list[int]:
        """Token ids of a reply the policy did not write, closed as the template closes it."""
        ids, end = self._ids(text), next(iter(self._follow("?")), None)
        return [*ids, end] if end in self.end_ids else ids  # type: ignore[list-item]

    def text(self, ids: Sequence[int]) -> str:
        """A reply as text, without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _follow_text(self, ask: str) -> tuple[int, ...]:
        rendered = self._render(
            [
                {"role": "user", "content": "?"},
                {"role": "assistant", "content": REPLY},
                {"role": "user", "content": ask},
            ]
        )
        _, found, rest = rendered.rpartition(REPLY)
        if not found:
            raise ValueError(f"the chat template of {self.tokenizer.name_or_path!r} drops assistant messages")
        return tuple(self._ids(rest))

    def _render(self, messages: Sequence[Message]) -> str:
        return self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
