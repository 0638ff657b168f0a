"""The loop that every row shares: evaluate, train phase by phase, evaluate again; stop and go on at any moment.

Every draw follows from the seed and its place (harness.seeds), so a checkpoint holds weights, optimiser state, position
and the examples still to be fitted, nothing else.
Above 300 lines because what is run, how it is checked beforehand and the loop itself are read together.
"""

from __future__ import annotations

import dataclasses
import math
import random
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from harness.core import Budget, Credit, Example, Method, Phase, Problem, Task, Trajectory, Turn, Verdict
from harness.dialogue import Dialogue
from harness.evaluate import PROBED, evaluate, expected, probe, whole
from harness.evaluations import Evaluation, Split
from harness.monitors import BonusFarming, of_examples, of_groups
from harness.rollout import rollout
from harness.seeds import derive, draw
from harness.store import RunStore, StoreError, read_jsonl

if TYPE_CHECKING:
    from harness.policy import HF
    from harness.policy.engine import Policy


class Stopped(Exception):
    """The user (or the machine) asked for an end; everything up to here is saved."""


class Display(Protocol):
    """Where progress is shown."""

    def phase(self, text: str, total: int, done: int = 0) -> None: ...
    def advance(self, line: dict[str, Any] | None = None, count: int = 1) -> None: ...


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the numbers of a run; gin builds it as `run`. Device and folders are no part of it.

    Attributes:
        name: The row: key in the results folder, name of its gin file.
        method: What spends the budget.
        task: Trained on.
        policy: The model.
        dialogue: How attempts are asked for.
        steps: Gradient updates, for all phases together.
        problems: Problems drawn for one update.
        samples: Trajectories sampled on each of them.
        eval_tasks: Evaluated on, before and after; the training task when empty.
        seed: Of every draw.
        attempts: Attempts in evaluation.
        evaluations: Further evaluations at the end (kind `evaluation`), beside the greedy one of the test split.
        evaluate_before: Whether the untrained model is evaluated as well (always, where nothing is trained).
        checkpoint_every: Updates between checkpoints.
        probe_every: Updates between looks at second attempts after own and after fixed first attempts; 0 is never.
        probe_problems: Training and validation problems looked at, that many of each.
    """

    name: str
    method: Method
    task: Task
    policy: HF
    dialogue: Dialogue
    steps: int
    problems: int
    samples: int
    eval_tasks: Sequence[Task] = ()
    seed: int = 0
    attempts: int = 2
    evaluate_before: bool = True
    checkpoint_every: int = 50
    evaluations: Sequence[Evaluation] = ()
    probe_every: int = 0
    probe_problems: int = 200

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.+-]+", self.name):
            raise ValueError(f"run.name {self.name!r} is no folder name: letters, digits, and . _ + - only")
        if self.attempts < 1 or self.checkpoint_every < 1:
            raise ValueError("run.attempts and run.checkpoint_every must be at least 1")
        trains = False
        for phase in self.phases():
            trains = True
            _rehearse(phase, self.budget)
        for task in self.evaluated:
            _require(task, "test")
        self._check_evaluations()
        if trains:
            _require(self.task, "train")
            if self.problems > len(self.task.train):
                raise ValueError(
                    f"run.problems = {self.problems} is more than the {len(self.task.train)} training problems "
                    f"of task {self.task.name!r}"
                )
        names = [task.name for task in self.evaluated]
        if len(set(names)) < len(names):
            raise ValueError(f"run.eval_tasks has two tasks of one name: {names}")

    def _check_evaluations(self) -> None:
        if self.probe_every < 0 or self.probe_problems < 1:
            raise ValueError("run.probe_every must be at least 0 and run.probe_problems at least 1")
        asked = [self.greedy, *self.evaluations]
        for i, evaluation in enumerate(asked):
            if evaluation.key in [other.key for other in asked[:i]]:
                raise ValueError(
                    f"run.evaluations asks twice for one evaluation ({str(evaluation) or 'greedy, test split'}): "
                    "their records could not be told apart"
                )
        splits: list[Split] = [*(e.split for e in asked[1:]), *(PROBED if self.probe_every else ())]
        for split in dict.fromkeys(splits):
            _require(self.task, split)
        fixed = self.probe_every or any(e.fixed_first for e in asked)
        if fixed and any(task.test[0].given for task in self.evaluated):
            raise ValueError("a repair task's first attempts are given: they cannot be the base model's as well")

    @property
    def greedy(self) -> Evaluation:
        """The evaluation that every run has, before and after training."""
        return Evaluation(attempts=self.attempts)

    def tasks_of(self, evaluation: Evaluation) -> Sequence[Task]:
        """What an evaluation is asked on: other splits than the test split are the training task's own."""
        return self.evaluated if evaluation.split == "test" else (self.task,)

    @property
    def budget(self) -> Budget:
        """What the row may spend."""
        return Budget(self.steps, self.problems, self.samples)

    @property
    def evaluated(self) -> Sequence[Task]:
        """The tasks evaluated on."""
        return self.eval_tasks or (self.task,)

    def folder(self, out: Path) -> Path:
        """Where the run's results live below `out`."""
        return out / self.task.name / self.policy.key / self.name / f"seed{self.seed}"

    def phases(self) -> Sequence[Phase]:
        """The method's phases, checked against the budget."""
        phases = self.method.phases(self.budget)
        names = [phase.name for phase in phases]
        if len(set(names)) < len(names):
            raise ValueError(f"the method of {self.name!r} names two phases alike: {names}")
        if phases and sum(phase.steps for phase in phases) != self.budget.steps:
            raise ValueError(
                f"the phases of {self.name!r} take {sum(phase.steps for phase in phases)} updates, "
                f"the budget has {self.budget.steps}: rows would not be comparable"
            )
        return phases


