"""The one command: every subcommand answers under its own name, and `run`'s options are the bindings they name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from harness import config, registry
from harness.cli import ALIASES, COMMANDS, main


@pytest.mark.parametrize("name", [*COMMANDS, *ALIASES])
def test_every_subcommand_helps_under_its_own_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: score-harness {name} ")


def test_help_lists_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"score-harness {harness.__version__}\n"
    assert main([]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["leadreboard"], "(nearest: leaderboard)"),
        (["swite"], "(nearest: suite)"),
        (["--gin", "gin/score_full.gin"], "score-harness run --gin gin/score_full.gin"),
        (["describe", "method.scor"], "(nearest: method.score)"),
        (["describe", "score_full"], "is a gin file"),
        (["run", "score_ful"], "(nearest: score_full)"),
        (
            ["run", "score_full", "math", "--model", "a/b", "--limit", "3", "--print-config"],
            "task.math has no test_size",
        ),
        (["run", "score_full", "--limit", "0", "--print-config"], "test_size must lie in 1..2000"),
        (["list", "metod"], "no kind of names 'metod' (nearest: method)"),
        (["leaderboard", "nowhere/at/all"], "no results folder"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_the_short_options_are_the_bindings_they_name(capsys: pytest.CaptureFixture[str]) -> None:
    short = ["run", "score_full", "--model", "embedded:arithmetic", "--name", "mine", "--steps", "7", "--limit", "30"]
    assert main([*short, "--print-config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line in ("hf.path = 'embedded:arithmetic'", "run.name = 'mine'", "run.steps = 7", "arithmetic.test_size = 30"):
        assert line in lines


def test_limit_holds_for_the_tasks_that_are_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "score_full", "embedded_code", "--limit", "9", "--print-config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    sizes = {line for line in lines if ".test_size = " in line}
    assert {"embedded_humaneval.test_size = 9", "embedded_repair.test_size = 9"} <= sizes
    assert "embedded_code.test_size = 200" in sizes, "it is trained on, not evaluated"


def test_a_name_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "hf", "task.arithmetic", "run"]) == 0
    out = capsys.readouterr().out
    assert "policy.hf   from score-harness" in out
    assert "  arithmetic.test_size: int = 1000" in out
    assert "  hf.lr: float = " in out
    assert "  run.steps: int   (must be bound)" in out
    assert "Test problems used, from the first; at most 2,000." in out


def test_the_help_of_check_states_the_keys_of_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    out = capsys.readouterr().out
    assert all(f'"{key}"' in out for key in ("gold", "prediction", "problem", "program", "test_list", "entry_point"))


@pytest.mark.parametrize("words", [["--help"], ["list"], ["describe", "hf"]])
def test_looking_around_imports_no_torch(words: list[str]) -> None:
    script = (
        "import sys\nfrom harness.cli import main\nassert main(sys.argv[1:]) == 0\n"
        "heavy = {'torch', 'transformers', 'pandas', 'matplotlib'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_module_runs_a_row_by_its_name(tmp_path: Path) -> None:
    words = ["run", "score_full", "--name", "short", "--steps", "4", "--limit", "6", "--out", "runs"]
    small = ["--bind", "run.problems=2", "--bind", "run.samples=2", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words, *small], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs" / "arithmetic" / "arithmetic" / "short" / "seed0"
    info = json.loads((folder / "run.json").read_text())
    assert info["status"] == "done"
    assert info["spent"]["updates"] == 4
    after = [line for line in (folder / "eval.jsonl").read_text().splitlines() if '"after"' in line]
    assert len(after) == 6


def test_a_list_on_a_pipe_has_one_line_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [f"{entry.kind}.{entry.name}" for entry in registry.list_entries()]
    assert [line.split()[0] for line in lines[1 : len(names) + 1]] == names
    (row,) = (line for line in lines if line.startswith("score_no_phase1 "))
    about = (config.GIN_HOME / "gin/score_no_phase1.gin").read_text().splitlines()[0]
    assert row.split(maxsplit=1)[1].rstrip() == about.lstrip("# ")


def test_a_list_of_one_kind_has_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "verifier", "protocol"]) == 0
    first, second = (part.splitlines()[1:] for part in capsys.readouterr().out.split("\n\n"))
    assert all(line.startswith("verifier.") for line in first)
    assert {line.split()[0] for line in second} == {p.stem for p in (config.GIN_HOME / "gin/protocol").glob("*.gin")}


def test_a_type_is_described_as_it_stands_in_the_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "progress"]) == 0
    assert "  progress.against: Literal['previous', 'best'] = 'previous'\n" in capsys.readouterr().out


def complete(words: list[str], tmp_path: Path) -> list[str]:
    """What bash offers at the end of a command line, by the script that the command prints."""
    (tmp_path / "score-harness").write_text(f'#!/bin/sh\nexec {sys.executable} -m harness "$@"\n')
    (tmp_path / "score-harness").chmod(0o755)
    line = " ".join(words)
    script = f"""
        PATH={tmp_path}:$PATH; eval "$(score-harness completion bash)"
        COMP_WORDS=({line}{" ''" if line.endswith(" ") else ""}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _score_harness; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_tab_key_completes(tmp_path: Path) -> None:
    assert complete(["score-harness", "lead"], tmp_path) == ["leaderboard"]
    assert {"score_full", "score_no_phase1"} <= set(complete(["score-harness", "run", "score_"], tmp_path))
    assert complete(["score-harness", "describe", "method.scor"], tmp_path) == ["method.score"]
    assert "--resume" in complete(["score-harness", "run", "score_full", "--re"], tmp_path)


def test_describe_tells_what_is_known_of_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "Qwen/Qwen3-4B"]) == 0
    out = capsys.readouterr().out
    assert "  hf.template_options = {'enable_thinking': False}\n" in out
    assert "  hf.sample_rows = 128" in out
    assert main(["describe", "nobody/unknown-4B"]) == 2


def test_help_of_no_command_waits_for_a_heavy_library() -> None:
    """They take up to some seconds to import, and looking around is to be quick."""
    modules = sorted({module for module, _ in COMMANDS.values() if module} | {"harness.build_mbpp_r"})
    heavy = {"torch", "transformers", "matplotlib", "pandas", "scipy.stats", "huggingface_hub", "sympy"}
    code = f"""
import contextlib, importlib, io, sys
for name in {modules!r}:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        importlib.import_module(name).main(["--help"])
    if found := {heavy!r} & set(sys.modules):
        sys.exit(f"{{name}} imports {{', '.join(sorted(found))}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=config.ROOT)
    assert done.returncode == 0, done.stderr
