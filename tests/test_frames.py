"""harness.load: fixed columns, numbers that are the records', Parquet files that `datasets` reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import synthetic

import harness
from harness.analysis import frames

SCHEMAS = {"runs": frames.RUNS, "updates": frames.UPDATES, "attempts": frames.ATTEMPTS}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return harness.load(synthetic.write_everything(tmp_path_factory.mktemp("all")))


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_columns_are_fixed(results: Any, name: str, tmp_path: Path) -> None:
    found = getattr(results, name)
    assert len(found)
    (tmp_path / "empty").mkdir()
    for frame in (found, getattr(harness.load(tmp_path / "empty"), name)):
        assert {column: str(dtype) for column, dtype in frame.dtypes.items()} == dict(SCHEMAS[name])


def test_rates_are_those_of_the_attempts(results: Any) -> None:
    which = [*frames.RUN, *frames.EVALUATION]
    attempts = results.attempts
    for end, column in (("min", "acc_first"), ("max", "acc_last")):
        number = attempts.groupby(which)["attempt"].transform(end)
        mine = attempts[attempts.attempt == number].groupby(which)["correct"].mean()
        told = results.runs.set_index(which)[column]
        assert (mine.sort_index() - told.sort_index()).abs().max() < 1e-12


def test_every_row_has_a_final_evaluation_and_what_is_left_out_is_told(results: Any) -> None:
    finals = results.runs[results.runs.final]
    assert {"base", "score_full"} <= set(finals.name)
    assert set(finals[finals.name == "base"].when) <= {"after", "before"}
    assert set(finals[finals.trained].when) == {"after"}
    assert "crashed" not in set(results.runs.name)
    assert any("crashed" in trouble.path for trouble in results.troubles)


def test_updates_are_the_training_log(tmp_path: Path) -> None:
    logged = synthetic.steps(3, 1)
    synthetic.write_run(tmp_path, "score_full", 1, synthetic.records((0.5, 0.2, 0.1, 0.5), 1), logged=logged)
    updates: Any = harness.load(tmp_path).updates
    wide = updates.pivot(index="update", columns="quantity", values="value")
    assert wide["delta"].tolist() == pytest.approx([step["delta"] for step in logged])
    assert sorted(wide.index) == [step["step"] for step in logged]


def test_datasets_reads_the_parquet_files(results: Any, tmp_path: Path) -> None:
    files = results.to_parquet(tmp_path / "frames")
    assert [file.name for file in files] == ["runs.parquet", "updates.parquet", "attempts.parquet"]
    for file in files:
        held = getattr(results, file.stem)
        pd.testing.assert_frame_equal(pd.read_parquet(file), held)
        loaded = datasets.load_dataset(
            "parquet", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache")
        )
        assert isinstance(loaded, datasets.Dataset)
        assert loaded.num_rows == len(held)
        assert loaded.column_names == list(held.columns)


def test_the_frames_are_a_dataset_of_the_same_values(results: Any) -> None:
    held = results.to_dataset()
    assert list(held) == ["runs", "updates", "attempts"]
    for name, dataset in held.items():
        frame = getattr(results, name)
        assert dataset.column_names == list(frame.columns)
        assert dataset.num_rows == len(frame) > 0
    assert held["attempts"]["text"][:] == results.attempts["text"].tolist()
    assert held["runs"]["acc_last"][:] == results.runs["acc_last"].tolist()


def test_importing_harness_stays_light() -> None:
    script = "import harness, sys\nassert not {'pandas', 'numpy', 'torch', 'harness.analysis'} & set(sys.modules)\n"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no results folder"):
        harness.load(tmp_path / "nowhere")
