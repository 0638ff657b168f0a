"""An archive of runs: the same bytes back, readers that take it for the folder, one clear error where it is damaged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import synthetic

import harness
from harness import cli
from harness.runs import archive, integrity, reader

ROOT = Path(__file__).parents[1]
TRACKED = ROOT / "results" / "embedded"
FOR_EXPANDING = ("path", "part", "sha256", "content")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "score-harness" / "archives"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A results folder, with what an archive leaves out, and its archive in another folder."""
    folder = synthetic.write_suite(tmp_path_factory.mktemp("study"), samples=4, problems=30)
    synthetic.write_run(folder, "crashed", 1, [], status="failed", error="broke")
    odd = synthetic.write_run(folder, "odd", 1, synthetic.records((0.5, 0.2, 0.1, 0.5), 1))
    (odd / "metrics.jsonl").write_bytes(b"\xff\r\n\x00 no line feed")
    (odd / "config.gin").write_bytes(b"")
    (odd / "console.log").write_text("printed")
    (odd / "model").mkdir()
    (odd / "model" / "model.safetensors").write_bytes(b"weights")
    file = tmp_path_factory.mktemp("archives") / "study.parquet"
    assert cli.main(["archive", str(folder), "--out", str(file)]) == 0
    return folder, file


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_rows(file: Path, rows: list[dict[str, Any]], **metadata: str) -> Path:
    """A file like an archive, of any rows."""
    types = (pa.string(), pa.int32(), pa.string(), pa.binary())
    schema = pa.schema(list(zip(FOR_EXPANDING, types, strict=True)))
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table.replace_schema_metadata(metadata or {"score-harness archive": "1"}), file)
    return file


def row(path: str, content: bytes = b"{}", part: int = 0, digest: str = "") -> dict[str, Any]:
    sha256 = digest or hashlib.sha256(content).hexdigest()
    return {"path": path, "part": part, "sha256": sha256, "content": content}


def test_an_archive_expands_to_the_same_bytes(study: tuple[Path, Path], tmp_path: Path) -> None:
    folder, file = study
    assert cli.main(["archive", str(file), "--expand", str(tmp_path / "again")]) == 0
    kept = {path: data for path, data in contents(folder).items() if path.rpartition("/")[2] in archive.FILES}
    assert contents(tmp_path / "again") == kept
    assert any(data.startswith(b"\xff") for data in kept.values())
    assert any(data == b"" for data in kept.values())
    assert set(contents(folder)) - set(kept) == {
        f"runs/synthetic/tiny/odd/seed1/{name}" for name in ("console.log", "model/model.safetensors")
    }


def test_the_same_runs_give_the_same_archive(study: tuple[Path, Path], tmp_path: Path) -> None:
    folder, file = study
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert cli.main(["archive", str(copy), "--out", str(tmp_path / "copy.parquet")]) == 0
    assert cli.main(["archive", str(file), "--out", str(tmp_path / "again.parquet")]) == 0  # an archive of an archive
    assert (tmp_path / "copy.parquet").read_bytes() == file.read_bytes() == (tmp_path / "again.parquet").read_bytes()


