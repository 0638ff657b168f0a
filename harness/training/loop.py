"""The loop that every row shares: evaluate, train phase by phase, evaluate again; stop and resume at any moment.

Every draw follows from the seed and its place (harness.seeds), so a checkpoint holds weights, optimiser state, position
and the examples still to be fitted, nothing else.
Above 300 lines because the loop, its evaluations and how it goes on after a stop are read together.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core import Credit, Display, Example, Phase, Policy, Problem, Task, Turn, Verdict
from harness.grading import GradingError, describe_error
from harness.runs.integrity import count_records, file_sha256
from harness.runs.schema import key_of
from harness.runs.store import (
    EVALUATED,
    FAILED_BATCH,
    RunStore,
    StoreError,
    dump_all,
    dump_json_line,
    read_jsonl,
    sync_to_disk,
    write_atomic,
)
from harness.seeds import derive_seed, epoch_indices
from harness.training.drafts import require_room
from harness.training.evaluate import PROBED, evaluate, expected_records, measure_midway, probe_second_attempts
from harness.training.evaluations import EvalSpec
from harness.training.experiment import Experiment, _check_examples
from harness.training.monitors import BonusFarming, rollout_metrics, update_metrics
from harness.training.rollout import sample_rollouts
from harness.training.spending import count_sampled, count_trained

COMMIT = "commit.json"


class Stopped(Exception):
    """The user (or the machine) asked for an end; everything up to here is saved."""


@dataclass
class Position:
    """How far a run has come; saved with every checkpoint.

    `counted` is False of a run that an older version began, which did not count tokens.
    """

    step: int = 0
    phase: int = 0
    phase_step: int = 0
    drawn: int = 0
    trajectories: int = 0
    responses: int = 0
    sampled_tokens: int = 0
    read_tokens: int = 0
    trained_tokens: int = 0
    flops: int = 0
    counted: bool = True
    seconds: float = 0.0
    pool: list[Example] = field(default_factory=list)

    def add(self, counts: Mapping[str, int]) -> None:
        """Adds to what was spent."""
        for name, count in counts.items():
            setattr(self, name, getattr(self, name) + count)

    @property
    def spent(self) -> dict[str, float]:
        """What run.json records as `spent`; `flops` as a float, since not every JSON reader has larger integers."""
        names = ("trajectories", "responses", *(TOKENS if self.counted else ()))
        told = {**{name: getattr(self, name) for name in names}, "updates": self.step}
        return told | ({"flops": float(self.flops)} if self.counted else {})


@dataclass(frozen=True)
class Allowance:
    """What a phase's updates need to know of budgets.

    Attributes:
        most: What may be spent, in the experiment's currency, until the phase ends; inf without a limit.
        parameters: Of the policy's model, without embeddings; 0 where it has none.
    """

    most: float
    parameters: int


TOKENS = ("sampled_tokens", "read_tokens", "trained_tokens", "flops")  # newer than the other counts


def run_experiment(experiment: Experiment, policy: Policy, store: RunStore, display: Display) -> None:
    """Runs an experiment in its opened store, from its last checkpoint or from the start: trains, evaluates, exports.

    Args:
        experiment: The settings, checked.
        policy: Loaded from the base model; a checkpoint's weights replace its own.
        store: Opened and locked; steps that are newer than its last checkpoint are dropped.
        display: Shows the progress.
    """
    _check_prompt_lengths(experiment, policy)
    phases = experiment.phases()
    found = policy.ranks.run_on_rank0(store.last_checkpoint)
    position = Position()
    if found:
        fields, folder = found
        position = _restored(fields, experiment, phases, folder)
        policy.ranks.run_on_all_ranks(lambda: _load(policy, folder))
    if experiment.gradient_probe_every and not hasattr(policy, "measure_gradient"):
        raise ValueError("run.gradient_probe_every needs a policy that has a gradient (measure_gradient)")
    if experiment.budget_in == "flops" and not _parameters(policy):
        raise ValueError("run.budget_in = 'flops' needs a policy that tells engine.parameters_without_embeddings")
    policy.ranks.run_on_rank0(lambda: store.drop_steps_after(position.step))
    with _Interrupts(policy.ranks.any_rank) as interrupts:
        if experiment.evaluate_before or not phases:
            _evaluate(experiment, policy, store, display, "before", interrupts, fresh=found is None)
        _train(experiment, phases, policy, store, display, position, interrupts)
        if phases:
            _evaluate(experiment, policy, store, display, "after", interrupts)
        for evaluation in experiment.evaluations:
            _evaluate(experiment, policy, store, display, _end(phases), interrupts, evaluation)
        if phases:
            policy.export(store.folder / "model")
        cut_prompts = sum(policy.ranks.all_gather_object(lambda: policy.cut_prompts))
        store.update_run_json(
            spent=position.spent,
            training_seconds=round(position.seconds, 3),
            cut_prompts=cut_prompts,
            **policy.ranks.run_on_rank0(lambda: _count_whole(experiment, phases, store, position)),
        )


def _count_whole(
    experiment: Experiment, phases: Sequence[Phase], store: RunStore, position: Position
) -> dict[str, dict[str, Any]]:
    """`records` and `sha256` of a run at its end, after making sure that nothing of it is missing.

    Raises:
        StoreError: records, steps or the configuration are not what the run has written.
    """
    asked = [("before", experiment.greedy_evaluation)] if experiment.evaluate_before or not phases else []
    asked += [("after", experiment.greedy_evaluation)] if phases else []
    asked += [(_end(phases), evaluation) for evaluation in experiment.evaluations]
    total = 0
    for when, evaluation in asked:
        for task in experiment.tasks_of(evaluation):
            wanted = len(expected_records(task, evaluation))
            if (there := _written(store, task, when, evaluation)) < wanted:
                raise StoreError(
                    f"{store.folder / 'eval.jsonl'} holds {there} of {wanted} records of the evaluation "
                    f"{_told(task, when, evaluation)!r}: it was removed or changed while the run went on"
                )
            total += wanted
    records = store.sound_records()
    if len(records) != total:
        raise StoreError(f"{store.folder / 'eval.jsonl'} holds {len(records)} records, {total} were written")
    store.check_whole(position.step)
    (store.folder / FAILED_BATCH).unlink(missing_ok=True)  # of an earlier start, which was then mended
    return {"records": count_records(records), "sha256": store.file_hashes()}


def _parameters(policy: Policy) -> int:
    """Of the policy's model, without embeddings; 0 where it has none."""
    return policy.describe().get("parameters_without_embeddings", 0)


