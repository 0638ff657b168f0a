"""The axes of gin/: row, task, protocol, evaluations, machine, model; old paths still give what they gave."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gin
import pytest

from harness import config
from harness.policy.known_models import find_settings
from harness.training.experiment import Experiment

ROW = "gin/score_full.gin"
GPU = "gin/machine/gpu.gin"
# What each file of gin/on/ bound after gin/score_full.gin, where that differs; recorded at commit 40cfb69.
OLD: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "old_gin_paths.json").read_text())


@pytest.fixture(autouse=True)
def _prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    config.prepare_gin(Experiment, "run")
    monkeypatch.setattr(config, "_told_once", set())


def bindings(files: list[str], *more: str) -> dict[str, str]:
    """Everything that is bound after parsing; nothing is built, so no data is needed."""
    config.parse_gin(files, list(more))
    bound = config.parse_bindings(gin.config_str(max_line_length=100_000))
    bound.pop("MODEL", None)
    return bound


def test_every_old_path_is_in_the_table_and_none_is_a_file() -> None:
    assert set(OLD) == set(config.MOVED)
    assert not (config.ROOT / "gin" / "on").exists()


@pytest.mark.parametrize("path", sorted(OLD))
def test_an_old_path_gives_the_bindings_that_it_gave_and_says_what_to_write(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = [] if "hf.path" in OLD[path] else ["hf.path = 'my/model'"]
    want = bindings([ROW]) | OLD[path] | ({"hf.path": "'my/model'"} if model else {})
    assert bindings([ROW, path], *model) == want
    said = capsys.readouterr().err
    assert said.count(f"deprecated: {path} is now ") == 1
    # What it says gives the same.
    words = said.partition(f"{path} is now ")[2].partition("\n")[0].split()
    files = [value for option, value in zip(words[::2], words[1::2], strict=True) if option == "--gin"]
    given = [
        f"MODEL={value}" if option == "--model" else value
        for option, value in zip(words[::2], words[1::2], strict=True)
        if option != "--gin"
    ]
    assert bindings([ROW, *files], *given, *model) == want
    # So does a file of the user's own that includes the old path, and the path written absolutely.
    (tmp_path / "mine.gin").write_text(f"include '{ROW}'\ninclude '{path}'\nrun.name = 'score_full'\n")
    assert bindings([str(tmp_path / "mine.gin")], *model) == want
    assert bindings([ROW, str(config.GIN_HOME / path)], *model) == want


def test_an_old_bare_name_works_and_a_wrong_one_names_the_nearest() -> None:
    assert bindings([ROW, "math_qwen2.5_3b"]) == bindings([ROW, "gin/on/math_qwen2.5_3b.gin"])
    with pytest.raises(config.ConfigError, match=r"nearest: gin/on/qwen2.5_3b.gin"):
        config.parse_gin(["gin/on/qwen2.5_3bb.gin"], [])


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("Qwen/Qwen2.5-1.5B-Instruct", {}),
        ("Qwen/Qwen2.5-7B-Instruct", {"microbatch_tokens": 8192, "sample_rows": 128}),
        ("Qwen/Qwen2.5-0.5B", {"chat": "plain"}),
        ("/data/models/Qwen3-0.6B/", {"template_options": {"enable_thinking": False}}),
        ("google/gemma-2-2b-it", {"attention": "eager", "microbatch_tokens": 8192, "sample_rows": 128}),
        ("google/gemma-3-1b-it", {"microbatch_tokens": 8192, "sample_rows": 128}),
        ("Qwen/Qwen2.5-0.5B-mine", {}),
        ("embedded:arithmetic", {}),
    ],
)
def test_a_known_model_gets_its_settings_and_own_bindings_go_before(
    model: str, settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find_settings(model) == settings
    said = capsys.readouterr().err
    bound = bindings([ROW, GPU], f"MODEL={model}")
    assert bound["hf.path"] == repr(model)
    on_gpu = {"attention": "sdpa", "microbatch_tokens": 16384, "sample_rows": 256} | settings
    assert {name: bound[f"hf.{name}"] for name in on_gpu} == {name: repr(value) for name, value in on_gpu.items()}
    said = capsys.readouterr().err
    assert all(f"hf.{name} = {value!r}" in said for name, value in settings.items())
    own = {"chat": "'template'", "template_options": "None", "sample_rows": "7", "attention": "'flash_attention_2'"}
    lines = [f"hf.{name} = {value}" for name, value in own.items()]
    (tmp_path / "own.gin").write_text("\n".join([*lines[:2], "policy." + lines[2]]) + "\n")
    # Before the model is chosen, in a file; after it, in a binding: own settings win in any order.
    bound = bindings([ROW, str(tmp_path / "own.gin"), GPU], lines[3], f"MODEL={model}")
    assert {name: bound[f"hf.{name}"] for name in own if name != "sample_rows"} == {
        **{name: value for name, value in own.items() if name != "sample_rows"}
    }
    assert bound["hf.microbatch_tokens"] == repr(settings.get("microbatch_tokens", 16384))
    config.build_root("run")
    assert "hf.chat = 'template'" in config.operative_config()


@pytest.mark.parametrize("task", ["math", "math_5000", "mbpp", "mbpp_r", "mbpp_sanitized", "humaneval", "word_filter"])
def test_a_real_task_needs_a_model_chosen_in_any_way_and_order(task: str, tmp_path: Path) -> None:
    file = f"gin/task/{task}.gin"
    with pytest.raises(config.ConfigError, match=r"^gin/(task|eval)/\w+.gin needs a model: .*--model.*MODEL = '...'"):
        config.parse_gin([ROW, file], [])
    (tmp_path / "model.gin").write_text("MODEL = 'my/model'\n")
    (tmp_path / "path.gin").write_text("hf.path = 'my/model'\n")
    for files, bind in (
        ([ROW, file], "MODEL = 'my/model'"),
        ([ROW, file], "MODEL=my/model"),
        ([ROW, file], "hf.path=my/model"),
        ([ROW, str(tmp_path / "model.gin"), file], ""),
        ([ROW, file, str(tmp_path / "model.gin")], ""),
        ([ROW, str(tmp_path / "path.gin"), file], ""),
    ):
        assert bindings(files, *([bind] if bind else []))["hf.path"] == "'my/model'"
    assert bindings([ROW, file], "MODEL=a/b", "hf.path=c/d")["hf.path"] == "'c/d'"
    assert bindings([ROW, file, str(tmp_path / "path.gin")], "MODEL=c/d")["hf.path"] == "'c/d'"
    with pytest.raises(config.ConfigError, match="MODEL must be a text"):
        config.parse_gin([ROW, file], ["MODEL = 3\nrun.seed = 0"])


def test_the_model_is_in_the_saved_config_as_its_path() -> None:
    config.parse_gin([ROW], ["MODEL = 'embedded:code'"])
    config.build_root("run")
    told = config.parse_bindings(config.operative_config())
    assert told["hf.path"] == "'embedded:code'"
    assert "MODEL" not in told


def test_a_policy_without_a_path_needs_no_model() -> None:
    from harness import register
    from harness.training.scripted import Scripted

    @register("policy", "test_axes_scripted")
    def scripted() -> Scripted:
        return Scripted(lambda chat, updates: "1", "scripted")

    config.prepare_gin(Experiment, "run")
    assert bindings([ROW, "gin/task/word_filter.gin"], "run.policy = @policy.test_axes_scripted()")


@pytest.mark.parametrize(
    "files",
    [
        ["gin/task/word_filter.gin", ROW],
        ["gin/eval/real_benchmarks.gin", "gin/base.gin"],
        ["gin/protocol/paper_math.gin", ROW],
        ["gin/star.gin", ROW],
        ["gin/task/word_filter.gin", "mine.gin"],
        ["both.gin"],
    ],
)
def test_a_row_after_what_it_undoes_is_an_error(files: list[str], tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mine.gin").write_text(f"include '{ROW}'\nprogress.alpha = 5.0\n")
    (tmp_path / "both.gin").write_text(f"include 'gin/task/word_filter.gin'\ninclude '{ROW}'\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(config.ConfigError, match=r"which undoes its run|which undoes its hf|bindings that it undoes"):
        config.parse_gin(files, ["MODEL=my/model"])


def test_what_a_row_does_not_undo_may_stand_before_it_and_transfer_has_a_file() -> None:
    assert bindings(["gin/eval/pool.gin", ROW]) == bindings([ROW, "gin/eval/pool.gin"])
    bound = bindings([ROW, "gin/eval/transfer_humaneval.gin"], "MODEL=my/model")
    assert (bound["run.task"], bound["run.name"]) == ("@task.arithmetic()", "'score_full'")
    assert bound["run.eval_tasks"] == "[@task.humaneval(), @task.humanevalfix()]"


def test_the_old_order_for_transfer_still_works_with_a_notice(capsys: pytest.CaptureFixture[str]) -> None:
    bound = bindings(["gin/on/humaneval.gin", ROW], "MODEL=my/model")
    assert (bound["run.task"], bound["run.name"]) == ("@task.arithmetic()", "'score_full'")
    assert "gin/on/humaneval.gin stands before the row gin/score_full.gin" in capsys.readouterr().err


def test_a_trained_row_without_a_protocol_says_which_budget_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    for files, more, told in (
        ([ROW, "gin/task/math.gin"], [], True),
        (["gin/base.gin", "gin/task/math.gin"], [], False),
        ([ROW, "gin/task/math.gin", "gin/protocol/paper_math.gin"], [], False),
        ([ROW, "gin/task/math.gin"], ["hf.lr = 1e-5"], False),
        ([ROW], [], False),
    ):
        config._told_once.clear()
        config.parse_gin(files, ["MODEL=my/model", *more])
        assert ("no protocol is given" in capsys.readouterr().err) == told, (files, more)


def test_a_row_is_named_after_its_file_where_nothing_names_it(tmp_path: Path) -> None:
    (tmp_path / "alpha5.gin").write_text(f"include '{ROW}'\nprogress.alpha = 5.0\n")
    mine = str(tmp_path / "alpha5.gin")
    assert bindings([mine])["run.name"] == "'alpha5'"
    assert bindings(["gin/eval/pool.gin", mine])["run.name"] == "'alpha5'"
    assert bindings([mine], "run.name=other")["run.name"] == "'other'"
    (tmp_path / "named.gin").write_text(f"include '{ROW}'\nrun.name = 'given'\n")
    assert bindings([str(tmp_path / "named.gin")])["run.name"] == "'given'"


def test_parent_and_difference_come_from_the_include_chain_wherever_the_file_lies(tmp_path: Path) -> None:
    (tmp_path / "alpha5.gin").write_text(f"include '{ROW}'\ninclude 'budget.gin'\nprogress.alpha = 5.0\n")
    (tmp_path / "budget.gin").write_text("run.steps = 7\n")
    (tmp_path / "alpha5b.gin").write_text(
        "include 'alpha5.gin'\nrun.name = 'x'\nADVANTAGE = @advantage.leave_one_out()\n"
    )
    find = config.parent_and_difference
    assert find([str(tmp_path / "alpha5.gin")]) == (
        "score_full", {"run.steps": "7", "progress.alpha": "5.0"},
    )  # fmt: skip
    assert find([str(tmp_path / "alpha5b.gin")]) == ("alpha5", {"ADVANTAGE": "@advantage.leave_one_out()"})
    assert find(["gin/score_discounted.gin", "gin/task/math.gin"], ["MODEL=a/b", "run.seed = 3"]) == (
        "score_full", {"score_phase2.gamma": "0.8"},
    )  # fmt: skip
    assert find([ROW], ["progress.alpha=5.0", "run.name=a5"]) == ("score_full", {"progress.alpha": "5.0"})
    (tmp_path / "variant.gin").write_text("run.name = 'a6'\nprogress.alpha = 6.0\n")
    variant = [ROW, "gin/eval/pool.gin", str(tmp_path / "variant.gin")]
    assert find(variant, ["run.seed = 3"]) == ("score_full", {"progress.alpha": "6.0"})
    assert find([ROW], ["run.name=score_full", "progress.alpha=5.0"])[0] == "base"  # no other row: the row itself
    assert find(["gin/base.gin"]) == ("", {})
    assert find(["gin/eval/pool.gin"]) == ("", {})


def test_no_task_or_protocol_binds_a_rows_own_settings_or_a_model() -> None:
    for path in [*config.ROOT.glob("gin/task/*.gin"), *config.ROOT.glob("gin/protocol/*.gin")]:
        names = config.bound_by(str(path))
        assert not [name for name in names if name.startswith(("progress.", "run.policy", "run.method"))], path
        assert path.stem.startswith("embedded") or "hf.path" not in names, path
        budget = {"run.steps", "hf.lr", "BETA1"} & set(names)
        assert path.parent.name == "protocol" or path.stem == "embedded_code" or not budget, path


@pytest.mark.parametrize("path", sorted((config.ROOT / "gin" / "machine").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_launchers_file_is_one_accelerate_reads(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    settings: Any = load_config_from_file(str(path))
    assert settings.num_processes == 8
    assert settings.mixed_precision == "no"  # the harness rounds forwards itself
    assert (
        f"--config_file gin/machine/{path.name} -m harness.run --processes {settings.num_processes}" in path.read_text()
    )


def test_every_gin_file_that_a_page_or_a_message_names_exists() -> None:
    root = Path(__file__).resolve().parent.parent
    pages = [root / "README.md", *(root / "docs").glob("*.md"), *(root / "harness").rglob("*.py")]
    pages += [*(root / "methods").rglob("*.py"), *(root / "verifiers").rglob("*.py")]
    told_as_gone = {root / "docs" / "configuration.md", root / "harness" / "config.py"}  # what old paths stand for
    missing = {
        (str(page.relative_to(root)), name)
        for page in pages
        if page not in told_as_gone and "packaged" not in page.parts
        for name in re.findall(r"(?<![\w/])gin/[\w./-]+\.gin", page.read_text(encoding="utf-8"))
        if not (root / name).is_file() and name != "gin/NAME.gin"
    }
    assert not missing
