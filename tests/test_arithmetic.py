"""The embedded task and model: disjoint pools, texts the tokenizer keeps, provenance that holds."""

from __future__ import annotations

import hashlib
import json
import random
import re

import pytest

from harness.policy import EMBEDDED
from harness.policy.engine import Policy
from harness.tasks.arithmetic import RETRY, Arithmetic, pool_operands, problem_text, reference_solution
from harness.tools.arithmetic_corpus import Mix, corpus_line, slipped_work, wrong_answer
from verifiers.exact import Exact

MODELS = sorted(path for path in EMBEDDED.iterdir() if path.is_dir())


def test_the_pools_partition_the_space() -> None:
    pools = [pool_operands("corpus"), pool_operands("train"), pool_operands("validation"), pool_operands("test")]
    everything = [operands for pool in pools for operands in pool]
    assert len(everything) == len(set(everything)) == 90 * 8 * 90


def test_reference_solutions_are_graded_right_and_slips_wrong() -> None:
    task, verifier = Arithmetic(Exact()), Exact()
    for problem, operands in list(zip(task.test, pool_operands("test"), strict=False))[:300]:
        assert verifier(problem, problem.solution or "").correct
        for step in range(4):
            assert not verifier(problem, slipped_work(operands, step)).correct
    a, b, c = pool_operands("test")[0]
    assert task.test[0].answer == str(a * b + c)


def test_the_chat_repeats_the_instruction_and_no_verdict() -> None:
    task = Arithmetic(Exact())
    chat = task.chat(task.test[0], ["first", "second"])
    assert [m["role"] for m in chat] == ["user", "assistant", "user", "assistant", "user"]
    assert chat[2]["content"] == chat[4]["content"] == RETRY


def test_corpus_lines_come_from_the_corpus_pool_only() -> None:
    rng, pool = random.Random(0), set(pool_operands("corpus"))
    lines = [corpus_line(Mix(), rng) for _ in range(2000)]
    assert {operands for operands, _, _ in lines} <= pool
    reviews = [item for item in lines if item[1] is not None]
    assert len(reviews) / len(lines) == pytest.approx(1 - Mix.single, abs=0.05)
    copied = Mix.copy * 7 / 8 + Mix.copy_small / 8  # b is 2 in one problem of eight
    assert sum(first == text for _, first, text in reviews) / len(reviews) == pytest.approx(copied, abs=0.04)
    assert all(wrong_answer(340, far, rng) != 340 for far in (True, False) for _ in range(200))


def test_the_tokenizer_keeps_every_text(embedded: Policy) -> None:
    tokenizer, rng = embedded.tokenizer, random.Random(1)
    for _ in range(300):
        operands, first, text = corpus_line(Mix(), rng)
        for sample in (problem_text(operands), text, first or "", reference_solution(operands), RETRY):
            ids = tokenizer(sample, add_special_tokens=False)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == sample


@pytest.mark.parametrize("folder", MODELS, ids=lambda path: path.name)
def test_embedded_models_are_what_their_provenance_says(folder) -> None:
    provenance = json.loads((folder / "provenance.json").read_text())
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == provenance["sha256"]
    assert provenance["parameters"] <= 1_000_000
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 2_000_000
    assert re.match(r"python -m harness\.tools\.\w+", provenance["script"])


def test_sampler_and_trainer_agree_on_the_embedded_model(embedded: Policy) -> None:
    task = Arithmetic(Exact())
    session = embedded.open([task.chat(p, []) for p in task.test[:16]], 4, seed=0, temperature=1.0)
    first = session.reply()
    session.ask([RETRY] * len(first))
    turns = [*first, *session.reply()]
    for turn, scored in zip(turns, embedded.turn_logprobs(turns), strict=True):
        assert list(turn.logprobs) == pytest.approx(scored, abs=1e-5)
