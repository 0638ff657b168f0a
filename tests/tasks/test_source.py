"""Rows from files and from the hub: every failure is one error that names the place and what to do."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.tasks.source import DataError, Hub, check_columns, check_pin, load_source_rows, rows_digest

HUB = Hub("nobody/no-such-data", "0" * 40, home="example.org/data.jsonl")
ROWS = [{"task_id": i, "text": f"line {i}\u2028 of text", "tests": ["a", "b"]} for i in range(3)]
SCHEMA = {"task_id": int, "text": str, "tests": list}


def jsonl(rows: list) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(folder: Path, form: str) -> Path:
    path = folder / f"rows.{form}"
    if form == "parquet":
        import datasets

        datasets.Dataset.from_list(ROWS).to_parquet(path)
    elif form.endswith("gz"):
        path.write_bytes(gzip.compress(jsonl(ROWS).encode()))
    elif form == "json":
        path.write_text(json.dumps(ROWS, indent=2), encoding="utf-8")
    else:
        path.write_text(jsonl(ROWS), encoding="utf-8")
    return path


@pytest.mark.parametrize("form", ["jsonl", "json", "json.gz", "jsonl.gz", "parquet"])
def test_every_form_gives_the_same_rows(tmp_path, form):
    loaded = check_columns(load_source_rows("toy", HUB, str(write(tmp_path, form))), SCHEMA)
    assert [dict(row.fields) for row in loaded.rows] == ROWS
    assert rows_digest(row.fields for row in loaded.rows) == rows_digest(reversed(ROWS))


def test_a_folder_is_all_its_files_and_names_tell_their_part(tmp_path):
    (tmp_path / "algebra").mkdir()
    (tmp_path / "algebra" / "train-0.jsonl").write_text(jsonl(ROWS[:1]))
    (tmp_path / "test.jsonl").write_text(jsonl(ROWS[1:]))
    (tmp_path / "README.md").write_text("no data")
    loaded = load_source_rows("toy", HUB, str(tmp_path))
    assert [(row.fields["task_id"], row.part) for row in loaded.rows] == [(0, "train"), (1, "test"), (2, "test")]
    assert len(load_source_rows("toy", HUB, [str(tmp_path / "test.jsonl"), str(tmp_path / "algebra")]).rows) == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (jsonl(ROWS[:1]) + '{"task_id": 1, "text": \n', r"rows\.jsonl, line 2: no JSON"),
        (jsonl(ROWS[:1]) + "[1]\n", r"rows\.jsonl, line 2: a row must be a JSON object, not \[1\]"),
        (jsonl([ROWS[0], {"task_id": 1, "txt": "x", "tests": ["a"]}]), r"line 2: the field 'text' is missing .*txt"),
        (jsonl([{**ROWS[0], "task_id": "1"}]), r"line 1: the field 'task_id' must be a whole number, not \"1\""),
        (jsonl([{**ROWS[0], "tests": "assert"}]), r"line 1: the field 'tests' must be a list of texts"),
        (jsonl([{**ROWS[0], "text": ""}]), r"line 1: the field 'text' is empty"),
        ('[{"task_id": 0, "text": "x", "tests": ["a"]},\n{"task_id": 1,\n}]', r"rows\.jsonl, line 2: no JSON"),
        ("", r"rows\.jsonl holds no rows"),
    ],
)
def test_a_damaged_file_is_told_by_line_and_field(tmp_path, text, told):
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        check_columns(load_source_rows("toy", HUB, str(tmp_path / "rows.jsonl")), SCHEMA)


def test_a_file_that_is_not_there_or_no_data_is_named(tmp_path):
    write(tmp_path, "jsonl")
    with pytest.raises(DataError, match=r"no file .*row\.jsonl \(nearest: rows\.jsonl\)"):
        load_source_rows("toy", HUB, str(tmp_path / "row.jsonl"))
    (tmp_path / "rows.csv").write_text("a,b")
    with pytest.raises(DataError, match=r"rows\.csv is no \.jsonl"):
        load_source_rows("toy", HUB, str(tmp_path / "rows.csv"))
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match=r"rows\.parquet is no parquet file"):
        load_source_rows("toy", HUB, str(tmp_path / "rows.parquet"))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(jsonl(ROWS).encode())[:30])
    with pytest.raises(DataError, match=r"cut\.jsonl\.gz cannot be read"):
        load_source_rows("toy", HUB, str(tmp_path / "cut.jsonl.gz"))


def test_a_repositorys_splits_are_parts_and_its_configurations_follow_one_another(tmp_path):
    """A folder laid out like a hub repository, through the very call the hub is loaded by."""
    for config in ("algebra", "geometry"):
        (tmp_path / config).mkdir()
        (tmp_path / config / "train.jsonl").write_text(jsonl([{"text": f"{config} train"}]))
        (tmp_path / config / "test.jsonl").write_text(jsonl([{"text": f"{config} test"}]))
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n"
        + "".join(
            f"- config_name: {c}\n  data_files:\n  - split: train\n    path: {c}/train.jsonl\n  - split: test\n"
            f"    path: {c}/test.jsonl\n"
            for c in ("algebra", "geometry")
        )
        + "---\n"
    )
    loaded = load_source_rows("toy", Hub(str(tmp_path), "main", ("algebra", "geometry")), None)
    assert [(row.fields["text"], row.part) for row in loaded.rows] == [
        ("algebra train", "train"), ("algebra test", "test"), ("geometry train", "train"), ("geometry test", "test"),
    ]  # fmt: skip
    assert loaded.rows[1].place.endswith("/algebra/test, row 1")


def test_an_unreachable_hub_is_told_at_once_with_the_way_on():
    started = time.monotonic()
    with pytest.raises(DataError) as caught:
        load_source_rows("toy", HUB, None)
    message = str(caught.value)
    assert "cannot be reached (HF_HUB_OFFLINE is set)" in message
    assert "--bind \"task.toy.data = '/path/to/file'\"" in message
    assert "example.org/data.jsonl" in message
    assert "\n" not in message
    assert time.monotonic() - started < 10


def test_a_hub_that_refuses_is_not_asked_again_and_again():
    """Online as far as the libraries know; the hub's address refuses connections, as behind a closed firewall."""
    code = (
        "import time, harness.tasks.source as s\n"
        "waits = []\n"
        "time.sleep = waits.append\n"  # what is waited between attempts, however busy the machine is
        "try: s.load_source_rows('toy', s.Hub('nobody/no-such-data', '0' * 40), None)\n"
        "except s.DataError as error: print(error)\n"
        "print(sum(waits))\n"
    )
    hidden = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env |= {"HF_ENDPOINT": "http://127.0.0.1:9", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    message, waited = done.stdout.strip().split("\n")
    assert "the Hugging Face hub cannot be reached" in message
    assert "refused" in message
    assert float(waited) == 0  # the library alone waits 23 s


def test_other_data_than_the_pinned_is_refused_with_both_digests(tmp_path):
    loaded = load_source_rows("toy", HUB, str(write(tmp_path, "jsonl")))
    right = check_pin("toy", loaded, ("task_id", "text"), None, 3).digest
    assert check_pin("toy", loaded, ("task_id", "text"), right, 3).digest == right
    with pytest.raises(
        DataError, match=rf"3 rows with digest {right[:12]}.* not 4 rows with ffff.*task\.toy\.pin = None"
    ):
        check_pin("toy", loaded, ("task_id", "text"), "f" * 64, 4)