def _rehearse(phase: Phase, budget: Budget) -> None:
    """Runs a phase's credit on a small made-up batch, so that what it cannot work with is known before hours of work.

    Raises:
        ValueError: naming the phase.
    """

    def turn(problem: int, sample: int, index: int) -> Turn:
        right = (problem + sample + index) % 2 == 0
        return Turn((0,), (0,), "", Verdict(float(right), right), index=index, logprobs=(0.0,))

    samples = budget.trajectories(phase.turns)
    problem = Problem("rehearsal", "", "", solution="")
    groups = [
        [Trajectory(problem, tuple(turn(p, s, i) for i in range(phase.turns))) for s in range(samples)]
        for p in range(min(2, budget.problems))
    ]
    try:
        examples = phase.credit(groups)
    except Exception as error:  # the method may be a stranger's and raise anything
        raise ValueError(f"phase {phase.name!r} cannot use this budget: {error}") from error
    for example in examples:
        if not all(map(math.isfinite, (example.weight, example.kl))):
            raise ValueError(f"phase {phase.name!r} gave an example that is no finite number: {example}")


def _require(task: Task, part: Literal["train", "validation", "test"]) -> None:
    """Raises ValueError for an empty part, and for a row without an answer."""
    problems = getattr(task, part)
    if not len(problems):
        raise ValueError(f"task {task.name!r} has no {part} problems")
    for problem in problems:
        if not problem.answer.strip():
            raise ValueError(f"task {task.name!r}: {part} problem {problem.id!r} has no answer to grade by")


@dataclass
class Position:
    """How far a run has come; saved with every checkpoint."""

    step: int = 0
    phase: int = 0
    phase_step: int = 0
    drawn: int = 0
    trajectories: int = 0
    responses: int = 0
    seconds: float = 0.0
    pool: list[Example] = field(default_factory=list)


def execute(experiment: Experiment, policy: Policy, store: RunStore, display: Display) -> None:
    """Runs an experiment in its opened store from wherever the store says it stands."""
    _measure_prompts(experiment, policy)
    found = policy.ranks.first(store.last_checkpoint)
    position = Position()
    if found:
        fields, folder = found
        policy.load(folder)
        position = Position(**{**fields, "pool": [_example(item) for item in fields["pool"]]})
    store.rewind(position.step)
    with _Interrupts(policy.ranks.any) as interrupts:
        phases = experiment.phases()
        if experiment.evaluate_before or not phases:
            _evaluate(experiment, policy, store, display, "before", interrupts, fresh=found is None)
        _train(experiment, phases, policy, store, display, position, interrupts)
        if phases:
            _evaluate(experiment, policy, store, display, "after", interrupts)
        for evaluation in experiment.evaluations:
            _evaluate(experiment, policy, store, display, _end(phases), interrupts, evaluation)
        store.update(
            spent={
                "trajectories": position.trajectories,
                "responses": position.responses,
                "updates": position.step,
            },
            training_seconds=round(position.seconds, 3),
            cut_prompts=sum(policy.ranks.together(lambda: policy.cut_prompts)),
        )
        if phases:
            policy.export(store.folder / "model")


