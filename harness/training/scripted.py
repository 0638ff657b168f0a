"""A policy without a model: a plain function writes its replies. For tests, and as the smallest `harness.core.Policy`.

It imports no torch. Nothing is drawn and no gradient is taken: `step` counts updates, and the function is told how many
there were, so that a script can seem to learn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from harness.core import Example, Message, Turn, TurnStats, Verdict
from harness.policy.ranks import Ranks
from harness.runs.store import write_atomic

Script = Callable[[Sequence[Message], int], str]
"""From a conversation that ends with a user's turn, and the number of updates so far, to the reply."""

END = 256  # the token after the last byte of a reply
UNGRADED = Verdict(0.0, False, "error")
STATE = "scripted.json"


@dataclass(frozen=True)
class Scripted:
    """A policy whose replies a function writes. Its tokens are the bytes of the text; each has log-probability 0.

    Attributes:
        script: Writes the replies.
        name: Key in the results folder.
    """

    script: Script
    name: str = "scripted"

    @property
    def key(self) -> str:
        """The policy's name in the results folder."""
        return self.name

    def load(self, device: str = "cpu") -> ScriptedPolicy:
        """The policy before any update; the device is of no meaning."""
        return ScriptedPolicy(self)


class ScriptedPolicy:
    """Implements `harness.core.Policy` in one process. Build it with `Scripted(...).load()`.

    Attributes:
        updates: Calls of `step` so far.
        seen: Examples that these calls were given, all together.
    """

    ranks = Ranks()
    temperature = 1.0
    cut_prompts = 0

    def __init__(self, spec: Scripted) -> None:
        self.spec, self.updates, self.seen = spec, 0, 0

    def describe(self) -> dict[str, Any]:
        """What run.json records as `engine`."""
        return {"model": "scripted", "processes": 1}

    def require_room(
        self, chat: Sequence[Message], asks: Sequence[str], given: Sequence[str] = (), attempts: int | None = None,
        further: int = 0, drafts: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        """Every conversation fits."""

    def refresh(self) -> None:
        """Does nothing: there is no copy that samples."""

    def open(
        self, chats: Sequence[Sequence[Message]], samples: int, seed: int, temperature: float, reference: bool = False,
        place: tuple[int, int] | None = None,
    ) -> ScriptedSession:  # fmt: skip
        """`samples` conversations on each chat; nothing is drawn, so seed, temperature and place change nothing."""
        updates = 0 if reference else self.updates
        return ScriptedSession(self.spec.script, updates, [chat for chat in chats for _ in range(samples)])

    def encoded(self, examples: Sequence[Example]) -> list[Example]:
        """The examples, with the bytes of targets that were set as text."""
        return [
            e if e.turn.tokens else replace(e, turn=replace(e.turn, tokens=encode_reply(e.turn.text))) for e in examples
        ]

    def step(
        self, examples: Sequence[Example], denominator: float, fresh: bool = False
    ) -> tuple[list[TurnStats], float]:
        """Counts the update and its examples; the gradient's norm is 0.

        Raises:
            ValueError: a weight or a KL coefficient is not finite; nothing was counted.
        """
        if not all(math.isfinite(value) for e in examples for value in (e.weight, e.kl)):
            raise ValueError("an example's weight or KL coefficient is not finite: no update was made with it")
        self.updates, self.seen = self.updates + 1, self.seen + len(examples)
        return [TurnStats(tokens=len(e.turn.tokens)) for e in examples], 0.0

    def restart(self) -> None:
        """Back to no update."""
        self.updates = 0

    def save(self, folder: Path) -> None:
        """Writes both counts."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / STATE, json.dumps({"updates": self.updates, "seen": self.seen}) + "\n")

    def load(self, folder: Path) -> None:
        """Takes both counts.

        Raises:
            ValueError: the file is missing or damaged.
        """
        try:
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
            updates, seen = state["updates"], state["seen"]
            if not (isinstance(updates, int) and isinstance(seen, int) and min(updates, seen) >= 0):
                raise ValueError(f"counts {updates!r} and {seen!r}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder / STATE} is no state of a scripted policy: {error}") from error
        self.updates, self.seen = updates, seen

    export, adopt = save, load


class ScriptedSession:
    """Conversations in progress, one per chat given; implements `harness.core.Session`."""

    def __init__(self, script: Script, updates: int, chats: Sequence[Sequence[Message]]) -> None:
        self._script, self._updates, self._asked = script, updates, 0
        self._chats = [list(chat) for chat in chats]
        self._tokens = [tuple(b"".join(map(_encode_message, chat))) for chat in chats]

    def reply(self) -> list[Turn]:
        """The script writes the next reply of every conversation."""
        return self._write([self._script(tuple(chat), self._updates) for chat in self._chats], "policy")

    def give(self, replies: Sequence[str | Sequence[int]]) -> list[Turn]:
        """Puts fixed replies, as texts or tokens, where the next ones would be."""
        return self._write([r if isinstance(r, str) else decode_reply(r) for r in replies], "given")

    def ask(self, texts: Sequence[str]) -> None:
        """Appends `texts[i]` as the user's turn of conversation i."""
        for i, text in enumerate(texts):
            message = {"role": "user", "content": text}
            self._chats[i].append(message)
            self._tokens[i] += tuple(_encode_message(message))

    def _write(self, texts: Sequence[str], by: Literal["policy", "given"]) -> list[Turn]:
        turns = []
        for i, text in enumerate(texts):
            tokens = encode_reply(text)
            logprobs = (0.0,) * len(tokens) if by == "policy" else ()
            turns.append(Turn(self._tokens[i], tokens, text, UNGRADED, index=self._asked, by=by, logprobs=logprobs))
            self._chats[i].append({"role": "assistant", "content": text})
            self._tokens[i] += tokens
        self._asked += 1
        return turns


def encode_reply(text: str) -> tuple[int, ...]:
    """The bytes of a reply, as UTF-8, and the token that ends it."""
    return (*text.encode("utf-8", "surrogatepass"), END)


def decode_reply(tokens: Sequence[int]) -> str:
    """The text of a reply's tokens."""
    return bytes(token for token in tokens if token != END).decode("utf-8", "surrogatepass")


def _encode_message(message: Message) -> bytes:
    return f"{message['role']}: {message['content']}\n".encode("utf-8", "surrogatepass")
