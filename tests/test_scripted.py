"""The contract of `harness.core.Policy`: the loop runs on a policy that holds no model, and imports no torch for it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import config
from harness.core import Example, Policy, PolicySpec, Problem, Session, Verdict
from harness.grading import grade_responses
from harness.policy import HF
from harness.runs.store import RunStore, StoreError
from harness.training.dialogue import Intrinsic
from harness.training.evaluations import EvalSpec
from harness.training.experiment import Experiment
from harness.training.loop import Stopped, run_experiment
from harness.training.scripted import Scripted, decode_reply, encode_reply

PROBLEMS = [Problem(f"p{i}", f"What is {i} + {i}?", str(2 * i)) for i in range(12)]


def check(problem: Problem, text: str) -> Verdict:
    return Verdict(float(text == problem.answer), text == problem.answer, answer=text)


@dataclasses.dataclass(frozen=True)
class Doubles:
    name: str = "doubles"
    version: str = "1"
    train: Any = tuple(PROBLEMS[:6])
    validation: Any = tuple(PROBLEMS[6:8])
    test: Any = tuple(PROBLEMS[8:])
    verifier: Any = check

    def chat(self, problem: Problem, answers: Any) -> list[dict[str, str]]:
        messages = [{"role": "user", "content": problem.prompt}]
        for answer in answers:
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Again."}]
        return messages


def late(chat: Any, updates: int) -> str:
    """Wrong at first; right in attempt 2 once three updates were made."""
    number = int(chat[0]["content"].split()[2])
    return str(2 * number if len(chat) > 1 and updates >= 3 else number + 1000)


class Watcher:
    """A display that sends the process SIGINT when the update of a number is done."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at

    def phase(self, text: str, total: int, done: int = 0) -> None: ...

    def advance(self, line: dict[str, Any] | None = None, count: int = 1) -> None:
        if line and line["step"] == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)


def experiment_of() -> Experiment:
    from methods.score import SCoRe  # a row with two phases

    return Experiment(
        name="row", method=SCoRe(), task=Doubles(), policy=Scripted(late), dialogue=Intrinsic(), steps=6, problems=3,
        samples=2, evaluations=[EvalSpec("validation", draft="reference"), EvalSpec("train", samples=2,
        temperature=1.0)], probe_every=3, probe_problems=2,
    )  # fmt: skip


def opened(folder: Path) -> RunStore:
    store = RunStore(folder)
    store.acquire_lock()
    store.info = store.read_info() or {}
    store.save_config("run.name = 'row'\n")
    store.update_run_json(status="running")
    return store


def ran(folder: Path, stop_at: int | None = None) -> dict[str, bytes]:
    """The bytes of a whole run's records and exported policy; with `stop_at` it was interrupted there and resumed."""
    if stop_at is not None:
        store = opened(folder)
        with pytest.raises(Stopped):
            run_experiment(experiment_of(), experiment_of().policy.load(), store, Watcher(stop_at))
        store.release_lock()
    store = opened(folder)
    run_experiment(experiment_of(), experiment_of().policy.load(), store, Watcher())
    store.release_lock()
    return {name: (folder / name).read_bytes() for name in ("eval.jsonl", "model/scripted.json")}


