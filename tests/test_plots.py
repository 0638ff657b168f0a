"""harness.plots: every figure from results that fill it, a reason where they do not, equal bytes, no clipped text."""

import dataclasses

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import synthetic
from matplotlib.text import Text

from harness.analysis import plots
from harness.analysis.terms import FIGURE_NAMES
from harness.plots import main as run_plots

pytestmark = pytest.mark.slow  # every figure

mpl.use("Agg")
mpl.rcParams["figure.max_open_warning"] = 0  # all figures of three scopes are looked at


@pytest.fixture(scope="module")
def scopes(tmp_path_factory):
    return plots.read_scopes(synthetic.write_everything(tmp_path_factory.mktemp("all")))[0]


@pytest.fixture(scope="module")
def drawn(scopes):
    found = {}
    for scope in scopes:
        for name, figure in plots.draw_figures(scope, titled=True):
            if not isinstance(figure, plots.Missing) or name not in found:
                found[name] = figure
    yield found
    plt.close("all")


def test_two_scopes_have_two_folders(scopes):
    assert [plots.folder_of(scope, scopes) for scope in scopes] == [
        "synthetic-ten-synthetic10",
        "synthetic-tiny-synthetic",
    ]
    assert plots.folder_of(scopes[0], scopes[:1]) == ""


def test_the_command_line_knows_every_figure() -> None:
    assert tuple(plots.FIGURES) == FIGURE_NAMES


DRAWN = [name for name in plots.FIGURES if name != "controls"]  # that one: tests/test_controls.py


@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_is_drawn_whole(drawn, name, tmp_path):
    figure = drawn[name]
    assert not isinstance(figure, plots.Missing), figure
    if name in ("accuracy", "training"):  # one without and one with small multiples: writing takes its time
        files = plots.save_figure(figure, tmp_path / name)
        first = [file.read_bytes() for file in files]
        assert first[0].startswith(b"%PDF")
        assert first[1].startswith(b"\x89PNG")
        assert [file.read_bytes() for file in plots.save_figure(figure, tmp_path / name)] == first
    for ax in figure.axes:
        if ax.get_visible():
            assert ax.has_data()
    labels = [figure.get_supxlabel(), *(ax.get_xlabel() for ax in figure.axes)]
    assert any(labels), "the horizontal axis is not explained"


@pytest.mark.parametrize("name", DRAWN)
def test_no_text_is_clipped_or_overlaps_a_neighbour(drawn, name):
    """Tick labels, titles and legend texts of a figure lie inside it and apart from each other."""
    figure = drawn[name]
    with mpl.rc_context(plots.STYLE):
        figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    hidden = {text for ax in figure.axes for text in _undrawn(ax)}
    boxes = []
    for text in figure.findobj(lambda artist: isinstance(artist, Text) and artist not in hidden):
        if text.get_visible() and text.get_text().strip():
            boxes.append((text.get_text(), text.get_window_extent(renderer)))
    frame = figure.bbox.expanded(1.02, 1.02)
    for label, box in boxes:
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1, f"clipped: {label}"
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1, f"clipped: {label}"
    for i, (one, a) in enumerate(boxes):
        for two, b in boxes[i + 1 :]:
            overlap = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert min(overlap) <= 1, f"{one!r} overlaps {two!r}"


def _undrawn(ax):
    """Texts of hidden panels, and labels that matplotlib keeps for ticks beyond the axis and never draws."""
    if not ax.get_visible():
        yield from ax.findobj(Text)
    for axis in (ax.xaxis, ax.yaxis):
        lo, hi = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            for label, shown in ((tick.label1, tick.label1.get_visible()), (tick.label2, tick.label2.get_visible())):
                if not shown or not lo <= tick.get_loc() <= hi:
                    yield label


def test_what_shows_the_runs_themselves_is_drawn_once(tmp_path):
    rates = (0.5, 0.2, 0.1, 0.2)
    rows = synthetic.records(rates, 1, problems=12) + synthetic.records(rates, 1, problems=12, turns=3)
    synthetic.write_run(tmp_path, "score_full", 1, rows, logged=synthetic.steps(10, 1))
    two, three = plots.read_scopes(tmp_path)[0]
    names = [dict(plots.draw_figures(scope, ["training", "accuracy"])) for scope in (two, three)]
    plt.close("all")
    assert [sorted(drawn) for drawn in names] == [["accuracy", "training"], ["accuracy"]]


