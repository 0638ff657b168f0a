"""The worked examples in docstrings hold: `reinforce`, `merge_examples`, `tabulate`, `evaluate`, `epoch_indices`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from harness import seeds
from harness.core import Example, Problem, Turn, Verdict
from harness.credit import LeaveOneOut, Progress, reinforce
from harness.metrics import tabulate
from harness.policy.loss import merge_examples
from harness.policy.sampling import sample_tokens
from harness.training.dialogue import Intrinsic
from harness.training.evaluate import evaluate
from harness.training.evaluations import EvalSpec
from harness.training.scripted import Scripted
from tests.factories import trajectory


def test_reinforce_weighs_stage_two_as_its_example() -> None:
    group = [trajectory(0, 1), trajectory(0, 0)]
    examples = reinforce([group], advantage=LeaveOneOut(), kl=(0.1,), bonus=Progress(10.0))
    assert [(e.turn.index, e.weight, e.bonus) for e in examples] == [(0, 0, 0), (1, 11, 10), (0, 0, 0), (1, -11, 0)]


def test_merge_examples_gives_the_rows_of_its_example() -> None:
    def attempt(context: Sequence[int], *tokens: int) -> Example:
        return Example(Turn(context=tuple(context), tokens=tokens, text="", by="policy", verdict=Verdict(0.0, False)))

    x1, y1, p1, y2, z1 = (1, 2), 3, 4, 5, 9
    rows = merge_examples([attempt(x1, y1), attempt((*x1, y1, p1), y2), attempt(x1, z1)])
    assert [(row.ids, row.spans) for row in rows] == [
        ((*x1, z1), [(2, 2, 3)]),
        ((*x1, y1, p1, y2), [(1, 4, 5), (0, 2, 3)]),
    ]


def test_tabulate_sorts_as_its_example() -> None:
    rows = [("b", 0, True, True), ("a", 1, False, True), ("a", 0, False, False)]
    table = tabulate(
        {"id": name, "sample": sample, "attempts": [{"correct": one}, {"correct": two}]}
        for name, sample, one, two in rows
    )
    assert (table.ids, table.samples) == (["a", "a", "b"], [0, 1, 0])
    assert table.correct.tolist() == [[False, False], [False, True], [True, True]]
    assert table.per_problem(table.correct).tolist() == [[0, 0.5], [1, 1]]


def test_sample_tokens_inverts_the_distribution_of_its_example() -> None:
    logits = torch.tensor([[0.2, 0.5, 0.3]] * 3).log()
    tokens, logprobs = sample_tokens(logits, torch.tensor([0.69, 0.71, 0.1]), temperature=1.0)
    assert tokens.tolist() == [1, 2, 0]
    assert logprobs.exp().tolist() == pytest.approx([0.5, 0.3, 0.2])


def test_epochs_follow_each_other_as_in_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = iter([(2, 0, 1), (1, 2, 0)])
    monkeypatch.setattr(seeds, "_order", lambda seed, size: next(orders))
    assert seeds.epoch_indices(0, "problems", size=3, begin=2, count=3) == [1, 1, 2]


@dataclasses.dataclass(frozen=True)
class Count:
    """700 problems; every answer is right."""

    name: str = "count"
    version: str = "1"
    train: Any = ()
    validation: Any = ()
    test: Any = tuple(Problem(f"p{i:03}", str(i), str(i)) for i in range(700))

    def verifier(self, problem: Problem, text: str) -> Verdict:
        return Verdict(1.0, True, answer=text)

    def chat(self, problem: Problem, answers: Sequence[str]) -> list[dict[str, str]]:
        again = [{"role": "user", "content": "Again."}] * len(answers)
        return [{"role": "user", "content": problem.prompt}, *again]


def test_a_resumed_evaluation_asks_its_broken_batch_again_and_hands_on_what_is_missing() -> None:
    asked: list[str] = []

    def script(chat: Any, updates: int) -> str:
        asked.append(chat[0]["content"])
        return "1"

    lines: list[dict[str, Any]] = []
    assert EvalSpec().problems_per_batch == 256
    policy = Scripted(script).load()
    evaluate(policy, Count(), Intrinsic(), when="after", done=600, record=lines.extend)
    assert min(map(int, asked)) == 512
    assert [line["id"] for line in lines] == [f"p{i}" for i in range(600, 700)]
