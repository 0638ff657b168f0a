"""Between messages and token ids. A reply's own ids are kept: later turns only ever *append* to them.

Differs from rendering the whole conversation again each turn: a template that would rewrite an earlier reply (strip
its <think> part, its blanks) cannot, so the context the policy is trained on is the one it was sampled in. A template
without a place for a system text is given it as the first lines of the user's, and a template that asks for the date
is given a fixed one: the same prompt on every day.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError

from harness.core import Message
from harness.registry import nearest

REPLY = "\u241eREPLY\u241e"  # stands for a reply while its surroundings are rendered
TODAY = datetime.date(2024, 7, 26)  # the date that Llama 3's own template falls back to
_REPLACED = "".join(f" | replace('%{code}', '{TODAY.strftime('%' + code)}')" for code in "dbBYymAajHMS")
# Stands before a template that asks for the date, and hides transformers' own clock.
CLOCK = "{%- macro strftime_now(format) -%}{{ format" + _REPLACED + " }}{%- endmacro -%}"


def chat_format(kind: str, tokenizer: Any, end_ids: Sequence[int], options: Mapping[str, Any] | None) -> ChatFormat:
    """The format called `template` or `plain`.

    Raises:
        ValueError: another name, with the nearest; or see ChatFormat.
    """
    kinds = {"template": ChatFormat, "plain": PlainFormat}
    if kind not in kinds:
        raise ValueError(f"hf.chat {kind!r} is not known{nearest(kind, kinds)}: one of {', '.join(kinds)}")
    return kinds[kind](tokenizer, end_ids, options or {})


class ChatFormat:
    """Renders openings and follow-ups of a conversation with a tokenizer's own chat template.

    Args:
        end_ids: Tokens that end a reply.
        options: Given to the template besides the messages.

    Raises:
        ValueError: the tokenizer has no chat template, or its template drops an assistant message.
    """

    def __init__(self, tokenizer: Any, end_ids: Sequence[int], options: Mapping[str, Any]) -> None:
        self.tokenizer, self.end_ids = tokenizer, frozenset(end_ids)
        self._options = dict(options)
        self._follow = lru_cache(maxsize=1024)(self._follow_text)
        self._template: str = getattr(tokenizer, "chat_template", None) or ""
        if "strftime_now" in self._template:
            self._template = CLOCK + self._template
        self._check()

    def _check(self) -> None:
        if not self._template:
            raise ValueError(
                f"the model at {self.tokenizer.name_or_path!r} has no chat template, so a second attempt cannot be "
                "asked for: use its instruction-tuned version, put a chat_template.jinja into its folder, or, for a "
                "base model, ask in plain text: --bind \"hf.chat = 'plain'\""
            )
        try:
            told = self._render([{"role": "system", "content": REPLY}, {"role": "user", "content": "?"}])
        except TemplateError:  # Gemma's says: System role not supported
            told = ""
        self._takes_system = REPLY in told

    def opening(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation up to where the first reply begins."""
        return self._ids(self._render(messages if self._takes_system else folded(messages)))

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
        ids, end = self._ids(text), self.closing
        return [*ids, end] if end is not None and end in self.end_ids else ids

    @property
    def closing(self) -> int | None:
        """The token the format puts after a reply."""
        return next(iter(self._follow("?")), None)

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
        return self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, chat_template=self._template, **self._options
        )

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


class PlainFormat(ChatFormat):
    """Texts joined by blank lines, for base models: `[bos] system, blank, user, blank, reply, blank, user, blank`.

    A base model that has not learned to end its answer writes on to the length limit; RL teaches it the end token,
    which stays in the context as every token of a reply does.
    """

    def _check(self) -> None:
        if self._options:
            raise ValueError("hf.template_options are for chat templates: hf.chat = 'plain' has none")

    def opening(self, messages: Sequence[Message]) -> list[int]:
        bos = self.tokenizer.bos_token_id
        text = "".join(f"{message['content']}\n\n" for message in messages)
        return [*([] if bos is None else [bos]), *self._ids(text)]

    def _follow_text(self, ask: str) -> tuple[int, ...]:
        return tuple(self._ids(f"\n\n{ask}\n\n"))

    @property
    def closing(self) -> int | None:
        return self.tokenizer.eos_token_id


def folded(messages: Sequence[Message]) -> list[Message]:
    """The messages with the system's text at the head of the first user's."""
    system = [m["content"] for m in messages if m["role"] == "system"]
    rest = [m for m in messages if m["role"] != "system"]
    if not system or not rest:
        return list(messages)
    return [{**rest[0], "content": "\n\n".join([*system, rest[0]["content"]])}, *rest[1:]]
