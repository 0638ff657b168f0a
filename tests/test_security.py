"""A stranger's run folder executes nothing, and no name leads out of the results folder (docs/security.md)."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import config
from harness.evaluate import main as run_evaluate
from harness.tasks.arithmetic import Arithmetic
from harness.training.experiment import Experiment
from verifiers.exact import Exact


@pytest.fixture(autouse=True)
def _prepared() -> None:
    config.prepare_gin(Experiment, "run")


def recorded(folder: Path, *more: str) -> Path:
    """A run folder's config.gin with further lines in it."""
    config.parse_gin(["gin/base.gin"], ["arithmetic.test_size = 4"])
    config.build_root("run")
    path = folder / "config.gin"
    path.write_text("".join(f"{line}\n" for line in more) + config.operative_config())
    return path


EVIL = "from pathlib import Path\nPath(__file__).with_name('ran').write_text('')\n"


@pytest.mark.parametrize(
    "line",
    [
        "import evil_notes",
        "from evil_package import evil_notes",
        "import evil_package.evil_notes as e",
        "  import evil_notes  # late",
        "from __gin__ import dynamic_registration",
        "include 'INNER'",
    ],
)
def test_a_recorded_config_imports_nothing(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for folder in (tmp_path, tmp_path / "evil_package"):
        folder.mkdir(exist_ok=True)
        (folder / "evil_notes.py").write_text(EVIL)
    inner = tmp_path / "inner.gin"
    inner.write_text("import evil_notes\n")
    path = recorded(tmp_path, line.replace("INNER", str(inner)))
    with pytest.raises(config.ConfigError, match=r"(?s)asks to import .*--trust|Unable to parse|unexpected indent"):
        config.parse_recorded(path)
    assert not list(tmp_path.rglob("ran"))


def test_trust_and_the_users_own_files_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good_notes.py").write_text(EVIL)
    path = recorded(tmp_path, "import good_notes")
    assert config.parse_recorded(path, trust=True) == []
    assert (tmp_path / "ran").exists()
    config.build_root("run")
    # A module that the user's own gin file imports is loaded by then: the recorded line executes nothing.
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "own_notes.py").write_text(EVIL)
    (mine / "mine.gin").write_text("import own_notes\n")
    assert config.parse_recorded(recorded(tmp_path, "import own_notes"), [str(mine / "mine.gin")]) == []
    assert (mine / "ran").exists()


def test_a_recorded_config_is_read_as_it_was_written(tmp_path: Path) -> None:
    config.parse_gin(["gin/score_full.gin"], ["hf.template_options = {'a': [1, 'x\\n']}", "hf.stop = ['it\\'s']"])
    experiment = config.build_root("run")
    text = config.operative_config()
    (tmp_path / "config.gin").write_text(text)
    assert config.parse_recorded(tmp_path / "config.gin") == []
    assert config.build_root("run") == experiment
    assert config.operative_config() == text


def test_unsafe_exec_of_a_recorded_config_is_left_out(tmp_path: Path) -> None:
    config.parse_gin(["gin/base.gin", "gin/task/embedded_code.gin"], ["code.unsafe_exec = True"])
    config.build_root("run")
    path = tmp_path / "config.gin"
    path.write_text(config.operative_config())
    assert "code.unsafe_exec = True" in path.read_text()
    (told,) = config.parse_recorded(path)
    assert "unsafe_exec = True is left out" in told
    assert config.build_root("run").task.verifier.unsafe_exec is False
    assert config.parse_recorded(path, trust=True) == []
    assert config.build_root("run").task.verifier.unsafe_exec is True
    config.parse_recorded(path, bindings=["code.unsafe_exec = True"])
    assert config.build_root("run").task.verifier.unsafe_exec is True


def test_evaluate_leaves_unsafe_exec_of_the_folder_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.parse_gin(["gin/base.gin", "gin/task/embedded_code.gin"], ["code.unsafe_exec = True"])
    config.build_root("run")
    text = config.operative_config()
    (tmp_path / "config.gin").write_text(text)
    (tmp_path / "run.json").write_text(json.dumps({"status": "done"}))
    assert run_evaluate([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "unsafe_exec = True is left out" in said
    assert "only evaluations can be added" not in said
    assert "nothing to add" in said


def test_a_recorded_config_that_includes_itself_ends(tmp_path: Path) -> None:
    path = tmp_path / "config.gin"
    path.write_text(f"include {str(path)!r}\n")
    with pytest.raises(config.ConfigError, match="includes itself"):
        config.parse_recorded(path)


def test_evaluate_runs_nothing_of_a_strangers_folder(tmp_path: Path) -> None:
    folder = tmp_path / "seed0"
    folder.mkdir()
    recorded(folder, "import seed0.evil_notes")
    (folder / "evil_notes.py").write_text(EVIL)
    (folder / "run.json").write_text(json.dumps({"status": "done"}))
    words = [sys.executable, "-m", "harness.evaluate", str(folder), "--gin", "pool"]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(config.ROOT)}
    )
    assert done.returncode == 2
    assert "asks to import seed0.evil_notes" in done.stderr
    assert "--trust" in done.stderr
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("name", ["..", ".", "../../x", "org/model", "_x", "", ".hidden", "x\n", "-x", "a\\b", "~"])
@pytest.mark.parametrize("binding", ["run.name", "hf.name", "hf.path", "arithmetic.name"])
def test_no_name_leads_out_of_the_results_folder(binding: str, name: str) -> None:
    if binding == "hf.path":
        name = f"/models/{name}"
        if name in ("/models/../../x", "/models/org/model", "/models/"):
            return  # the last part of the path is an ordinary name
    if binding == "hf.name" and not name:
        return  # not set
    config.parse_gin(["gin/base.gin"], [f"{binding} = {name!r}"])
    with pytest.raises(config.ConfigError, match="is no folder name"):
        config.build_root("run")


def test_a_plugin_tasks_name_is_checked_too() -> None:
    config.parse_gin(["gin/base.gin"], [])
    good = config.build_root("run")

    class Elsewhere(Arithmetic):
        name = "../elsewhere"  # pyright: ignore[reportAssignmentType]

    task = Elsewhere(Exact(), name="../elsewhere")
    for more in ({"task": task}, {"eval_tasks": (task,)}):
        with pytest.raises(ValueError, match=r"task.* '\.\./elsewhere' is no folder name"):
            dataclasses.replace(good, **more)


def test_the_names_of_all_tracked_rows_pass() -> None:
    from harness.training.experiment import FOLDER_NAME

    folders = {path.parent for path in (config.ROOT / "results").rglob("run.json")}
    names = {part for folder in folders for part in folder.parts[-4:-1]}
    assert len(names) > 15
    assert [name for name in names if not FOLDER_NAME.fullmatch(name)] == []
