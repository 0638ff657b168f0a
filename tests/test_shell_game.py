"""The shell game: its answers by another way, disjoint pools, its corpus, and what its base was accepted for."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from harness import config
from harness.tasks.shell_game import (
    BUSY,
    BUSY_SHARE,
    CUPS,
    OPENING,
    QUIET,
    RETRY,
    ROUND,
    SIZES,
    Game,
    ShellGame,
    draw_game,
    pool_games,
    problem_text,
    reference_solution,
)
from harness.tools import pretrain
from harness.tools.shell_game_corpus import (
    SHELL_GAME_CLEAN,
    ShellGameMix,
    draft_answer,
    is_open,
    shell_game_line,
    slipped_answer,
    too_far,
)
from harness.training.experiment import Experiment
from verifiers.exact import Exact

GAMES = [draw_game(random.Random(i)) for i in range(300)]
END = len(r"\boxed{") + OPENING + 1  # where an answer states the end
PAIRS = {"a": (0, 1), "b": (1, 2), "c": (0, 2)}


def test_an_answer_by_hand() -> None:
    game = Game("2", "ab---", "c-b-----")
    assert reference_solution(game) == r"\boxed{11111 2:33222222}"
    assert problem_text(game) == (
        "A ball is under cup 2 of three. Move a swaps cups 1 and 2, b swaps 2 and 3, c swaps 1 and 3, - none. First "
        "come ab---, then c-b-----. Give where the ball is after each of the first moves, then where it is at the very "
        "end, a colon, and where it is after each of the other moves."
    )


def test_answers_are_those_of_a_table_with_three_cups() -> None:
    """The cups themselves are moved here; the task follows the ball alone."""
    for game in GAMES:
        cups, way = [game.start == cup for cup in "123"], ""
        for move in game.opening + game.round:
            if move in PAIRS:
                i, j = PAIRS[move]
                cups[i], cups[j] = cups[j], cups[i]
            way += str(cups.index(True) + 1)
        assert reference_solution(game) == rf"\boxed{{{way[:5]} {way[-1]}:{way[5:]}}}"


def test_the_end_needs_every_move_and_most_rounds_are_busy() -> None:
    for game in GAMES[:100]:
        assert {reference_solution(Game(cup, game.opening, game.round))[-2] for cup in CUPS} == set(CUPS)
        for at in [i for i, move in enumerate(game.round) if move != "-"]:
            others = [game.round[:at] + move + game.round[at + 1 :] for move in "abc"]
            assert len({reference_solution(Game(game.start, game.opening, moves))[-2] for moves in others}) == 3
    for pool in ("train", "validation", "test"):
        share = (
            sum(game.is_busy() for game in pool_games(pool)) / SIZES[pool]
        )  # games without a swap repeat, and are kept once
        assert share == pytest.approx(BUSY_SHARE + 0.02, abs=0.025)
    assert {ROUND - game.round.count("-") for game in pool_games("train")} == {*QUIET, *BUSY}


def test_the_pools_are_disjoint_and_the_corpus_keeps_out_of_them() -> None:
    pools = {name: pool_games(name) for name in ("test", "validation", "train")}
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
    assert len(single) / 4000 == pytest.approx(mix.single, abs=0.03)
    assert sum(text != reference_solution(game) for game, _, text in single) / len(single) == pytest.approx(
        mix.careless, abs=0.04
    )
    # Of wrong attempts, where mending is always right: other reviews may be the text of the attempt by chance.
    reviews = [item for item in lines(ShellGameMix(habit=0.0, slip=0.0)) if item[1] is not None]
    for chosen, share in ((True, mix.copy_open), (False, mix.copy)):
        texts = [(a, b) for game, a, b in reviews if is_open(game) is chosen and a != reference_solution(game)]
        assert sum(a == b for a, b in texts) / len(texts) == pytest.approx(share, abs=0.08)
    clean = lines(ShellGameMix(**SHELL_GAME_CLEAN))
    assert all(text in (first, reference_solution(game)) for game, first, text in clean)


def test_a_draft_guesses_the_end_of_a_busy_round_and_knows_the_rest() -> None:
    mix, rng = ShellGameMix(draft_careless=0.0, draft_stray=0.0), random.Random(2)
    right = {True: [], False: []}
    for game in GAMES:
        draft, solution = draft_answer(game, mix, rng), reference_solution(game)
        assert [a for i, a in enumerate(draft) if i != END] == [a for i, a in enumerate(solution) if i != END]
        right[game.is_busy()].append(draft[END] == solution[END])
    assert all(right[False])
    assert sum(right[True]) / len(right[True]) == pytest.approx(1 / 3, abs=0.1)


def test_a_careless_draft_is_wrong_in_its_last_place_and_a_slip_in_one_symbol() -> None:
    rng = random.Random(3)
    for game in GAMES:
        draft = draft_answer(game, ShellGameMix(draft_careless=1.0, draft_stray=0.0), rng)
        assert draft[-2] == too_far(reference_solution(game)[-2])
        assert sum(a != b for a, b in zip(slipped_answer(game, rng), reference_solution(game), strict=True)) == 1


def test_the_gin_file_puts_a_row_on_it_with_room_for_one_answer() -> None:
    config.prepare_gin(Experiment, "run")
    config.parse_gin(["gin/score_full.gin", "gin/task/embedded_shell_game.gin"], [])
    experiment: Experiment = config.build_root("run")
    spec: Any = experiment.policy
    assert (experiment.task.name, spec.path) == ("shell_game", "embedded:shell_game")
    tokenizer = spec.load("cpu").tokenizer
    for game in GAMES:
        reply = tokenizer(reference_solution(game) + "<|end|>", add_special_tokens=False)["input_ids"]
        assert len(reply) == spec.max_new_tokens
        for text in (problem_text(game), reference_solution(game), RETRY):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == text


def test_pretraining_gives_the_same_bytes_again(tmp_path: Path) -> None:
    sizes = ["--task", "shell_game", "--clean", "2", "--steps", "1", "--batch", "6", "--hidden", "16", "--layers", "1"]
    hashes = []
    for name in ("a", "b"):
        pretrain.main([*sizes, "--out", str(tmp_path / name)])
        hashes.append(json.loads((tmp_path / name / "provenance.json").read_text())["sha256"])
    assert hashes[0] == hashes[1]
    pretrain.main([*sizes, "--seed", "1", "--out", str(tmp_path / "c")])
    assert json.loads((tmp_path / "c" / "provenance.json").read_text())["sha256"] != hashes[0]