def _measure_prompts(experiment: Experiment, policy: Policy) -> None:
    """Finds a conversation that the limits of length may not hold now, not after hours of work.

    Of further evaluations with more attempts than are trained only as many are counted: replies there are seldom as
    long as they may be, and an attempt that finds no room counts as truncated.
    """
    dialogue, turns = experiment.dialogue, max((phase.turns for phase in experiment.phases()), default=0)
    looks = [Evaluation(split) for split in (PROBED if experiment.probe_every else ())]
    asked = [(experiment.task, experiment.task.train, turns)] if turns else []
    for evaluation in (experiment.greedy, *experiment.evaluations, *looks):
        attempts = min(evaluation.attempts, max(turns, experiment.attempts))
        asked += [(task, evaluation.chosen(task), attempts) for task in experiment.tasks_of(evaluation)]
    for task, problems, attempts in asked:

        def measure(part: Sequence[Problem], _: int, task: Task = task, attempts: int = attempts) -> list[None]:
            for p in part:
                plan = dialogue.plan(attempts)
                asks = [dialogue.ask(task, p, [""] * n) for n in range(1, len(plan))]
                # With turns that are no attempt between them, attempts before the last one count at their longest.
                policy.require_room(task.chat(p, []), asks, p.given, attempts if all(plan) else attempts - 1)
            return []

        policy.ranks.map(measure, problems)
    policy.cut_prompts = 0


def _train(
    experiment: Experiment,
    phases: Sequence[Phase],
    policy: Policy,
    store: RunStore,
    display: Display,
    position: Position,
    interrupts: _Interrupts,
) -> None:
    log = policy.ranks.first(lambda: read_jsonl(store.folder / "metrics.jsonl")[0])
    farming = BonusFarming(log)
    saved = position.step
    while position.phase < len(phases):
        phase = phases[position.phase]
        display.phase(phase.name, phase.steps, position.phase_step)
        while position.phase_step < phase.steps:
            started = time.monotonic()
            credit = phase.adapt([past for past in log if past["phase"] == phase.name]) if phase.adapt else phase.credit
            line = _step(experiment, phase, credit, policy, position)
            position.seconds += time.monotonic() - started
            if experiment.probe_every and position.step % experiment.probe_every == 0:
                line |= probe(policy, experiment.task, experiment.dialogue, experiment.probe_problems)
            line["trajectories_per_second"] = position.trajectories / position.seconds
            line["bonus_farming"] = farming.see(line)
            store.log(line)
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


