"""harness.runs.reader: finished runs are read, and everything else is named instead of raised."""

import json

import numpy as np
import pytest
import synthetic

from harness.runs import format1, reader


def test_a_suite_is_read_in_order_with_every_evaluation(tmp_path):
    runs, troubles = reader.read_runs(synthetic.write_suite(tmp_path, samples=2, problems=10))
    assert not troubles
    assert [(r.name, r.seed) for r in runs] == sorted((r.name, r.seed) for r in runs)
    run = next(r for r in runs if r.name == "score_full")
    assert run.label == "runs/synthetic/tiny/score_full/seed1"
    keys = {(k.when, k.temperature) for k in run.evaluations}
    assert keys == {("before", 0.0), ("after", 0.0), ("after", 0.7)}
    evaluation = run.evaluations[reader.EvalKey("after", "synthetic", "test", 0.0, "policy", 2)]
    assert len(evaluation.problems) == 10
    assert evaluation.values["delta"].mean() == pytest.approx(evaluation.summary["delta"])
    assert evaluation.attempts.shape == (10, 2)
    assert run.was_trained
    assert len(run.read_steps()) == 40
    assert {k.when for r in reader.read_runs(tmp_path, whens=["after"])[0] for k in r.evaluations} == {"after"}
    assert reader.find_runs(tmp_path) == reader.find_runs(tmp_path / "runs")


def test_what_is_not_asked_for_is_left_out_wherever_it_stands(tmp_path):
    """Leading lines are not even parsed; a bad one among them is then nobody's concern, one behind them is."""
    after, before = (synthetic.records((0.5, 0, 0, 0), 1, when=when, problems=3) for when in ("after", "before"))
    folder = synthetic.write_run(tmp_path, "row", 1, [before[0], *after[:2], before[1], after[2], before[2]])
    assert reader.read_records(folder, whens=["after"]) == after
    assert reader.read_records(folder) == [before[0], *after[:2], before[1], after[2], before[2]]
    text = (folder / "eval.jsonl").read_text()
    (folder / "eval.jsonl").write_text('{"when": "before", nonsense\n' + text + "\n{]\n")
    assert reader.read_records(folder, whens=["after"], bad=(bad := [])) == after
    assert [note.partition(" is no JSON")[0] for note in bad] == ["eval.jsonl: line 9"]
    whole = f"{text}{{}},{{}}\n"  # two objects in one line are as many rows as no line holds
    (folder / "eval.jsonl").write_text(whole)
    reader.read_records(folder, bad=(bad := []))
    assert [note.partition(" is no JSON")[0] for note in bad] == ["eval.jsonl: line 7"]


def test_seeds_are_ordered_as_numbers(tmp_path):
    for seed in (10, 2, 1):
        synthetic.write_run(tmp_path, "base", seed, synthetic.records((0.5, 0, 0, 0), seed, problems=3))
    assert [run.seed for run in reader.read_runs(tmp_path)[0]] == [1, 2, 10]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "run.json").unlink(), "run.json is missing"),
        (lambda f: (f / "run.json").write_text("{"), "run.json cannot be read"),
        (lambda f: (f / "run.json").write_text("[]"), "does not hold an object"),
        (lambda f: (f / "eval.jsonl").unlink(), "eval.jsonl is missing"),
        (lambda f: (f / "eval.jsonl").write_text(""), "holds no records"),
        (lambda f: (f / "eval.jsonl").write_text((f / "eval.jsonl").read_text()[:-20]), "last line is cut off"),
        (lambda f: (f / "eval.jsonl").write_text("nonsense\n"), "line 1 is no JSON"),
        (lambda f: (f / "eval.jsonl").write_text("3\n"), "line 1 is no object"),
        (lambda f: (f / "eval.jsonl").write_text('{"when": "after", "id": "x"}\n'), "attempts"),
        (lambda f: (f / "eval.jsonl").write_text((f / "eval.jsonl").read_text() * 2), "two records"),
    ],
)
def test_a_damaged_run_is_named_and_left_out(tmp_path, harm, message):
    rows = synthetic.records((0.5, 0.1, 0.1, 0), 1, problems=3)
    harm(synthetic.write_run(tmp_path, "broken", 1, rows))
    synthetic.write_run(tmp_path, "fine", 1, rows)
    runs, troubles = reader.read_runs(tmp_path)
    assert [run.name for run in runs] == ["fine"]
    assert [(t.path, t.left_out) for t in troubles] == [("runs/synthetic/tiny/broken/seed1", True)]
    assert message in troubles[0].message


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"status": "failed", "error": "Traceback\n  File\nValueError: boom"}, "failed: ValueError: boom"),
        ({"status": "running"}, "running"),
        ({"status": "interrupted"}, "interrupted"),
        ({"format": 3}, "has format 3; this program reads formats 1 and 2"),
    ],
)
def test_an_unfinished_run_is_named_and_left_out(tmp_path, info, message):
    synthetic.write_run(tmp_path, "row", 1, synthetic.records((0.5, 0, 0, 0), 1, problems=3), **info)
    runs, (trouble,) = reader.read_runs(tmp_path)
    assert not runs
    assert message in trouble.message


