"""Between messages and token ids. A reply's own ids are kept: later turns only ever *append* to them.

Differs from rendering the whole conversation again each turn: a template that would rewrite an earlier reply (strip
its <think> part, its blanks) cannot, so the context the policy is trained on is the one it was sampled in. A template
without a place for a system text is given it as the first lines of the user's, and a template that asks for the date
is given a fixed one: the same prompt on every day.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from jinja2 import TemplateError

from harness.core import Message
from harness.registry import nearest_hint

REPLY = "\u241eREPLY\u241e"  # stands for a reply while its surroundings are rendered
TODAY = datetime.date(2024, 7, 26)  # the date that Llama 3's own template falls back to
_REPLACED = "".join(f" | replace('%{code}', '{TODAY.strftime('%' + code)}')" for code in "dbBYymAajHMS")
# Stands before a template that asks for the date, and hides transformers' own clock.
CLOCK = "{%- macro strftime_now(format) -%}{{ format" + _REPLACED + " }}{%- endmacro -%}"


def chat_format(kind: str, tokenizer: Any, end_ids: Sequence[int], options: Mapping[str, Any] | None) -> ChatFormat:
    """The format called `template` or `plain`.

    Args:
        kind: `template` (the tokenizer's own) or `plain`.
        tokenizer: Of the model.
        end_ids: Tokens that end a reply.
        options: Given to the template besides the messages.

    Raises:
        ValueError: another name, with the nearest; or see ChatFormat.
    """
    kinds = {"template": ChatFormat, "plain": PlainFormat}
    if kind not in kinds:
        raise ValueError(f"hf.chat {kind!r} is not known{nearest_hint(kind, kinds)}: one of {', '.join(kinds)}")
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
        self._follow = lru_cache(maxsize=1024)(self._follow_ids)
        self._template = _template(tokenizer)
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

    def encode_opening(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation up to where the first reply begins."""
        return self._ids(self._render(messages if self._takes_system else fold_system_message(messages)))

    def encode_followup(self, ask: str, reply: Sequence[int]) -> list[int]:
        """Token ids between the end of `reply` and where the next reply begins, when the user's turn is `ask`.

        A reply that was cut off by the length limit is closed here as the template closes it.
        """
        ids = list(self._follow(ask))
        at = self._end_of(ids)
        if reply and reply[-1] in self.end_ids and at < len(ids) and ids[at] == reply[-1]:
            ids = ids[at + 1 :]  # the policy has written the end of its reply itself, and no blank before it
        return ids

    def encode_given(self, text: str) -> list[int]:
        """Token ids of a reply the policy did not write, begun and closed as the template does."""
        ids = self._cut(self._render([{"role": "user", "content": "?"}]), self.reply_indent + text)
        return [*ids, *self._ending()]

    @property
    def closing_token(self) -> int | None:
        """The token the format puts after a reply; blanks may stand between."""
        ids = self._follow("?")
        at = self._end_of(ids)
        return ids[at] if at < len(ids) else None

    @property
    def unnamed_end(self) -> int | None:
        """The token after a reply, where it is a marker that ends a turn and yet is not among `end_ids`.

        Any added token is such a marker: not all files call it special. In harmony (gpt-oss) it is none: there
        `<|end|>` closes every channel, the thought as well, and the model's files name the ends of a reply.
        """
        closing = self.closing_token
        if closing is None or closing in self.end_ids or "<|channel|>" in self.tokenizer.get_vocab():
            return None
        return closing if closing in self.tokenizer.added_tokens_decoder else None

    @cached_property
    def reply_indent(self) -> str:
        """The blanks that the format puts between its own text and a reply, as ' ' after Mistral's [/INST]."""
        before = self._render([{"role": "user", "content": "?"}])
        until = self._conversation("?").rpartition(REPLY)[0]
        blanks = until.removeprefix(before)
        return blanks if until.startswith(before) and not blanks.strip() else ""

    def _ending(self) -> list[int]:
        """What closes a given reply: blanks and end token as in the template, or the end a sampled reply has."""
        ids = self._follow("?")
        at = self._end_of(ids)
        if at < len(ids) and ids[at] in self.end_ids:
            return list(ids[: at + 1])
        eos = self.tokenizer.eos_token_id
        return [eos if eos in self.end_ids else min(self.end_ids)]

    def _end_of(self, ids: Sequence[int]) -> int:
        """The place of the first token that is not blank, or that ends a reply."""
        blank = (id not in self.end_ids and not self.tokenizer.decode([id]).strip() for id in ids)
        return next((i for i, is_blank in enumerate(blank) if not is_blank), len(ids))

    def decode_reply(self, ids: Sequence[int]) -> str:
        """A reply as text, without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _conversation(self, ask: str) -> str:
        """A conversation in which `REPLY` stands for the reply before `ask`."""
        return self._render(
            [
                {"role": "user", "content": "?"},
                {"role": "assistant", "content": REPLY},
                {"role": "user", "content": ask},
            ]
        )

    def _follow_ids(self, ask: str) -> tuple[int, ...]:
        before, found, rest = self._conversation(ask).rpartition(REPLY)
        if not found:
            raise ValueError(f"the chat template of {self.tokenizer.name_or_path!r} drops assistant messages")
        return tuple(self._cut(before + found, rest))

    def _cut(self, before: str, text: str) -> list[int]:
        """Token ids of `text` after `before`.

        A tokenizer may begin a text in a way of its own (sentencepiece puts a blank there), so the whole is tokenised
        and cut; where a token spans the cut, `before` is taken as it is and the text begins anew.
        """
        ids, whole = self._ids(before), self._ids(before + text)
        return whole[len(ids) :] if whole[: len(ids)] == ids else self._ids(text)

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

    def encode_opening(self, messages: Sequence[Message]) -> list[int]:
        bos = self.tokenizer.bos_token_id
        text = "".join(f"{message['content']}\n\n" for message in messages)
        return [*([] if bos is None else [bos]), *self._ids(text)]

    def encode_given(self, text: str) -> list[int]:
        return [*self._cut("?\n\n", text), *([] if self.closing_token is None else [self.closing_token])]

    def _follow_ids(self, ask: str) -> tuple[int, ...]:
        return tuple(self._cut(REPLY, f"\n\n{ask}\n\n"))

    @property
    def closing_token(self) -> int | None:
        return self.tokenizer.eos_token_id

    @cached_property
    def reply_indent(self) -> str:
        return ""


def _template(tokenizer: Any) -> str:
    """The tokenizer's chat template; of several, the one named default. Empty where it has none.

    Raises:
        ValueError: it has several, and none is the default.
    """
    found = getattr(tokenizer, "chat_template", None) or ""
    if isinstance(found, str):
        return found
    if "default" not in found:
        raise ValueError(
            f"the tokenizer at {tokenizer.name_or_path!r} has chat templates of several names and none is 'default': "
            f"{', '.join(sorted(found))}. Put the one that is meant into the folder as chat_template.jinja"
        )
    return found["default"]


def fold_system_message(messages: Sequence[Message]) -> list[Message]:
    """The messages with the system's text at the head of the first user's."""
    system = [m["content"] for m in messages if m["role"] == "system"]
    rest = [m for m in messages if m["role"] != "system"]
    if not system or not rest:
        return list(messages)
    return [{**rest[0], "content": "\n\n".join([*system, rest[0]["content"]])}, *rest[1:]]