def _step(experiment: Experiment, phase: Phase, credit: Credit, policy: Policy, position: Position) -> dict[str, Any]:
    """One gradient update, after fresh samples where the phase wants them."""
    budget, task = experiment.budget, experiment.task
    line: dict[str, Any] = {"phase": phase.name, "step": position.step + 1, "phase_step": position.phase_step + 1}
    groups: list[Any] = []
    if position.phase_step % phase.refresh_every == 0:
        updates = min(phase.refresh_every, phase.steps - position.phase_step)
        chosen = draw(experiment.seed, "problems", len(task.train), position.drawn, updates * budget.problems)
        position.drawn += len(chosen)
        for i in range(0, len(chosen), budget.problems):
            groups += rollout(
                policy,
                task,
                experiment.dialogue,
                [task.train[j] for j in chosen[i : i + budget.problems]],
                samples=budget.trajectories(phase.turns),
                attempts=phase.turns,
                offline_share=phase.given_share,
                seed=derive(experiment.seed, "rollout", position.step + i // budget.problems),
                temperature=policy.spec.temperature,
            )
        position.trajectories += sum(len(group) for group in groups)
        position.responses += sum(turn.by != "given" for group in groups for t in group for turn in t.turns)
        position.pool = list(credit(groups))
        random.Random(derive(experiment.seed, "shuffle", position.step)).shuffle(position.pool)
        line |= of_groups(groups)
        if phase.restart and position.phase_step == 0:
            policy.restart()
    on_policy = phase.refresh_every == 1
    examples = policy.encoded(position.pool if on_policy else _minibatch(position.pool, phase, position.phase_step))
    denominator = {
        "trajectory": budget.problems * budget.trajectories(phase.turns),
        "example": len(examples),
        "token": sum(len(example.turn.tokens) for example in examples),  # targets set as text are encoded above
    }[phase.mean_over] or 1  # no example to fit, then only measured ones
    batch = _measured(groups, examples) if on_policy else examples
    if batch:
        restarted = phase.restart and position.phase_step == 0
        stats, norm = policy.step(batch, denominator, fresh=on_policy and not restarted)
        line |= of_examples(groups if on_policy else [], batch, stats) | {"grad_norm": norm}
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
    evaluation: Evaluation | None = None,
    fresh: bool = True,
) -> None:
    """Writes what is missing of one evaluation; keeps what whole batches an interrupted one has left."""
    evaluation = evaluation or experiment.greedy
    for task in experiment.tasks_of(evaluation):
        done = policy.ranks.first(lambda task=task: _kept(store, task, when, evaluation))
        total = expected(task, evaluation)
        if done >= total:
            continue
        if not fresh:
            raise StoreError(f"{store.folder}: the evaluation before training is lost and the model has moved on")
        display.phase(" ".join(filter(None, ("evaluate", task.name, str(evaluation), when))), total, done)

        def record(lines: Sequence[dict[str, Any]]) -> None:
            store.record(lines)
            display.advance(count=len(lines))
            if interrupts.come():
                raise Stopped

        evaluate(
            policy, task, experiment.dialogue, evaluation, when=when, seed=experiment.seed, done=done, record=record
        )  # fmt: skip


def _kept(store: RunStore, task: Task, when: str, evaluation: Evaluation) -> int:
    """How many records of this evaluation are whole batches; what lies beyond them is dropped."""
    records = store.recorded()
    mine = [i for i, r in enumerate(records) if r["when"] == when and r["task"] == task.name and evaluation.holds(r)]
    done = whole(len(mine), task, evaluation)
    if done < len(mine):
        store.replace_records([r for i, r in enumerate(records) if i not in set(mine[done:])])
    return done


def _end(phases: Sequence[Phase]) -> str:
    """When a run's further evaluations are asked: after training, where there is any."""
    return "after" if phases else "before"


def supplement(experiment: Experiment, policy: Policy, store: RunStore, display: Display, config: str) -> int:
    """Adds the experiment's further evaluations to a run that is done; what it has already stays as it is.

    They are collected beside eval.jsonl, in `evaluating/`, where an interrupted supplement goes on, and come in with
    one atomic write: no reader ever sees a part.

    Args:
        policy: The trained policy.
        config: The whole configuration as text: what an interrupted supplement must agree with to go on.

    Returns:
        Records added.

    Raises:
        StoreError: an interrupted supplement of another configuration lies there.
        Stopped: interrupted.
    """
    when, beside = _end(experiment.phases()), RunStore(store.folder / "evaluating")
    beside.folder.mkdir(exist_ok=True)
    if beside.config not in (None, config):
        raise StoreError(
            f"{beside.folder} holds an interrupted supplement of another config: finish that, or remove it"
        )
    beside.save_config(config)
    with _Interrupts(policy.ranks.any) as interrupts:
        for evaluation in experiment.evaluations:
            if any(r["when"] == when and evaluation.holds(r) for r in store.recorded()):
                continue
            _evaluate(experiment, policy, beside, display, when, interrupts, evaluation)
    added = beside.recorded()
    if added:
        store.replace_records([*store.recorded(), *added])
    shutil.rmtree(beside.folder)
    return len(added)


def _checkpoint(store: RunStore, policy: Policy, position: Position) -> None:
    fields = {f.name: getattr(position, f.name) for f in dataclasses.fields(position)}
    store.checkpoint({**fields, "pool": [dataclasses.asdict(e) for e in position.pool]}, policy.save)


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