def _restored(fields: Mapping[str, Any], experiment: Experiment, phases: Sequence[Phase], folder: Path) -> Position:
    """A checkpoint's position.

    Raises:
        StoreError: it is no position in these phases.
    """
    if not any(name in fields for name in (*TOKENS, "counted")):
        fields = {**fields, **dict.fromkeys(TOKENS, 0), "counted": False}
    try:
        if fields.keys() != (names := {f.name for f in dataclasses.fields(Position)}):
            raise ValueError(f"its entries are {sorted(fields)}, not {sorted(names)}")
        position = Position(**{**fields, "pool": [_example(item) for item in fields["pool"]]})
        for name in ("step", "phase", "phase_step", "drawn", "trajectories", "responses", *TOKENS):
            if not isinstance(value := getattr(position, name), int) or value < 0:
                raise ValueError(f"{name} is {value!r}")
        steps = [*(phase.steps for phase in phases), 0][position.phase]
        place = sum(p.steps for p in phases[: position.phase]) + position.phase_step
        # With a limit on what is spent, phases may have ended before their last update.
        early = experiment.budget_limit is not None and position.phase_step <= position.step < place
        if position.phase_step > steps or not (place == position.step or early):
            raise ValueError(
                f"update {position.phase_step} of phase {position.phase + 1} is not update {position.step} of the run"
            )
        if not position.seconds >= 0:
            raise ValueError(f"seconds is {position.seconds!r}")
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise StoreError(f"{folder / 'position.json'} is no place in this run: {error}") from error
    return position


def _load(policy: Policy, folder: Path) -> None:
    try:
        policy.load(folder)
    except Exception as error:  # torch and pickle raise many kinds for a file that is no checkpoint
        raise StoreError(f"{folder} cannot be loaded: {type(error).__name__}: {error}") from error


