"""Every row, for a few steps on the embedded model; the supervised rows' credit by hand."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from factories import trajectory

from harness import config
from harness.core import Budget, Message, Problem, Trajectory
from harness.run import main
from harness.runs.store import RunStore, read_jsonl
from harness.seeds import derive_seed
from harness.training.experiment import Experiment
from harness.training.loop import Stopped, run_experiment
from harness.training.scripted import Scripted
from methods.pair_sft import PairSFT
from methods.score import Phase1, SCoRe
from methods.sft import SFTOracle, SFTSelf, corrections
from methods.single_turn_rl import SecondAsFirst, SingleTurn
from methods.star import STaR

ROWS = sorted(path.stem for path in (config.ROOT / "gin").glob("*.gin"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_every_row_runs_each_phase_and_spends_the_same_budget(name: str, tmp_path: Path) -> None:
    bindings = [
        "run.steps = 10", "run.problems = 4", "run.samples = 2", "arithmetic.test_size = 12", "hf.max_new_tokens = 24",
    ]  # fmt: skip
    words = [word for binding in bindings for word in ("--bind", binding)]
    assert main(["--gin", f"gin/{name}.gin", "--out", str(tmp_path), "--device", "cpu", *words]) == 0
    folder = next(tmp_path.rglob("run.json")).parent
    info = json.loads((folder / "run.json").read_text())
    assert (info["name"], info["status"]) == (name, "done")
    records = (folder / "eval.jsonl").read_text().splitlines()
    if name in ("base", "self_refine"):
        assert len(records) == 12
        assert set(info["spent"].values()) == {0}
        assert ("extra_tokens" in records[0]) == (name == "self_refine")  # the feedback is paid for, not graded
        return
    assert len(records) == 24
    assert (info["spent"]["responses"], info["spent"]["updates"]) == (10 * 4 * 2 * 2, 10)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    phases = Counter(line["phase"] for line in lines)
    assert min(phases.values()) >= 2
    assert list(phases) == [phase.name for phase in config.build_root("run").phases()]


def answer_by_chance(chat: Sequence[Message], updates: int) -> str:
    """The script of a policy that is right in two of three replies; other conversations, other luck."""
    a, b, c = map(int, re.findall(r"\d+", chat[0]["content"])[:3])
    return rf"\boxed{{{a * b + c + (derive_seed(updates, json.dumps(chat)) % 3 == 0)}}}"


@pytest.mark.parametrize("name", ROWS)
def test_every_row_runs_each_phase_on_a_scripted_policy(name: str, tmp_path: Path) -> None:
    """The same of a policy without a model: what the loop and the methods do, in a moment."""
    config.prepare_gin(Experiment, "run")
    small = ["run.steps = 10", "run.problems = 4", "run.samples = 2", "arithmetic.test_size = 12"]
    config.parse_gin([f"gin/{name}.gin"], small)
    built: Experiment = config.build_root("run")
    experiment = dataclasses.replace(built, policy=Scripted(answer_by_chance))
    store = RunStore(tmp_path)
    store.acquire_lock()
    run_experiment(experiment, experiment.policy.load("cpu"), store, StopAt(None))
    store.release_lock()
    phases, steps = experiment.phases(), read_jsonl(tmp_path / "metrics.jsonl")[0]
    assert Counter(step["phase"] for step in steps) == {phase.name: phase.steps for phase in phases}
    trained = 10 * bool(phases)
    assert (store.info["spent"]["responses"], store.info["spent"]["updates"]) == (trained * 4 * 2 * 2, trained)
    records = store.read_records()
    assert Counter(record["when"] for record in records) == {"before": 12, **({"after": 12} if phases else {})}
    assert {attempt["correct"] for record in records for attempt in record["attempts"]} == {False, True}


@pytest.mark.parametrize("name", ["sft_oracle", "star"])
def test_a_supervised_phase_of_one_update_fits_what_it_has_just_sampled(name: str, tmp_path: Path) -> None:
    bindings = ["run.steps = 3" if name == "star" else "run.steps = 1", "run.problems = 8", "run.samples = 2"]
    bindings += ["arithmetic.test_size = 4", "hf.max_new_tokens = 24"]
    words = [word for binding in bindings for word in ("--bind", binding)]
    assert main(["--gin", f"gin/{name}.gin", "--out", str(tmp_path), "--device", "cpu", *words]) == 0
    lines = read_jsonl(next(tmp_path.rglob("metrics.jsonl")))[0]
    assert len(lines) == (3 if name == "star" else 1)
    assert all(line["grad_norm"] > 0 for line in lines if line["loss_nll"])
    if name == "sft_oracle":
        assert lines[0]["loss_nll"] > 0


RL = {
    "naive_multi_turn_rl": ["naive_multi_turn_rl.turns"],
    "score_full": ["score_phase1.turns", "score_phase2.turns"],
    "score_no_phase1": ["score_phase2.turns"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RL)
def test_any_rl_row_trains_and_is_evaluated_with_more_attempts(name: str, tmp_path: Path) -> None:
    bindings = [
        "run.steps = 2", "run.problems = 2", "run.samples = 3", "run.attempts = 4", "arithmetic.test_size = 6",
        "hf.max_new_tokens = 16", *(f"{turns} = 3" for turns in RL[name]),
    ]  # fmt: skip
    words = [word for binding in bindings for word in ("--bind", binding)]
    assert main(["--gin", f"gin/{name}.gin", "--out", str(tmp_path), "--device", "cpu", *words]) == 0
    folder = next(tmp_path.rglob("run.json")).parent
    assert json.loads((folder / "run.json").read_text())["spent"]["responses"] == 2 * 2 * 6
    assert {"acc_t3", "kl_t3"} <= set(json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1]))
    records = [json.loads(line) for line in (folder / "eval.jsonl").read_text().splitlines()]
    assert {len(record["attempts"]) for record in records} == {4}


class StopAt:
    """A display that presses Ctrl-C at one step."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def phase(self, text: str, total: int, done: int = 0) -> None: ...

    def advance(self, line: dict[str, Any] | None = None, count: int = 1) -> None:
        if line and line["step"] == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def test_an_adaptive_coefficient_is_a_function_of_the_log_so_a_resumed_run_takes_the_same(tmp_path: Path) -> None:
    config.prepare_gin(Experiment, "run")
    small = ["run.steps = 8", "run.problems = 4", "run.samples = 2", "arithmetic.test_size = 4", "hf.lr = 3e-3"]
    config.parse_gin(["gin/score_adaptive_kl.gin"], [*small, "hf.max_new_tokens = 24", "balanced.window = 2"])
    experiment: Experiment = config.build_root("run")
    lines = {}
    for name, stops in (("whole", [None]), ("parts", [2, 3, None])):
        for stop in stops:
            store = RunStore(tmp_path / name)
            store.acquire_lock()
            with contextlib.suppress(Stopped):
                run_experiment(experiment, experiment.policy.load("cpu"), store, StopAt(stop))
            store.release_lock()
        lines[name] = read_jsonl(tmp_path / name / "metrics.jsonl")[0]
    coefficients = [[line["kl_coefficient_t1"] for line in lines[name]] for name in ("whole", "parts")]
    assert coefficients[0] == coefficients[1]
    assert len(coefficients[0]) == 8
    assert len(set(coefficients[0][:3])) > 1  # it does move in Stage I
    assert set(coefficients[0][3:]) == {0.01}  # Stage II has beta1 alone


