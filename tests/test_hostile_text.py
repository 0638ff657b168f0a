"""Text of a run folder reaches a screen, a file, a page and a figure as text, whatever stands in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import synthetic

from harness.analysis import plots, report
from harness.leaderboard import main as run_leaderboard
from harness.plots import main as run_plots
from harness.scaling import main as run_scaling

mpl.use("Agg")
ROOT = Path(__file__).parents[1]
NAMES = [r"$\frac{1}{$", "$_$", "_hidden", "__init__", "\x1b[31mred", "\x9b31m", "\u202etxt", "{x} %s", "nolegend"]
ESCAPES = "\x1b[31mred\x1b]0;OWNED\x07 \x9b2J \u202ertl\u202c \u2028 \u2066"
TURNS_AND_CONTROLS = {chr(code) for code in (*range(32), *range(127, 160))} - {"\n", "\t"}
TURNS_AND_CONTROLS |= set("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    for name in NAMES:
        rows = synthetic.records(synthetic.RATES["base"], name, problems=6)
        rows += synthetic.records(synthetic.RATES["base"], name, problems=6, samples=2)
        for row in rows:
            row["attempts"][1] |= {"text": ESCAPES, "flag": ESCAPES}
        logged = [{**step, "phase": f"{name} {step['phase']}"} for step in synthetic.steps(6, len(name))]
        synthetic.write_run(root, name, 1, rows, logged=logged, model=f"m {ESCAPES}")
    synthetic.write_run(root, "crashed", 1, [], status="failed", error=f"{ESCAPES} [/x]")
    return root


@pytest.mark.parametrize("form", ["md", "csv", "latex", "html", "json"])
def test_no_table_holds_what_a_terminal_obeys(form: str, hostile: Path, capsys: Any) -> None:
    assert run_leaderboard([str(hostile), "--format", form]) == 0
    shown = capsys.readouterr()
    assert not TURNS_AND_CONTROLS & set(shown.out + shown.err)
    if form == "json":
        assert {row["name"] for row in json.loads(shown.out)["tables"][0]["rows"]} == set(NAMES)


@pytest.mark.parametrize("form", ["md", "json"])
def test_no_scaling_table_holds_what_a_terminal_obeys(form: str, hostile: Path, capsys: Any) -> None:
    assert run_scaling([str(hostile), "--format", form]) == 0
    shown = capsys.readouterr()
    assert not TURNS_AND_CONTROLS & set(shown.out + shown.err)
    assert r"\x1b[31mred" in shown.err


@pytest.mark.slow
def test_figures_of_any_name_are_drawn_and_no_row_is_missing_in_a_legend(hostile: Path, tmp_path, capsys: Any) -> None:
    figures = ["accuracy", "training", "kl_first"]
    out = [word for name in figures for word in ("--only", name)]
    assert run_plots([str(hostile), "--out", str(tmp_path), *out]) == 0
    shown = capsys.readouterr()
    assert not TURNS_AND_CONTROLS & set(shown.out + shown.err)
    assert len(list(tmp_path.rglob("*.pdf"))) == len(figures)
    (scope,) = plots.read_scopes(hostile)[0]
    ((_, figure),) = plots.draw_figures(scope, ["kl_first"])
    assert isinstance(figure, plots.Figure)
    shown = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert {"$_$", "_hidden", "__init__", "nolegend", r"\x1b[31mred"} <= shown
    assert len(shown) == len(NAMES)
    plt.close("all")


def test_a_screen_without_unicode_gets_escapes(hostile: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for module in ("leaderboard", "scaling"):
        command = [sys.executable, "-m", f"harness.{module}", str(hostile)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode("ascii").startswith("# ")


def test_numbers_that_are_none_do_not_stop_the_page(tmp_path: Path) -> None:
    logged = synthetic.steps(6, 1)
    logged[2] |= {"acc_t1": float("nan"), "kl_t1": float("inf"), "grad_norm": 10**400, "acc_t2": 1e308, "delta": True}
    synthetic.write_run(tmp_path, "row", 1, synthetic.records((0.5, 0.2, 0.1, 0), 1, problems=4), logged=logged)
    page = report.build_report(tmp_path, figures=False)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    data = json.loads(page.split('id="data">')[1].split("</script>")[0], parse_constant=refuse)
    (curve,) = data["curves"]
    lengths = {key: len(points) for key, points in curve["series"].items()}
    assert [lengths[key] for key in ("acc_t1", "kl_t1", "grad_norm", "acc_t2", "delta", "reward_t1")] == [5] * 5 + [6]
    assert "line 3: &#34;acc_t1&#34; is NaN" in page or "line 3: &quot;acc_t1&quot; is NaN" in page