def _check_prompt_lengths(experiment: Experiment, policy: Policy) -> None:
    """Finds a conversation that the limits of length may not hold now, not after hours of work.

    Of further evaluations with more attempts than are trained only as many are counted: replies there are seldom as
    long as they may be, and an attempt that finds no room counts as truncated.
    """
    dialogue, turns = experiment.dialogue, max((phase.turns for phase in experiment.phases()), default=0)
    looks = [EvalSpec(split) for split in (PROBED if experiment.probe_every else ())]
    looks += [experiment.midway] if experiment.evaluate_every else []
    asked = [(experiment.task, experiment.task.train, turns, 0)] if turns else []
    for evaluation in (experiment.greedy_evaluation, *experiment.evaluations, *looks):
        attempts = min(evaluation.attempts, max(turns, experiment.attempts))
        further = len(dialogue.plan(evaluation.attempts)) - len(dialogue.plan(attempts))
        asked += [
            (task, evaluation.select_problems(task), attempts, further) for task in experiment.tasks_of(evaluation)
        ]
    for task, problems, attempts, further in asked:

        def measure(
            part: Sequence[Problem], _: int, task: Task = task, attempts: int = attempts, further: int = further
        ) -> list[None]:
            for p in part:
                plan = dialogue.plan(attempts)
                asks = [dialogue.ask(task, p, [""] * n) for n in range(1, len(plan))]
                # With turns that are no attempt between them, attempts before the last one count at their longest.
                counted = attempts if all(plan) else attempts - 1
                policy.require_room(task.chat(p, []), asks, p.given, counted, further)
            return []

        policy.ranks.shard_map(measure, problems)
    for evaluation in experiment.evaluations:
        if evaluation.control:
            for task in experiment.tasks_of(evaluation):
                require_room(policy, task, dialogue, evaluation)


def _train(
    experiment: Experiment,
    phases: Sequence[Phase],
    policy: Policy,
    store: RunStore,
    display: Display,
    position: Position,
    interrupts: _Interrupts,
) -> None:
    log = policy.ranks.run_on_rank0(lambda: read_jsonl(store.folder / "metrics.jsonl")[0])
    parameters = _parameters(policy)
    farming = BonusFarming(log)
    saved = position.step
    while position.phase < len(phases):
        phase = phases[position.phase]
        display.phase(phase.name, phase.steps, position.phase_step)
        allowed = Allowance(experiment.spendable(phases, position.phase), parameters)
        while position.phase_step < phase.steps and not _is_over(experiment, phase, position, allowed.most):
            started = time.monotonic()
            line = _step(experiment, phase, _adapted(phase, log), policy, position, store, allowed)
            position.seconds += time.monotonic() - started
            if experiment.probe_every and position.step % experiment.probe_every == 0:
                line |= probe_second_attempts(
                    policy, experiment.task, experiment.dialogue, experiment.probe_problems, experiment.verifier_seconds
                )
            if experiment.evaluate_every and position.step % experiment.evaluate_every == 0:
                line |= measure_midway(
                    policy, experiment.task, experiment.dialogue, experiment.midway, experiment.verifier_seconds
                )
                line |= {f"spent_{name}": count for name, count in position.spent.items()}
            line["trajectories_per_second"] = position.trajectories / position.seconds
            line["bonus_farming"] = farming.update_flag(line)
            store.append_step(line)
            log.append(line)
            display.advance(line)
            stop = interrupts.come()
            if position.step - saved >= experiment.checkpoint_every or stop:
                _checkpoint(store, policy, position)
                saved = position.step
            if stop:
                raise Stopped
        position.phase, position.phase_step, position.pool = position.phase + 1, 0, []
    if position.step > saved:
        _checkpoint(store, policy, position)


def _is_over(experiment: Experiment, phase: Phase, position: Position, most: float) -> bool:
    """Whether a phase ends before its last update, because what may be spent until its end is spent.

    Samples that were drawn are fitted first: only where trained tokens are the currency does each update count alone.
    """
    fitted = experiment.budget_in == "trained_tokens" or position.phase_step % phase.refresh_every == 0
    return fitted and getattr(position, experiment.budget_in) >= most


def _adapted(phase: Phase, log: Sequence[dict[str, Any]]) -> Credit:
    """The credit of a phase's next update."""
    if not phase.adapt:
        return phase.credit
    try:
        return phase.adapt([past for past in log if past["phase"] == phase.name])
    except Exception as error:  # a plugin's method may raise anything
        raise ValueError(f"phase {phase.name!r} could not adapt its credit: {describe_error(error)}") from error


def _credited(phase: Phase, credit: Credit, groups: Sequence[Any]) -> list[Example]:
    try:
        return list(credit(groups))
    except Exception as error:  # as above
        raise ValueError(f"phase {phase.name!r} could not credit its samples: {describe_error(error)}") from error