def test_a_cut_off_training_log_is_told_but_does_not_cost_the_row(tmp_path):
    folder = synthetic.write_run(
        tmp_path, "row", 1, synthetic.records((0.5, 0, 0, 0), 1, problems=3), logged=synthetic.steps(5, 1)
    )
    log = folder / "metrics.jsonl"
    log.write_text(log.read_text()[:-9])
    (run,), (trouble,) = reader.read_runs(tmp_path)
    assert not trouble.left_out
    assert [step["step"] for step in run.read_steps()] == [1, 2, 3, 4]


def test_no_folder_is_the_only_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no results folder"):
        reader.read_runs(tmp_path / "nowhere")
    assert reader.read_runs(tmp_path) == ([], [])


def test_the_bindings_of_format_1_are_read_without_gin(tmp_path):
    text = (
        "# A comment = not a binding\ninclude 'gin/base.gin'\nimport plugin\nBONUS = 10  # alpha\n"
        "score.parts = [\n    @score_phase1(),  # Stage I\n    @score_phase2(),\n]\n"
        "run.note = 'a # b = c'\nlong.value = \\\n    3\nscope/x.y = %BONUS\n"
    )
    (tmp_path / "row.gin").write_text("include 'gin/score_full.gin'\nrun.name = 'row'\nscore.bonus = 0  # none\n")
    old = {"format": 1, "name": "row", "spent": {"updates": 2}}
    info = format1.upgrade_format1(old, text, tmp_path)
    bindings = {
        "BONUS": "10",
        "score.parts": "[ @score_phase1(), @score_phase2(), ]",
        "run.note": "'a # b = c'",
        "long.value": "3",
        "scope/x.y": "%BONUS",
    }
    assert info == {**old, "bindings": bindings, "parent": "score_full", "difference": {"score.bonus": "0"}}
    assert format1.upgrade_format1({**old, "name": "unknown"}, "", tmp_path)["difference"] == {}


def test_given_attempts_and_splits_are_evaluations_of_their_own(tmp_path):
    rates = (0.5, 0.3, 0.1, 0.2)
    rows = [row for given in (False, True) for row in synthetic.records(rates, 1, problems=4, given=given)]
    rows += synthetic.records(rates, 1, problems=4, split="train")
    synthetic.write_run(tmp_path, "row", 1, rows)
    (run,), _ = reader.read_runs(tmp_path)
    assert {(key.split, key.first) for key in run.evaluations} == {
        ("test", "policy"),
        ("test", "given"),
        ("train", "policy"),
    }
    digests = {evaluation.problems_digest for evaluation in run.evaluations.values()}
    assert len(digests) == 1


def test_versions_graders_and_models_come_from_run_json_or_the_config(tmp_path):
    rows = synthetic.records((0.5, 0, 0, 0), 1, problems=2)
    synthetic.write_run(tmp_path, "a", 1, rows, config=["synthetic.verifier = @verifier.exact()", "x.y = 1"])
    synthetic.write_run(tmp_path, "b", 1, rows, graders={"synthetic": "code_tests 2"}, model="org/model@abc")
    a, b = reader.read_runs(tmp_path)[0]
    assert (a.grader_of("synthetic"), a.model_name, a.version_of("synthetic")) == ("@verifier.exact()", "tiny", "1")
    assert (b.grader_of("synthetic"), b.model_name, b.version_of("other")) == ("code_tests 2", "org/model@abc", "")


def test_numbers_in_run_json_are_never_believed(tmp_path):
    rows = synthetic.records((0.5, 0.2, 0.2, 0), 1, problems=9)
    synthetic.write_run(tmp_path, "row", 1, rows, acc=[1.0, 1.0], delta=0.99)
    (run,), _ = reader.read_runs(tmp_path)
    (evaluation,) = run.evaluations.values()
    truth = np.mean([[a["correct"] for a in json.loads(json.dumps(row))["attempts"]] for row in rows], axis=0)
    assert evaluation.summary["acc"] == pytest.approx(truth)


def test_half_a_character_in_what_a_model_wrote_is_spelt_out(tmp_path):
    rows = synthetic.records((0.5, 0.2, 0.1, 0.2), 1, problems=6)
    first, second = rows[0]["attempts"]
    first |= {"text": "a\ud800b", "answer": "\ud800"}
    second |= {"text": "a\udfffb", "answer": "\udfff"}
    path = synthetic.write_run(tmp_path, "base", 0, rows)
    assert b"\\ud800" in (path / "eval.jsonl").read_bytes()
    (run,), troubles = reader.read_runs(tmp_path)
    assert not [trouble for trouble in troubles if trouble.left_out]
    records = reader.read_records(run.path)
    assert [attempt["text"] for attempt in records[0]["attempts"]] == ["a\\ud800b", "a\\udfffb"]
    assert records[0]["attempts"][0]["answer"] != records[0]["attempts"][1]["answer"]


def test_half_a_character_in_an_id_is_told(tmp_path):
    rows = synthetic.records((0.5, 0.2, 0.1, 0.2), 1, problems=6)
    rows[0]["id"] = "\ud800"
    synthetic.write_run(tmp_path, "base", 0, rows)
    runs, troubles = reader.read_runs(tmp_path)
    assert not runs
    assert "id is" in troubles[0].message