def test_a_row_without_a_bonus_is_the_zero_of_the_sweep(tmp_path):
    bonus = ["score_phase2.bonus = @bonus.progress()", "progress.against = 'previous'"]
    for name, config in (
        ("score_full", [*bonus, "progress.alpha = 10.0", "run.evaluations = [@evaluation.pool()]"]),
        ("score_alpha_1", [*bonus, "progress.alpha = 1.0"]),
        ("score_best_so_far", [bonus[0], "progress.against = 'best'", "progress.alpha = 10.0"]),
        ("score_no_shaping", ["score_phase2.bonus = @bonus.none()"]),
        ("other", [*bonus, "progress.alpha = 3.0", "hf.lr = 1.0"]),
    ):
        synthetic.write_run(tmp_path, name, 1, synthetic.records((0.5, 0.2, 0.1, 0.2), 1, problems=8), config=config)
    (scope,) = plots.read_scopes(tmp_path)[0]
    ((_, figure),) = plots.draw_figures(scope, ["bonus_sweep"])
    assert isinstance(figure, plots.Figure)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "1", "10"]
    plt.close("all")


def test_rows_stand_in_one_order_and_keep_their_looks_whichever_are_drawn(scopes):
    scope = scopes[1]
    families = [plots.FAMILIES[plots.family_of(row)][0] for row in scope.rows]
    order = ["untrained", "supervised", "other RL", "SCoRe", "SCoRe's ablations"]
    assert list(dict.fromkeys(families)) == order
    some = dataclasses.replace(scope, chosen=("score_full", "star*"))
    assert [row.name for row in some.rows] == ["star_plus", "score_full"]
    assert [some.row_style(row) for row in some.rows] == [scope.row_style(row) for row in some.rows]
    with mpl.rc_context(plots.STYLE):
        figure = plots.metric(some, "delta")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["star_plus", "score_full"]
    (bars,) = figure.axes[0].containers
    xs = bars[0].get_xdata()
    assert list(xs) == [100 * row.cells["delta"].mean for row in some.rows]
    plt.close("all")


def test_many_rows_have_looks_of_their_own_and_fit_a_page(tmp_path):
    for i in range(40):
        rows = synthetic.records((0.5, 0.2, 0.1, 0.2), i, problems=2)
        logged = [{**line, "acc_t1": 0.5} for line in synthetic.steps(4, i)]
        synthetic.write_run(tmp_path, f"row{i:02}", 1, rows, logged=logged)
    (scope,) = plots.read_scopes(tmp_path)[0]
    looks = {(style["color"], style["linestyle"]) for style in map(scope.row_style, scope.rows)}
    assert len(looks) == 40
    for name, figure in plots.draw_figures(
        scope, ["accuracy", "flow", "seeds", "edit_distance", "farming", "kl_first"]
    ):
        if not isinstance(figure, plots.Missing):
            width, height = figure.get_size_inches()
            assert (width <= plots.WIDTH, height <= plots.HEIGHT) == (True, True), name
            plt.close(figure)


def test_what_tells_the_scopes_apart_stands_above_their_figures(scopes):
    titles = []
    for scope in scopes:
        figure = _one(scope, "accuracy", titled=True)
        titles.append(figure.get_suptitle())
        plt.close(figure)
    assert titles == [
        "synthetic10, trained on synthetic, ten, 40 problems, 10\nattempts",
        "synthetic, tiny, 40 problems",
    ]
    figure = _one(scopes[1], "training", titled=True)  # the legend stands above: it has the title
    assert figure.legends[0].get_title().get_text() == "synthetic, tiny, 40 problems"
    assert _one(scopes[1], "accuracy").get_suptitle() == ""
    plt.close("all")


def _one(scope, name, **more):
    ((_, figure),) = plots.draw_figures(scope, [name], **more)
    assert isinstance(figure, plots.Figure)
    return figure


