"""The golden run folders: five outputs, byte for byte. `python tests/golden/make.py` renews them; look at the diff."""

from __future__ import annotations

import csv
import difflib
from pathlib import Path

import pytest
from golden import make

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("folder", make.FOLDERS)
def test_every_output_is_what_it_was(folder: str, tmp_path: Path) -> None:
    found = make.read_outputs(GOLDEN / folder, tmp_path)
    assert sorted(found) == sorted(path.name for path in (GOLDEN / "expected").iterdir())
    changes = ""
    for name, data in found.items():
        held = (GOLDEN / "expected" / name).read_bytes()
        if data != held:
            before, now = held.decode().splitlines(), data.decode().splitlines()
            changes += "\n".join(difflib.unified_diff(before, now, f"expected/{name}", "now", lineterm="")) + "\n"
    assert not changes, f"where this is meant, run `python tests/golden/make.py` and say why numbers move\n{changes}"


@pytest.mark.parametrize("folder", make.FOLDERS)
def test_the_folders_are_what_the_script_writes(folder: str, tmp_path: Path) -> None:
    make.write_runs(tmp_path, make.FOLDERS[folder])
    files = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    held = GOLDEN / folder
    assert files == {path.relative_to(held): path.read_bytes() for path in held.rglob("*") if path.is_file()}


def test_the_numbers_expected_are_those_of_the_letters() -> None:
    """Accuracies and changes counted from the script's letters, by no code of the harness."""
    with open(GOLDEN / "expected" / "frame_of_runs.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = []
    for name, seed, letters in make.RUNS:
        for (when, samples), held in letters.items():
            pairs = [(word[0] == "R", word[1] == "R") for words in held.values() for word in words.split()]
            first, last, mended, broken = (
                sum(pick(a, b) for a, b in pairs) / len(pairs)
                for pick in (lambda a, b: a, lambda a, b: b, lambda a, b: b and not a, lambda a, b: a and not b)
            )
            wanted.append((name, seed, when, len(held) * samples, first, last, mended, broken))
    columns = ("records", "acc_first", "acc_last", "i_to_c", "c_to_i")
    assert [(r["name"], int(r["seed"]), r["when"], *(float(r[c]) for c in columns)) for r in rows] == wanted
