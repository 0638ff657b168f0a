"""Runs in other programs' formats: their structure, their own readers where these are installed, and back again."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import synthetic

from harness import cli
from harness.runs import archive, reader


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rates = (0.5, 0.2, 0.1, 0.5)
    rows = synthetic.records(rates, 1, problems=12) + synthetic.records(rates, 1, problems=12, samples=3)
    rows = [row | ({} if row["temperature"] else {"prompt": f"What is {row['id']}?"}) for row in rows]
    return synthetic.seal(synthetic.write_run(tmp_path / "results", "score_full", 1, rows))


def export(run: Path, form: str, out: Path) -> list[Path]:
    assert cli.main(["export", str(run), "--format", form, "--out", str(out)]) == 0
    return sorted(path for path in out.rglob("*") if path.is_file())


def of_temperature(run: Path, temperature: float) -> list[dict[str, Any]]:
    return [record for record in reader.read_records(run) if record["temperature"] == temperature]


def test_inspect_logs_come_back_as_the_same_run(run: Path, tmp_path: Path) -> None:
    for file in export(run, "inspect", tmp_path / "logs"):
        temperature = json.loads(file.read_text())["plan"]["config"]["temperature"]
        words = ["--name", "again", "--task", "synthetic", "--verdicts", "--updates", "100"]
        out = tmp_path / f"again{temperature}"
        assert cli.main(["import", str(file), *words, "--out", str(out)]) == 0
        (again,) = reader.read_runs(out)[0]
        held, kept = of_temperature(run, temperature), ("text", "answer", "correct", "truncated")
        mine = reader.read_records(again.path)
        assert [(r["id"], r["sample"]) for r in mine] == [(r["id"], r["sample"]) for r in held]
        assert [[{k: a[k] for k in kept} for a in r["attempts"]] for r in mine] == [
            [{k: a[k] for k in kept} for a in r["attempts"]] for r in held
        ]


def test_inspect_ai_reads_its_logs(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    log = importlib.import_module("inspect_ai.log")
    for file in export(run, "inspect", tmp_path / "logs"):
        found = log.read_eval_log(str(file))
        held = of_temperature(run, found.plan.config.temperature)
        assert found.status == "success"
        assert [sample.scores["attempt_2"].value == "C" for sample in found.samples] == [
            record["attempts"][1]["correct"] for record in held
        ]


def test_a_log_has_what_inspect_ai_asks_for(run: Path, tmp_path: Path) -> None:
    file = next(file for file in export(run, "inspect", tmp_path / "logs") if "T0-" in file.name)
    log, held = json.loads(file.read_text()), of_temperature(run, 0)
    assert {"version", "status", "eval", "plan", "results", "stats", "samples"} <= log.keys()
    assert {"created", "task", "dataset", "model", "config"} <= log["eval"].keys()
    assert log["eval"]["dataset"]["samples"] == len(log["samples"]) == log["results"]["completed_samples"] == 12
    accuracy = log["results"]["scores"][1]["metrics"]["accuracy"]["value"]
    assert accuracy == sum(record["attempts"][1]["correct"] for record in held) / 12
    assert log["samples"][0]["messages"][0] == {"role": "user", "content": "What is p0000?", "source": "input"}
    assert [m["content"] for m in log["samples"][0]["messages"][1:]] == [a["text"] for a in held[0]["attempts"]]


def test_lighteval_details(run: Path, tmp_path: Path) -> None:
    files = export(run, "lighteval", tmp_path / "out")
    assert len(files) == 2
    file = next(file for file in files if "T0-" in file.name)
    date = file.parent.name
    assert file.name.startswith("details_")
    assert file.name.endswith(f"|0_{date}.parquet")
    rows: Any = datasets.load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(rows.column_names) == ["doc", "metric", "model_response"]  # lighteval 0.13.0: DetailsLogger.Detail
    held = of_temperature(run, 0)
    assert [row["doc"]["id"] for row in rows] == [record["id"] for record in held]
    assert [row["doc"]["query"] for row in rows] == [record["prompt"] for record in held]
    assert [row["model_response"]["text"] for row in rows] == [[a["text"] for a in r["attempts"]] for r in held]
    assert [row["metric"]["correct_2"] for row in rows] == [float(r["attempts"][1]["correct"]) for r in held]


def test_a_run_in_an_archive_is_exported_and_what_is_no_run_is_said(run: Path, tmp_path: Path, capsys: Any) -> None:
    results, file = tmp_path / "results", tmp_path / "study.parquet"
    archive.write_archive([run], results, file)
    inside = export(file / run.relative_to(results), "inspect", tmp_path / "inside")
    outside = export(run, "inspect", tmp_path / "outside")
    assert [path.read_bytes() for path in inside] == [path.read_bytes() for path in outside]
    (run / "eval.jsonl").write_text("")
    capsys.readouterr()
    assert cli.main(["export", str(run), "--format", "inspect", "--out", str(tmp_path / "none")]) == 2
    assert "eval.jsonl" in capsys.readouterr().err
    assert not list((tmp_path / "none").iterdir())
