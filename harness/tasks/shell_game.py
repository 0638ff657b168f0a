r"""The shell game, an embedded task whose answer states an end before the steps to it; needs no download.

A ball under one of three cups and moves that swap two cups or none; answered in \boxed{}. Written so, the answer is
easy to check and correct once it is written, and hard to state in one pass. See docs/testbed.md.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.core import Message, Problem, Verifier
from harness.registry import register
from harness.seeds import slice_pools
from harness.tasks.arithmetic import RETRY

SPLIT_SEED = 2409_12918
SIZES = {"test": 2_000, "validation": 1_000, "train": 20_000}  # every other game is the corpus's
OPENING, ROUND = 5, 8  # moves
CUPS = "123"
SWAPS = {"-": {}, "a": {"1": "2", "2": "1"}, "b": {"2": "3", "3": "2"}, "c": {"1": "3", "3": "1"}}
QUIET, BUSY = range(3), range(6, 9)  # swaps in the round: its end is told at a glance, or has to be followed
BUSY_SHARE = 0.65
BEGIN = "A ball is under cup "
LEGEND = " of three. Move a swaps cups 1 and 2, b swaps 2 and 3, c swaps 1 and 3, - none. First come "
BETWEEN = ", then "
QUESTION = (
    ". Give where the ball is after each of the first moves, then where it is at the very end, a colon, and where it "
    "is after each of the other moves."
)

Pool = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Game:
    """The cup the ball starts under, the opening's moves and the round's (letters of `SWAPS`)."""

    start: str
    opening: str
    round: str

    def ball_places(self) -> tuple[str, str]:
        """The ball's place after every move, of the opening and of the round."""
        way, place = "", self.start
        for move in self.opening + self.round:
            place = SWAPS[move].get(place, place)
            way += place
        return way[: len(self.opening)], way[len(self.opening) :]

    def is_busy(self) -> bool:
        """Whether the end has to be followed move by move."""
        return len(self.round) - self.round.count("-") in BUSY


def draw_game(rng: random.Random, busy: float = BUSY_SHARE) -> Game:
    """A game whose round is busy in a share of the draws."""
    start, opening = rng.choice(CUPS), "".join(rng.choices(list(SWAPS), k=OPENING))
    swaps = rng.choice(BUSY if rng.random() < busy else QUIET)
    at = set(rng.sample(range(ROUND), swaps))
    return Game(start, opening, "".join(rng.choice("abc") if i in at else "-" for i in range(ROUND)))


@functools.cache
def pool_games(pool: Pool) -> tuple[Game, ...]:
    """The games of one pool; the pools are disjoint and hold no game twice."""
    return slice_pools(list(_held_out()), SPLIT_SEED, SIZES, pool)


@functools.cache
def _held_out() -> dict[Game, None]:
    """The games of all pools, as an ordered set. `slice_pools` shuffles them: what is drawn late repeats earlier ones
    less."""
    rng, games = random.Random(SPLIT_SEED), {}
    while len(games) < sum(SIZES.values()):
        games.setdefault(draw_game(rng))
    return games


def draw_for_corpus(rng: random.Random, busy: float = BUSY_SHARE) -> Game:
    """A game that is in none of the pools."""
    while (game := draw_game(rng, busy)) in _held_out():
        pass
    return game


def problem_text(game: Game) -> str:
    """The problem as text."""
    return f"{BEGIN}{game.start}{LEGEND}{game.opening}{BETWEEN}{game.round}{QUESTION}"


def answer_text(opening: str, end: str, way: str) -> str:
    """The content of the box: `22133 1:33212211`.

    Args:
        opening: The ball's place after each opening move.
        end: Its place at the very end.
        way: Its place after each move of the round.
    """
    return f"{opening} {end}:{way}"


def boxed_reply(opening: str, end: str, way: str) -> str:
    """A whole reply.

    Args:
        opening, end, way: As in `answer_text`.
    """
    return rf"\boxed{{{answer_text(opening, end, way)}}}"


def answer_parts(game: Game) -> tuple[str, str, str]:
    """The right answer's parts: the opening's places, the end, the round's places."""
    opening, way = game.ball_places()
    return opening, way[-1], way


def reference_solution(game: Game) -> str:
    """The reference solution."""
    return boxed_reply(*answer_parts(game))


@register("task", "shell_game")
@dataclass(frozen=True)
class ShellGame:
    """Follow a ball under swapped cups; the answer states the end before the steps to it (embedded, no download).

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
        Problem(
            f"{game.start} {game.opening} {game.round}",
            problem_text(game),
            answer_text(*answer_parts(game)),
            reference_solution(game),
        )
        for game in pool_games(pool)
    )
