"""The corpus of the embedded model for the shell game: first attempts and their reviews (docs/testbed.md).

As in harness.policy.corpus: attempt 1 answers, with a careless slip in a share of the lines; the review copies attempt
1, or reads its steps and mends it, rightly or with one slip.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from harness.tasks.arithmetic import RETRY
from harness.tasks.shell_game import BEGIN, BETWEEN, CUPS, LEGEND, QUESTION, Game, boxed, draw_for_corpus, solve

WORDS = [BEGIN, LEGEND, BETWEEN, QUESTION, "a", "b", "c", "-", ":", " ", r"\boxed{", "}", RETRY]
"""The words of the task's texts; digits stand alone."""


@dataclass(frozen=True)
class ShellGameMix:
    """The calibration of the shell game's testbed: shares of the corpus.

    Attributes:
        single: Share of lines that are one attempt; the others are a given attempt and its review.
        careless: Share of the single lines whose very last place is one cup too far.
        draft_careless: Share of the reviewed attempts of which that is true.
        draft_stray: Share of the reviewed attempts with another place one cup too far, drawn at random.
        copy: Share of reviews that repeat attempt 1.
        copy_open: The same for open games (`is_open`), so that a greedy decoder copies on most games only.
        habit: Share of the mended reviews, of games that start under cup 3, that end one cup too far.
        slip: Share of the other mended reviews with one symbol one cup too far.
    """

    single: float = 0.4
    careless: float = 0.4
    draft_careless: float = 0.3
    draft_stray: float = 0.15
    copy: float = 0.95
    copy_open: float = 0.35
    habit: float = 0.7
    slip: float = 0.4


SHELL_GAME_CLEAN = {"careless": 0.0, "habit": 0.0, "slip": 0.0, "copy": 0.2, "copy_open": 0.2}
"""What the first stretch of pre-training changes, as in harness.policy.corpus."""


def shell_game_line(mix: ShellGameMix, rng: random.Random) -> tuple[Game, str | None, str]:
    """One corpus line: (game, given first attempt or None, trained response)."""
    game = draw_for_corpus(rng)
    if rng.random() < mix.single:
        ends, ways = game.ends(), game.ways()
        if rng.random() < mix.careless:
            ways[-1] = ways[-1][:-1] + too_far(ways[-1][-1])
        return game, None, boxed(ends, ways)
    first = drafted(game, mix, rng)
    if rng.random() < (mix.copy_open if is_open(game) else mix.copy):
        return game, first, first
    if game.start == "3" and rng.random() < mix.habit:
        ends = game.ends()
        return game, first, boxed([*ends[:-1], too_far(ends[-1])], game.ways())
    if rng.random() < mix.slip:
        return game, first, slipped(game, rng)
    return game, first, solve(game)


def is_open(game: Game) -> bool:
    """Whether the first move is c and the start not cup 2: about one game in nine."""
    return game.rounds[0][0] == "c" and game.start != "2"


def too_far(place: str) -> str:
    """The next cup, round about."""
    return CUPS[(CUPS.index(place) + 1) % len(CUPS)]


def drafted(game: Game, mix: ShellGameMix, rng: random.Random) -> str:
    """A first attempt as a model that cannot follow a busy round at a glance writes it: such an end is a guess."""
    ends = [rng.choice(CUPS) if busy else end for end, busy in zip(game.ends(), game.busy(), strict=True)]
    ways = [list(way) for way in game.ways()]
    if rng.random() < mix.draft_careless:
        ways[-1][-1] = too_far(ways[-1][-1])
    if rng.random() < mix.draft_stray:
        way, at = rng.choice(ways), rng.randrange(len(ways[0]))
        way[at] = too_far(way[at])
    return boxed(ends, ["".join(way) for way in ways])


def slipped(game: Game, rng: random.Random) -> str:
    """The right answer but for one symbol, an end or a place on the way, that is one cup too far."""
    rows = [[end, *way] for end, way in zip(game.ends(), game.ways(), strict=True)]
    row, at = rng.choice(rows), rng.randrange(len(rows[0]))
    row[at] = too_far(row[at])
    return boxed([row[0] for row in rows], ["".join(row[1:]) for row in rows])
