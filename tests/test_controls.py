"""Controls: which drafts they ask after, and what their columns say of policies whose use of a draft is known."""

from __future__ import annotations

import json
import os
import random
import shutil
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from synthetic import write_run

from harness import config, run
from harness.analysis import leaderboard, plots, tables
from harness.analysis.controls import GAINS
from harness.core import Message, Problem, Task, Turn, Verdict
from harness.evaluate import main as run_evaluate
from harness.runs import integrity, reader
from harness.runs import schema as records
from harness.training import evaluate
from harness.training.dialogue import Dialogue, Intrinsic, SelfRefine
from harness.training.drafts import SOMEBODY, find_other
from harness.training.evaluations import Draft, EvalSpec

RETRY = "Is that right? Answer again."
CONTROLS: tuple[Draft, ...] = ("right", "wrong", "other", "relabelled", "blind")
Rule = Callable[[list[Message], random.Random], str]


def check(problem: Problem, text: str) -> Verdict:
    right = text == problem.answer
    return Verdict(float(right), right, "ok" if text else "no_answer", text or None)


@dataclass(frozen=True)
class Numbers:
    """Problem n asks for n; attempt 1 of the policies below is off by 1000 where n is no multiple of 4."""

    size: int = 80
    given: bool = False
    name: str = "synthetic"
    version: str = "1"

    @property
    def verifier(self) -> Any:
        return check

    @property
    def test(self) -> Sequence[Problem]:
        return [
            Problem(f"p{n:03}", f"Say {n}.", str(n), f"{n}", ("bad",) if self.given else ()) for n in range(self.size)
        ]

    train = validation = test

    def chat(self, problem: Problem, answers: Sequence[str]) -> list[Message]:
        messages = [{"role": "user", "content": problem.prompt}]
        for answer in answers:
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": RETRY}]
        return messages


class Scripted:
    """A policy that answers by a rule, from the messages alone; `seen` holds every conversation it answered."""

    def __init__(self, rule: Rule) -> None:
        self.rule, self.seen = rule, cast(list[list[Message]], [])
        self.ranks = types.SimpleNamespace(shard_map=lambda work, items: work(items, 0))

    def refresh(self) -> None: ...

    def open(self, chats: Sequence[list[Message]], samples: int, seed: int, temperature: float, **_: Any) -> Session:
        return Session(self, [list(chat) for chat in chats for _ in range(samples)], seed, temperature)


class Session:
    """Conversations with a scripted policy, with the calls that `harness.training.rollout` makes."""

    def __init__(self, policy: Scripted, chats: list[list[Message]], seed: int, temperature: float) -> None:
        self.policy, self.chats, self.temperature = policy, chats, temperature
        self.rng = random.Random(seed) if temperature else random.Random(0)

    def _say(self, texts: Sequence[str], by: Any) -> list[Turn]:
        for chat, text in zip(self.chats, texts, strict=True):
            chat.append({"role": "assistant", "content": text})
        return [Turn((), (1,), text, Verdict(0.0, False), by=by) for text in texts]

    def reply(self) -> list[Turn]:
        self.policy.seen += [list(chat) for chat in self.chats]
        return self._say([self.policy.rule(chat, self.rng) for chat in self.chats], "policy")

    def give(self, replies: Sequence[str]) -> list[Turn]:
        return self._say(replies, "given")

    def ask(self, texts: Sequence[str]) -> None:
        for chat, text in zip(self.chats, texts, strict=True):
            chat.append({"role": "user", "content": text})


def number(chat: list[Message]) -> int:
    return int(chat[0]["content"].split(".")[0].removeprefix("Say "))


def greedy_first(chat: list[Message], _: random.Random) -> str:
    return str(number(chat) + 1000 * (number(chat) % 4 > 0))


def sampled_first(chat: list[Message], rng: random.Random) -> str:
    """Attempt 1: in greedy decoding always the same; sampled, right or wrong by a coin, but on problem 5 never right
    and on problem 8 never wrong."""
    if rng.getstate() == random.Random(0).getstate():
        return greedy_first(chat, rng)
    right = {5: False, 8: True}.get(number(chat), rng.random() < 0.5)
    return str(number(chat) + 1000 * (not right))


def draft_of(chat: list[Message]) -> tuple[str, bool]:
    """(the draft, whether it is told as somebody else's); '' where there is none."""
    if len(chat) > 1:
        return chat[1]["content"], False
    _, _, told = chat[0]["content"].partition(f"{SOMEBODY}\n\n")
    return told.partition("\n\n")[0], bool(told)