@contextlib.contextmanager
def _kept_when_broken(store: RunStore, phase: Phase, update: int, examples: Sequence[Example]) -> Iterator[None]:
    """Keeps what an update broke on in failed_batch.json, for a replay, and tells where it was."""
    try:
        yield
    except ValueError as error:
        told: dict[str, Any] = {"update": update, "phase": phase.name, "error": f"{type(error).__name__}: {error}"}
        if isinstance(error, GradingError):
            told |= {"problem": error.problem, "text": error.text}
        with contextlib.suppress(OSError):  # a full disk must not hide the error itself
            store.keep_failed_batch({**told, "examples": [dataclasses.asdict(example) for example in examples]})
        error.add_note(f"at update {update}, phase {phase.name}; what it broke on is in {FAILED_BATCH}")
        raise


def _step(
    experiment: Experiment, phase: Phase, credit: Credit, policy: Policy, position: Position, store: RunStore,
    allowed: Allowance,
) -> dict[str, Any]:  # fmt: skip
    """One gradient update, after fresh samples where the phase wants them."""
    update, examples = position.step + 1, []
    with _kept_when_broken(store, phase, update, examples):
        line = _update(experiment, phase, credit, policy, position, examples, allowed)
        for key, value in line.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"update {update}: {key} is {value}")
    return line


