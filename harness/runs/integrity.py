"""What a finished run's files were when it ended: records counted, bytes hashed. Writer and readers share this.

run.json of a run that is done holds, beside what docs/results_format.md describes,

    "records": {evaluation: how many records eval.jsonl holds of it}
    "sha256":  {file, relative to the run's folder: SHA-256 of its bytes}

so that a lost line, a changed digit or other weights are seen by whoever reads the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

READ = ("eval.jsonl", "config.gin")  # what a table is made of; weights are compared where they are loaded


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def evaluation_label(record: Mapping[str, Any]) -> str:
    """Names the evaluation a record belongs to: `after arithmetic test T=0.7 policy 2` (when, task, split,
    temperature, who wrote attempt 1, attempts; of a control, its draft as well)."""
    attempts = record["attempts"]
    label = (
        f"{record['when']} {record['task']} {record.get('split', 'test')} T={float(record['temperature']):g} "
        f"{attempts[0]['by']} {len(attempts)}"
    )
    return f"{label} {record['draft']}" if "draft" in record else label


def count_records(records: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """{evaluation: how many of the records belong to it}, in the order met."""
    found: dict[str, int] = {}
    for record in records:
        label = evaluation_label(record)
        found[label] = found.get(label, 0) + 1
    return found


def hash_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """{name: SHA-256} of the named files of a folder; a folder's name stands for all files below it.

    Raises:
        OSError: one is missing or cannot be read.
    """
    found: dict[str, str] = {}
    for name in names:
        path = folder / name
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        found |= {file.relative_to(folder).as_posix(): sha256(file) for file in files}
    return found


def changed_files(folder: Path, info: Mapping[str, Any], names: Iterable[str] = READ) -> list[str]:
    """One sentence for each file that is not what run.json says it was; [] for a run of before this was recorded.

    Args:
        folder: The run's folder.
        info: Its run.json.
        names: Files or folders to compare, as in `hash_files`.
    """
    recorded = info.get("sha256")
    if not isinstance(recorded, Mapping):
        return []
    told = []
    for name in names:
        for file in [key for key in recorded if key == name or key.startswith(f"{name}/")]:
            try:
                same = sha256(folder / file) == recorded[file]
            except OSError as error:
                told.append(f"{file} cannot be read: {error.strerror or error}")
                continue
            if not same:
                told.append(f"{file} is not what it was when the run ended (its SHA-256 differs)")
    return told