def _curves_of(tmp_path, tops, count):
    for name, top in tops.items():
        logged = [{"phase": "p", "step": i + 1, "kl_t1": top * i / count} for i in range(count)]
        rows = synthetic.records((0.5, 0.2, 0.1, 0.2), 1, problems=6)
        synthetic.write_run(tmp_path, name, 1, rows, logged=logged)
    return _one(plots.read_scopes(tmp_path)[0][0], "kl_first")


def test_one_curve_does_not_press_the_others_flat(tmp_path):
    figure = _curves_of(tmp_path / "far", {"a": 0.5, "b": 0.6, "c": 0.8, "d": 4.0}, 30)
    assert figure.axes[0].get_yscale() == "symlog"
    assert "logarithmic" in figure.axes[0].get_ylabel()
    figure.canvas.draw()
    assert {"0", "0.1", "1"} <= {label.get_text() for label in figure.axes[0].get_yticklabels()}
    assert figure.axes[0].get_ylim()[0] == 0  # nothing is below
    figure = _curves_of(tmp_path / "near", {"a": 0.5, "b": 0.6, "c": 0.8, "d": 1.0}, 30)
    assert figure.axes[0].get_yscale() == "linear"
    plt.close("all")


@pytest.mark.parametrize(("points", "line", "marker"), [(2, "None", "o"), (3, "-", "o"), (30, "-", "None")])
def test_no_line_joins_two_points(tmp_path, points, line, marker):
    (drawn,) = _curves_of(tmp_path, {"a": 0.5}, points).axes[0].get_lines()
    assert (drawn.get_linestyle(), drawn.get_marker()) == (line, marker)
    plt.close("all")


def test_two_sizes_of_a_bonus_are_no_sweep(tmp_path):
    for alpha in (1, 10):
        config = ["score_phase2.bonus = @bonus.progress()", f"progress.alpha = {alpha}"]
        rows = synthetic.records((0.5, 0.2, 0.1, 0.2), 1, problems=8)
        synthetic.write_run(tmp_path, f"score_{alpha}", 1, rows, config=config)
    ((_, missing),) = plots.draw_figures(plots.read_scopes(tmp_path)[0][0], ["bonus_sweep"])
    assert "at least three alphas" in str(missing)


def test_phases_are_called_what_the_paper_calls_them():
    assert [plots._phase_name(name) for name in ("phase1", "2_phase2", "round3")] == ["Stage I", "Stage II", "round 3"]


def test_what_is_missing_is_said(tmp_path):
    synthetic.write_run(tmp_path, "base", 1, synthetic.records((0.4, 0.1, 0.2, 0), 1, turns=1), trained=False)
    (scope,) = plots.read_scopes(tmp_path)[0]
    answers = dict(plots.draw_figures(scope))
    plt.close("all")
    missing = {name: str(figure) for name, figure in answers.items() if isinstance(figure, plots.Missing)}
    assert "records have one attempt" in missing["accuracy"]
    assert "metrics.jsonl" in missing["training"]
    assert "split 'train'" in missing["edit_distance_splits"] or "one attempt" in missing["edit_distance_splits"]


def test_the_command_line(tmp_path, capsys):
    root = synthetic.write_suite(tmp_path / "r", problems=10, seeds=(1,))
    out = tmp_path / "figures"
    assert run_plots([str(root), "--out", str(out), "--only", "accuracy", "--only", "discount"]) == 0
    assert sorted(file.name for file in out.iterdir()) == ["accuracy.pdf", "accuracy.png"]
    assert "not drawn: discount: needs" in capsys.readouterr().out
    chosen = ["--rows", "score_*", "--rows", "base", "--metric", "delta", "--metric", "edit_ratio", "--no-titles"]
    assert run_plots([str(root), "--out", str(tmp_path / "chosen"), *chosen]) == 0
    assert sorted(file.name for file in (tmp_path / "chosen").iterdir()) == [
        "metric_delta.pdf", "metric_delta.png", "metric_edit_ratio.pdf", "metric_edit_ratio.png",
    ]  # fmt: skip
    assert run_plots([str(root), "--rows", "scroe*"]) == 2
    assert "no row is called scroe*; there are base, naive_multi_turn_rl, " in capsys.readouterr().err
    assert run_plots([str(tmp_path / "nowhere")]) == 2
    (tmp_path / "empty").mkdir()
    assert run_plots([str(tmp_path / "empty")]) == 0
