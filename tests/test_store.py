"""Run folders: nothing half-written is ever taken for whole, nothing whole is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.runs.store import RunStore, StoreError, read_jsonl, run_folders, write_atomic
from harness.seeds import derive_seed, epoch_indices


def test_a_half_written_line_is_cut_off(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.append_records([{"id": "a"}, {"id": "b"}])
    with open(tmp_path / "eval.jsonl", "a") as file:
        file.write('{"id": "c"')
    assert store.read_records() == [{"id": "a"}, {"id": "b"}]
    store.append_records([{"id": "c"}])
    assert [r["id"] for r in store.read_records()] == ["a", "b", "c"]
    assert (tmp_path / "eval.jsonl.damaged").read_text() == '{"id": "c"\n'


def test_damage_that_is_no_half_line_is_told_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "eval.jsonl"
    for text, line in (('{"id": "a"}\nnot json\n{"id": "b"}\n', 2), ('{"id": "a"}\n\n', 2), ("[1]\n", 1)):
        path.write_text(text)
        with pytest.raises(StoreError, match=f"eval.jsonl, line {line} is damaged"):
            RunStore(tmp_path).read_records()
        assert path.read_text() == text


def test_a_checkpoint_with_a_changed_file_gives_way_to_the_one_before(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.write_checkpoint({"step": 1}, lambda folder: _write(folder / "weights"))
    (tmp_path / "checkpoint").rename(tmp_path / "kept")
    store.write_checkpoint({"step": 2}, lambda folder: _write(folder / "weights"))
    (tmp_path / "kept").rename(tmp_path / "checkpoint.old")
    (tmp_path / "checkpoint" / "weights").write_text("2")
    found = store.last_checkpoint()
    assert found is not None
    assert found[0] == {"step": 1}
    (tmp_path / "checkpoint.old" / "weights").unlink()
    with pytest.raises(StoreError, match=r"weights is not what it was[^$]*weights cannot be read"):
        store.last_checkpoint()


def test_rewinding_drops_later_steps(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    for step in (1, 2, 3):
        store.append_step({"step": step})
    store.drop_steps_after(2)
    assert [line["step"] for line in read_jsonl(tmp_path / "metrics.jsonl")[0]] == [1, 2]


def _write(path: Path) -> None:
    path.write_text("1")


def test_a_checkpoint_is_whole_or_the_one_before(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    assert store.last_checkpoint() is None
    store.write_checkpoint({"step": 1}, lambda folder: _write(folder / "weights"))

    def dies(folder: Path) -> None:
        (folder / "weights").write_text("2")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write_checkpoint({"step": 2}, dies)
    found = store.last_checkpoint()
    assert found is not None
    assert (found[0]["step"], (found[1] / "weights").read_text()) == (1, "1")
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")  # killed between the two renames
    assert store.last_checkpoint() is not None
    store.write_checkpoint({"step": 3}, lambda folder: None)
    assert not (tmp_path / "checkpoint.old").exists()
    store.drop_checkpoint()
    assert store.last_checkpoint() is None


def test_a_folder_is_locked_once(tmp_path: Path) -> None:
    first, second = RunStore(tmp_path), RunStore(tmp_path)
    first.acquire_lock()
    with pytest.raises(StoreError, match="in use by process"):
        second.acquire_lock()
    first.release_lock()
    second.acquire_lock()
    second.release_lock()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        RunStore(tmp_path / "file" / "run").acquire_lock()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_run_folders_are_found_in_order(tmp_path: Path) -> None:
    for name in ("b/seed1", "a/seed0"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text("{}")
    assert [str(f.relative_to(tmp_path)) for f in run_folders(tmp_path)] == ["a/seed0", "b/seed1"]


def test_draws_pass_over_everything_before_anything_again() -> None:
    one = epoch_indices(0, "problems", 10, 0, 25)
    assert sorted(one[:10]) == sorted(one[10:20]) == list(range(10))
    assert one[:10] != one[10:20]
    assert epoch_indices(0, "problems", 10, 7, 8) == one[7:15]  # position, not history, decides
    assert epoch_indices(1, "problems", 10, 0, 10) != one[:10]
    assert derive_seed(0, "a", 1) != derive_seed(0, "a", 2)