def _update(
    experiment: Experiment,
    phase: Phase,
    credit: Credit,
    policy: Policy,
    position: Position,
    batch: list[Example],
    allowed: Allowance,
) -> dict[str, Any]:
    """The update's line of the log; puts what is trained on into `batch` before anything can break on it.

    No further batch is sampled once what is allowed is spent.
    """
    budget, task = experiment.budget, experiment.task
    line: dict[str, Any] = {"phase": phase.name, "step": position.step + 1, "phase_step": position.phase_step + 1}
    groups: list[Any] = []
    if position.phase_step % phase.refresh_every == 0:
        updates = min(phase.refresh_every, phase.steps - position.phase_step)
        chosen = epoch_indices(experiment.seed, "problems", len(task.train), position.drawn, updates * budget.problems)
        for i in range(0, len(chosen), budget.problems):
            if i and getattr(position, experiment.budget_in) >= allowed.most:
                break
            drawn = chosen[i : i + budget.problems]
            sampled = sample_rollouts(
                policy,
                task,
                experiment.dialogue,
                [task.train[j] for j in drawn],
                samples=budget.trajectories_per_problem(phase.turns),
                attempts=phase.turns,
                offline_share=phase.given_share,
                # By the batch's place in training: a resumed run draws what an unbroken one does.
                seed=derive_seed(experiment.seed, "rollout", position.step + i // budget.problems),
                temperature=policy.temperature,
                verifier_seconds=experiment.verifier_seconds,
            )
            groups += sampled
            position.drawn += len(drawn)
            position.add(count_sampled(sampled, allowed.parameters))
        position.pool = _credited(phase, credit, groups)
        batch += position.pool  # for failed_batch.json, should the check fail
        _check_examples(phase, position.pool)
        batch.clear()
        random.Random(derive_seed(experiment.seed, "shuffle", position.step)).shuffle(position.pool)
        line |= rollout_metrics(groups)
        if phase.restart and position.phase_step == 0:
            policy.restart()
    on_policy = phase.refresh_every == 1
    examples = policy.encoded(position.pool if on_policy else _minibatch(position.pool, phase, position.phase_step))
    denominator = {
        "trajectory": budget.problems * budget.trajectories_per_problem(phase.turns),
        "example": len(examples),
        "token": sum(len(example.turn.tokens) for example in examples),  # targets set as text are encoded above
    }[phase.mean_over] or 1  # no example to fit, then only measured ones
    batch += _measured(groups, examples) if on_policy else examples
    if batch:
        # After a restart the samples come from other weights than those that change now: no check of log-probabilities.
        restarted = phase.restart and position.phase_step == 0
        if experiment.gradient_probe_every and (position.step + 1) % experiment.gradient_probe_every == 0:
            line |= policy.measure_gradient(batch, denominator)  # type: ignore[attr-defined]  # run_experiment has asked for it
        stats, norm = policy.step(batch, denominator, fresh=on_policy and not restarted)
        line |= update_metrics(groups if on_policy else [], batch, stats) | {"grad_norm": norm}
        position.add(count_trained(batch, allowed.parameters))
        line["loss_nll"] = -sum(e.weight * s.logprob for e, s in zip(batch, stats, strict=True)) / denominator
    else:
        line |= {"examples": 0}
    position.step += 1
    position.phase_step += 1
    if on_policy:
        position.pool = []
    return line


def _measured(groups: Sequence[Any], examples: Sequence[Example]) -> list[Example]:
    """The examples, and with weight 0 every other on-policy attempt, so that its KL is logged as well."""
    present = {id(example.turn) for example in examples}
    rest = (turn for group in groups for t in group for turn in t.attempts if turn.by == "policy")
    return [*examples, *(Example(turn, 0.0, 0.0) for turn in rest if id(turn) not in present)]


def _minibatch(pool: Sequence[Example], phase: Phase, phase_step: int) -> list[Example]:
    """The pool is fitted in one pass of `refresh_every` nearly equal parts; a smaller pool is gone round again."""
    number = phase_step % phase.refresh_every
    updates = min(phase.refresh_every, phase.steps - (phase_step - number))
    if not pool:
        return []
    if len(pool) < updates:
        return [pool[number % len(pool)]]
    begin, end = (len(pool) * i // updates for i in (number, number + 1))
    return list(pool[begin:end])


def _evaluate(
    experiment: Experiment,
    policy: Policy,
    store: RunStore,
    display: Display,
    when: str,
    interrupts: _Interrupts,
    evaluation: EvalSpec | None = None,
    fresh: bool = True,
) -> None:
    """Writes what is missing of one evaluation; keeps what whole batches an interrupted one has left."""
    evaluation = evaluation or experiment.greedy_evaluation
    for task in experiment.tasks_of(evaluation):
        done = policy.ranks.run_on_rank0(lambda task=task: _written(store, task, when, evaluation, last=True))
        total = len(expected_records(task, evaluation))
        if done >= total:
            continue
        if not fresh:
            raise StoreError(f"{store.folder}: the evaluation before training is lost and the model has moved on")
        display.phase(" ".join(filter(None, ("evaluate", task.name, str(evaluation), when))), total, done)

        def record(lines: Sequence[dict[str, Any]]) -> None:
            store.append_records(lines)
            display.advance(count=len(lines))
            if interrupts.come():
                raise Stopped

        evaluate(
            policy, task, experiment.dialogue, evaluation, when=when, seed=experiment.seed, done=done,
            verifier_seconds=experiment.verifier_seconds, record=record,
        )  # fmt: skip


def _written(store: RunStore, task: Task, when: str, evaluation: EvalSpec, last: bool = False) -> int:
    """How many records of this evaluation are written: always the first ones, in order.

    Args:
        last: Whether an evaluation that is not finished must end the file, as the next record goes behind it.

    Raises:
        StoreError: records are missing, doubled or in another order: the file was changed by something else.
    """
    records, path = store.sound_records(), store.folder / "eval.jsonl"
    mine = [
        i
        for i, r in enumerate(records)
        if r["when"] == when and r["task"] == task.name and evaluation.matches_record(r)
    ]
    wanted = expected_records(task, evaluation)
    for place, i in enumerate(mine):
        found = records[i]["id"], records[i]["sample"]
        if place >= len(wanted) or found != wanted[place]:
            there = f"problem {wanted[place][0]!r}, sample {wanted[place][1]}" if place < len(wanted) else "its end"
            raise StoreError(
                f"{path}, line {i + 1}: problem {found[0]!r}, sample {found[1]}, where the evaluation "
                f"{_told(task, when, evaluation)!r} has {there}: records were lost or moved. Nothing was changed"
            )
    if last and mine and len(mine) < len(wanted) and mine[-1] != len(records) - 1:
        raise StoreError(
            f"{path}: the evaluation {_told(task, when, evaluation)!r} ends at line {mine[-1] + 1} with {len(mine)} of "
            f"{len(wanted)} records, and others follow: records were lost. Nothing was changed"
        )
    return len(mine)


def _told(task: Task, when: str, evaluation: EvalSpec) -> str:
    return " ".join(filter(None, (when, task.name, str(evaluation))))


def _end(phases: Sequence[Phase]) -> str:
    """When a run's further evaluations are asked: after training, where there is any."""
    return "after" if phases else "before"


def add_evaluations(
    experiment: Experiment, policy: Policy, store: RunStore, display: Display, config: str, entry: Mapping[str, Any]
) -> int:
    """Adds the experiment's further evaluations to a run that is done; what it has already stays as it is.

    They are collected beside eval.jsonl, in `evaluating/`, where an interrupted supplement is resumed. Once they are
    whole, `commit.json` there records what the run will be; from then on `finish_supplement` can put it in place,
    however often it is killed.

    Args:
        policy: The trained policy.
        config: The whole configuration as text: what an interrupted supplement must agree with to go on.
        entry: What run.json's `supplements` is to say of it, besides how many records came.

    Returns:
        Records added.

    Raises:
        StoreError: an interrupted supplement of another configuration lies there.
        Stopped: interrupted.
    """
    when, beside = _end(experiment.phases()), RunStore(store.folder / "evaluating")
    there = store.sound_records()
    if beside.folder.is_dir() and beside.saved_config not in (None, config):
        raise StoreError(
            f"{beside.folder} holds an interrupted supplement of another config: finish that, or remove it"
        )
    missing = [e for e in experiment.evaluations if not any(r["when"] == when and e.matches_record(r) for r in there)]
    if missing:
        beside.folder.mkdir(exist_ok=True)
        beside.save_config(config)
    with _Interrupts(policy.ranks.any_rank) as interrupts:
        for evaluation in missing:
            _evaluate(experiment, policy, beside, display, when, interrupts, evaluation)
    known = count_records(there)
    added = [record for record in beside.read_records() if key_of(record).label not in known]
    if added:
        sync_to_disk(beside.folder / "eval.jsonl")
        path = store.folder / "eval.jsonl"
        commit = {
            "records": added,
            "before": file_sha256(path),
            "after": hashlib.sha256(path.read_bytes() + dump_all(added)).hexdigest(),
            "supplements": [*store.info.get("supplements", []), {**entry, "records": len(added)}],
        }
        write_atomic(beside.folder / COMMIT, dump_json_line(commit))
        finish_supplement(store)
    elif beside.folder.is_dir():
        _remove_whole(beside.folder, store)
    return len(added)


def finish_supplement(store: RunStore) -> None:
    """Puts a supplement that is whole in its place, or ends one that was killed on the way; else does nothing.

    First eval.jsonl, then run.json, then `evaluating/` goes, under another name at once, so that nobody takes what is
    left of it for an interrupted supplement. Each step can be done again.

    Raises:
        StoreError: eval.jsonl is neither what it was before the supplement nor what it is to be.
    """
    path = store.folder / "evaluating" / COMMIT
    if not path.exists():
        return
    try:
        commit = json.loads(path.read_text(encoding="utf-8"))
        added, before, after, supplements = (commit[key] for key in ("records", "before", "after", "supplements"))
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error}): remove {path.parent} and ask again") from error
    found = file_sha256(store.folder / "eval.jsonl")
    if found not in (before, after):
        raise StoreError(
            f"{store.folder / 'eval.jsonl'} was changed by something else while a supplement was interrupted "
            f"(its SHA-256 differs). Nothing was changed; put back a whole copy, or remove {path.parent}"
        )
    if found == before:
        store.add_records(added)
    fields: dict[str, Any] = {"supplements": supplements}
    if "sha256" in store.info:  # else the run is of before these were recorded
        fields["records"] = count_records(store.read_records())
        fields["sha256"] = {**store.info["sha256"], "eval.jsonl": after}
    store.update_run_json(**fields)
    _remove_whole(path.parent, store)


def _remove_whole(folder: Path, store: RunStore) -> None:
    folder.rename(store.folder / EVALUATED)
    shutil.rmtree(store.folder / EVALUATED)


def _checkpoint(store: RunStore, policy: Policy, position: Position) -> None:
    fields = {f.name: getattr(position, f.name) for f in dataclasses.fields(position)}
    store.write_checkpoint({**fields, "pool": [dataclasses.asdict(e) for e in position.pool]}, policy.save)


def _example(item: dict[str, Any]) -> Example:
    turn = item["turn"]
    verdict = Verdict(**turn["verdict"])
    tuples = {name: tuple(turn[name]) for name in ("context", "tokens", "logprobs")}
    return Example(**{**item, "turn": Turn(**{**turn, **tuples, "verdict": verdict})})


class _Interrupts:
    """Turns the first Ctrl-C or SIGTERM into a clean stop at the next safe place; the second acts at once.

    Args:
        agree: Tells whether a flag is up in any process of the run.
    """

    def __init__(self, agree: Callable[[bool], bool]) -> None:
        self.asked, self._agree = False, agree
        self._old: dict[int, Any] = {}

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def come(self) -> bool:
        """Whether an interrupt has come, in any process; asked in all of them at the same places."""
        return self._agree(self.asked)
