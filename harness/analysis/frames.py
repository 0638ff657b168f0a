"""Results as data: `harness.load(folder)` gives the finished runs of a results folder as three tidy pandas frames.

The columns are fixed (`RUNS`, `UPDATES`, `ATTEMPTS`; docs/results_as_data.md says what each holds): what a run lacks is
missing, never an absent column. So frames of different folders can be concatenated, and their Parquet files too. A
plugin's metrics are further columns of `runs`, behind the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.metrics import METRICS
from harness.runs import reader
from harness.runs.reader import EvalKey, ReadIssue, Run

if TYPE_CHECKING:
    import datasets

Schema = dict[str, str]  # {column: pandas dtype}; `Float64`, `Int64` and `boolean` can be missing

RUN: Schema = {"path": "string", "train_task": "string", "policy": "string", "name": "string", "seed": "int64"}
EVALUATION: Schema = {
    "when": "string", "final": "bool", "task": "string", "split": "string", "temperature": "float64", "first": "string",
    "turns": "int64", "draft": "string",
}  # fmt: skip
RATES = ("delta", "i_to_c", "c_to_i", "fix_rate", "break_rate", "answer_change", "edit_ratio", "unchanged")
RUNS: Schema = {
    **RUN, "model": "string", "trained": "bool", "updates": "int64", "responses": "Int64", "seconds": "Float64",
    "commit": "string", **EVALUATION, "task_version": "string", "grader": "string", "problems": "int64",
    "records": "int64", "acc_first": "float64", "acc_last": "float64", **dict.fromkeys(RATES, "Float64"),
    "tokens_per_problem": "Float64",
    **{name: "Float64" for name in METRICS if name not in RATES},
}  # fmt: skip
UPDATES: Schema = {
    **RUN, "update": "int64", "phase": "string", "phase_update": "Int64", "quantity": "string", "value": "float64",
}  # fmt: skip
ATTEMPTS: Schema = {
    **RUN, **EVALUATION, "problem": "string", "sample": "int64", "attempt": "int64", "prompt": "string",
    "text": "string", "answer": "string", "reward": "float64", "correct": "bool", "status": "string",
    "tokens": "int64", "truncated": "bool", "by": "string", "flag": "string",
}  # fmt: skip
PLACES = ("step", "phase", "phase_step")  # of a line of metrics.jsonl: where in the run it stands


@dataclass(frozen=True, eq=False)
class Results:
    """The finished, undamaged runs of a results folder.

    Attributes:
        runs: One line per evaluation of a run, with its rates as fractions in [0, 1] (`delta` in [-1, 1]).
        updates: One line per update and logged quantity of a training.
        attempts: One line per attempt of every record.
        troubles: What was left out of the frames, or must be known about a run, with the folder's path.
    """

    runs: pd.DataFrame
    updates: pd.DataFrame
    attempts: pd.DataFrame
    troubles: tuple[ReadIssue, ...]

    def to_parquet(self, folder: Path | str) -> list[Path]:
        """Writes `runs.parquet`, `updates.parquet` and `attempts.parquet`, and returns their paths.

        Raises:
            OSError: the folder cannot be written.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        written = []
        for name in ("runs", "updates", "attempts"):
            path = Path(folder) / f"{name}.parquet"
            getattr(self, name).to_parquet(path, index=False)
            written.append(path)
        return written

    def to_dataset(self) -> datasets.DatasetDict:
        """The three frames as a `datasets.DatasetDict`: `runs`, `updates` and `attempts`."""
        import datasets

        return datasets.DatasetDict(
            (name, datasets.Dataset.from_pandas(getattr(self, name), preserve_index=False))
            for name in ("runs", "updates", "attempts")
        )


def load_frames(path: Path | str) -> Results:
    """Reads a results folder, as `harness.runs.reader.read_runs` does.

    Args:
        path: A results folder, its `runs/`, or one run's folder.

    Raises:
        MetricError: a plugin's metric is at fault.
        FileNotFoundError: `path` is no folder. What is wrong with a run below it is told in `troubles`.
    """
    runs, troubles = reader.read_runs(path)
    return Results(
        _frame((line for run in runs for line in _evaluations(run)), RUNS | dict.fromkeys(METRICS, "Float64")),
        _frame((line for run in runs for line in _updates(run)), UPDATES),
        _frame((line for run in runs for line in _attempts(run)), ATTEMPTS),
        tuple(troubles),
    )


def _frame(lines: Iterable[Mapping[str, Any]], schema: Schema) -> pd.DataFrame:
    frame = pd.DataFrame.from_records(list(lines), columns=list(schema))
    return frame.astype(dict(schema))


def _place(run: Run) -> dict[str, Any]:
    return {"path": run.label, "train_task": run.task, "policy": run.policy, "name": run.name, "seed": run.seed}


def _key(key: EvalKey, final: bool) -> dict[str, Any]:
    return {**key._asdict(), "final": final}


def _evaluations(run: Run) -> Iterator[dict[str, Any]]:
    spent = run.info["spent"]
    about = {
        **_place(run), "model": run.model_name, "trained": run.was_trained, "updates": spent["updates"],
        "responses": spent.get("responses"), "seconds": run.info.get("seconds"), "commit": run.info.get("commit"),
    }  # fmt: skip
    finals = {evaluation.key for evaluation in run.final_evaluations}
    for key, evaluation in run.evaluations.items():
        summary = evaluation.summary
        yield {
            **about, **_key(key, key in finals), "task_version": run.version_of(key.task),
            "grader": run.grader_of(key.task),
            "problems": summary["problems"], "records": summary["n"], "acc_first": summary["acc"][0],
            "acc_last": summary["acc"][-1], **{metric: summary[metric] for metric in METRICS},
            "tokens_per_problem": summary["tokens_per_problem"],
        }  # fmt: skip


def _updates(run: Run) -> Iterator[dict[str, Any]]:
    place = _place(run)
    for step in run.read_steps():
        where = {"update": step["step"], "phase": step["phase"], "phase_update": step.get("phase_step")}
        for quantity, value in step.items():
            if quantity not in PLACES and isinstance(value, int | float):
                yield {**place, **where, "quantity": quantity, "value": float(value)}


def _attempts(run: Run) -> Iterator[dict[str, Any]]:
    place, finals = _place(run), {evaluation.key for evaluation in run.final_evaluations}
    for record in reader.read_records(run.path):
        key = reader.key_of(record)
        of_record = {
            **place, **_key(key, key in finals), "problem": record["id"], "sample": record["sample"],
            "prompt": record.get("prompt"),
        }  # fmt: skip
        for number, attempt in enumerate(record["attempts"], 1):
            yield {
                **of_record, **attempt, "attempt": number, "flag": attempt.get("flag"),
            }  # fmt: skip
