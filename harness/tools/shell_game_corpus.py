"""The corpus of the embedded model for the shell game: first attempts and their reviews (docs/testbed.md).

As in harness.tools.arithmetic_corpus: attempt 1 answers, with a careless slip in a share of the lines; the review
copies attempt 1, or reads its steps and mends it, rightly or with one slip.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from harness.tasks.arithmetic import RETRY
from harness.tasks.shell_game import (
    BEGIN,
    BETWEEN,
    BUSY_SHARE,
    CUPS,
    LEGEND,
    QUESTION,
    Game,
    answer_parts,
    boxed_reply,
    draw_for_corpus,
    reference_solution,
)

WORDS = [BEGIN, LEGEND, BETWEEN, QUESTION, "a", "b", "c", "-", ":", " ", r"\boxed{", "}", RETRY]
"""The words of the task's texts; digits stand alone."""


@dataclass(frozen=True)
class ShellGameMix:
    """The calibration of the shell game's testbed: shares of the corpus.

    Attributes:
        busy: Share of games with a busy round.
        single: Share of lines that are one attempt; the others are a given attempt and its review.
        careless: Share of the single lines whose very last place is one cup too far.
        draft_careless: Share of the reviewed attempts of which that is true.
        draft_stray: Share of the reviewed attempts with some place one cup too far, drawn at random.
        copy: Share of reviews that repeat attempt 1.
        copy_open: The same for open games (`is_open`), so that a greedy decoder copies on most games only.
        habit: Share of the mended reviews, of games that do not start under cup 1, that state the start as the end.
        slip: Share of the other mended reviews with one symbol one cup too far.
    """

    busy: float = BUSY_SHARE
    single: float = 0.4
    careless: float = 0.25
    draft_careless: float = 0.25
    draft_stray: float = 0.15
    copy: float = 0.95
    copy_open: float = 0.15
    habit: float = 0.85
    slip: float = 0.4


SHELL_GAME_CLEAN = {
    "busy": 0.35, "single": 0.5, "careless": 0.0, "habit": 0.0, "slip": 0.0, "copy": 0.2, "copy_open": 0.2,
}  # fmt: skip
"""What the first stretch of pre-training changes, as in the arithmetic corpus. Fewer busy rounds: their ends are mere
noise to a first attempt, and it drowns what can be learnt of the quiet ones."""


def shell_game_line(mix: ShellGameMix, rng: random.Random) -> tuple[Game, str | None, str]:
    """One corpus line: (game, given first attempt or None, trained response)."""
    game = draw_for_corpus(rng, mix.busy)
    opening, end, way = answer_parts(game)
    if rng.random() < mix.single:
        return game, None, boxed_reply(opening, end, last_too_far(way) if rng.random() < mix.careless else way)
    first = draft_answer(game, mix, rng)
    if rng.random() < (mix.copy_open if is_open(game) else mix.copy):
        return game, first, first
    if game.start != "1" and rng.random() < mix.habit:
        return game, first, boxed_reply(opening, game.start, way)
    if rng.random() < mix.slip:
        return game, first, slipped_answer(game, rng)
    return game, first, reference_solution(game)


def is_open(game: Game) -> bool:
    """Whether the first move is c: one game in four."""
    return game.opening[0] == "c"


def too_far(place: str) -> str:
    """The next cup, round about."""
    return CUPS[(CUPS.index(place) + 1) % len(CUPS)]


def last_too_far(way: str) -> str:
    """The places with the last one a cup too far."""
    return way[:-1] + too_far(way[-1])


def draft_answer(game: Game, mix: ShellGameMix, rng: random.Random) -> str:
    """A first attempt as a model that cannot follow a busy round at a glance writes it: its end is a guess.

    Args:
        game: The problem.
        mix: Shares of the habits.
        rng: Draws the guess and the slips.
    """
    opening, end, way = answer_parts(game)
    if game.is_busy():
        end = rng.choice(CUPS)
    if rng.random() < mix.draft_careless:
        way = last_too_far(way)
    if rng.random() < mix.draft_stray:
        places = opening + way
        at = rng.randrange(len(places))
        places = places[:at] + too_far(places[at]) + places[at + 1 :]
        opening, way = places[: len(opening)], places[len(opening) :]
    return boxed_reply(opening, end, way)


def slipped_answer(game: Game, rng: random.Random) -> str:
    """The right answer but for one symbol, the end or a place on the way, that is one cup too far."""
    right = reference_solution(game)
    at = rng.choice([i for i, symbol in enumerate(right) if symbol in CUPS])
    return right[:at] + too_far(right[at]) + right[at + 1 :]
