"""Which models are a base for the word filter: every criterion can be missed alone; the probe reads what it should."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.word_filter_gate import judge, probe_words
from harness import config
from harness.core import Problem, Trajectory, Turn, Verdict
from harness.policy.warm_start import ADAPTERS
from harness.tasks.word_filter import make_problems
from harness.training.dialogue import Intrinsic

TRACKED = config.ROOT / "results" / "word_filter_gate.md"


def greedy(right: int = 40, changed: int = 10, without: int = 5) -> list[Trajectory]:
    """100 pairs: `right` first attempts, `without` without an answer; attempt 2 changes `changed` of the answers."""
    problem = Problem("p", "?", "a", "")

    def turn(answer: str | None) -> Turn:
        return Turn((), (), answer or "", Verdict(float(answer == "a"), answer == "a", "ok", answer))

    first = ["a"] * right + ["b"] * (100 - right - without) + [None] * without
    second = ["c"] * changed + first[changed:]
    return [Trajectory(problem, (turn(x), turn(y))) for x, y in zip(first, second, strict=True)]


GOOD: dict[str, Any] = {"greedy": greedy(), "head_room": (0.3, 0.46), "probe": [True] * 76 + [False] * 24}


def test_a_base_that_meets_every_criterion() -> None:
    assert [met for *_, met in judge(**GOOD)] == [True] * 5
    assert judge(**GOOD)[0][2].startswith("40.0 [")


@pytest.mark.parametrize(
    ("missed", "other"),
    [
        (0, {"greedy": greedy(right=19)}),
        (0, {"greedy": greedy(right=61)}),
        (1, {"head_room": (0.3, 0.44)}),
        (2, {"greedy": greedy(without=20)}),
        (3, {"greedy": greedy(changed=4)}),
        (3, {"greedy": greedy(changed=96)}),
        (4, {"probe": [True] * 74 + [False] * 26}),
    ],
)
def test_each_criterion_can_be_missed_alone(missed: int, other: dict[str, Any]) -> None:
    assert [met for *_, met in judge(**{**GOOD, **other})] == [i != missed for i in range(5)]


class Liar:
    """Gives `yes` the higher log-probability everywhere; remembers what it was shown."""

    class Tokenizer:
        def encode(self, text: str, **_: object) -> list[str]:
            return text.split(" ")

    class Chat:
        def encode_followup(self, text: str, reply: object) -> tuple[str, ...]:
            return ("again",)

    tokenizer, chat = Tokenizer(), Chat()

    def turn_logprobs(self, turns: list[Turn]) -> list[list[float]]:
        self.shown = [" ".join(map(str, turn.tokens)) for turn in turns]
        return [[-9.0, 0.0 if turn.text == "yes" else -1.0] for turn in turns]


def test_the_probe_reads_each_word_behind_right_judgements() -> None:
    problem = make_problems("test", 4, near=False, words="known", categories="known")[0]
    words, belongs = problem.meta["words"], problem.meta["belongs"]
    first = Turn((1,), (2,), "x", Verdict(0.0, False))
    liar = Liar()
    task = SimpleNamespace(
        chat=lambda problem, answers: [{"role": "user", "content": "again"}] * (2 * len(answers) + 1)
    )
    experiment: Any = SimpleNamespace(dialogue=Intrinsic(), task=task)
    found = probe_words(cast(Any, liar), experiment, [Trajectory(problem, (first,))])
    assert found == list(belongs)  # who always says yes is right where the word belongs
    labels = ["yes" if label else "no" for label in belongs]
    before = "".join(f"{word} {label}, " for word, label in zip(words[:3], labels, strict=False))
    assert liar.shown[-2:] == [f"{before}{words[3]} yes", f"{before}{words[3]} no"]


def test_the_tracked_gate_is_of_the_shipped_warm_start() -> None:
    text = Path(TRACKED).read_text(encoding="utf-8")
    told = json.loads((ADAPTERS / "word_filter_smollm2" / "provenance.json").read_text())
    assert f"adapter_sha256: {told['sha256']}" in text
