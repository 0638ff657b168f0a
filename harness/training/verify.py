"""Grades the saved answers of a run again and compares: `python -m harness.verify RUN_FOLDER [RUN_FOLDER ...]`.

Nothing is sampled and nothing is written. Of each run it is asked: are its files what they were when it ended, has
every evaluation the records it had, and does the run's own verifier, on the problems of the run's own task, come to the
same verdicts as in eval.jsonl?
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core import Problem, Task, Verdict
from harness.grading import grade_responses
from harness.runs import archive
from harness.runs.integrity import READ, changed_run, count_records
from harness.runs.store import RunStore, StoreError
from harness.terminal import escape_controls
from harness.training.evaluate import name_of

if TYPE_CHECKING:
    from harness.training.experiment import Experiment
COMPARED = ("answer", "reward", "correct", "status", "flag")


@dataclass
class Report:
    """What was found of one run.

    Attributes:
        records: Records in eval.jsonl.
        graded: Attempts graded again.
        verdicts: Sentences, one for each attempt whose verdict differs.
        counts: Sentences, one for each evaluation whose number of records differs.
        files: Sentences, one for each file that changed.
        hashed: Whether run.json holds counts and hashes; runs of before these were recorded have none.
    """

    records: int = 0
    graded: int = 0
    verdicts: list[str] = field(default_factory=list)
    counts: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    hashed: bool = True

    @property
    def differences(self) -> list[str]:
        """All sentences."""
        return [*self.files, *self.counts, *self.verdicts]


def verify_run(folder: Path, trust: bool = False) -> Report:
    """Checks one run.

    Args:
        folder: The run's folder.
        trust: Whether its config.gin may import modules and switch the sandbox off (docs/security.md).

    Raises:
        StoreError: no finished run there, a damaged file, or other problems or another grader than the run saw.
        ConfigError: its config.gin cannot be used.
        GradingError: its verifier failed.
    """
    from harness import config
    from harness.training.experiment import Experiment
    from harness.training.provenance import check_origin

    store = RunStore(folder)
    info, text = store.read_info(), store.saved_config
    if info is None or text is None:
        raise StoreError(f"{folder} holds no run: it needs run.json and config.gin")
    if info.get("status") != "done":
        raise StoreError(f"{folder} holds a run that is not done (status {info.get('status')!r})")
    if "imported" in info:
        raise StoreError(f"{folder} was imported and has no training's config: import its file again to grade it again")
    store.info = info
    report = Report(files=changed_run(folder, info, (*READ, "model")), hashed="sha256" in info)
    records = store.sound_records()
    report.records = len(records)
    if archive.show_path(folder) != folder:  # an archive holds no weights
        report.files = [told for told in report.files if not told.startswith("model/")]
    if not records:
        raise StoreError(f"{folder / 'eval.jsonl'} is missing or empty")
    if isinstance(then := info.get("records"), dict):
        now = count_records(records)
        report.counts = [
            f"evaluation {label!r} has {now.get(label, 0)} records, it had {then.get(label, 0)}"
            for label in sorted(then.keys() | now.keys())
            if then.get(label) != now.get(label)
        ]
    config.prepare_gin(Experiment, "run")
    for left_out in config.parse_recorded(folder / "config.gin", trust=trust):
        print(f"verify: {escape_controls(left_out)}", file=sys.stderr)
    experiment: Experiment = config.build_root("run")
    check_origin(store, experiment)
    _grade_again(experiment, records, report)
    return report


def _grade_again(experiment: Experiment, records: Sequence[dict[str, Any]], report: Report) -> None:
    tasks = {task.name: task for task in (experiment.task, *experiment.evaluated_tasks)}
    for name in dict.fromkeys(record["task"] for record in records):
        mine = [(i, record) for i, record in enumerate(records, 1) if record["task"] == name]
        if name not in tasks:
            report.verdicts += [f"line {i}: the run has no task {name!r}" for i, _ in mine]
            continue
        _grade_task(tasks[name], experiment.verifier_seconds, mine, report)


def _grade_task(task: Task, seconds: float, records: Sequence[tuple[int, dict[str, Any]]], report: Report) -> None:
    problems: dict[str, dict[tuple[str, int | None], Problem]] = {}
    todo: list[tuple[str, dict[str, Any]]] = []
    pairs: list[tuple[Problem, str]] = []
    for i, record in records:
        split = record.get("split", "test")
        if split not in problems:
            found = getattr(task, split, ())
            problems[split] = {(name_of(p, 0)[0], p.meta.get("sample")): p for p in found}
        known = problems[split]
        # A repair task has one problem per sample (given program); other tasks have one for all samples.
        problem = known.get((record["id"], record["sample"])) or known.get((record["id"], None))
        where = f"line {i} (problem {record['id']!r}, sample {record['sample']}"
        if problem is None:
            report.verdicts.append(f"{where}): task {task.name!r} has no such {split} problem")
            continue
        if record.get("prompt", problem.prompt) != problem.prompt:
            report.verdicts.append(f"{where}): its prompt is not the problem's")
        if record.get("gold", problem.answer) != problem.answer:
            report.verdicts.append(f"{where}): its gold answer is not the problem's")
        for number, attempt in enumerate(record["attempts"], 1):
            if not isinstance(attempt.get("text"), str):
                report.verdicts.append(f"{where}, attempt {number}): it has no text")
                continue
            todo.append((f"{where}, attempt {number})", attempt))
            pairs.append((problem, attempt["text"]))
    report.graded += len(pairs)
    for (where, attempt), verdict in zip(
        todo, grade_responses(task.verifier, pairs, seconds) if pairs else (), strict=True
    ):
        now = _fields(verdict, bool(attempt.get("truncated")))
        told = [f"{key} was {attempt.get(key)!r}, is {now[key]!r}" for key in COMPARED if attempt.get(key) != now[key]]
        if told:
            report.verdicts.append(f"{where}: {'; '.join(told)}")


def _fields(verdict: Verdict, truncated: bool) -> dict[str, Any]:
    """A verdict as a record has it."""
    status = "truncated" if truncated and verdict.status == "no_answer" else verdict.status
    return {
        "answer": verdict.answer,
        "reward": verdict.reward,
        "correct": verdict.correct,
        "status": status,
        "flag": verdict.flag or None,
    }
