"""The loop that every row shares: evaluate, train phase by phase, evaluate again; stop and go on at any moment.

Every draw follows from the seed and its place (harness.seeds), so a checkpoint holds weights, optimiser state, position
and the examples still to be fitted, nothing else.
Above 300 lines because what is run, how it is checked beforehand and the loop itself are read together.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import random
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from harness.core import Budget, Credit, Example, Method, Phase, Problem, Task, Trajectory, Turn, Verdict
from harness.dialogue import Dialogue
from harness.drafts import require_room
from harness.evaluate import PROBED, evaluate, expected, probe
from harness.evaluations import Evaluation, Split
from harness.integrity import count_records, evaluation_label, sha256
from harness.monitors import BonusFarming, of_examples, of_groups
from harness.rollout import VERIFIER_SECONDS, GradingError, describe_error, rollout
from harness.seeds import derive, draw
from harness.store import EVALUATED, FAILED_BATCH, RunStore, StoreError, dump, dump_all, read_jsonl, sync, write_atomic

if TYPE_CHECKING:
    from harness.policy import HF
    from harness.policy.engine import Policy


COMMIT = "commit.json"
FOLDER_NAME = re.compile(r"[^\W_][\w.+-]*")  # no '..', no hidden folder, no path: results stay below --out


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
        verifier_seconds: Most that a verifier may take for one response (a batch of them: for each) before the run is
            ended; what a program or an expression may take is the verifier's own limit, and far below this.
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
    verifier_seconds: float = VERIFIER_SECONDS

    def __post_init__(self) -> None:
        tasks = [(f"the name of task {type(task).__name__},", task.name) for task in (self.task, *self.eval_tasks)]
        for what, name in (("run.name", self.name), ("hf.name, or else the end of hf.path,", self.policy.key), *tasks):
            if not (isinstance(name, str) and FOLDER_NAME.fullmatch(name)):
                raise ValueError(
                    f"{what} {name!r} is no folder name: letters, digits, and . _ + - only, a letter or digit first"
                )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"run.seed must be a whole number of at least 0, not {self.seed!r}")
        if not self.verifier_seconds > 0:
            raise ValueError(f"run.verifier_seconds must be above 0, not {self.verifier_seconds!r}")
        if self.attempts < 1 or self.checkpoint_every < 1:
            raise ValueError("run.attempts and run.checkpoint_every must be at least 1")
        trains = False
        for phase in self.phases():
            trains = True
            _rehearse(phase, self.budget)
        if trains and not self.steps:
            raise ValueError(
                f"run.steps = 0, but row {self.name!r} trains: with no update its results would be the untrained "
                "model's under a trained row's name. Give it steps, or run an untrained row (gin/base.gin)"
            )
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
        for task in {task.name: task for task in (self.task, *self.evaluated)}.values():
            _check_apart(task, self.task if trains else None)
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
        fixed = self.probe_every or any(e.draft == "reference" for e in asked)
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
        raise ValueError(f"phase {phase.name!r} cannot use this budget: {describe_error(error)}") from error
    _check_examples(phase, examples)


def _check_examples(phase: Phase, examples: Sequence[Example]) -> None:
    """Raises ValueError for an example whose weight, kl or bonus is no finite number."""
    for example in examples:
        if not all(map(math.isfinite, (example.weight, example.kl, example.bonus))):
            told = f"weight {example.weight!r}, kl {example.kl!r}, bonus {example.bonus!r}"
            raise ValueError(f"phase {phase.name!r} gave an example that is no finite number: {told}")


def _require(task: Task, part: Literal["train", "validation", "test"]) -> None:
    """Raises ValueError for an empty part, for a row without an answer, and for text that no file can hold."""
    problems = getattr(task, part)
    if not len(problems):
        raise ValueError(f"task {task.name!r} has no {part} problems")
    for problem in problems:
        if not problem.answer.strip():
            raise ValueError(f"task {task.name!r}: {part} problem {problem.id!r} has no answer to grade by")
        try:
            "".join((problem.id, problem.prompt, problem.answer, problem.solution or "", *problem.given)).encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"task {task.name!r}: {part} problem {problem.id!r} holds the lone surrogate "
                f"U+{ord(error.object[error.start]):04X}, which is no character: mend the data"
            ) from error


def _check_apart(task: Task, trained: Task | None) -> None:
    """Refuses a task that counts a problem twice or tests what it trains on.

    Two problems are one when their ids are, or when prompt, given attempts and answer all are (MBPP asks three of its
    test problems with the words of a training problem, and other tests: those are two). A benchmark that really repeats
    problems says how many in its provenance (`training_problems_that_are_test_problems`, MATH); that many are let pass
    and stand in run.json.

    Args:
        trained: The task trained on, if any; its training problems must be in no task's test split.

    Raises:
        ValueError: naming the task and the first problem.
    """

    def content(problem: Problem) -> tuple[Any, ...]:
        return problem.prompt, problem.given, problem.answer

    ids: dict[str, str] = {}
    for part in ("train", "validation", "test"):
        for problem in getattr(task, part):
            if problem.id in ids:
                where = f"twice in {part}" if ids[problem.id] == part else f"in {ids[problem.id]} and in {part}"
                raise ValueError(f"task {task.name!r}: problem id {problem.id!r} stands {where}: ids must be unique")
            ids[problem.id] = part
    told = getattr(task, "provenance", None) or {}
    known = told.get("training_problems_that_are_test_problems", 0) if isinstance(told, Mapping) else 0
    for part, source in (("train", trained or task), ("validation", task)):
        seen = {content(problem): problem.id for problem in getattr(source, part)}
        again = [(seen[content(p)], p.id) for p in task.test if content(p) in seen]
        if len(again) > (known if part == "train" else 0):
            (first, second), of = again[0], "" if source is task else f" of task {source.name!r}"
            raise ValueError(
                f"task {task.name!r}: {len(again)} test problems are {part} problems{of} as well, word for word: "
                f"the first is {second!r}, which is {first!r} in {part}"
            )


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
    phases = experiment.phases()
    found = policy.ranks.first(store.last_checkpoint)
    position = Position()
    if found:
        fields, folder = found
        position = _restored(fields, phases, folder)
        policy.ranks.each(lambda: _load(policy, folder))
    policy.ranks.first(lambda: store.rewind(position.step))
    with _Interrupts(policy.ranks.any) as interrupts:
        if experiment.evaluate_before or not phases:
            _evaluate(experiment, policy, store, display, "before", interrupts, fresh=found is None)
        _train(experiment, phases, policy, store, display, position, interrupts)
        if phases:
            _evaluate(experiment, policy, store, display, "after", interrupts)
        for evaluation in experiment.evaluations:
            _evaluate(experiment, policy, store, display, _end(phases), interrupts, evaluation)
        if phases:
            policy.export(store.folder / "model")
        cut_prompts = sum(policy.ranks.together(lambda: policy.cut_prompts))
        store.update(
            spent={
                "trajectories": position.trajectories,
                "responses": position.responses,
                "updates": position.step,
            },
            training_seconds=round(position.seconds, 3),
            cut_prompts=cut_prompts,
            **policy.ranks.first(lambda: _count_whole(experiment, phases, store, position)),
        )


def _count_whole(
    experiment: Experiment, phases: Sequence[Phase], store: RunStore, position: Position
) -> dict[str, dict[str, Any]]:
    """`records` and `sha256` of a run at its end, after making sure that nothing of it is missing.

    Raises:
        StoreError: records, steps or the configuration are not what the run has written.
    """
    asked = [("before", experiment.greedy)] if experiment.evaluate_before or not phases else []
    asked += [("after", experiment.greedy)] if phases else []
    asked += [(_end(phases), evaluation) for evaluation in experiment.evaluations]
    total = 0
    for when, evaluation in asked:
        for task in experiment.tasks_of(evaluation):
            wanted = len(expected(task, evaluation))
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
    return {"records": count_records(records), "sha256": store.hashes()}


def _restored(fields: Mapping[str, Any], phases: Sequence[Phase], folder: Path) -> Position:
    """A checkpoint's position.

    Raises:
        StoreError: it is no position in these phases.
    """
    try:
        if fields.keys() != (names := {f.name for f in dataclasses.fields(Position)}):
            raise ValueError(f"its entries are {sorted(fields)}, not {sorted(names)}")
        position = Position(**{**fields, "pool": [_example(item) for item in fields["pool"]]})
        for name in ("step", "phase", "phase_step", "drawn", "trajectories", "responses"):
            if not isinstance(value := getattr(position, name), int) or value < 0:
                raise ValueError(f"{name} is {value!r}")
        steps = [*(phase.steps for phase in phases), 0][position.phase]
        if position.phase_step > steps or sum(p.steps for p in phases[: position.phase]) + position.phase_step != (
            position.step
        ):
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


def _measure_prompts(experiment: Experiment, policy: Policy) -> None:
    """Finds a conversation that the limits of length may not hold now, not after hours of work.

    Of further evaluations with more attempts than are trained only as many are counted: replies there are seldom as
    long as they may be, and an attempt that finds no room counts as truncated.
    """
    dialogue, turns = experiment.dialogue, max((phase.turns for phase in experiment.phases()), default=0)
    looks = [Evaluation(split) for split in (PROBED if experiment.probe_every else ())]
    asked = [(experiment.task, experiment.task.train, turns, 0)] if turns else []
    for evaluation in (experiment.greedy, *experiment.evaluations, *looks):
        attempts = min(evaluation.attempts, max(turns, experiment.attempts))
        further = len(dialogue.plan(evaluation.attempts)) - len(dialogue.plan(attempts))
        asked += [(task, evaluation.chosen(task), attempts, further) for task in experiment.tasks_of(evaluation)]
    for task, problems, attempts, further in asked:

        def measure(
            part: Sequence[Problem], _: int, task: Task = task, attempts: int = attempts, further: int = further
        ) -> list[None]:
            for p in part:
                asks = [dialogue.ask(task, p, [""] * n) for n in range(1, len(dialogue.plan(attempts)))]
                policy.require_room(task.chat(p, []), asks, p.given, further)
            return []

        policy.ranks.map(measure, problems)
    for evaluation in experiment.evaluations:
        if evaluation.control:
            for task in experiment.tasks_of(evaluation):
                require_room(policy, task, dialogue, evaluation)
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
            line = _step(experiment, phase, _adapted(phase, log), policy, position, store)
            position.seconds += time.monotonic() - started
            if experiment.probe_every and position.step % experiment.probe_every == 0:
                line |= probe(
                    policy, experiment.task, experiment.dialogue, experiment.probe_problems, experiment.verifier_seconds
                )
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


def _adapted(phase: Phase, log: Sequence[dict[str, Any]]) -> Credit:
    """The credit of a phase's next update."""
    if not phase.adapt:
        return phase.credit
    try:
        return phase.adapt([past for past in log if past["phase"] == phase.name])
    except Exception as error:  # the method may be a stranger's and raise anything
        raise ValueError(f"phase {phase.name!r} could not adapt its credit: {describe_error(error)}") from error


