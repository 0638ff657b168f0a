"""Gin at the door: clear errors, and an operative config that runs again."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from harness import config
from harness.training.experiment import Experiment

ROOT = config.ROOT


@pytest.fixture(autouse=True)
def _prepared() -> None:
    config.prepare_gin(Experiment, "run")


def build(*bindings: str, file: str = "gin/score_full.gin") -> Experiment:
    config.parse_gin([file], list(bindings))
    return config.build_root("run")


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("run.sed = 1", "nearest: seed"),
        ("score_phase2.bonuss = 1", "nearest: bonus"),
        ("run.method = @method.scor()", "scor"),
        ("scoree.parts = []", "nearest: method.score"),
        ("run.seed = ", "Unable to parse"),
        ("run.steps = 'many'", "run.steps|budget.steps"),
        ("run.steps = -1", "steps"),
        ("run.samples = 0", "samples"),
        ("run.problems = 1000000", "more than the 20000 training problems"),
        ("run.name = 'a/b'", "no folder name"),
        ("arithmetic.test_size = 0", "test_size"),
        ("ADVANTAGE = @advantage.leave_one_out()\nrun.samples = 1", "at least 2 samples"),
        ("progress.against = 'bst'", "nearest: best"),
        ("score_phase1.kl_first = @kl.balanced()\nbalanced.start = 2.0", "least <= start <= most"),
        ("score_phase2.turns = 3", "a multiple of 3"),
        ("run.eval_tasks = [@task.arithmetic(), @task.arithmetic()]", "two tasks of one name"),
        ("run.name=a/b", "no folder name"),
        ("run.task = @task.gsm8k()", "the names of task: arithmetic, .*math"),
        ("run.task = @task.aritmetic()", "nearest: task.arithmetic"),
        ("run.eval_tasks = [@task.embedded_humaneval()]", "^embedded_humaneval.verifier is not bound$"),
        ("run.steps=1O", "Unable to parse the value '1O' of run.steps; run.steps takes int"),
        ("run.steps=many", "Unable to parse the value 'many' of run.steps; run.steps takes int"),
        ("run.stps=many", "no parameter 'stps' .nearest: steps"),
        ("run.name='abc", "Unable to parse"),
    ],
)
def test_a_wrong_binding_gives_one_clear_error(binding: str, message: str) -> None:
    with pytest.raises(config.ConfigError, match=message):
        build(binding)


@pytest.mark.parametrize(
    ("binding", "value"),
    [
        ("run.name=alpha5", "alpha5"),
        ("run.name = 'alpha5'", "alpha5"),
        ("run.name=2024", "2024"),
        ("run.name=1e5", "1e5"),
        ("hf.path=Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct"),
        ("policy.hf.path=/tmp/x", "/tmp/x"),
        ("hf.path = embedded:arithmetic", "embedded:arithmetic"),
        ("hf.path=/tmp/a b/c'd", "/tmp/a b/c'd"),
        ("hf.revision=1.0", "1.0"),
        ("hf.name=None", None),
        ("hf.name=x1", "x1"),
    ],
)
def test_the_value_of_a_text_parameter_needs_no_quotes(binding: str, value: str | None) -> None:
    owner, _, parameter = binding.partition("=")[0].strip().removeprefix("policy.").partition(".")
    more = ["hf.name = 'm'"] if parameter == "path" else []
    experiment = build(*more, binding)
    assert getattr(experiment if owner == "run" else experiment.policy, parameter) == value


def test_text_parameters_are_known_however_they_are_annotated() -> None:
    def build(a, b, c, d, e, f="x", g=None): ...

    build.__annotations__ = {"a": str, "b": "str | None", "c": "Optional[str]", "d": str | None, "e": int}
    parameters = inspect.signature(build).parameters
    assert [name for name, p in parameters.items() if config._takes_text(p)] == ["a", "b", "c", "d", "f"]


def test_a_bare_name_is_a_row_or_another_shipped_file() -> None:
    config.parse_gin(["score_full", "pool"], [])
    assert config.build_root("run").evaluations
    with pytest.raises(config.ConfigError, match=r"'score_ful' \(nearest: score_full\)"):
        config.parse_gin(["score_ful"], [])


def test_a_missing_file_names_the_nearest() -> None:
    with pytest.raises(config.ConfigError, match=r"score_ful.gin.*nearest: gin/score_full.gin"):
        config.parse_gin(["gin/score_ful.gin"], [])


def test_a_missing_required_binding_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.gin").write_text("run.name = 'x'\n")
    config.parse_gin([str(tmp_path / "x.gin")], [])
    with pytest.raises(config.ConfigError, match=r"^run.method, .* and run.samples are not bound$"):
        config.build_root("run")


def test_the_operative_config_runs_again_and_is_a_fixed_point(tmp_path: Path) -> None:
    first = build("run.seed = 3", "progress.alpha = 5.0")
    text = config.operative_config()
    (tmp_path / "config.gin").write_text(text)
    second = build(file=str(tmp_path / "config.gin"))
    assert second == first
    assert config.operative_config() == text
    assert config.parse_bindings(text)["run.seed"] == "3"
    assert config.parse_bindings(text)["score_phase1.turns"] == "2"  # defaults are listed as well


def test_a_gin_file_may_sit_anywhere_and_import_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_plugin.py").write_text(
        "from harness import register\n"
        "@register('bonus', 'twice')\n"
        "def twice():\n    '''Twice.'''\n    return lambda earlier, reward: 2 * reward\n"
    )
    (tmp_path / "mine.gin").write_text(
        "import my_plugin\ninclude 'gin/score_full.gin'\nscore_phase2.bonus = @bonus.twice()\n"
    )
    monkeypatch.chdir(tmp_path)
    experiment = build(file="mine.gin")
    assert experiment.phases()[1].name == "2_phase2"
    text = config.operative_config()
    assert "import my_plugin" in text
    (tmp_path / "again.gin").write_text(text)
    build(file="again.gin")


def test_a_broken_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_plugin.py").write_text("1 / 0\n")
    (tmp_path / "mine.gin").write_text("import broken_plugin\ninclude 'gin/score_full.gin'\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(config.ConfigError, match=r"broken_plugin.*ZeroDivisionError"):
        config.parse_gin(["mine.gin"], [])


def test_differences_name_the_bindings() -> None:
    assert config.describe_differences("a = 1\nb = 2\n", "a = 1\nb = 3\nc = 4\n") == ["b: 2 -> 3", "c: not set -> 4"]


def test_what_an_older_config_lacks_counts_as_its_default() -> None:
    build()
    new = config.operative_config()
    old = "".join(line + "\n" for line in new.splitlines() if not line.startswith(("hf.stop", "run.probe_every")))
    assert "hf.stop = ()" in new
    assert config.describe_differences(old, new) == config.describe_differences(new, old) == []
    build("hf.stop = ['x']")
    assert config.describe_differences(old, config.operative_config()) == ["hf.stop: () -> ['x']"]
    assert config.changed_bindings(old, config.operative_config()) == [("hf.stop", "()", "['x']")]
    # A part that one of them does not have at all has no defaults there.
    assert config.describe_differences("run.seed = 0\n", "run.seed = 0\nprogress.alpha = 10.0\n") == [
        "progress.alpha: not set -> 10.0"
    ]
    # A part without bindings is known by gin's heading.
    assert config.describe_differences("# Parameters for hf:\n# ====\n# None.\n", "hf.stop = ()\n") == []
    # Without a default, absent is absent.
    assert config.describe_differences("run.seed = 0\n", "run.seed = 0\nrun.steps = 200\n") == [
        "run.steps: not set -> 200"
    ]


def test_what_changes_no_number_is_no_other_config() -> None:
    old = "code.unsafe_exec = False\nrun.checkpoint_every = 50\nrun.seed = 0\n"
    assert config.describe_differences(old, "code.unsafe_exec = True\nrun.checkpoint_every = 5\nrun.seed = 0\n") == []


def test_imports_are_looked_for_beside_the_gin_file_and_from_lines_count(tmp_path: Path) -> None:
    inner = tmp_path / "packaged"
    inner.mkdir()
    (inner / "__init__.py").write_text("")
    (inner / "beside_plugin.py").write_text(
        "from harness import register\n"
        "@register('bonus', 'thrice')\n"
        "def thrice():\n    return lambda earlier, reward: 3 * reward\n"
    )
    (tmp_path / "mine.gin").write_text(
        "from packaged import beside_plugin\ninclude 'gin/score_full.gin'\nscore_phase2.bonus = @bonus.thrice()\n"
    )
    build(file=str(tmp_path / "mine.gin"))
    assert "thrice" in config.operative_config()


def test_the_gin_folder_is_no_package() -> None:
    assert not (ROOT / "gin" / "__init__.py").exists()


def test_every_row_file_builds_under_its_own_name() -> None:
    for path in sorted((ROOT / "gin").glob("*.gin")):
        experiment = build(file=str(path))
        assert experiment.name == path.stem


def _lines(name: str) -> list[str]:
    text = (ROOT / "gin" / f"{name}.gin").read_text()
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


ROWS = sorted(path.stem for path in (ROOT / "gin").glob("*.gin"))
CHILDREN = [name for name in ROWS if name != "base" and _lines(name)[0] != "include 'gin/base.gin'"]


@pytest.mark.parametrize("name", CHILDREN)
def test_an_ablation_is_one_include_and_at_most_two_bindings(name: str) -> None:
    lines = _lines(name)
    parent = lines[0].partition("'gin/")[2].removesuffix(".gin'")
    assert lines[0] == f"include 'gin/{parent}.gin'"
    assert 1 <= len(lines[1:]) <= 2
    build(file=f"gin/{parent}.gin")
    before = config.operative_config()
    build(file=f"gin/{name}.gin")
    changed = {d.partition(":")[0] for d in config.describe_differences(before, config.operative_config())}
    assert {line.partition(" = ")[0] for line in lines[1:]} <= changed


@pytest.mark.parametrize("name", ROWS)
def test_every_trained_row_spends_the_same_budget(name: str) -> None:
    experiment = build(file=f"gin/{name}.gin")
    phases, budget = experiment.phases(), experiment.budget
    if not phases:
        assert name in ("base", "self_refine")
        return
    assert sum(phase.steps for phase in phases) == budget.steps
    responses = {budget.problems * budget.trajectories_per_problem(phase.turns) * phase.turns for phase in phases}
    assert responses == {budget.problems * budget.samples * 2}