def second(rule: Callable[[int, str, bool], str]) -> Rule:
    """A policy whose attempt 2 is `rule(n, draft, told as somebody else's)`."""

    def answer(chat: list[Message], rng: random.Random) -> str:
        if RETRY not in chat[-1]["content"]:
            return sampled_first(chat, rng)
        return rule(number(chat), *draft_of(chat))

    return answer


IGNORES = second(lambda n, _draft, _told: str(n + 1000 * (n % 2)))
COPIES = second(lambda n, draft, _told: draft or str(n + 1000 * (n % 4 > 0)))
MENDS = second(lambda n, draft, told: str(n) if draft and not told else draft or str(n + 1000 * (n % 4 > 0)))


def ask(rule: Rule, kind: Draft, task: Numbers | None = None, dialogue: Dialogue | None = None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    evaluation = EvalSpec(attempts=1 if kind == "blind" else 2, draft=kind)
    evaluate.evaluate(
        cast(Any, Scripted(rule)), cast(Task, task or Numbers()), dialogue or Intrinsic(), evaluation, when="after",
        record=rows.extend,
    )  # fmt: skip
    return rows


def board(root: Path, rules: dict[str, Rule], seeds: int = 2, task: Numbers | None = None) -> leaderboard.Board:
    for name, rule in rules.items():
        rows = [row for kind in ("own", *CONTROLS) for row in ask(rule, cast(Draft, kind), task)]
        for seed in range(seeds):
            log = [{"phase": "rl", "step": 1, "x": seed}]
            write_run(root, name, seed, rows, logged=log)
    return leaderboard.build_board(root)


def controls(root: Path, rule: Rule, **more: Any) -> Any:
    (section,) = board(root, {"row": rule}, **more).sections
    (found,) = section.controls
    return found


def test_a_policy_that_ignores_the_draft(tmp_path: Path) -> None:
    found = controls(tmp_path, IGNORES)
    assert found.cells["reliance"].mean == found.cells["reliance"].lo == 0
    assert 0 < found.cells["reliance"].hi < 0.06
    for gain in ("gain_over_blind", "gain_over_other", "role_gap"):
        assert found.cells[gain].mean == 0
        assert found.cells[gain].lo < 0 < found.cells[gain].hi
    assert found.cells["own"].mean == found.cells["blind"].mean == 0.5
    assert found.seeds == (0, 1)


def test_a_policy_that_copies(tmp_path: Path) -> None:
    found = controls(tmp_path, COPIES)
    assert found.cells["reliance"].mean == 1
    assert found.cells["right"].mean == 1
    assert found.cells["wrong"].mean == found.cells["other"].mean == 0
    assert found.cells["own"].mean == found.cells["blind"].mean == 0.25
    assert found.cells["gain_over_blind"].mean == found.cells["role_gap"].mean == 0
    assert found.cells["gain_over_other"].mean == 0.25
    assert found.left_out == {"right": 1, "wrong": 1}  # problems 5 and 8
    assert found.notes == ()


def test_a_policy_that_mends_what_is_wrong_in_its_own_turn(tmp_path: Path) -> None:
    (section,) = board(tmp_path, {"row": MENDS}).sections
    (found,) = section.controls
    assert found.cells["gain_over_blind"].mean == found.cells["role_gap"].mean == 0.75
    assert 0.6 < found.cells["gain_over_blind"].lo < 0.75 < found.cells["gain_over_blind"].hi < 0.9
    assert found.cells["reliance"].mean == 0  # it is right whatever it reads
    cells = section.rows[0].cells
    assert [cells[q].mean for q in ("change_if_wrong", "change_if_right", "right_if_changed")] == [1, 0, 1]
    assert cells["change_if_right"].hi == pytest.approx(0.161, abs=5e-4)  # Wilson's of 0 of 20 cases
    text = tables.render_markdown(board_of := leaderboard.build_board(tmp_path))
    (line,) = [
        line
        for line in text.partition("### Controls")[2].partition("### Budget")[0].splitlines()
        if line.startswith("| row")
    ]
    assert "| +75.0 [" in line
    assert "| 1 / 1 | 80 | 2 |" in line
    assert '"gain_over_blind"' in tables.as_json(board_of)
    assert "\ncontrols,synthetic" in tables.as_csv(board_of)


def test_a_blind_prompt_that_a_model_cannot_read_is_told(tmp_path: Path) -> None:
    def rule(chat: list[Message], rng: random.Random) -> str:
        return "?" if len(chat) == 1 and RETRY in chat[0]["content"] else MENDS(chat, rng)

    (note,) = controls(tmp_path, rule).notes
    assert "does not read such a prompt" in note
    assert "gain over blind and the role gap say nothing" in note


def test_the_figure_of_controls_shows_what_the_draft_is_worth(tmp_path: Path) -> None:
    def cannot_read(chat: list[Message], rng: random.Random) -> str:
        return "?" if len(chat) == 1 and RETRY in chat[0]["content"] else MENDS(chat, rng)

    board(tmp_path, {"sft_copies": COPIES, "score_full": MENDS, "score_unread": cannot_read, "base": IGNORES})
    write_run(tmp_path, "score_alone", 0, ask(IGNORES, "own"), logged=[])  # no controls: it has no line
    (scope,) = plots.read_scopes(tmp_path)[0]
    ((_, figure),) = plots.draw_figures(scope, ["controls"], titled=True)
    assert isinstance(figure, plots.Figure)
    gain, reliance = figure.axes
    names = [label.get_text() for label in gain.get_yticklabels()]
    assert names == ["base", "sft_copies", "score_full", "score_unread"]
    assert [cast(Any, bar).lines[0].get_xdata()[0] for bar in gain.containers] == [0, 0, 75, 100]
    assert [cast(Any, bar).lines[0].get_xdata()[0] for bar in reliance.containers] == [0, 100, 0, 0]
    hollow = [cast(Any, bar).lines[0].get_markerfacecolor() == "white" for bar in gain.containers]
    assert hollow == [False, False, False, True]
    assert "hollow" in figure.get_supxlabel()
    if folder := os.environ.get("SCREENSHOTS"):
        plots.save_figure(figure, Path(folder) / "controls")
    plots.plt.close(figure)


def test_a_row_without_controls_has_no_table(tmp_path: Path) -> None:
    write_run(tmp_path, "row", 0, ask(IGNORES, "own"), logged=[])
    built = leaderboard.build_board(tmp_path)
    assert built.sections[0].controls == ()
    assert "### Controls" not in tables.render_markdown(built)


def test_what_each_control_asks_and_writes() -> None:
    rows = {kind: ask(COPIES, cast(Draft, kind)) for kind in ("own", *CONTROLS)}
    assert all("draft" not in row for row in rows["own"])
    for kind in CONTROLS:
        assert [row["id"] for row in rows[kind]] == [row["id"] for row in rows["own"]]
        assert {row["draft"] for row in rows[kind]} == {kind}
        assert {a["by"] for row in rows[kind] for a in row["attempts"][:-1]} <= {"given"}
        assert {row["attempts"][-1]["by"] for row in rows[kind]} == {"policy"}
        assert not records.find_faults(rows[kind])
    assert {len(row["attempts"]) for row in rows["blind"]} == {1}
    fits = {kind: [a["attempts"][0]["correct"] == (kind == "right") for a in rows[kind]] for kind in ("right", "wrong")}
    assert [i for i, fit in enumerate(fits["right"]) if not fit] == [5]
    assert [i for i, fit in enumerate(fits["wrong"]) if not fit] == [8]
    own = [row["attempts"][0] for row in rows["own"]]
    assert [r["attempts"][0]["text"] for r in rows["other"]] == [own[(i + 40) % 80]["text"] for i in range(80)]
    assert [r["attempts"][0]["correct"] for r in rows["relabelled"]] == [a["correct"] for a in own]
    every = [row for kind in rows for row in rows[kind]]
    assert len({reader.key_of(row) for row in every}) == len(integrity.count_records(every)) == 6
    for kind in rows:
        evaluation = EvalSpec(attempts=1 if kind == "blind" else 2, draft=cast(Draft, kind))
        assert [row for row in every if evaluation.matches_record(row)] == rows[kind]
    assert rows["wrong"] == ask(COPIES, "wrong")  # drafts are drawn by seed


def test_an_interrupted_control_goes_on_where_it_stopped() -> None:
    """300 problems are two batches; drafts of another problem cross them, and samples are drawn by batch."""
    task = Numbers(300)
    for kind in CONTROLS:
        rows: list[dict[str, Any]] = []
        evaluation = EvalSpec(attempts=1 if kind == "blind" else 2, draft=kind)
        for done in (0, 100, 260):
            evaluate.evaluate(
                cast(Any, Scripted(COPIES)), cast(Task, task), Intrinsic(), evaluation, when="after", done=done,
                record=rows.extend,
            )  # fmt: skip
        assert rows[300:] == rows[100:300] + rows[260:300]


def test_the_user_s_turn_holds_everything_where_there_is_no_turn_of_the_policy() -> None:
    def conversation(kind: Draft, dialogue: Dialogue, task: Numbers) -> list[Message]:
        policy = Scripted(COPIES)
        evaluation = EvalSpec(attempts=1 if kind == "blind" else 2, draft=kind, problems=1)
        evaluate.evaluate(
            cast(Any, policy), cast(Task, task), dialogue, evaluation, when="after", record=lambda _: None
        )
        return policy.seen[-1]

    blind, told = (conversation(kind, Intrinsic(), Numbers()) for kind in ("blind", "relabelled"))
    assert blind == [{"role": "user", "content": f"Say 0.\n\n{RETRY}"}]
    assert told == [{"role": "user", "content": f"Say 0.\n\n{SOMEBODY}\n\n0\n\n{RETRY}"}]
    given = conversation("relabelled", Intrinsic(), Numbers(given=True))
    assert given == [{"role": "user", "content": f"Say 0.\n\n{SOMEBODY}\n\nbad\n\n{RETRY}"}]
    refined = conversation("relabelled", SelfRefine(), Numbers())
    assert [m["role"] for m in refined] == ["user", "assistant", "user"]
    assert refined[0]["content"] == f"Say 0.\n\n{SOMEBODY}\n\n0\n\n{SelfRefine().feedback}"
    assert refined[2]["content"] == f"{SelfRefine().refine} {RETRY}"


def test_a_repair_task_has_the_drafts_that_its_data_give(tmp_path: Path) -> None:
    task = Numbers(given=True)
    drafts = {kind: {r["attempts"][0]["text"] for r in ask(MENDS, kind, task)} for kind in CONTROLS if kind != "blind"}
    assert drafts["wrong"] == drafts["other"] == drafts["relabelled"] == {"bad"}
    assert drafts["right"] == {str(n) for n in range(80)}
    found = controls(tmp_path, MENDS, task=task)
    assert found.cells["own"].mean == 1
    assert found.cells["gain_over_blind"].mean == 0.75
    assert "reliance" not in found.cells  # every draft is the same text: no case


def test_records_of_another_shape_are_no_controls(tmp_path: Path) -> None:
    """A foreign folder may name as a control what is none: it costs that column alone."""
    rows = ask(COPIES, "own") + [{**row, "attempts": row["attempts"][1:]} for row in ask(COPIES, "other")]
    rows += [{**row, "attempts": row["attempts"] * 2} for row in ask(COPIES, "blind")] + ask(COPIES, "right")
    write_run(tmp_path, "row", 0, rows, logged=[])
    (found,) = leaderboard.build_board(tmp_path).sections[0].controls
    assert set(found.cells) == {"own", "right"}


def test_another_problem_is_never_another_program_of_the_same() -> None:
    problems = [Problem(f"m{n}#{i}", "", "1", meta={"problem": f"m{n}", "sample": i}) for n in range(2) for i in (0, 1)]
    assert [find_other(problems, place).id for place in range(4)] == ["m1#0", "m1#1", "m0#0", "m0#1"]
    with pytest.raises(ValueError, match="at least two problems"):
        find_other(problems[:2], 0)


@pytest.mark.parametrize("wrong", [{"attempts": 3}, {"temperature": 1.0}, {"draft": "mine"}, {"draws": 0}])
def test_an_impossible_control_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"control is greedy|draft is one of|at least 1"):
        EvalSpec(**{"draft": "wrong", **wrong})