MENDED = trajectory(("x", False), ("a", True))
BROKEN = trajectory(("b", True), ("y", False))
KEPT = trajectory(("c", True), ("d", True))
LOST = trajectory(("z", False), ("w", False))
GROUP = [MENDED, BROKEN, KEPT, LOST]


def test_corrections_are_wrong_then_right() -> None:
    assert [e.turn for e in corrections([GROUP])] == [MENDED.turns[1]]
    assert corrections([[LOST], [KEPT], [BROKEN]]) == []


def test_sft_oracle_aims_at_the_solution_after_every_wrong_attempt() -> None:
    examples = SFTOracle().credit([GROUP])
    assert [(e.turn.text, e.turn.tokens, e.turn.context) for e in examples] == [
        ("the worked answer", (), MENDED.turns[1].context),
        ("the worked answer", (), LOST.turns[1].context),
    ]
    with pytest.raises(ValueError, match="'bare' has none"):
        SFTOracle().credit([[trajectory(("x", False), ("a", True), problem=Problem("bare", "q", "r"))]])


def test_pair_sft_pairs_wrong_first_attempts_with_any_right_response_of_the_problem() -> None:
    examples = PairSFT().credit([GROUP])
    assert [e.turn.context for e in examples] == [MENDED.turns[1].context, LOST.turns[1].context]
    assert {e.turn.text for e in examples} <= {"a", "b", "c", "d"}
    assert PairSFT().credit([GROUP]) == examples  # the random choice is a function of the data
    assert PairSFT().credit([[LOST]]) == []
    plus = PairSFT(right_share=1.0).credit([GROUP])
    assert len(plus) == 4


