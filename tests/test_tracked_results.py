"""The tracked tables are what the tracked runs say: nothing in README.md or results/ is typed by hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from PIL import Image

from harness.analysis import plots
from harness.leaderboard import main as run_leaderboard
from harness.scaling import main as run_scaling
from harness.tasks.humaneval import FIX_PIN, PIN
from harness.tasks.mbpp import FULL

mpl.use("Agg")
ROOT = Path(__file__).parents[1]
TRACKED = ROOT / "results" / "embedded"
REAL = ROOT / "results" / "real"
CONTROLS = ROOT / "results" / "embedded_controls.parquet"
WORD_FILTER = ROOT / "results" / "word_filter.parquet"


@pytest.mark.parametrize(
    ("runs", "table"),
    [
        (TRACKED, "embedded.md"),
        pytest.param(CONTROLS, "embedded_controls.md", marks=pytest.mark.slow),
        (REAL, "real.md"),
        (WORD_FILTER, "word_filter.md"),
    ],
)
def test_a_tracked_leaderboard_is_made_from_the_tracked_runs(
    runs: Path, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_leaderboard([str(runs), "--check", str(ROOT / "results" / table)])
    assert code == 0, capsys.readouterr()


def test_the_real_benchmarks_were_asked_of_real_weights_on_pinned_data() -> None:
    base = json.loads(next(REAL.glob("*/*/base/seed0/run.json")).read_text())
    assert base["status"] == "done"
    assert len(base["eval_tasks"]) == 4
    assert not base["commit"].endswith("+")
    digests = {name: entry["digest"] for name, entry in base["data"].items() if "digest" in entry}
    assert (digests["humaneval"], digests["humanevalfix"], digests["mbpp"]) == (PIN, FIX_PIN, FULL.pin)
    assert "Q4_1" in json.dumps(base["engine"])  # dequantised: no table may hide it
    assert not re.search(r"(?:^|['\" =])/(?!bin/)", base["command"]), "a path of one machine"


@pytest.mark.parametrize("row", ["naive_multi_turn_rl", "sft_oracle"])
def test_a_supervised_and_an_rl_row_trained_an_adapter_on_real_weights(row: str) -> None:
    (folder,) = REAL.glob(f"first_mbpp/mbpp/*/{row}/seed0")
    info = json.loads((folder / "run.json").read_text())
    updates = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert (info["status"], info["spent"]["updates"], len(updates)) == ("done", *[info["budget"]["steps"]] * 2)
    assert all(update["grad_norm"] > 0 for update in updates)
    assert info["data"]["mbpp"]["digest"] == FULL.pin
    assert info["engine"]["gguf"]["quantisation"] == "Q4_1"
    assert info["engine"]["model"].startswith("Peft")
    assert not info["commit"].endswith("+")
    assert not re.search(r"(?:^|['\" =])/(?!bin/)", info["command"]), "a path of one machine"


@pytest.mark.slow
def test_the_tracked_scaling_table_is_made_from_the_tracked_runs(tmp_path: Path) -> None:
    made = tmp_path / "scaling.md"
    assert run_scaling([str(TRACKED), "--out", str(made)]) == 0
    assert made.read_text(encoding="utf-8") == (ROOT / "results" / "embedded_scaling.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_figure_of_the_paper_can_be_drawn_from_the_tracked_runs() -> None:
    drawn = set()
    for scope in plots.read_scopes(TRACKED)[0]:
        for name, figure in plots.draw_figures(scope):
            if not isinstance(figure, plots.Missing):
                drawn.add(name)
                plt.close(figure)
    assert drawn >= {name for name, plot in plots.FIGURES.items() if plot.paper}
    assert drawn >= {"answer", "flow", "seeds", "kl_first", "farming"}
    assert "bonus_sweep" not in drawn  # two sizes of the bonus are no sweep


@pytest.mark.slow
def test_the_picture_in_the_readme_shows_the_tracked_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(docs/images/answer.png)" in readme
    with Image.open(ROOT / "docs" / "images" / "answer.png") as picture:
        told = picture.info["Description"]  # what was drawn, written by the very call that drew it
    scope = plots.read_scopes(TRACKED)[0][0]
    assert told == plots.describe_answer(scope)
    for name, (first, last) in plots.answer_points(scope).items():
        assert f"{name}: {100 * first.mean:.1f} " in told
        assert f"-> {100 * last.mean:.1f} " in told
    (drawn,) = [figure for _, figure in plots.draw_figures(scope, ["answer"]) if isinstance(figure, plots.Figure)]
    ax = drawn.axes[0]
    points = {(round(float(x), 6), round(float(y), 6)) for x, y in (bar[0].get_xydata()[0] for bar in ax.containers)}
    means = {
        (round(100 * first.mean, 6), round(100 * last.mean, 6)) for first, last in plots.answer_points(scope).values()
    }
    assert points == means
    plt.close(drawn)


def test_the_table_in_the_readme_is_the_leaderboards() -> None:
    board = (ROOT / "results" / "embedded.md").read_text(encoding="utf-8").splitlines()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    begin = next(i for i, line in enumerate(board) if line.startswith("| Method | Acc@t1"))
    end = next(i for i in range(begin, len(board)) if not board[i].startswith("|"))
    rows = [_six_columns(line) for line in board[begin:end] if not line.startswith("| beside")]
    assert len(rows) >= 5
    assert "\n".join(rows) in readme


@pytest.mark.slow
def test_the_report_is_built_from_the_tracked_runs(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = subprocess.run(
        [sys.executable, "-m", "harness.report", str(TRACKED), "--out", str(page)],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert "score_full" in page.read_text(encoding="utf-8")


def test_tracked_runs_are_done_and_share_one_budget() -> None:
    runs = [json.loads(path.read_text()) for path in sorted(TRACKED.rglob("run.json"))]
    assert {run["status"] for run in runs} == {"done"}
    trained = [run for run in runs if run["spent"]["updates"]]
    assert len(trained) > 40
    assert len({json.dumps(run["budget"], sort_keys=True) for run in runs}) == 1
    assert len({(run["spent"]["responses"], run["spent"]["updates"]) for run in trained}) == 1


def _six_columns(line: str) -> str:
    """The method, the paper's five columns, the p value and the seeds."""
    cells = line.strip("|").split("|")
    return "|" + "|".join(cells[:8]) + "|"