SMALL = ["run.steps = 4", "run.problems = 4", "run.samples = 2", "arithmetic.test_size = 24", "hf.lr = 1e-2"]


def bound(bindings: Sequence[str]) -> list[str]:
    return [word for binding in bindings for word in ("--bind", binding)]


@pytest.mark.slow
def test_at_a_run_s_end_or_added_later_the_same_bytes(tmp_path: Path) -> None:
    usual = ["--gin", "gin/naive_multi_turn_rl.gin", "--device", "cpu", *bound(SMALL)]
    plain, asked = (tmp_path / name / "arithmetic/arithmetic/naive_multi_turn_rl/seed0" for name in ("plain", "asked"))
    assert run.main([*usual, "--out", str(tmp_path / "plain")]) == 0
    assert run.main([*usual, "--gin", "gin/eval/controls.gin", "--out", str(tmp_path / "asked")]) == 0
    whole = (asked / "eval.jsonl").read_bytes()
    assert whole.startswith((plain / "eval.jsonl").read_bytes())
    assert whole.count(b"\n") == 24 * (2 + 6)
    assert run_evaluate([str(plain), "--gin", "gin/eval/controls.gin", "--device", "cpu"]) == 0
    assert (plain / "eval.jsonl").read_bytes() == whole
    shutil.rmtree(tmp_path / "plain")
    built = leaderboard.build_board(tmp_path)
    assert not [trouble for trouble in built.troubles if trouble.left_out]
    plain_section, after_base = sorted(built.sections, key=lambda section: section.subject.first)
    assert after_base.controls == ()
    (found,) = plain_section.controls
    assert set(found.cells) >= {"own", "other", "reference", "relabelled", "blind", "reliance", *GAINS}
    mine = [json.loads(line) for line in whole.splitlines()]
    firsts = {kind: [r["attempts"][0]["text"] for r in mine if r.get("draft") == kind] for kind in CONTROLS}
    own = [r["attempts"][0]["text"] for r in mine if r["when"] == "after" and "draft" not in r]
    assert firsts["relabelled"] == own[:24]
    assert firsts["other"] == [*own[12:24], *own[:12]]


