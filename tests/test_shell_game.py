"""The shell game: its answers by another way, disjoint pools, its corpus, and what its base was accepted for."""

from __future__ import annotations

import random
import re

import pytest

from harness import config
from harness.experiment import Experiment
from harness.policy.shell_game_corpus import (
    SHELL_GAME_CLEAN,
    ShellGameMix,
    drafted,
    is_open,
    shell_game_line,
    slipped,
    too_far,
)
from harness.tasks.shell_game import BUSY, MOVES, RETRY, SIZES, Game, ShellGame, ask, draw, solve, split
from verifiers.exact import Exact

GAMES = [draw(random.Random(i)) for i in range(300)]
PAIRS = {"a": (0, 1), "b": (1, 2), "c": (0, 2)}


def test_an_answer_by_hand() -> None:
    game = Game("2", ("ab------", "c-b-----"))
    assert solve(game) == r"\boxed{1:11111111 2:33222222}"
    assert ask(game) == (
        "A ball is under cup 2 of three. Move a swaps cups 1 and 2, b swaps 2 and 3, c swaps 1 and 3, - none. "
        "Two rounds: ab------ then c-b-----. For each round give where the ball is at its end, a colon, and where it "
        "is after every move."
    )


def test_answers_are_those_of_a_table_with_three_cups() -> None:
    """The cups themselves are moved here; the task follows the ball alone."""
    for game in GAMES:
        cups, seen = [game.start == cup for cup in "123"], []
        for moves in game.rounds:
            way = ""
            for move in moves:
                if move in PAIRS:
                    i, j = PAIRS[move]
                    cups[i], cups[j] = cups[j], cups[i]
                way += str(cups.index(True) + 1)
            seen.append(f"{way[-1]}:{way}")
        assert solve(game) == rf"\boxed{{{' '.join(seen)}}}"


def test_every_end_needs_the_start_and_half_of_the_rounds_are_busy() -> None:
    for game in GAMES[:100]:
        assert {Game(cup, game.rounds).ends()[-1] for cup in "123"} == set("123")
    for pool in ("train", "validation", "test"):
        busy = [flag for game in split(pool) for flag in game.busy()]
        assert sum(busy) / len(busy) == pytest.approx(0.51, abs=0.025)
    swaps = {MOVES - moves.count("-") for game in split("train") for moves in game.rounds}
    assert swaps == {1, 2, *BUSY}


def test_the_pools_are_disjoint_and_the_corpus_keeps_out_of_them() -> None:
    pools = {name: split(name) for name in ("test", "validation", "train")}
    assert {name: len(games) for name, games in pools.items()} == SIZES
    held_out = {game for games in pools.values() for game in games}
    assert len(held_out) == sum(SIZES.values())
    rng = random.Random(0)
    assert not held_out & {shell_game_line(ShellGameMix(), rng)[0] for _ in range(5000)}
    with pytest.raises(ValueError, match=r"task\.shell_game\.test_size"):
        ShellGame(Exact(), test_size=2001)


def test_reference_solutions_are_graded_right_and_every_other_symbol_wrong() -> None:
    task, verifier = ShellGame(Exact()), Exact()
    for problem in task.test[:50]:
        right = problem.solution or ""
        assert verifier(problem, right).correct
        for at, symbol in enumerate(right):
            if symbol.isdigit():
                assert not verifier(problem, right[:at] + too_far(symbol) + right[at + 1 :]).correct
    assert task.chat(task.test[0], ["first"])[-1]["content"] == RETRY


def test_the_corpus_follows_from_its_seed_and_its_shares() -> None:
    def lines(mix: ShellGameMix, count: int = 4000) -> list[tuple[Game, str | None, str]]:
        rng = random.Random(6)
        return [shell_game_line(mix, rng) for _ in range(count)]

    mix = ShellGameMix()
    assert lines(mix, 200) == lines(mix, 200)
    single = [item for item in lines(mix) if item[1] is None]
    reviews = [item for item in lines(mix) if item[1] is not None]
    assert len(single) / 4000 == pytest.approx(mix.single, abs=0.03)
    assert sum(text != solve(game) for game, _, text in single) / len(single) == pytest.approx(mix.careless, abs=0.04)
    for chosen, share in ((True, mix.copy_open), (False, mix.copy)):
        # Of wrong attempts only: a mended review of a right one is the same text as a copy.
        texts = [(a, b) for game, a, b in reviews if is_open(game) is chosen and a != solve(game)]
        assert sum(a == b for a, b in texts) / len(texts) == pytest.approx(share, abs=0.08)
    clean = lines(ShellGameMix(**SHELL_GAME_CLEAN))
    assert all(text in (first, solve(game)) for game, first, text in clean)


def test_drafts_guess_the_ends_of_busy_rounds_and_nothing_else() -> None:
    mix, rng = ShellGameMix(draft_careless=0.0, draft_stray=0.0), random.Random(2)
    right = {True: 0, False: 0}
    rounds = {True: 0, False: 0}
    for game in GAMES:
        ends = re.findall(r"(\d):", drafted(game, mix, rng))
        assert drafted(game, mix, rng)[9:17] == game.ways()[0]
        for end, given, busy in zip(game.ends(), ends, game.busy(), strict=True):
            right[busy] += end == given
            rounds[busy] += 1
    assert right[False] == rounds[False]
    assert right[True] / rounds[True] == pytest.approx(1 / 3, abs=0.09)


def test_a_slip_is_one_symbol() -> None:
    rng = random.Random(3)
    for game in GAMES:
        assert sum(a != b for a, b in zip(slipped(game, rng), solve(game), strict=True)) == 1


def test_the_gin_file_puts_a_row_on_it_with_room_for_one_answer() -> None:
    config.prepare(Experiment, "run")
    config.parse(["gin/score_full.gin", "gin/on/embedded_shell_game.gin"], [])
    experiment: Experiment = config.build("run")
    assert (experiment.task.name, experiment.policy.path) == ("shell_game", "embedded:shell_game")
    tokenizer = experiment.policy.load("cpu").tokenizer
    for game in GAMES:
        reply = tokenizer(solve(game) + "<|end|>", add_special_tokens=False)["input_ids"]
        assert len(reply) == experiment.policy.max_new_tokens
        for text in (ask(game), solve(game), RETRY):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == text
