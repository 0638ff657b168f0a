"""The wheel: built from the repository, it lists, runs and reads from an empty folder, without the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow  # pip, and processes of their own
TEN = ["run.steps = 10", "run.problems = 2", "run.samples = 2", "arithmetic.test_size = 8", "hf.max_new_tokens = 8"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel, as pip lays it out."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if not name.startswith(("results/", "tests/", "docs/", "benchmarks/")) and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-index", "--no-deps"]
    built = subprocess.run(
        [*pip, "--no-build-isolation", "--wheel-dir", str(folder), str(copy)], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def call(site: Path, cwd: Path, module: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in an empty folder, with the wheel first on the path."""
    return subprocess.run(
        [sys.executable, "-m", module, *words], cwd=cwd, env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip


def test_every_gin_file_is_in_the_wheel(site: Path) -> None:
    packed = {path.relative_to(site / "harness" / "packaged").as_posix() for path in site.rglob("*.gin")}
    assert packed == {path.relative_to(ROOT).as_posix() for path in (ROOT / "gin").rglob("*.gin")}
    assert {path.name for path in (site / "harness" / "packaged").rglob("*.yaml")} == {"ddp.yaml", "fsdp2.yaml"}
    assert all((site / name / "py.typed").is_file() for name in ("harness", "methods", "verifiers"))


def test_the_report_s_parts_and_their_licences_are_in_the_wheel_and_no_test_asset(site: Path) -> None:
    own = ROOT / "harness" / "analysis" / "templates"
    packed = site / "harness" / "analysis" / "templates"
    names = {str(path.relative_to(own)) for path in own.rglob("*") if path.is_file()}
    assert {str(path.relative_to(packed)) for path in packed.rglob("*") if path.is_file()} == names
    assert not list(site.rglob("axe*.js"))


def test_it_lists_trains_and_makes_a_table_in_an_empty_folder(site: Path, tmp_path: Path) -> None:
    here = call(site, tmp_path, "harness.run", "--list")
    assert here.returncode == 0, here.stderr
    assert "score_no_shaping" in here.stdout
    binds = [word for one in TEN for word in ("--bind", one)]
    ran = call(
        site, tmp_path, "harness.run", "--gin", "gin/score_no_shaping.gin", *binds, "--out", "runs", "--device", "cpu"
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    table = call(site, tmp_path, "harness.leaderboard", "runs")
    assert table.returncode == 0, table.stderr
    assert "score_no_shaping" in table.stdout
    assert "score_phase2.bonus" in table.stdout, "the difference from its parent is read from the packed gin files"


def test_a_gin_file_includes_what_lies_beside_it_and_what_is_packed(site: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "budget.gin").write_text("run.steps = 7\n")
    (tmp_path / "mine" / "row.gin").write_text(
        "include 'gin/score_full.gin'\ninclude 'budget.gin'\ninclude 'gin/on/pool.gin'\n"  # an old path
    )
    shown = call(site, tmp_path, "harness.run", "--gin", "mine/row.gin", "--print-config")
    assert shown.returncode == 0, shown.stderr
    assert "run.steps = 7" in shown.stdout
    assert "run.name = 'row'" in shown.stdout
    assert "run.evaluations = [@evaluation.pool()]" in shown.stdout
    assert shown.stderr.splitlines() == ["deprecated: gin/on/pool.gin is now --gin gin/eval/pool.gin"]


def test_another_package_called_verifiers_is_named_with_what_to_do(site: Path, tmp_path: Path) -> None:
    (tmp_path / "other" / "verifiers").mkdir(parents=True)
    (tmp_path / "other" / "verifiers" / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "harness.run", "--list"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'other'}{os.pathsep}{site}"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "pip uninstall verifiers" in done.stderr