def test_large_files_are_kept_in_parts(study: tuple[Path, Path], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(archive, "PART", 1000)
    monkeypatch.setattr(archive, "GROUP", 5000)
    folder, file = study[0], tmp_path / "parts.parquet"
    run = next(folder.rglob("score_full/seed1"))
    archive.write_archive([run], folder, file)
    assert pq.ParquetFile(file).num_row_groups > 5
    archive.expand_archive(file, tmp_path / "again")
    assert contents(tmp_path / "again" / run.relative_to(folder)) == contents(run)


@pytest.mark.slow
def test_the_tracked_study_is_small_and_gives_the_tracked_table(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(archive, "LEVEL", 9)  # a tenth of the time for a third more bytes
    file = tmp_path / "embedded.parquet"
    assert archive.write_archive(reader.find_runs(TRACKED), TRACKED, file) == 204
    assert file.stat().st_size < 3_000_000
    assert cli.main(["leaderboard", str(file), "--check", str(ROOT / "results" / "embedded.md")]) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["leaderboard", "RESULTS", "--format", "csv"], ["scaling", "RESULTS"], ["mechanism", "RESULTS"],
        ["plots", "RESULTS", "--only", "attempts", "--out", "OUT"],
        ["report", "RESULTS", "--no-figures", "--out", "OUT/page.html"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_reading_commands_take_an_archive_for_the_folder(
    words: list[str], study: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for results in study:
        out = tmp_path / results.stem
        out.mkdir()
        assert cli.main([word.replace("RESULTS", str(results)).replace("OUT", str(out)) for word in words]) == 0
        said = capsys.readouterr()
        pages = {path.name: path.read_text() for path in out.rglob("*.html")}
        named = (str(results), str(out), f": {results.name}")  # a page is called after what it is made of
        told.append([re.sub("|".join(map(re.escape, named)), "", text) for text in (*said, *pages.values())])
    assert told[0] == told[1]
    assert "cache" not in "".join(told[1])
    assert "crashed" in "".join(told[1])


def test_frames_are_those_of_the_folder(study: tuple[Path, Path]) -> None:
    folder, file = (harness.load(path) for path in study)
    for name in ("runs", "updates", "attempts"):
        pd.testing.assert_frame_equal(getattr(folder, name), getattr(file, name))
    assert folder.troubles == file.troubles
    inside = harness.load(study[1] / "runs" / "synthetic" / "tiny" / "score_full" / "seed2")
    assert set(inside.runs.seed) == {2}


def test_verify_takes_an_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracked = next(TRACKED.glob("*/*/base/seed0"))
    lines = (tracked / "eval.jsonl").read_text().splitlines(keepends=True)[:30]
    wrong = lines[2].replace('"correct":true', '"correct":false')
    assert wrong != lines[2]
    for name, held, status in (("same", lines, 0), ("other", [*lines[:2], wrong, *lines[3:]], 1)):
        run = tmp_path / name / tracked.relative_to(TRACKED)
        shutil.copytree(tracked, run)
        (run / "eval.jsonl").write_text("".join(held))
        archive.write_archive([run], tmp_path / name, tmp_path / f"{name}.parquet")
        shutil.rmtree(run)
        assert cli.main(["verify", str(tmp_path / f"{name}.parquet")]) == status
        said = capsys.readouterr().out
        assert "cache" not in "".join(said.split())
    assert "correct was False, is True" in said


def test_weights_are_not_missed_in_an_archive(tmp_path: Path) -> None:
    tracked = next(TRACKED.glob("*/*/base/seed0"))
    run = shutil.copytree(tracked, tmp_path / "results" / tracked.relative_to(TRACKED))
    lines = (run / "eval.jsonl").read_text().splitlines(keepends=True)[:30]
    (run / "eval.jsonl").write_text("".join(lines))
    (run / "model").mkdir()
    (run / "model" / "model.safetensors").write_bytes(b"weights")
    info = json.loads((run / "run.json").read_text())
    info |= {"sha256": integrity.hash_files(run, (*integrity.READ, "model"))}
    (run / "run.json").write_text(json.dumps(info))
    archive.write_archive([run], tmp_path / "results", tmp_path / "one.parquet")
    shutil.rmtree(run / "model")
    assert cli.main(["verify", str(run)]) == 1
    assert cli.main(["verify", str(tmp_path / "one.parquet")]) == 0


def test_the_report_of_an_archive_lies_beside_it(study: tuple[Path, Path], tmp_path: Path) -> None:
    file = Path(shutil.copy(study[1], tmp_path / "mine.parquet"))
    assert cli.main(["report", str(file), "--no-figures"]) == 0
    assert (tmp_path / "mine.html").is_file()


def test_an_archive_in_a_results_folder_is_read_there(study: tuple[Path, Path], tmp_path: Path) -> None:
    results = tmp_path / "results"
    (results / "old").mkdir(parents=True)
    shutil.copy(study[1], results / "old" / "study.parquet")
    shutil.copy(study[1], results / "old" / "twice.parquet")
    harness.load(study[0]).to_parquet(results / "frames")  # other Parquet files are none of ours
    (results / "torn.parquet").write_bytes(study[1].read_bytes()[:-7])
    new = synthetic.write_run(results, "score_full", 9, synthetic.records((0.6, 0.2, 0.1, 0.5), 9, problems=30))
    runs, troubles = reader.read_runs(results)
    known, _ = reader.read_runs(study[0])
    assert [run.label for run in runs] == [f"old/study.parquet/{run.label}" for run in known] + [
        new.relative_to(results).as_posix()
    ]
    told = {trouble.path: trouble.message for trouble in troubles if "crashed" not in trouble.path}
    assert told["old/twice.parquet"] == "is a copy of old/study.parquet, which is read there"
    assert "torn.parquet is no archive that can be read" in told["torn.parquet"]
    assert not any("frames" in path for path in told)


def test_a_run_in_the_folder_and_in_an_archive_counts_once(study: tuple[Path, Path], tmp_path: Path) -> None:
    results = Path(shutil.copytree(study[0], tmp_path / "results"))
    shutil.copy(study[1], results / "study.parquet")
    runs, troubles = reader.read_runs(results)
    assert len(runs) == len(reader.read_runs(study[0])[0])
    copies = [trouble for trouble in troubles if "this is a copy" in trouble.message]
    assert len(copies) == len(runs)
    assert all(trouble.path.startswith("study.parquet/runs/") for trouble in copies)


def test_datasets_reads_an_archive(study: tuple[Path, Path], tmp_path: Path) -> None:
    rows: Any = datasets.load_dataset("parquet", data_files=str(study[1]), split="train", cache_dir=str(tmp_path))
    assert rows.column_names == list(FOR_EXPANDING)
    assert {row["path"]: row["content"] for row in rows} == {
        path: data for path, data in contents(study[0]).items() if path.rpartition("/")[2] in archive.FILES
    }


def test_a_damaged_archive_is_one_error_and_leaves_nothing(
    study: tuple[Path, Path], tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = study[1].read_bytes()
    damaged = {f"cut at {at}": whole[:at] for at in (0, 3, len(whole) // 2, len(whole) - 1)}
    for at in (len(whole) // 5, len(whole) // 2, len(whole) * 4 // 5):  # in the pages, which have checksums
        damaged[f"changed at {at}"] = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    for name, data in damaged.items():
        file = tmp_path / "damaged.parquet"
        file.write_bytes(data)
        for words in (["archive", str(file), "--expand", str(tmp_path / "half")], ["leaderboard", str(file)]):
            assert cli.main(words) == 2, name
            said = capsys.readouterr()
            assert said.out == "", name
            assert said.err.count("\n") == 1, said.err
            assert str(file) in said.err
            assert not (tmp_path / "half").exists()
            assert not list(cache.glob("*")), name
            assert not list(tmp_path.glob(".*")), name


PLACE = "arithmetic/policy/row/seed0/run.json"


@pytest.mark.parametrize(
    "path",
    [
        "../" + PLACE, "/" + PLACE, "a/../../" + PLACE, "a//" + PLACE, "./" + PLACE, "a\\..\\" + PLACE, "a\0/" + PLACE,
        "seed0/run.json", "arithmetic/policy/row/seed0/.bashrc", "arithmetic/policy/row/other/run.json",
        "arithmetic/policy/row/seed0/run.json/", "",
    ],
)  # fmt: skip
def test_a_path_that_leaves_the_folder_is_refused(path: str, tmp_path: Path, cache: Path) -> None:
    file = write_rows(tmp_path / "hostile.parquet", [row(PLACE), row(path)])
    with pytest.raises(archive.ArchiveError, match="is refused"):
        archive.expand_archive(file, tmp_path / "into" / "deep" / "folder")
    with pytest.raises(archive.ArchiveError, match="is refused"):
        reader.read_runs(file)
    assert not (tmp_path / "into" / "deep" / "folder").exists()
    assert [found.name for found in tmp_path.rglob("*") if found.is_file()] == ["hostile.parquet"]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([row(PLACE, digest="0" * 64)], "SHA-256"),
        ([row(PLACE), row("b/" + PLACE), row(PLACE)], "twice"),
        ([row(PLACE, part=1)], "part 0"),
        ([row(PLACE), row(PLACE, part=2)], "part 1"),
        ([row(PLACE) | {"content": None}], "part 0"),
        ([row(PLACE) | {"path": None}], "no path"),
    ],
)
def test_contents_that_do_not_fit_are_refused(rows: list[dict[str, Any]], told: str, tmp_path: Path) -> None:
    with pytest.raises(archive.ArchiveError, match=told):
        archive.expand_archive(write_rows(tmp_path / "odd.parquet", rows), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_what_is_no_archive_is_said(study: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    other = write_rows(tmp_path / "other.parquet", [], pandas="{}")
    newer = write_rows(tmp_path / "newer.parquet", [], **{"score-harness archive": "2"})
    (tmp_path / "text.parquet").write_text("no Parquet")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for words, told in (
        (["leaderboard", str(other)], "no archive of runs"),
        (["leaderboard", str(newer)], "another version"),
        (["leaderboard", str(tmp_path / "text.parquet")], "no archive that can be read"),
        (["leaderboard", str(tmp_path / "nothing.parquet")], "no results folder"),
        (["archive", str(study[1]), "--expand", str(tmp_path / "full")], "there already"),
        (["archive", str(tmp_path / "full"), "--out", str(tmp_path / "empty.parquet")], "holds no runs"),
        (["archive", str(tmp_path / "nowhere"), "--out", str(tmp_path / "empty.parquet")], "no results folder"),
    ):
        assert cli.main(words) == 2
        said = capsys.readouterr().err
        assert told in said
        assert said.count("\n") == 1
    assert not (tmp_path / "empty.parquet").exists()


def test_a_cache_that_was_changed_is_filled_again(study: tuple[Path, Path], cache: Path) -> None:
    before = reader.read_runs(study[1])[0]
    (folder,) = cache.iterdir()
    for damage in (
        lambda: next(folder.rglob("eval.jsonl")).write_text("other"),
        lambda: next(folder.rglob("run.json")).unlink(),
        lambda: (folder / "runs" / "synthetic" / "tiny" / "score_full" / "seed44").mkdir(),
        lambda: (folder / "runs" / "synthetic" / "tiny" / "score_full" / "more").touch(),
    ):
        damage()
        archive._checked.clear()  # as another process sees it
        assert [run.evaluations.keys() for run in reader.read_runs(study[1])[0]] == [
            run.evaluations.keys() for run in before
        ]
    shutil.rmtree(folder)
    assert len(reader.read_runs(study[1])[0]) == len(before)


def test_a_run_that_is_written_meanwhile_is_not_archived(
    study: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Path(shutil.copytree(study[0], tmp_path / "results"))
    digest: Callable[[Path], str] = archive.integrity.file_sha256

    def slow(path: Path) -> str:
        found = digest(path)
        if path.parent.parent.name == "odd" and path.name == "run.json":
            with open(path.parent / "eval.jsonl", "ab") as file:
                file.write(b"{}\n")
        return found

    monkeypatch.setattr(archive.integrity, "file_sha256", slow)
    with pytest.raises(archive.ArchiveError, match="changed while it was read"):
        archive.write_archive(reader.find_runs(results), results, tmp_path / "out.parquet")
    assert not list(tmp_path.glob("*.parquet"))
    assert not list(tmp_path.glob(".*"))


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may become larger than `size`: what the kernel says of it, libraries treat as they do a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_nothing_half(study: tuple[Path, Path], tmp_path: Path, cache: Path) -> None:
    folder, file = study
    runs = reader.find_runs(folder)
    (tmp_path / "old.parquet").write_text("what was there")
    with full_disk(2000):
        with pytest.raises(archive.ArchiveError, match=r"cannot be written|damaged"):
            archive.write_archive(runs, folder, tmp_path / "old.parquet")
        with pytest.raises(archive.ArchiveError, match="cannot be expanded"):
            archive.expand_archive(file, tmp_path / "again")
        with pytest.raises(archive.ArchiveError, match="cannot be expanded"):
            reader.read_runs(file)
    assert (tmp_path / "old.parquet").read_text() == "what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "old.parquet"]
    assert not list(cache.iterdir())