def _credited(phase: Phase, credit: Credit, groups: Sequence[Any]) -> list[Example]:
    try:
        return list(credit(groups))
    except Exception as error:  # as above
        raise ValueError(f"phase {phase.name!r} could not credit its samples: {describe_error(error)}") from error


@contextlib.contextmanager
def _kept_when_broken(store: RunStore, phase: Phase, update: int, examples: Sequence[Example]) -> Iterator[None]:
    """Keeps what an update broke on in failed_batch.json, for a replay, and says where it was."""
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
    experiment: Experiment, phase: Phase, credit: Credit, policy: Policy, position: Position, store: RunStore
) -> dict[str, Any]:
    """One gradient update, after fresh samples where the phase wants them."""
    update, examples = position.step + 1, []
    with _kept_when_broken(store, phase, update, examples):
        line = _update(experiment, phase, credit, policy, position, examples)
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
) -> dict[str, Any]:
    """The update's line of the log; puts what is trained on into `batch` before anything can break on it."""
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
                verifier_seconds=experiment.verifier_seconds,
            )
        position.trajectories += sum(len(group) for group in groups)
        position.responses += sum(turn.by != "given" for group in groups for t in group for turn in t.turns)
        position.pool = _credited(phase, credit, groups)
        batch += position.pool
        _check_examples(phase, position.pool)
        batch.clear()
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
    batch += _measured(groups, examples) if on_policy else examples
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
        done = policy.ranks.first(lambda task=task: _written(store, task, when, evaluation, last=True))
        total = len(expected(task, evaluation))
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
            policy, task, experiment.dialogue, evaluation, when=when, seed=experiment.seed, done=done,
            verifier_seconds=experiment.verifier_seconds, record=record,
        )  # fmt: skip


