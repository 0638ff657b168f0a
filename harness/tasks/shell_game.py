r"""The shell game, an embedded task whose answer states each round's end before its steps; needs no download.

A ball under one of three cups, two rounds of moves that swap two cups or none; answered in \boxed{}. Written so, the
answer is easy to check and mend once it stands there, and hard to state in one go. See docs/testbed.md.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.core import Message, Problem, Verifier
from harness.registry import register
from harness.seeds import cut
from harness.tasks.arithmetic import RETRY

SPLIT_SEED = 2409_12918
SIZES = {"test": 2_000, "validation": 1_000, "train": 20_000}  # every other game is the corpus's
ROUNDS, MOVES = 2, 8
CUPS = "123"
SWAPS = {"-": {}, "a": {"1": "2", "2": "1"}, "b": {"2": "3", "3": "2"}, "c": {"1": "3", "3": "1"}}
QUIET, BUSY = range(1, 3), range(6, 9)  # swaps in a round: its end is told at a glance, or has to be followed
BEGIN = "A ball is under cup "
LEGEND = " of three. Move a swaps cups 1 and 2, b swaps 2 and 3, c swaps 1 and 3, - none. Two rounds: "
BETWEEN = " then "
QUESTION = ". For each round give where the ball is at its end, a colon, and where it is after every move."

Pool = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Game:
    """The cup the ball starts under, and the moves of each round (letters of `SWAPS`)."""

    start: str
    rounds: tuple[str, ...]

    def ways(self) -> list[str]:
        """For each round the ball's place after every move; a round begins where the one before it ended."""
        ways, place = [], self.start
        for moves in self.rounds:
            way = ""
            for move in moves:
                place = SWAPS[move].get(place, place)
                way += place
            ways.append(way)
        return ways

    def ends(self) -> list[str]:
        """The ball's place at the end of each round."""
        return [way[-1] for way in self.ways()]

    def busy(self) -> list[bool]:
        """For each round whether its end has to be followed move by move."""
        return [len(moves) - moves.count("-") in BUSY for moves in self.rounds]


def draw(rng: random.Random) -> Game:
    """A game: each round is quiet or busy with equal chance."""
    return Game(rng.choice(CUPS), tuple(_moves(rng) for _ in range(ROUNDS)))


def _moves(rng: random.Random) -> str:
    swaps = rng.choice(BUSY if rng.random() < 0.5 else QUIET)
    at = set(rng.sample(range(MOVES), swaps))
    return "".join(rng.choice("abc") if i in at else "-" for i in range(MOVES))


@functools.cache
def split(pool: Pool) -> tuple[Game, ...]:
    """The games of one pool; the pools are disjoint and hold no game twice."""
    return cut(list(_held_out()), SPLIT_SEED, SIZES, pool)


@functools.cache
def _held_out() -> dict[Game, None]:
    """The games of all pools, as an ordered set. `cut` shuffles them: what is drawn late repeats earlier ones less."""
    rng, games = random.Random(SPLIT_SEED), {}
    while len(games) < sum(SIZES.values()):
        games.setdefault(draw(rng))
    return games


def draw_for_corpus(rng: random.Random) -> Game:
    """A game that is in none of the pools."""
    while (game := draw(rng)) in _held_out():
        pass
    return game


def ask(game: Game) -> str:
    """The problem as text."""
    return f"{BEGIN}{game.start}{LEGEND}{BETWEEN.join(game.rounds)}{QUESTION}"


def answer(ends: Sequence[str], ways: Sequence[str]) -> str:
    """The content of the box: `3:22131133 1:33212211`."""
    return " ".join(f"{end}:{way}" for end, way in zip(ends, ways, strict=True))


def boxed(ends: Sequence[str], ways: Sequence[str]) -> str:
    """A whole reply."""
    return rf"\boxed{{{answer(ends, ways)}}}"


def solve(game: Game) -> str:
    """The reference solution."""
    return boxed(game.ends(), game.ways())


@register("task", "shell_game")
@dataclass(frozen=True)
class ShellGame:
    """Follow a ball under swapped cups; the answer states each round's end before its steps (embedded, no download).

    Attributes:
        verifier: Grades a response.
        test_size: Test problems used, from the first; at most 2,000.
        train_size: Training problems used, from the first; at most 20,000.
    """

    verifier: Verifier
    test_size: int = 1_000
    train_size: int = 20_000
    name: str = "shell_game"
    version: str = "1"

    def __post_init__(self) -> None:
        for key, size in (("test", self.test_size), ("train", self.train_size)):
            if not 1 <= size <= SIZES[key]:
                raise ValueError(f"task.shell_game.{key}_size must lie in 1..{SIZES[key]}, not {size}")

    @property
    def train(self) -> Sequence[Problem]:
        return _problems("train")[: self.train_size]

    @property
    def validation(self) -> Sequence[Problem]:
        return _problems("validation")

    @property
    def test(self) -> Sequence[Problem]:
        return _problems("test")[: self.test_size]

    def chat(self, problem: Problem, answers: Sequence[str]) -> list[Message]:
        messages = [{"role": "user", "content": problem.prompt}]
        for text in answers:
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": RETRY}]
        return messages


@functools.cache
def _problems(pool: Pool) -> tuple[Problem, ...]:
    return tuple(
        Problem(f"{game.start} {' '.join(game.rounds)}", ask(game), answer(game.ends(), game.ways()), solve(game))
        for game in split(pool)
    )
