"""What a finished run's files were when it ended: records counted, bytes hashed. Writer and readers share this.

run.json of a run that is done holds, beside what docs/results_format.md describes,

    "records": {evaluation: how many records eval.jsonl holds of it}
    "sha256":  {file, relative to the run's folder: SHA-256 of its bytes}
    "digest":  SHA-256 of run.json's own entries (format 2)

so that a lost line, a changed digit or other weights are seen by whoever reads the run.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.runs.schema import info_changed, key_of

READ = ("eval.jsonl", "config.gin")  # what a table is made of; weights are compared where they are loaded


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def count_records(records: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """{evaluation: how many of the records belong to it}, in the order met."""
    return dict(Counter(key_of(record).label for record in records))


def hash_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """{name: SHA-256} of the named files of a folder; a folder's name stands for all files below it.

    Raises:
        OSError: one is missing or cannot be read.
    """
    found: dict[str, str] = {}
    for name in names:
        path = folder / name
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        found |= {file.relative_to(folder).as_posix(): file_sha256(file) for file in files}
    return found


def changed_files(folder: Path, info: Mapping[str, Any], names: Iterable[str] = READ) -> list[str]:
    """One sentence for each file that differs from what run.json records; [] for a run of before this was recorded.

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
                same = file_sha256(folder / file) == recorded[file]
            except OSError as error:
                told.append(f"{file} cannot be read: {error.strerror or error}")
                continue
            if not same:
                told.append(f"{file} is not what it was when the run ended (its SHA-256 differs)")
    return told


def changed_run(folder: Path, info: Mapping[str, Any], names: Iterable[str] = READ) -> list[str]:
    """As `changed_files`, of a run that is done; and whether its run.json is what was written.

    Args:
        folder: The run's.
        info: Its run.json.
        names: Files or folders to compare, as in `hash_files`.
    """
    why = info_changed(info)
    return [*([f"run.json: {why}"] if why else []), *changed_files(folder, info, names)]
