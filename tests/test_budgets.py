"""Budgets in every currency: exact counts, limits, equal counts after a kill, what tables say of older runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from test_scripted import PROBLEMS, Doubles, Watcher, late, opened

from harness.analysis.budgets import derive_sampled_tokens
from harness.core import Example, Trajectory, Turn, Verdict
from harness.policy.loss import merge_examples
from harness.runs import reader
from harness.training.dialogue import Intrinsic
from harness.training.experiment import Experiment
from harness.training.loop import Stopped, run_experiment
from harness.training.scripted import Scripted
from harness.training.spending import count_row_tokens, count_sampled, count_trained

OK = Verdict(1.0, True)


def turn(context: int, tokens: int, **more: Any) -> Turn:
    return Turn(tuple(range(context)), tuple(range(context, context + tokens)), "", OK, **more)


def test_counts_of_a_conversation_worked_by_hand() -> None:
    """A prompt of 10, a reply of 3, an instruction of 4, a reply of 2; 100 parameters."""
    own = Trajectory(PROBLEMS[0], (turn(10, 3), turn(17, 2, index=1)))
    assert count_sampled([[own]], 100) == {
        "trajectories": 1, "responses": 2, "sampled_tokens": 5, "read_tokens": 14, "flops": 2 * 100 * 19,
    }  # fmt: skip
    offline = Trajectory(PROBLEMS[0], (turn(10, 3, by="reference"), turn(17, 2, index=1)))
    assert count_sampled([[offline]], 100)["flops"] == 2 * 100 * (19 + 13)
    given = Trajectory(PROBLEMS[0], (turn(10, 3, by="given"), turn(17, 2, index=1)))
    assert count_sampled([[given, given]], 100) == {
        "trajectories": 2, "responses": 2, "sampled_tokens": 4, "read_tokens": 34, "flops": 2 * 2 * 100 * 19,
    }  # fmt: skip


def test_an_update_counts_what_has_a_gradient_and_what_is_read() -> None:
    first, second = turn(10, 3), turn(17, 2, index=1)  # one row of 19 tokens
    batch = [Example(first, 0.0, 0.0), Example(second, -1.0, 0.0)]
    assert count_trained(batch, 100) == {"trained_tokens": 2, "flops": 8 * 100 * 19}
    assert count_trained([Example(first, 0.0, 0.1), Example(second, 1.0)], 100)["trained_tokens"] == 5
    elsewhere = Turn((7, 7), (8,), "", OK)
    examples = [*batch, Example(elsewhere), Example(elsewhere), Example(Turn((1,), (), "", OK, truncated=True))]
    assert count_row_tokens(examples) == sum(len(row.ids) for row in merge_examples(examples)) == 22


def experiment_of(**more: Any) -> Experiment:
    from methods.score import SCoRe

    usual: dict[str, Any] = {"steps": 6, "problems": 3, "samples": 2, "checkpoint_every": 2}
    return Experiment(
        name="row", method=SCoRe(), task=Doubles(), policy=Scripted(late), dialogue=Intrinsic(), **{**usual, **more}
    )


def ran(folder: Path, experiment: Experiment, stop_at: int | None = None) -> dict[str, Any]:
    """run.json of a run; with `stop_at` it was interrupted after that update and resumed."""
    for at in (stop_at, None) if stop_at else (None,):
        store = opened(folder)
        try:
            run_experiment(experiment, experiment.policy.load(), store, Watcher(at))
        except Stopped:
            assert at
        store.release_lock()
    return json.loads((folder / "run.json").read_text())


def steps(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_counts_are_exact_and_survive_a_stop(tmp_path: Path) -> None:
    whole = ran(tmp_path / "whole", experiment_of())["spent"]
    logged = sum(6 * (line["length_t1"] + line["length_t2"]) for line in steps(tmp_path / "whole"))
    assert whole["sampled_tokens"] == pytest.approx(logged, abs=1e-9)
    assert (whole["trajectories"], whole["responses"], whole["updates"]) == (36, 72, 6)
    assert whole["read_tokens"] > 36 * len("user: What is 0 + 0?\n")
    assert 0 < whole["trained_tokens"] <= whole["sampled_tokens"]
    assert whole["flops"] == 0  # a script has no parameters
    for stop_at in (1, 3, 4):
        assert ran(tmp_path / f"stop{stop_at}", experiment_of(), stop_at)["spent"] == whole


@pytest.mark.parametrize("currency", ["responses", "sampled_tokens", "trained_tokens"])
def test_training_ends_after_the_update_that_reaches_the_limit(currency: Any, tmp_path: Path) -> None:
    free = ran(tmp_path / "free", experiment_of(steps=30))["spent"]
    limit = free[currency] // 3
    bound = experiment_of(steps=30, budget_in=currency, budget_limit=limit)
    spent = ran(tmp_path / "bound", bound)["spent"]
    assert spent[currency] >= limit > spent[currency] - free[currency] / 30 * 2  # at most about an update more
    assert spent["updates"] < 30
    phases = [line["phase"] for line in steps(tmp_path / "bound")]
    assert len(set(phases)) == 2  # both phases have had their share
    assert ran(tmp_path / "stopped", bound, stop_at=len(phases) - 2)["spent"] == spent
    assert ran(tmp_path / "early", bound, stop_at=phases.count(phases[0]))["spent"] == spent


def test_a_row_that_samples_at_once_stops_sampling_at_the_limit(tmp_path: Path) -> None:
    from methods.sft import SFTSelf

    experiment = dataclasses.replace(experiment_of(), method=SFTSelf())
    whole = ran(tmp_path / "whole", experiment)["spent"]
    half = dataclasses.replace(experiment, budget_limit=whole["responses"] / 2)
    spent = ran(tmp_path / "half", half)["spent"]
    assert (spent["responses"], spent["updates"]) == (whole["responses"] // 2, 6)  # what was drawn is fitted


def test_without_a_limit_nothing_changes(tmp_path: Path) -> None:
    ran(tmp_path / "a", experiment_of())
    ran(tmp_path / "b", experiment_of(budget_limit=10**9))
    assert (tmp_path / "a" / "eval.jsonl").read_bytes() == (tmp_path / "b" / "eval.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"budget_in": "tokens", "budget_limit": 5}, "run.budget_in is one of"),
        ({"budget_in": "flops"}, "needs run.budget_limit"),
        ({"budget_limit": 0}, "above 0"),
        ({"budget_limit": True}, "above 0"),
        ({"budget_limit": float("nan")}, "above 0"),
        ({"budget_limit": "5"}, "above 0"),
    ],
)
def test_an_impossible_limit_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        experiment_of(**wrong)


def test_flops_need_a_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="parameters_without_embeddings"):
        ran(tmp_path, experiment_of(budget_in="flops", budget_limit=1e9))


def test_a_checkpoint_of_before_these_counts_goes_on_without_them(tmp_path: Path) -> None:
    from harness.runs.store import RunStore
    from harness.training.loop import TOKENS

    experiment = experiment_of()
    store = opened(tmp_path)
    with pytest.raises(Stopped):
        run_experiment(experiment, experiment.policy.load(), store, Watcher(4))
    found = store.last_checkpoint()
    assert found
    fields, folder = found
    from harness.training.loop import _restored

    old = {key: value for key, value in fields.items() if key not in (*TOKENS, "counted")}
    position = _restored(old, experiment, experiment.phases(), folder)
    assert set(position.spent) == {"trajectories", "responses", "updates"}
    store.release_lock()
    assert isinstance(store, RunStore)


def test_tables_show_what_was_spent_and_derive_it_for_older_runs(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent / "results" / "embedded"
    runs, _ = reader.read_runs(root, whens=("after",))
    held = {(run.name, run.seed): run for run in runs}
    run = held["score_full", 0]
    expected = round(sum(256 * (line["length_t1"] + line["length_t2"]) for line in run.read_steps()))
    assert derive_sampled_tokens(run) == expected
    single = held["single_turn_rl", 0]
    assert derive_sampled_tokens(single) == round(sum(512 * line["length_t1"] for line in single.read_steps()))
    other = dataclasses.replace(run, info={**run.info, "spent": {**run.info["spent"], "responses": 5}})
    assert derive_sampled_tokens(other) is None