def _written(store: RunStore, task: Task, when: str, evaluation: Evaluation, last: bool = False) -> int:
    """How many records of this evaluation are written: always the first ones, in order.

    Args:
        last: Whether an evaluation that is not finished must end the file, as the next record goes behind it.

    Raises:
        StoreError: records are missing, doubled or in another order: the file was changed by something else.
    """
    records, path = store.sound_records(), store.folder / "eval.jsonl"
    mine = [i for i, r in enumerate(records) if r["when"] == when and r["task"] == task.name and evaluation.holds(r)]
    wanted = expected(task, evaluation)
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


def _told(task: Task, when: str, evaluation: Evaluation) -> str:
    return " ".join(filter(None, (when, task.name, str(evaluation))))


def _end(phases: Sequence[Phase]) -> str:
    """When a run's further evaluations are asked: after training, where there is any."""
    return "after" if phases else "before"


def supplement(
    experiment: Experiment, policy: Policy, store: RunStore, display: Display, config: str, entry: Mapping[str, Any]
) -> int:
    """Adds the experiment's further evaluations to a run that is done; what it has already stays as it is.

    They are collected beside eval.jsonl, in `evaluating/`, where an interrupted supplement goes on. Once they are
    whole, `commit.json` says there what the run will be; from then on `finish_supplement` can put it in place, however
    often it is killed.

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
    if beside.folder.is_dir() and beside.config not in (None, config):
        raise StoreError(
            f"{beside.folder} holds an interrupted supplement of another config: finish that, or remove it"
        )
    missing = [e for e in experiment.evaluations if not any(r["when"] == when and e.holds(r) for r in there)]
    if missing:
        beside.folder.mkdir(exist_ok=True)
        beside.save_config(config)
    with _Interrupts(policy.ranks.any) as interrupts:
        for evaluation in missing:
            _evaluate(experiment, policy, beside, display, when, interrupts, evaluation)
    known = count_records(there)
    added = [record for record in beside.recorded() if evaluation_label(record) not in known]
    if added:
        sync(beside.folder / "eval.jsonl")
        path = store.folder / "eval.jsonl"
        commit = {
            "records": added,
            "before": sha256(path),
            "after": hashlib.sha256(path.read_bytes() + dump_all(added)).hexdigest(),
            "supplements": [*store.info.get("supplements", []), {**entry, "records": len(added)}],
        }
        write_atomic(beside.folder / COMMIT, dump(commit))
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
    found = sha256(store.folder / "eval.jsonl")
    if found not in (before, after):
        raise StoreError(
            f"{store.folder / 'eval.jsonl'} was changed by something else while a supplement was interrupted "
            f"(its SHA-256 differs). Nothing was changed; put back a whole copy, or remove {path.parent}"
        )
    if found == before:
        store.add_records(added)
    fields: dict[str, Any] = {"supplements": supplements}
    if "sha256" in store.info:  # else the run is of before these were recorded
        fields["records"] = count_records(store.recorded())
        fields["sha256"] = {**store.info["sha256"], "eval.jsonl": after}
    store.update(**fields)
    _remove_whole(path.parent, store)


def _remove_whole(folder: Path, store: RunStore) -> None:
    folder.rename(store.folder / EVALUATED)
    shutil.rmtree(store.folder / EVALUATED)


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
