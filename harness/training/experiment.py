"""The experiment: everything that decides the numbers of a run, and what is checked before it starts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.core import Budget, Example, Method, Phase, PolicySpec, Problem, Task, Trajectory, Turn, Verdict
from harness.grading import VERIFIER_SECONDS, describe_error
from harness.training.dialogue import Dialogue
from harness.training.evaluate import PROBED
from harness.training.evaluations import EvalSpec, Split
from harness.training.spending import CURRENCIES, Currency

FOLDER_NAME = re.compile(r"[^\W_][\w.+-]*")  # no '..', no hidden folder, no path: results stay below --out
TASK_NAME = re.compile(r"[^\W_][^/\\\x00-\x1f]*")  # MBPP-R says in its name what it was made from, in words


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the numbers of a run; gin builds it as `run`. Device and folders are no part of it.

    Attributes:
        name: The row: key in the results folder, name of its gin file.
        method: What spends the budget.
        task: Trained on.
        policy: What samples and learns (kind `policy`).
        dialogue: How attempts are asked for.
        steps: Gradient updates, for all phases together.
        problems: Problems drawn for one update.
        samples: Trajectories sampled on each of them.
        eval_tasks: Evaluated on, before and after; the training task when empty.
        seed: Of every draw.
        attempts: Attempts in evaluation.
        eval_problems: At most this many test problems of each task in the greedy evaluation, evenly spaced, so the same
            for every run; None takes all. Runs over other problems stand in tables of their own.
        evaluations: Further evaluations at the end (kind `evaluation`), beside the greedy one of the test split.
        evaluate_before: Whether the untrained model is evaluated as well (always, where nothing is trained).
        checkpoint_every: Updates between checkpoints.
        probe_every: Updates between looks at second attempts after own and after fixed first attempts; 0 is never.
        probe_problems: Training and validation problems looked at, that many of each.
        eval_split: Split of the greedy evaluation. Another than `test` is for choosing settings: no table takes it.
        tuned: How the row's settings were chosen, as `harness.tune` writes it; '' is not at all. Tables show it.
        verifier_seconds: Most that a verifier may take for one response (a batch of them: for each) before the run is
            ended; what a program or an expression may take is the verifier's own limit, and far below this.
        gradient_probe_every: Updates between looks at what the gradient is made of (docs/budgets.md); 0 is never.
        evaluate_every: Updates between greedy two-attempt evaluations in mid-training, in metrics.jsonl; 0 is never.
        evaluate_split: The training task's split that these are asked on.
        budget_in: The currency of `budget_limit` (docs/budgets.md).
        budget_limit: Training ends when it has spent this much, after `steps` updates at the latest; each phase may
            spend its share of the steps. None: the updates alone end it.
    """

    name: str
    method: Method
    task: Task
    policy: PolicySpec
    dialogue: Dialogue
    steps: int
    problems: int
    samples: int
    eval_tasks: Sequence[Task] = ()
    seed: int = 0
    attempts: int = 2
    evaluate_before: bool = True
    checkpoint_every: int = 50
    evaluations: Sequence[EvalSpec] = ()
    probe_every: int = 0
    probe_problems: int = 200
    verifier_seconds: float = VERIFIER_SECONDS
    eval_problems: int | None = None
    eval_split: Split = "test"
    tuned: str = ""
    gradient_probe_every: int = 0
    evaluate_every: int = 0
    evaluate_split: Split = "validation"
    budget_in: Currency = "responses"
    budget_limit: float | None = None

    def __post_init__(self) -> None:
        tasks = [(f"the name of task {type(task).__name__},", task.name) for task in (self.task, *self.eval_tasks)]
        key = "the policy's key (hf.name, or else the end of hf.path)"
        for what, name in (("run.name", self.name), (key, self.policy.key), *tasks):
            allowed = TASK_NAME if what.startswith("the name of task") else FOLDER_NAME
            if not (isinstance(name, str) and allowed.fullmatch(name)):
                raise ValueError(
                    f"{what} {name!r} is no folder name: letters, digits, and . _ + - only, a letter or digit first"
                )
        for task in (self.task, *self.eval_tasks):
            if not (isinstance(task.version, str) and task.version):
                raise ValueError(f"task {task.name!r}: its version must be a text that is not empty: {task.version!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"run.seed must be a whole number of at least 0, not {self.seed!r}")
        if not self.verifier_seconds > 0:
            raise ValueError(f"run.verifier_seconds must be above 0, not {self.verifier_seconds!r}")
        if self.attempts < 1 or self.checkpoint_every < 1:
            raise ValueError("run.attempts and run.checkpoint_every must be at least 1")
        if self.eval_problems is not None and self.eval_problems < 1:
            raise ValueError(f"run.eval_problems must be at least 1, or None for all, not {self.eval_problems!r}")
        self._check_limit()
        trains = False
        for phase in self.phases():
            trains = True
            _dry_run_credit(phase, self.budget)
        if trains and not self.steps:
            raise ValueError(
                f"run.steps = 0, but row {self.name!r} trains: with no update its results would be the untrained "
                "model's under a trained row's name. Give it steps, or run an untrained row (gin/base.gin)"
            )
        for task in self.evaluated_tasks:
            _require(task, "test")
        self._check_evaluations()
        if trains:
            _require(self.task, "train")
            if self.problems > len(self.task.train):
                raise ValueError(
                    f"run.problems = {self.problems} is more than the {len(self.task.train)} training problems "
                    f"of task {self.task.name!r}"
                )
        for task in {task.name: task for task in (self.task, *self.evaluated_tasks)}.values():
            _check_apart(task, self.task if trains else None)
        names = [task.name for task in self.evaluated_tasks]
        if len(set(names)) < len(names):
            raise ValueError(f"run.eval_tasks has two tasks of one name: {names}")

    def _check_limit(self) -> None:
        if self.budget_in not in CURRENCIES:
            raise ValueError(f"run.budget_in is one of {', '.join(CURRENCIES)}, not {self.budget_in!r}")
        limit = self.budget_limit
        if limit is None:
            if self.budget_in != "responses":
                raise ValueError(f"run.budget_in = {self.budget_in!r} needs run.budget_limit: how many of them")
        elif isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit < math.inf:
            raise ValueError(f"run.budget_limit must be a number above 0, or None, not {limit!r}")

    def spendable(self, phases: Sequence[Phase], number: int) -> float:
        """What may be spent until phase `number` (from 0) ends, all phases before it included; inf without a limit."""
        if self.budget_limit is None:
            return math.inf
        return self.budget_limit * sum(phase.steps for phase in phases[: number + 1]) / self.steps

    def _check_evaluations(self) -> None:
        if self.probe_every < 0 or self.probe_problems < 1:
            raise ValueError("run.probe_every must be at least 0 and run.probe_problems at least 1")
        if self.gradient_probe_every < 0 or self.evaluate_every < 0:
            raise ValueError("run.gradient_probe_every and run.evaluate_every must be at least 0")
        if self.evaluate_every:
            _require(self.task, self.midway.split)
        asked = [self.greedy_evaluation, *self.evaluations]
        for i, evaluation in enumerate(asked):
            if evaluation.key in [other.key for other in asked[:i]]:
                raise ValueError(
                    f"run.evaluations asks twice for one evaluation ({str(evaluation) or 'greedy, test split'}): "
                    "their records could not be told apart"
                )
        splits: list[Split] = [*(e.split for e in asked if e.split != "test"), *(PROBED if self.probe_every else ())]
        for split in dict.fromkeys(splits):
            _require(self.task, split)
        fixed = self.probe_every or any(e.draft == "reference" for e in asked)
        if fixed and any(task.test[0].given for task in self.evaluated_tasks):
            raise ValueError("a repair task's first attempts are given: they cannot be the base model's as well")

    @property
    def midway(self) -> EvalSpec:
        """What is asked every `evaluate_every` updates."""
        return EvalSpec(self.evaluate_split)

    @property
    def greedy_evaluation(self) -> EvalSpec:
        """The evaluation that every run has, before and after training."""
        return EvalSpec(self.eval_split, attempts=self.attempts, problems=self.eval_problems)

    def tasks_of(self, evaluation: EvalSpec) -> Sequence[Task]:
        """What an evaluation is asked on: other splits than the test split are the training task's own."""
        return self.evaluated_tasks if evaluation.split == "test" else (self.task,)

    @property
    def budget(self) -> Budget:
        """What the row may spend."""
        return Budget(self.steps, self.problems, self.samples)

    @property
    def evaluated_tasks(self) -> Sequence[Task]:
        """The tasks evaluated on."""
        return self.eval_tasks or (self.task,)

    def run_folder(self, out: Path) -> Path:
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


def _dry_run_credit(phase: Phase, budget: Budget) -> None:
    """Runs a phase's credit on a small made-up batch, so that what it cannot work with is known before hours of work.

    Raises:
        ValueError: naming the phase.
    """

    def turn(problem: int, sample: int, index: int) -> Turn:
        right = (problem + sample + index) % 2 == 0
        return Turn((0,), (0,), "", Verdict(float(right), right), index=index, logprobs=(0.0,))

    samples = budget.trajectories_per_problem(phase.turns)
    problem = Problem("rehearsal", "", "", solution="")
    groups = [
        [Trajectory(problem, tuple(turn(p, s, i) for i in range(phase.turns))) for s in range(samples)]
        for p in range(min(2, budget.problems))
    ]
    try:
        examples = phase.credit(groups)
    except Exception as error:  # a plugin's method may raise anything
        what = "cannot use this budget" if isinstance(error, ValueError) else "has a credit that fails"
        raise ValueError(f"phase {phase.name!r} {what}: {describe_error(error)}") from error
    _check_examples(phase, examples)


def _check_examples(phase: Phase, examples: Sequence[Example]) -> None:
    """Raises ValueError for an example whose weight, kl or bonus is not a finite number."""
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
    problems records how many in its provenance (`training_problems_that_are_test_problems`, MATH); that many are let
    pass and are recorded in run.json.

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