def test_star_keeps_corrections_and_in_d_plus_right_right_as_well() -> None:
    assert [e.turn for e in STaR().credit([GROUP])] == [MENDED.turns[1]]
    assert [e.turn for e in STaR(keep_right=True).credit([GROUP])] == [MENDED.turns[1], KEPT.turns[1]]
    phases = STaR().phases(Budget(10, 4, 2))
    assert [(p.steps, p.refresh_every, p.restart) for p in phases] == [(3, 3, True), (4, 4, True), (3, 3, True)]


ALL_RIGHT, ALL_WRONG = [KEPT, BROKEN], [LOST, LOST]


@pytest.mark.parametrize(
    ("credit", "all_right", "all_wrong", "one"),
    [
        (corrections, 0, 0, 1),
        (SFTOracle().credit, 0, 2, 1),
        (PairSFT().credit, 0, 0, 1),
        (PairSFT(right_share=1.0).credit, 2, 0, 1),
        (STaR().credit, 0, 0, 1),
        (STaR(keep_right=True).credit, 1, 0, 1),
    ],
)
def test_supervised_rows_at_the_edges(credit, all_right: int, all_wrong: int, one: int) -> None:
    """No wrong first attempt; no right answer at all; one sample."""
    assert len(credit([ALL_RIGHT])) == all_right
    assert len(credit([ALL_WRONG])) == all_wrong
    assert len(credit([[MENDED]])) == one
    assert len(credit([])) == 0


def credited(method: SFTSelf | SFTOracle | PairSFT | STaR, groups: list[list[Trajectory]], steps: int = 3) -> list:
    """(attempt, text, weight, kl) of every example of the method's first phase."""
    (phase, *_) = method.phases(Budget(steps, 4, 2))
    return [(e.turn.index, e.turn.text, e.weight, e.kl) for e in phase.credit(groups)]


def test_a_supervised_row_may_hold_attempt_one_or_fit_it_or_pass_several_times() -> None:
    mended = (1, "a", 1.0, 0.0)
    assert credited(SFTSelf(), [GROUP]) == [mended]
    held = [(0, text, 0.0, 0.2) for text in "xbcz"]  # of every trajectory, kept or not
    assert credited(SFTSelf(kl_first=0.2), [GROUP]) == [mended, *held]
    assert credited(SFTSelf(first_weight=0.5), [GROUP]) == [mended, (0, "x", 0.5, 0.0)]
    assert credited(SFTSelf(least_examples=2), [GROUP]) == [mended] * 6  # 2 targets for each of 3 updates
    assert credited(SFTSelf(least_examples=2, kl_first=0.2), [GROUP]) == [mended] * 6 + held
    assert credited(SFTSelf(least_examples=2), [[LOST]]) == []
    both = credited(STaR(rounds=1, keep_right=True, first_weight=1.0), [GROUP])
    assert both == [mended, (1, "d", 1.0, 0.0), (0, "x", 1.0, 0.0), (0, "c", 1.0, 0.0)]
    pairs = credited(PairSFT(first_weight=1.0), [GROUP])
    assert [(index, text) for index, text, *_ in pairs if index == 0] == [(0, "x"), (0, "z")]
    oracle = credited(SFTOracle(first_weight=1.0), [GROUP])
    assert [(index, text) for index, text, *_ in oracle if index == 0] == [(0, "x"), (0, "z")]
    with pytest.raises(ValueError, match="0 or more"):
        SFTSelf(least_examples=-1)


def test_second_attempts_become_first_ones_where_they_are_right_and_no_copy() -> None:
    copied = trajectory(("k", True), ("k", True))
    examples = SecondAsFirst(least_examples=2).credit([[*GROUP, copied]], updates=1)
    assert SecondAsFirst(least_examples=3).credit([[*GROUP, copied]], updates=1) == examples * 2
    assert [(e.turn.text, e.turn.tokens, e.turn.context, e.turn.index, e.weight, e.kl) for e in examples] == [
        ("a", MENDED.turns[1].tokens, MENDED.turns[0].context, 0, 1.0, 0.0),
        ("d", KEPT.turns[1].tokens, KEPT.turns[0].context, 0, 1.0, 0.0),
    ]
    phases = SCoRe((Phase1(share=2.0), SecondAsFirst(), SingleTurn())).phases(Budget(200, 4, 2))
    assert [(p.name, p.steps, p.turns) for p in phases] == [
        ("1_phase1", 80, 2), ("2_secondasfirst", 40, 2), ("3_singleturn", 80, 1),
    ]  # fmt: skip
    single = [[trajectory(("x", False)), trajectory(("a", True))]]
    assert [(e.weight, e.kl) for e in phases[2].credit(single)] == [(-1.0, 0.0), (1.0, 0.0)]
