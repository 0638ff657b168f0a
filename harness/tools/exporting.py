"""Evaluations of a run in the formats of other programs: inspect_ai's logs, lighteval's details."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.runs import archive, reader
from harness.runs.integrity import count_records
from harness.runs.reader import Run
from harness.runs.store import write_atomic

Records = Sequence[Mapping[str, Any]]


class ExportFault(ValueError):
    """A run that cannot be written in another format; the message gives the reason."""


def export_run(path: Path, form: str, out: Path) -> list[Path]:
    """Writes one file for each evaluation of a finished run.

    Args:
        path: The run's folder, or a place in an archive.
        form: One of `FORMATS`.
        out: The folder for the files.

    Raises:
        ExportFault: no run that readers take; it says why.
        OSError: a file cannot be written.
    """
    folder = archive.find_folder(path)
    run, troubles = reader.read_run(folder)
    if run is None:
        raise ExportFault("; ".join(str(trouble) for trouble in troubles))
    grouped: dict[str, list[dict[str, Any]]] = {}
    for record in reader.read_records(folder):
        (label,) = count_records([record])
        grouped.setdefault(label, []).append(record)
    return [FORMATS[form](run, label, records, out) for label, records in grouped.items()]


def record_features() -> Any:
    """The `datasets.Features` of eval.jsonl, with every optional key; a file may lack any of these.

    `datasets.load_dataset("json", data_files=[...], features=record_features())` then reads files of any runs together.
    """
    import datasets

    text, count, truth = (datasets.Value(kind) for kind in ("string", "int64", "bool"))
    attempt = {
        "text": text, "answer": text, "reward": datasets.Value("float64"), "correct": truth, "status": text,
        "tokens": count, "truncated": truth, "by": text, "flag": text, "reason": text,
    }  # fmt: skip
    return datasets.Features(
        {
            "when": text, "task": text, "id": text, "sample": count, "temperature": datasets.Value("float64"),
            "attempts": datasets.List(attempt), "split": text, "draft": text, "prompt": text, "gold": text,
            "extra_tokens": count,
        }
    )  # fmt: skip


def _write_inspect(run: Run, label: str, records: Records, out: Path) -> Path:
    """A log of inspect_ai (its JSON format, version 2).

    A sample's epoch is our sample number plus one; each attempt has a score, `attempt_1`, `attempt_2`, ... The
    instructions between the attempts are not in eval.jsonl, so the attempts follow one another as messages.
    """
    first, created = records[0], _started(run)
    turns = len(first["attempts"])
    ids = list(dict.fromkeys(record["id"] for record in records))
    name = f"{run.name}-seed{run.seed}"
    log = {
        "version": 2,
        "status": "success",
        "eval": {
            "eval_id": _short(name, label), "run_id": _short(name), "created": created, "task": first["task"],
            "task_id": _short(first["task"]), "task_version": run.version_of(first["task"]), "task_attribs": {},
            "task_args": {}, "dataset": {"name": label, "samples": len(ids), "sample_ids": ids, "shuffled": False},
            "model": run.model_name, "model_args": {}, "model_generate_config": {},
            "config": {"epochs": len(records) // len(ids)},
            "packages": {}, "metadata": {"row": run.name, "seed": run.seed, "evaluation": label},
        },
        "plan": {"name": run.name, "steps": [], "config": {"temperature": first["temperature"]}},
        "results": {
            "total_samples": len(records), "completed_samples": len(records),
            "scores": [
                {
                    "name": f"attempt_{i + 1}", "scorer": run.grader_of(first["task"]) or "verifier", "params": {},
                    "metrics": {
                        "accuracy": {
                            "name": "accuracy", "params": {},
                            "value": sum(record["attempts"][i]["correct"] for record in records) / len(records),
                        }
                    },
                }
                for i in range(turns)
            ],
        },
        "stats": {"started_at": created, "completed_at": created, "model_usage": {}},
        "samples": [_inspect_sample(run, record) for record in records],
    }  # fmt: skip
    path = out / f"{name}-{_file_name(label)}.json"
    write_atomic(path, json.dumps(log, ensure_ascii=True, indent=1) + "\n")
    return path


def _inspect_sample(run: Run, record: Mapping[str, Any]) -> dict[str, Any]:
    attempts, prompt = record["attempts"], record.get("prompt", "")
    said = [{"role": "assistant", "content": attempt["text"], "source": "generate"} for attempt in attempts]
    return {
        "id": record["id"], "epoch": record["sample"] + 1, "input": prompt, "target": str(record.get("gold", "")),
        "messages": [{"role": "user", "content": prompt, "source": "input"}, *said],
        "output": {
            "model": run.model_name,
            "choices": [
                {"message": said[-1], "stop_reason": "max_tokens" if attempts[-1]["truncated"] else "stop"}
            ],
        },
        "scores": {
            f"attempt_{i}": {
                "value": "C" if attempt["correct"] else "I", "answer": attempt["answer"],
                "explanation": attempt.get("reason"),
                "metadata": {key: attempt[key] for key in ("reward", "status", "tokens", "by")},
            }
            for i, attempt in enumerate(attempts, 1)
        },
        "metadata": {}, "store": {}, "events": [], "model_usage": {}, "attachments": {},
    }  # fmt: skip


def _write_lighteval(run: Run, label: str, records: Records, out: Path) -> Path:
    """lighteval's details: `details/MODEL/DATE/details_TASK_DATE.parquet`, with doc, metric and model_response a row.

    The attempts are the texts of the response, and `correct_1`, `correct_2`, ... its metrics.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    date, task = _started(run).replace(":", "-"), f"{_file_name(label)}|0"
    rows = [
        {
            "doc": {
                "query": record.get("prompt", ""), "choices": [str(record.get("gold", ""))], "gold_index": 0,
                "id": record["id"], "task_name": task, "num_samples": 1,
            },
            "metric": {f"correct_{i}": float(a["correct"]) for i, a in enumerate(record["attempts"], 1)},
            "model_response": {
                "input": record.get("prompt", ""), "text": [attempt["text"] for attempt in record["attempts"]],
                "truncated_tokens_count": 0, "padded_tokens_count": 0,
            },
        }
        for record in records
    ]  # fmt: skip
    folder = out / "details" / f"{run.name}-seed{run.seed}" / date
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"details_{task}_{date}.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


FORMATS: dict[str, Callable[[Run, str, Records, Path], Path]] = {
    "inspect": _write_inspect,
    "lighteval": _write_lighteval,
}


def _started(run: Run) -> str:
    return str(run.info.get("started") or "1970-01-01T00:00:00+00:00")


def _short(*texts: str) -> str:
    return hashlib.sha256(" ".join(texts).encode()).hexdigest()[:22]


def _file_name(label: str) -> str:
    return label.replace(" ", "-").replace("=", "")