@pytest.mark.slow
def test_controls_of_a_repair_task_run_programs(tmp_path: Path) -> None:
    files = ["gin/base.gin", "gin/task/embedded_code.gin", "gin/eval/controls_repair.gin"]
    words = [word for file in files for word in ("--gin", file)]
    bindings = ["run.eval_tasks = [@task.embedded_repair()]", "embedded_repair.test_size = 4"]
    assert run.main([*words, "--out", str(tmp_path), "--device", "cpu", *bound(bindings)]) == 0
    (section,) = leaderboard.build_board(tmp_path).sections
    (found,) = section.controls
    assert found.problems == 4
    assert found.left_out == {"right": 0, "wrong": 0}
    rows = [json.loads(line) for path in tmp_path.rglob("eval.jsonl") for line in path.read_text().splitlines()]
    own = [row["attempts"] for row in rows if "draft" not in row]
    wrong = [row["attempts"] for row in rows if row.get("draft") == "wrong"]
    assert own == wrong  # the given program is the wrong draft: the same conversation
    assert all(row["attempts"][0]["correct"] for row in rows if row.get("draft") == "right")


def test_a_control_that_needs_two_problems_is_told_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bindings = [*SMALL, "other_first.problems = 1", "run.evaluations = [@evaluation.other_first()]"]
    out = ["--out", str(tmp_path), "--device", "cpu"]
    assert run.main(["--gin", "gin/naive_multi_turn_rl.gin", *out, *bound(bindings)]) == 1
    assert "at least two problems" in capsys.readouterr().err
    assert not list(tmp_path.rglob("eval.jsonl"))


def test_a_prompt_that_a_draft_makes_too_long_is_told_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bindings = [*SMALL, "hf.max_prompt_tokens = 40", "run.evaluations = [@evaluation.relabelled()]"]
    out = ["--out", str(tmp_path), "--device", "cpu"]
    assert run.main(["--gin", "gin/naive_multi_turn_rl.gin", *out, *bound(bindings)]) == 1
    told = capsys.readouterr().err
    assert "evaluation.relabelled, problem" in told
    assert "raise hf.max_prompt_tokens = 40, or leave that evaluation out" in told
    assert not list(tmp_path.rglob("eval.jsonl"))


@pytest.mark.parametrize("name", ["controls", "controls_repair"])
def test_the_gin_files_bind_every_control(name: str) -> None:
    from harness.training.experiment import Experiment

    config.prepare_gin(Experiment, "run")
    config.parse_gin(["gin/score_full.gin", f"gin/eval/{name}.gin"], [])
    drafts = [evaluation.draft for evaluation in config.build_root("run").evaluations]
    assert set(drafts) == {*CONTROLS, *(["reference"] if name == "controls" else [])}
    assert set(records.DRAFTS) == set(CONTROLS)