def run_whole_and_interrupted(folder: Path) -> None:
    """Run by the test below in a process of its own."""
    whole = ran(folder / "whole")
    for stop_at in (1, 3, 4, 6):
        assert ran(folder / f"stopped{stop_at}", stop_at) == whole, stop_at
    log = [json.loads(line) for line in (folder / "stopped4" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    assert [line["acc_t2"] for line in log] == [0, 0, 0, 1, 1, 1]
    assert {line["sampler_gap"] for line in log} == {0.0}
    assert log[2]["acc_t2_own_train"] == 1.0
    records = [json.loads(line) for line in whole["eval.jsonl"].splitlines()]
    found: dict[Any, list[list[bool]]] = {}
    for record in records:
        key = record["when"], record.get("split"), record["temperature"]
        found.setdefault(key, []).append([attempt["correct"] for attempt in record["attempts"]])
    assert found == {
        ("before", None, 0.0): [[False, False]] * 4, ("after", None, 0.0): [[False, True]] * 4,
        ("after", "validation", 0.0): [[False, True]] * 2, ("after", "train", 1.0): [[False, True]] * 12,
    }  # fmt: skip
    assert json.loads(whole["model/scripted.json"])["updates"] == 6
    loaded = sorted({"torch", "transformers", "accelerate"} & sys.modules.keys())
    assert not loaded, f"a run of a scripted policy has imported {loaded}"


def test_a_scripted_policy_goes_through_the_whole_loop_without_torch(tmp_path: Path) -> None:
    told = f"import sys, pathlib; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_scripted as t; "
    done = subprocess.run(
        [sys.executable, "-c", told + f"t.run_whole_and_interrupted(pathlib.Path({str(tmp_path)!r}))"],
        capture_output=True, text=True, timeout=120, cwd=config.ROOT,
        env={**os.environ, "PYTHONPATH": str(config.ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_both_policies_keep_the_contract(embedded: Policy) -> None:
    """The annotations are what pyright checks; the rest is what a Protocol cannot say."""
    specs: list[PolicySpec] = [HF(), Scripted(late)]
    assert [spec.key for spec in specs] == ["arithmetic", "scripted"]
    chats = [[{"role": "user", "content": "What is 3 + 3?"}], [{"role": "user", "content": "What is 14 + 14?"}]]
    policies: list[Policy] = [embedded, Scripted(late).load()]
    for policy in policies:
        policy.refresh()
        session: Session = policy.open(chats, 2, seed=0, temperature=policy.temperature)
        first = session.reply()
        session.ask(["Again."] * 4)
        second = session.give([turn.tokens for turn in first])
        assert [turn.text for turn in second] == [turn.text for turn in first]
        assert first[0].context == first[1].context != first[2].context
        for a, b in zip(first, second, strict=True):
            assert b.context[: len(a.context + a.tokens)] == a.context + a.tokens
            assert (len(a.logprobs), b.logprobs, a.by, b.by) == (len(a.tokens), (), "policy", "given")
        target = dataclasses.replace(first[0], text="6", tokens=(), logprobs=())
        (example,) = policy.encoded([Example(target)])
        assert example.turn.tokens
        assert policy.cut_prompts == 0
        json.dumps(policy.describe())


def test_a_scripted_policys_state_is_what_step_changes(tmp_path: Path) -> None:
    policy = Scripted(late).load()
    turns = policy.open([[{"role": "user", "content": "What is 3 + 3?"}]], 2, 0, 1.0).reply()
    stats, norm = policy.step([Example(turn) for turn in turns], 2.0)
    assert ([stat.tokens for stat in stats], norm) == ([5, 5], 0.0)  # "1003" and the end
    with pytest.raises(ValueError, match="not finite"):
        policy.step([Example(turns[0], weight=float("nan"))], 1.0)
    policy.save(tmp_path / "state")
    other = Scripted(late).load()
    other.load(tmp_path / "state")
    assert (other.updates, other.seen) == (1, 2)
    other.restart()
    assert (other.updates, policy.updates) == (0, 1)
    (tmp_path / "state" / "scripted.json").write_text('{"updates": -1, "seen": 0}')
    with pytest.raises(ValueError, match=r"scripted\.json is no state"):
        other.load(tmp_path / "state")


def test_a_scripted_reply_is_its_bytes() -> None:
    for text in ("", "1003", "é 𝄞\n", "\ud800"):
        assert decode_reply(encode_reply(text)) == text


def test_an_error_of_the_policy_at_load_is_an_error_of_the_checkpoint(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with pytest.raises(Stopped):
        run_experiment(experiment_of(), experiment_of().policy.load(), store, Watcher(2))
    path = next(tmp_path.glob("checkpoint*/scripted.json"))
    path.write_text("{")
    with pytest.raises(StoreError):
        run_experiment(experiment_of(), experiment_of().policy.load(), store, Watcher())
    assert path.read_text() == "{"


def test_the_verifier_of_these_tests_tells_right_from_wrong() -> None:
    assert [v.correct for v in grade_responses(check, [(PROBLEMS[3], "6"), (PROBLEMS[3], "7")])] == [True, False]
