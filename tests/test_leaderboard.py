"""harness.analysis.leaderboard and .tables: rows, intervals, lineage, separation of tables, every output format."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import synthetic

from harness.analysis import leaderboard, tables
from harness.leaderboard import main as run_leaderboard
from harness.metrics import stats

ROOT = Path(__file__).parents[1]
EVIL = "<script>alert(1)</script>|`$x_1$`&\\input{/etc/passwd} *b* [l](http://e.x) %\t# h ë→"


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    root = synthetic.write_suite(tmp_path_factory.mktemp("suite"), samples=4)
    synthetic.write_run(root, "crashed", 1, [], status="failed", error=EVIL)
    return root


@pytest.fixture(scope="module")
def gin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gin")
    (folder / "base.gin").write_text("run.method = @method.none()\nrun.name = 'base'\n")
    (folder / "score_full.gin").write_text("include 'gin/base.gin'\nrun.name = 'score_full'\nscore.bonus = 10\n")
    (folder / "score_no_shaping.gin").write_text(
        "# the bonus is off\ninclude 'gin/score_full.gin'  # parent\nrun.name = 'score_no_shaping'\nscore.bonus = 0\n"
    )
    return folder


@pytest.fixture(scope="module")
def board(suite, gin):
    return leaderboard.build_board(suite, gin=gin)


def row_of(board, name, table=0):
    return next(row for row in board.sections[table].rows if row.name == name)


def test_rows_come_in_the_papers_order_with_seeds_and_budget(board):
    (section,) = board.sections
    names = [row.name for row in section.rows]
    assert names[:2] == ["base", "self_refine"]
    assert names.index("star_plus") < names.index("pair_sft") < names.index("single_turn_rl")
    assert names[-2:] == ["score_full", "score_no_shaping"]
    row = row_of(board, "score_full")
    assert row.seeds == (1, 2, 3)
    assert row.budget == {"responses": "25600", "updates": "100"}
    assert section.problems == 60


def test_cells_are_recomputed_from_records(board, suite):
    row = row_of(board, "score_full")
    files = sorted(suite.glob("runs/*/*/score_full/seed*/eval.jsonl"))
    right = []
    for file in files:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        rows = [r for r in rows if r["when"] == "after" and r["temperature"] == 0]
        right.append([r["attempts"][1]["correct"] for r in sorted(rows, key=lambda r: r["id"])])
    assert row.cells["t2"] == stats.bootstrap_interval(np.array(right, dtype=float))
    assert row.cells["delta"].mean == pytest.approx(row.cells["i_to_c"].mean - row.cells["c_to_i"].mean)


def test_one_run_gets_wilson_mcnemar_and_a_warning_only_if_trained(board, tmp_path):
    base = row_of(board, "base")
    n, right = 60, round(base.cells["t2"].mean * 60)
    assert base.cells["t2"] == stats.wilson_interval(right, n)
    flips = round(base.cells["i_to_c"].mean * n), round(base.cells["c_to_i"].mean * n)
    assert base.p == stats.mcnemar_test(*flips)
    assert base.cells["delta"] == stats.delta_interval(*flips, n)
    assert not any("1 seed" in note for note in base.notes)
    synthetic.write_run(tmp_path, "score_full", 1, synthetic.records((0.5, 0.2, 0.1, 0), 1))
    lonely = leaderboard.build_board(tmp_path)
    assert "cannot speak of training noise" in row_of(lonely, "score_full").notes[0]


def test_a_rate_that_is_zero_in_every_seed_keeps_an_interval(tmp_path):
    for seed in (1, 2, 3):
        synthetic.write_run(tmp_path, "row", seed, synthetic.records((0.5, 0, 0, 1), seed))
    row = row_of(leaderboard.build_board(tmp_path), "row")
    assert row.cells["c_to_i"].mean == 0
    assert row.cells["c_to_i"].hi > 0.03
    assert row.cells["delta"].hi > 0.01


def test_lineage_is_read_from_the_gin_text(board):
    child = row_of(board, "score_no_shaping")
    assert (child.parent, child.difference) == ("score_full", "= score_full; score.bonus = 0")
    assert row_of(board, "base").difference == ""
    assert row_of(board, "pair_sft").difference == ""


def test_a_run_that_contradicts_its_gin_file_is_told(tmp_path, gin):
    for seed, bonus in ((1, 3), (2, 4)):
        rows = synthetic.records((0.5, 0.2, 0.1, 0), seed)
        synthetic.write_run(tmp_path, "score_no_shaping", seed, rows, config=[f"score.bonus = {bonus}"])
    notes = row_of(leaderboard.build_board(tmp_path, gin=gin), "score_no_shaping").notes
    assert any("score.bonus = 3, unlike its gin file" in note for note in notes)
    assert any("different bindings" in note for note in notes)


def test_a_seed_whose_config_lacks_a_newer_parameter_is_no_other_setting(tmp_path, gin):
    lines = (["score.bonus = 0"], ["score.bonus = 0", "score.newer = 1", "run.verifier_seconds = 9"], ["other.x = 1"])
    for seed, config in enumerate(lines, 1):
        rows = synthetic.records((0.5, 0.2, 0.1, 0), seed)
        synthetic.write_run(tmp_path / ("b" if seed == 3 else "a"), "score_no_shaping", seed, rows, config=config)
    notes = row_of(leaderboard.build_board(tmp_path / "a", gin=gin), "score_no_shaping").notes
    assert any("some of its seeds are older than score.newer" in note for note in notes)
    assert not any("different bindings" in note for note in notes)
    notes = row_of(leaderboard.build_board(tmp_path, gin=gin), "score_no_shaping").notes
    assert any("different bindings" in note for note in notes)


def test_comparisons_are_paired_and_holm_corrected_within_a_family(board):
    families = board.sections[0].families
    assert list(families) == [
        "against the parent",
        "against the base",
        "against single_turn_rl's first attempt",
    ]
    (ablation,) = families["against the parent"]
    a, b = row_of(board, "score_no_shaping"), row_of(board, "score_full")
    assert ablation.difference == stats.bootstrap_interval(a.values["last"] - b.values["last"])
    assert ablation.p == ablation.p_holm
    assert ablation.seeds == (1, 2, 3)
    against = families["against the base"]
    assert stats.holm_adjust([c.p for c in against]) == [c.p_holm for c in against]


def test_a_comparison_says_whether_it_is_shown_to_be_the_same_and_how_many_seeds_a_margin_needs(suite, gin, board):
    full, base = row_of(board, "score_full"), row_of(board, "base")
    found = {(c.row, c.other): c for family in board.sections[0].families.values() for c in family}
    grid = full.values["last"] - base.values["last"].mean(axis=0)
    one = found["score_full", "base"]
    assert (one.margin, one.same) == (0.03, stats.equivalence_test(grid))
    assert one.seeds_for_margin == str(stats.seeds_needed(grid) or ">1000") == ">1000"  # 60 problems are too few
    assert found["self_refine", "base"].seeds_for_margin == ""  # nothing was trained, so nothing is known of seeds

    wide = leaderboard.build_board(suite, gin=gin, margin=0.5)
    compared = {c.row: c for c in wide.sections[0].families["against the base"]}
    assert compared["score_full"].same == stats.equivalence_test(grid, margin=0.5)
    assert compared["score_full"].same.within
    assert int(compared["score_full"].seeds_for_margin) == stats.seeds_needed(grid, target=0.5)
    block = next(b for b in tables.build_blocks(wide) if b.title == "Comparison against the base")
    assert block.header[5:] == ("p (same within 50)", "within 50?", "seeds for 50 points", "seeds")
    cells = next(r for r in block.rows if r[0].text == "score_full − base")
    assert cells[6].text == "yes"
    assert cells[7].text == compared["score_full"].seeds_for_margin
    line = next(
        row for row in csv.DictReader(io.StringIO(tables.as_csv(wide)))
        if (row["kind"], row["method"], row["other"]) == ("comparison", "score_full", "base")
    )  # fmt: skip
    assert (line["margin"], line["within_margin"]) == ("0.500000", "yes")
    assert float(line["p_same"]) == pytest.approx(compared["score_full"].same.p, abs=1e-6)
    data = json.loads(tables.as_json(wide))["tables"][0]["comparisons"]["against the base"]
    held = next(c for c in data if c["row"] == "score_full")
    assert held["same"]["within"] is True
    assert held["same"]["interval"]["lo"] == pytest.approx(compared["score_full"].same.interval.lo, abs=1e-6)
    assert "within 50?" in tables.render_latex(wide)
    assert "within 50?" in tables.render_html_page(wide)


def test_one_seed_plans_no_seeds_and_rows_that_never_differ_keep_an_interval(tmp_path):
    rates = (0.5, 0.3, 0.1, 0.2)
    for name in ("base", "score_full"):
        synthetic.write_run(tmp_path, name, 1, synthetic.records(rates, 7, problems=20))
    board = leaderboard.build_board(tmp_path)
    (one,) = board.sections[0].families["against the base"]
    assert one.seeds_for_margin == ""
    assert one.difference == stats.delta_interval(0, 0, 20)
    assert not one.same.within  # 20 problems without a difference are no proof of 3 points
    assert "seeds for" not in tables.render_markdown(board)


@pytest.mark.parametrize("margin", ["0", "-3", "nan", "100", "three"])
def test_a_margin_is_a_number_of_points(suite, margin, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_leaderboard([str(suite), "--margin", margin])
    assert stopped.value.code == 2
    assert "is no number of points" in capsys.readouterr().err


def test_pairing_uses_common_seeds_and_an_untrained_row_stands_against_all(board, tmp_path):
    for name, seeds in {"a": (1, 2, 3), "b": (2, 3, 4), "c": (9,)}.items():
        for seed in seeds:
            synthetic.write_run(tmp_path, name, seed, synthetic.records((0.5, 0.2, 0.1, 0), seed, problems=8))
    rows = {row.name: row for row in leaderboard.build_board(tmp_path).sections[0].rows}
    seeds, grid = leaderboard.paired_differences(rows["a"], rows["b"], "last", "last")
    assert seeds == (2, 3)
    assert (grid == rows["a"].values["last"][1:] - rows["b"].values["last"][:2]).all()
    assert leaderboard.paired_differences(rows["a"], rows["c"], "last", "last")[0] == ()
    base, full = row_of(board, "base"), row_of(board, "score_full")
    assert leaderboard.paired_differences(full, base, "last", "last")[0] == (1, 2, 3)
    assert leaderboard.paired_differences(base, full, "last", "t1")[1].shape == (3, 60)


def test_single_turn_rl_stands_beside_and_its_absence_is_said(board, tmp_path):
    first, vote = board.sections[0].beside
    assert first.cell == row_of(board, "single_turn_rl").cells["t1"]
    assert vote.cell is not None
    assert "temperature 0.7, 4 samples" in vote.note
    synthetic.write_run(tmp_path, "score_full", 1, synthetic.records((0.5, 0.2, 0.1, 0), 1))
    missing = leaderboard.build_board(tmp_path).sections[0].beside
    assert all(beside.cell is None and "no finished single_turn_rl" in beside.note for beside in missing)


def test_without_a_base_run_the_evaluation_before_training_is_the_base_row(tmp_path):
    before = synthetic.records((0.4, 0.1, 0.2, 0), 0, when="before")
    after = synthetic.records((0.6, 0.2, 0.1, 0), 1)
    synthetic.write_run(tmp_path, "score_full", 1, [*before, *after])
    board = leaderboard.build_board(tmp_path)
    row = row_of(board, "base (before training)")
    assert not row.trained
    assert row.cells["t1"].mean == np.mean([r["attempts"][0]["correct"] for r in before])
    assert "before training of runs/" in row.notes[-1]
    synthetic.write_run(tmp_path / "other", "score_full", 1, after)
    assert "No base row" in leaderboard.build_board(tmp_path / "other").sections[0].notes[0]


@pytest.mark.parametrize(
    "change",
    [
        {"eval_tasks": {"synthetic": "2"}},
        {"task_version": "2"},
        {"model": "another"},
        {"graders": {"synthetic": "other"}},
        {"policy": "other"},
        {"task": "other"},
        {"problems": 59},
        {"turns": 3},
    ],
)
def test_what_cannot_be_compared_is_never_in_one_table(tmp_path, change):
    kind = {key: change.pop(key) for key in ("problems", "turns") if key in change}
    synthetic.write_run(tmp_path, "a", 1, synthetic.records((0.5, 0.2, 0.1, 0), 1))
    synthetic.write_run(tmp_path, "b", 1, synthetic.records((0.5, 0.2, 0.1, 0), 1, **kind), **change)
    board = leaderboard.build_board(tmp_path)
    assert [[row.name for row in section.rows] for section in board.sections] in ([["a"], ["b"]], [["b"], ["a"]])


def test_unequal_budgets_are_told(tmp_path):
    rows = synthetic.records((0.5, 0.2, 0.1, 0), 1)
    synthetic.write_run(tmp_path, "a", 1, rows)
    synthetic.write_run(tmp_path, "b", 1, rows, spent={"responses": 9, "updates": 100})
    assert "differ in budget" in leaderboard.build_board(tmp_path).sections[0].notes[0]


def test_ten_attempts_and_one_attempt_have_tables(tmp_path):
    synthetic.write_run(tmp_path, "many", 1, synthetic.records((0.5, 0.1, 0.05, 0.3), 1, turns=10))
    synthetic.write_run(tmp_path, "one", 1, synthetic.records((0.5, 0.1, 0.05, 0.3), 1, turns=1))
    text = tables.render_markdown(leaderboard.build_board(tmp_path))
    assert "| Method | Acc@t1 | Acc@t2 | Acc@t10 | Δ(t1,t10) |" in text
    assert "| Method | Acc@t1 | seeds | majority@2 |" in text


def test_failed_runs_are_below_the_tables_and_nothing_else_is_lost(board):
    (trouble,) = board.troubles
    assert trouble.path == "runs/synthetic/tiny/crashed/seed1"
    text = tables.render_markdown(board)
    assert text.index("Not in the tables") > text.index("Reference: the paper's own numbers")


def test_a_run_without_greedy_evaluation_is_told(tmp_path):
    synthetic.write_run(tmp_path, "row", 1, synthetic.records((0.5, 0.2, 0.1, 0), 1, samples=2))
    board = leaderboard.build_board(tmp_path)
    assert not board.sections
    assert "no greedy evaluation" in board.troubles[0].message
    text = tables.render_markdown(board)
    assert "No run stands in a table; why, is told of each below." in text
    assert "No finished run" not in text, "there is one"
    (tmp_path / "empty").mkdir()
    assert "No finished run was found." in tables.render_markdown(leaderboard.build_board(tmp_path / "empty"))


def test_the_papers_block_is_labelled_and_its_table_holds(board):
    text = tables.render_markdown(board)
    assert "comparable with no row above" in text
    assert "| SCoRe | 60.0 [55.6, 64.2] | 64.4 [60.1, 68.5] | +4.4 | 5.8 [4.1, 8.2] | 1.4 [0.7, 2.9] |" in text
    for table in board.paper["tables"]:
        for name, t1, t2, delta, *flips in table["rows"]:
            misprint = (table["n"], name) == (164, "Self-Refine")
            assert t2 - t1 == pytest.approx(delta, abs=0.06 + misprint * 0.1)
            if flips:
                assert flips[0] - flips[1] == pytest.approx(delta, abs=0.06)


def test_markdown_is_stable_and_escaped(board, suite, gin):
    text = tables.render_markdown(board)
    assert text == tables.render_markdown(leaderboard.build_board(suite, gin=gin))
    assert "<script>" not in text
    line = next(line for line in text.splitlines() if "crashed" in line)
    assert len(re.findall(r"(?<!\\)\|", line)) == 4
    assert r"\[l\](http" in line
    assert "**" not in text
    assert str(suite) not in text


def test_html_is_escaped_and_sorts_by_number(board):
    text = tables.render_html_page(board)
    assert "<script" not in text
    assert 'data-sort="0.' in text
    assert text.count("<table") == text.count("</table>")
    assert text.isprintable() or {c for c in text if not c.isprintable()} == {"\n"}


def test_csv_holds_every_row_and_no_formula(board):
    lines = list(csv.DictReader(io.StringIO(tables.as_csv(board))))
    kinds = {kind: [line for line in lines if line["kind"] == kind] for kind in {line["kind"] for line in lines}}
    assert {k: len(v) for k, v in kinds.items()} == {
        "row": 8, "budget": 8, "beside": 2, "comparison": 15, "paper": 19, "left out": 1,
    }  # fmt: skip
    full = next(line for line in kinds["row"] if line["method"] == "score_full")
    assert float(full["t2"]) == pytest.approx(row_of(board, "score_full").cells["t2"].mean, abs=1e-6)
    assert not any(value.startswith(("=", "+", "@")) for line in lines for value in line.values())


def test_json_is_data(board):
    data = json.loads(tables.as_json(board))
    rows = {row["name"]: row for row in data["tables"][0]["rows"]}
    assert rows["score_full"]["cells"]["delta"]["lo"] < rows["score_full"]["cells"]["delta"]["mean"]
    assert rows["score_no_shaping"]["parent"] == "score_full"
    assert data["troubles"][0]["left_out"] is True


def test_latex_escapes_everything():
    assert tables.escape_latex(r"\input{a_b} 50% & $x^2$ ~ #1") == (
        r"\textbackslash{}input\{a\_\allowbreak{}b\} 50\% \& \$x\textasciicircum{}2\$ \textasciitilde{} \#1"
    )
    assert tables.escape_latex("ë Δ 好") == r"e $\Delta$ ?"


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles_with_booktabs(board, tmp_path):
    (tmp_path / "table.tex").write_text(tables.render_latex(board))
    (tmp_path / "paper.tex").write_text(
        r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs,textcomp}"
        "\n" + r"\begin{document}\input{table}\end{document}" + "\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in (tmp_path / "paper.log").read_text(errors="replace")


def test_the_command_line_writes_checks_and_refuses(suite, gin, tmp_path, capsys):
    out = tmp_path / "new" / "leaderboard.md"
    common = [str(suite), "--gin", str(gin)]
    assert run_leaderboard([*common, "--out", str(out)]) == 0
    assert run_leaderboard([*common, "--check", str(out)]) == 0
    out.write_text(out.read_text().replace("score_full", "score_best"))
    capsys.readouterr()
    assert run_leaderboard([*common, "--check", str(out)]) == 1
    assert "score_best" in capsys.readouterr().out
    assert run_leaderboard([str(tmp_path / "nowhere")]) == 2
    assert "no results folder" in capsys.readouterr().err


def test_no_torch_no_gin_no_pandas(suite):
    code = (
        "import sys; from harness.leaderboard import main; main([sys.argv[1], '--format', 'json'])\n"
        "print(*(set(sys.modules) & {'torch', 'transformers', 'gin', 'pandas'}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(suite)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == ""


def test_several_tasks_get_an_interquartile_mean_and_two_versions_of_one_do_not(tmp_path):
    for name, rates in (("base", (0.4, 0.1, 0.2, 0)), ("score_full", (0.6, 0.2, 0.1, 0))):
        for seed in (1, 2, 3):
            rows = [r for t in ("easy", "hard") for r in synthetic.records(rates, f"{seed}{t}", task=t, problems=20)]
            synthetic.write_run(tmp_path, name, seed, rows)
    board = leaderboard.build_board(tmp_path)
    assert [section.subject.task for section in board.sections] == ["easy", "hard"]
    (overall,) = board.overall
    assert overall.tasks == ("easy", "hard")
    name, seeds, cells = overall.rows[1]
    grid = np.stack([row_of(board, name, i).values["last"].mean(axis=1) for i in (0, 1)], axis=1)
    assert (name, seeds, cells["last"].mean) == ("score_full", (1, 2, 3), stats.interquartile_mean(grid))
    assert "Interquartile mean" in tables.render_markdown(board)
    rows = synthetic.records((0.5, 0.1, 0.1, 0), 7, task="easy", problems=20)
    synthetic.write_run(tmp_path, "late", 1, rows, eval_tasks={"easy": "2"})
    assert leaderboard.build_board(tmp_path).overall == ()


def test_over_tasks_no_interval_stands_where_seeds_cannot_tell(tmp_path):
    """One seed, and three seeds that do not differ: a point in brackets would look like certainty."""
    for name, seeds in (("base", (1, 2, 3)), ("score_full", (1, 2, 3))):
        for seed in seeds:
            own = 0 if name == "base" else seed
            rows = [
                r for t in ("a", "b") for r in synthetic.records((0.4, 0.1, 0.2, 0), f"{own}{t}", task=t, problems=20)
            ]
            synthetic.write_run(tmp_path, name, seed, rows, trained=name != "base")
    board = leaderboard.build_board(tmp_path)
    (overall,) = board.overall
    cells = {name: cells for name, _, cells in overall.rows}
    assert all(np.isnan(cell[1:]).all() for cell in cells["base"].values())
    assert all(cell.lo < cell.mean < cell.hi for cell in cells["score_full"].values())
    text = tables.render_markdown(board).partition("All evaluation tasks")[2].partition("##")[0]
    assert re.search(r"\| base \| [0-9.]+ \| [0-9.]+ \| [+-]?[0-9.]+ \| 3 \|", text)
    assert "- No interval: with one seed, or seeds that do not differ, resampling seeds says nothing." in text
    (told,) = json.loads(tables.as_json(board))["overall"]
    assert told["rows"][0]["cells"]["t1"]["lo"] is None


def test_rows_that_never_differ_could_have_differed(tmp_path):
    """Two trained rows with the same answers: difference, what could be shown and the plan go by one standard error."""
    for name in ("base", "score_full"):
        for seed in (1, 2):
            rows = synthetic.records((0.4, 0.1, 0.2, 0), 7, problems=20)
            synthetic.write_run(tmp_path, name, seed, rows, logged=synthetic.steps(3, seed))
    (one,) = leaderboard.build_board(tmp_path).sections[0].families["against the base"]
    assert one.difference.mean == 0
    error = 2**0.5 / 22  # Bonett and Price: one pseudo-flip of each kind, 20 problems
    assert one.difference.hi == pytest.approx(1.959964 * error)
    assert one.smallest == pytest.approx((1.959964 + 0.841621) * error)
    assert one.seeds_for_margin == ">1000"  # 18 points could be shown, and no seed changes that


def test_a_gain_on_every_problem_is_not_shown_as_none(tmp_path):
    for seed in (1, 2):
        rows = synthetic.records((0, 0, 0, 0), seed, problems=20)
        for row in rows:
            row["attempts"] = [{**row["attempts"][0], "correct": last} for last in (False, True)]
        synthetic.write_run(tmp_path, "row", seed, rows)
    cell = row_of(leaderboard.build_board(tmp_path), "row").cells["delta"]
    assert (cell.mean, cell.hi) == (1.0, 1.0)
    assert cell.lo == pytest.approx(stats.delta_interval(20, 0, 20).lo)


def test_one_row_on_several_bases_is_a_table_with_bases_crossed(tmp_path):
    for policy in ("small", "middle", "large"):
        for name, rates, seeds in (("base", (0.4, 0.1, 0.2, 0), (1,)), ("score_full", (0.6, 0.3, 0.1, 0), (1, 2, 3))):
            for seed in seeds[: 2 if policy == "large" else 3]:
                rows = synthetic.records(rates, f"{policy} {seed}", problems=40)
                synthetic.write_run(tmp_path, name, seed, rows, policy=policy, trained=name != "base")
    synthetic.write_run(tmp_path, "star", 1, synthetic.records((0.5, 0.1, 0.2, 0), 5, problems=40), policy="small")
    synthetic.write_run(tmp_path, "base", 1, synthetic.records((0.5, 0.1, 0.2, 0), 5, problems=41), policy="other")
    board = leaderboard.build_board(tmp_path)
    (crossed,) = board.bases  # the one with 41 problems cannot be paired
    assert (crossed.models, crossed.problems, crossed.missing) == (("large", "middle", "small"), 40, ("star",))
    base, full = crossed.rows
    assert [(row.name, row.seeds) for row in crossed.rows] == [("base", 1), ("score_full", 2)]
    held = [{row.name: row for row in section.rows} for section in board.sections if section.problems == 40]
    cube = np.stack([rows["score_full"].values["last"][:2] for rows in held])
    assert full.cells["last"] == stats.bootstrap_bases(cube)
    gain = cube - np.stack([rows["base"].values["last"] for rows in held])
    assert full.cells["gain"] == stats.bootstrap_bases(gain)
    assert full.p == full.p_holm == stats.paired_test(gain.mean(axis=1))
    assert (base.p, "gain" in base.cells) == (None, False)
    text = tables.render_markdown(board).partition("## Several base models; ")[2]
    assert "3 base models: large, middle, small. 40 problems" in text
    assert "- Not on every base: star." in text
    lines = [line for line in csv.DictReader(io.StringIO(tables.as_csv(board))) if line["kind"] == "bases"]
    assert [line["method"] for line in lines] == ["base", "score_full"]
    assert float(lines[1]["difference_of_last"]) == pytest.approx(full.cells["gain"].mean, abs=1e-6)
    assert json.loads(tables.as_json(board))["bases"][0]["rows"][1]["name"] == "score_full"
    for form in ("latex", "html"):
        assert "Several base models" in tables.FORMATS[form](board)


def test_an_untrained_run_that_was_only_evaluated_before_is_a_row(tmp_path):
    synthetic.write_run(tmp_path, "base", 1, synthetic.records((0.4, 0.1, 0.2, 0), 0, when="before"), trained=False)
    after = synthetic.records((0.6, 0.2, 0.1, 0), 1)
    synthetic.write_run(tmp_path, "score_full", 1, after)
    assert [row.name for row in leaderboard.build_board(tmp_path).sections[0].rows] == ["base", "score_full"]


def _repair(seed, *, uneven=False):
    """Two or three wrong programs for each of twelve problems: one record each, greedy, first attempts given."""
    rows = []
    for program in range(3):
        for row in synthetic.records((0, 0.4, 0, 0.3), f"{seed} {program}", problems=12, given=True):
            if not (uneven and program == 2 and row["id"] >= "p0006"):
                rows.append({**row, "sample": program})
    return rows


def test_a_repair_table_has_no_first_attempt_and_both_averages(tmp_path):
    for seed in (1, 2):
        synthetic.write_run(tmp_path, "score_full", seed, _repair(seed, uneven=True))
        synthetic.write_run(tmp_path, "single_turn_rl", seed, _repair(seed + 7, uneven=True))
    board = leaderboard.build_board(tmp_path)
    (section,) = board.sections
    row = row_of(board, "score_full")
    right = [[r["attempts"][1]["correct"] for r in _repair(seed, uneven=True)] for seed in (1, 2)]
    assert row.rates["acc_records"][-1] == pytest.approx(np.mean(right))
    by_problem = [
        np.mean(
            [np.mean([r["attempts"][1]["correct"] for r in rows if r["id"] == id]) for id in {r["id"] for r in rows}]
        )
        for rows in (_repair(1, uneven=True), _repair(2, uneven=True))
    ]
    assert row.cells["t2"].mean == pytest.approx(np.mean(by_problem))
    block = next(b for b in tables.build_blocks(board) if b.name == "accuracy")
    assert block.header[:4] == ("Method", "Acc@t2", "per first attempt", "seeds")
    assert "first attempts given" in block.title
    assert "12 problems, 30 fixed first attempts" in block.lead
    assert section.beside == ()
    assert set(section.families) <= {"against the parent", "against the base"}
    assert "unchanged" in next(b for b in tables.build_blocks(board) if b.name == "behaviour").header
    assert not any(word in tables.render_markdown(board).split("## Reference")[0] for word in ("Acc@t1", "majority@2"))


def test_other_evaluations_of_a_run_have_tables_of_their_own(tmp_path):
    rates = (0.5, 0.2, 0.1, 0.2)
    rows = synthetic.records(rates, 1) + synthetic.records(rates, 1, turns=10)
    fixed = synthetic.records(rates, 2)
    for row in fixed:
        row["attempts"][0]["by"] = "reference"
    pool = [row for row in synthetic.records(rates, 1, samples=4) if row["id"] < "p0020"]
    synthetic.write_run(tmp_path, "score_full", 1, [*rows, *fixed, *pool, *synthetic.records(rates, 1, split="train")])
    board = leaderboard.build_board(tmp_path)
    assert [(s.subject.turns, s.subject.first) for s in board.sections] == [
        (2, "policy"), (2, "reference"), (10, "policy"),
    ]  # fmt: skip
    row = row_of(board, "score_full")
    assert "majority@2 at temperature 0.7, 4 samples, 20 of the 60 problems" in row.notes
    assert row.cells["t1"] == stats.wilson_interval(sum(r["attempts"][0]["correct"] for r in rows[:60]), 60)
    text = tables.render_markdown(board)
    assert "first attempts the base model's" in text
    assert "10 attempts" in text
    assert board.overall == ()


def test_what_a_reader_of_a_row_must_know_is_under_the_table(tmp_path):
    rows = synthetic.records((0.5, 0.2, 0.1, 0), 1)
    for row in rows[:3]:
        row["attempts"][1]["flag"] = "compat"
    spent = {"trajectories": 8, "responses": 16, "given_responses": 5, "updates": 2}
    exact = "arithmetic.verifier = @verifier.exact()"
    synthetic.write_run(tmp_path, "score_full", 1, rows, spent=spent, config=[exact, "exact.strict = True"])
    plain = synthetic.records((0.5, 0.2, 0.1, 0), 2)
    synthetic.write_run(tmp_path, "pair_sft", 1, plain, config=[exact, "exact.strict = False", "hf.max_new_tokens = 9"])
    text = tables.render_markdown(leaderboard.build_board(tmp_path))
    assert "Attempts that the grader flagged compat: score_full 3" in text
    assert "spent as well: given responses 5" in text
    assert "Rows differ in exact.strict, hf.max_new_tokens: compare them with care." in text


def test_a_comparison_of_single_trainings_says_what_it_cannot_say(tmp_path, board):
    warning = "With 1 seed a difference, its p values and what could be shown cannot speak of training noise."
    assert warning not in tables.render_markdown(board)  # self_refine against base has one seed each, and no training
    synthetic.write_run(tmp_path, "base", 1, synthetic.records((0.4, 0.1, 0.2, 0), 0), trained=False)
    synthetic.write_run(tmp_path, "score_full", 1, synthetic.records((0.6, 0.2, 0.1, 0), 1))
    assert warning in tables.render_markdown(leaderboard.build_board(tmp_path))


def test_another_revision_is_another_model(tmp_path):
    for name, revision in (("base", "main"), ("score_full", "v2")):
        config = ["hf.path = 'org/model'", f"hf.revision = '{revision}'"]
        synthetic.write_run(tmp_path, name, 1, synthetic.records((0.5, 0.2, 0.1, 0), 1), config=config)
    assert [s.subject.model for s in leaderboard.build_board(tmp_path).sections] == ["org/model", "org/model@v2"]
