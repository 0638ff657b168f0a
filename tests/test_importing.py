"""Trajectories of other programs become runs: the verdicts are the verifier's, and what cannot be compared is told."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

import harness
from harness import cli
from harness.runs import reader
from harness.tasks.arithmetic import Arithmetic, pool_operands
from harness.tools.exporting import record_features

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
TRACKED = ROOT / "results" / "embedded"
NAMES = [f"{a}*{b}+{c}" for a, b, c in pool_operands("test")[:6]]
RIGHT = [str(a * b + c) for a, b, c in pool_operands("test")[:6]]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def bring(file: Path, out: Path, *words: str, name: str = "mine", task: str = "arithmetic") -> int:
    return cli.main(["import", str(file), "--name", name, "--task", task, "--out", str(out), "--updates", "3", *words])


def records(out: Path) -> list[dict[str, Any]]:
    runs, troubles = reader.read_runs(out)
    assert not troubles
    return [record for run in runs for record in reader.read_records(run.path)]


def correct(out: Path) -> list[list[bool]]:
    return [[attempt["correct"] for attempt in record["attempts"]] for record in records(out)]


def boxed(answer: str) -> str:
    return rf"\boxed{{{answer}}}"


def test_a_tracked_run_that_is_imported_gives_the_tracked_numbers(tmp_path: Path, capsys: Any) -> None:
    tracked = next(TRACKED.glob("*/*/score_full/seed0"))
    run, _ = reader.read_run(tracked)
    assert run is not None
    held = [record for record in reader.read_records(tracked) if reader.key_of(record) == run.final_evaluations[0].key]
    rows = [{"id": r["id"], "attempts": [a["text"] for a in r["attempts"]]} for r in held]
    assert bring(write(tmp_path / "mine.jsonl", rows), tmp_path / "out") == 0
    mine = reader.read_runs(tmp_path / "out")[0][0].final_evaluations[0]
    theirs = run.final_evaluations[0]
    assert mine.problems == theirs.problems
    assert (mine.attempts == theirs.attempts).all()
    assert (mine.values["edit_ratio"] == theirs.values["edit_ratio"]).all()
    capsys.readouterr()
    assert cli.main(["leaderboard", str(tmp_path / "out"), "--format", "md"]) == 0
    table = capsys.readouterr().out
    (line,) = [line for line in table.splitlines() if line.startswith("| mine (1) (2) | 64.4")]
    assert "| – | 3 | – |" in line  # responses unknown, 3 updates
    assert "imported (jsonl): it was not trained here, under no budget of this table; its tokens are not known" in table


def test_the_verifier_decides_and_not_the_file(tmp_path: Path) -> None:
    rows = [
        {"id": name, "attempts": [{"text": boxed("1"), "correct": True}, {"text": boxed(right), "correct": False}]}
        for name, right in zip(NAMES, RIGHT, strict=True)
    ]
    file = write(tmp_path / "mine.jsonl", rows)
    assert bring(file, tmp_path / "graded") == 0
    assert correct(tmp_path / "graded") == [[False, True]] * 6
    assert [record["gold"] for record in records(tmp_path / "graded")] == RIGHT
    assert bring(file, tmp_path / "told", "--verdicts") == 0
    assert correct(tmp_path / "told") == [[True, False]] * 6
    tables = {reader.read_runs(tmp_path / out)[0][0].table_settings("arithmetic") for out in ("graded", "told")}
    assert len(tables) == 2  # verdicts of another grader never stand in one table


def test_a_task_of_ones_own_needs_verdicts_alone(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {i}", "attempts": [{"text": "a", "correct": bool(i)}]} for i in range(2)]
    assert bring(write(tmp_path / "mine.jsonl", rows), tmp_path / "out", "--verdicts", task="trivia") == 0
    assert correct(tmp_path / "out") == [[False], [True]]
    assert {record["prompt"] for record in records(tmp_path / "out")} == {"question 0", "question 1"}


def test_imported_runs_are_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(
        tmp_path / "mine.jsonl", [{"id": n, "attempts": [boxed(r)]} for n, r in zip(NAMES, RIGHT, strict=True)]
    )
    assert bring(file, tmp_path / "out", "--responses", "64", "--seed", "2") == 0
    run = reader.read_runs(tmp_path / "out")[0][0]
    assert (run.seed, run.was_trained, run.info["spent"]) == (2, True, {"updates": 3, "responses": 64})
    assert run.info["imported"]["format"] == "jsonl"
    assert set(run.info["imported"]["files"]) == {"mine.jsonl"}
    frames: Any = harness.load(tmp_path / "out")
    assert frames.runs["acc_first"].tolist() == [1.0]
    assert bring(file, tmp_path / "out", "--seed", "2") == 2  # it is there already, and stays
    assert cli.main(["verify", str(run.path)]) == 2
    assert "was imported" in capsys.readouterr().out


def test_trl_completions(tmp_path: Path) -> None:
    file = DATA / "trl_completions.parquet"
    table = pd.read_parquet(file)
    assert bring(file, tmp_path / "out", "--temperature", "1") == 0
    held = records(tmp_path / "out")
    assert len(held) == len(table)
    assert {record["sample"] for record in held} == {0, 1}
    by_text = {(r["id"], r["attempts"][0]["text"]): r["attempts"][0]["correct"] for r in held}
    golds = dict(zip([problem.prompt for problem in _test_problems()], RIGHT, strict=True))
    ids = dict(zip([problem.prompt for problem in _test_problems()], NAMES, strict=True))
    for prompt, completion in zip(table["prompt"], table["completion"], strict=True):
        text, asked = completion[0]["content"], prompt[0]["content"]
        assert by_text[ids[asked], text] == (f"boxed{{{golds[asked]}}}" in text)


def _test_problems() -> Any:
    return Arithmetic(verifier=lambda problem, text: None).test[:6]  # type: ignore[arg-type]


def test_trl_conversations_have_an_attempt_a_reply(tmp_path: Path) -> None:
    asked = _test_problems()[0].prompt
    rows = [
        {
            "step": 7, "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": asked}],
            "completion": [
                {"role": "assistant", "content": boxed("1")}, {"role": "user", "content": "Again."},
                {"role": "assistant", "content": boxed(RIGHT[0])},
            ],
            "right": 1.0, "advantage": 0.5,
        }
    ]  # fmt: skip
    file = tmp_path / "completions_00007.parquet"
    pd.DataFrame(rows).to_parquet(file)
    assert bring(file, tmp_path / "out") == 0
    assert correct(tmp_path / "out") == [[False, True]]


@pytest.mark.parametrize(
    "between",
    ["\nuser\nAgain.\nassistant\n", "<|im_end|>\n<|im_start|>user\nAgain.<|im_end|>\n<|im_start|>assistant\n"],
)  # fmt: skip
def test_verl_rollouts(between: str, tmp_path: Path) -> None:
    asked = [problem.prompt for problem in _test_problems()]
    rows = [
        {
            "input": f"system\nYou are helpful.\nuser\n{asked[i]}\nassistant\n",
            "output": boxed("1") + between + boxed(RIGHT[i]),
            "gts": RIGHT[i], "score": 1.0, "step": step,
        }
        for step in (1, 2) for i in range(3)
    ]  # fmt: skip
    file = write(tmp_path / "1.jsonl", rows)
    assert bring(file, tmp_path / "out") == 2  # two steps are two policies
    assert bring(file, tmp_path / "out", "--step", "2") == 0
    held = records(tmp_path / "out")
    assert [record["id"] for record in held] == NAMES[:3]
    assert [[a["text"] for a in record["attempts"]] for record in held] == [[boxed("1"), boxed(r)] for r in RIGHT[:3]]
    assert correct(tmp_path / "out") == [[False, True]] * 3


@pytest.mark.parametrize("suffix", ["eval", "json"])
def test_inspect_logs(suffix: str, tmp_path: Path) -> None:
    file = DATA / f"inspect_two_turns.{suffix}"
    assert bring(file, tmp_path / "out") == 0
    ids = [record["id"] for record in records(tmp_path / "out")]
    assert dict(zip(ids, correct(tmp_path / "out"), strict=True)) == {
        "17*6+71": [False, True], "94*2+53": [True, True], "23*6+35": [True, False],
    }  # fmt: skip
    assert reader.read_runs(tmp_path / "out")[0][0].model_name == "mockllm/model"
    assert all(record["temperature"] == 0 for record in records(tmp_path / "out"))


@pytest.mark.parametrize(
    ("rows", "words", "told"),
    [
        ([{"id": "17*6+72", "attempts": ["1"]}], [], "has no test problem '17*6+72'"),
        ([{"id": NAMES[0], "attempts": []}], [], "'attempts' is empty"),
        ([{"id": NAMES[0], "attempts": [3]}], [], "attempt 1 must be a text"),
        ([{"id": NAMES[0], "atempts": ["1"]}], [], "(nearest: atempts)"),
        ([{"prompt": "What?", "attempts": ["1"]}], [], "has this text"),
        ([{"id": NAMES[0], "attempts": ["1"]}, {"id": NAMES[1], "attempts": ["1", "2"]}], [], "line 1: 1 attempts"),
        ([{"id": NAMES[0], "attempts": ["1"]}] * 2, [], "--temperature"),
        ([{"id": NAMES[0], "attempts": ["1"]}] * 2, ["--temperature", "0"], "a greedy one is alone"),
        ([{"id": NAMES[0], "attempts": ["1"]}], ["--verdicts"], "nothing says whether attempt 1 is right"),
        ([{"id": NAMES[0], "attempts": [{"text": "1", "reward": 0.4}]}], ["--verdicts"], "attempt 1 is right"),
        ([{"id": NAMES[0], "attempts": [{"text": "1", "reward": "x"}]}], [], "reward 'x' is no finite number"),
        ([{"id": NAMES[0], "attempts": ["1"], "temperature": "hot"}], [], "temperature 'hot'"),
        ([{"id": NAMES[0], "attempts": ["1" * (2**20 + 1)]}], [], "no run that tables take: eval.jsonl"),
        ([{"id": NAMES[0], "attempts": [{"text": "1", "correct": True, "status": "fine"}]}], ["--verdicts"], "status"),
        ([{"prompt": [{"role": "user", "content": [3]}], "completion": "1"}], [], "line 1: it is not as its format"),
        ([{"prompt": "a", "completion": [{"role": "user", "content": "1"}]}], [], "no reply of the assistant"),
        ([{"input": "a", "output": 3}], [], "'output' must be text"),
        ([{"input": "a", "output": "b", "step": "one"}], [], "the step 'one' is no whole number"),
        ([{"id": NAMES[0], "attempts": [{"text": "1", "correct": "yes"}]}], [], "neither true nor false"),
        ([], [], "holds no rows"),
        ([{"id": NAMES[0], "attempts": ["1"]}], ["--name", "score_full"], "a row that the harness trains"),
        ([{"id": NAMES[0], "attempts": ["1"]}], ["--name", "../up"], "is no folder name"),
        ([{"id": NAMES[0], "attempts": ["1"]}], ["--task", "arithmetics"], "arithmetic"),
    ],
)
def test_what_cannot_be_a_run_is_said_and_nothing_is_written(
    rows: list[Any], words: list[str], told: str, tmp_path: Path, capsys: Any
) -> None:
    file = write(tmp_path / "mine.jsonl", rows)
    assert bring(file, tmp_path / "out", *words) == 2
    assert told in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.json*"))


def test_rewards_that_are_no_verdicts_do_not_hinder_a_verifier(tmp_path: Path) -> None:
    asked = _test_problems()[0].prompt
    rows = [{"input": asked, "output": boxed(RIGHT[0]), "score": -1.0, "step": 4}]
    assert bring(write(tmp_path / "4.jsonl", rows), tmp_path / "verl") == 0
    rows = [{"prompt": asked, "completion": boxed(RIGHT[0]), "format": 0.3, "step": 4}]
    assert bring(write(tmp_path / "trl.jsonl", rows), tmp_path / "trl") == 0
    assert correct(tmp_path / "verl") == correct(tmp_path / "trl") == [[True]]
    rows = [{"input": "q", "output": "a", "score": -1.0, "acc": False, "step": 4}]
    assert bring(write(tmp_path / "acc.jsonl", rows), tmp_path / "acc", "--verdicts", task="quiz") == 0
    assert correct(tmp_path / "acc") == [[False]]


def test_damaged_files_are_said(tmp_path: Path, capsys: Any) -> None:
    whole = (DATA / "inspect_two_turns.eval").read_bytes()
    (tmp_path / "cut.eval").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    with zipfile.ZipFile(DATA / "inspect_two_turns.eval") as packed:
        entry = next(e for e in packed.infolist() if e.filename.startswith("samples/"))
    flipped[entry.header_offset + 30 + len(entry.filename.encode()) + 40] ^= 1
    (tmp_path / "flipped.eval").write_bytes(flipped)
    (tmp_path / "text.parquet").write_text("no Parquet")
    (tmp_path / "half.jsonl").write_text('{"id": "1", "attem')
    names = ("cut.eval", "flipped.eval", "text.parquet", "half.jsonl", "nowhere.jsonl")
    for name in names:
        assert bring(tmp_path / name, tmp_path / "out") == 2
        said = capsys.readouterr().err
        assert name in said
        assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_eval_jsonl_and_frames_are_read_by_datasets(tmp_path: Path) -> None:
    rows = [{"id": n, "attempts": [boxed(r)]} for n, r in zip(NAMES, RIGHT, strict=True)]
    assert bring(write(tmp_path / "mine.jsonl", rows), tmp_path / "out") == 0
    assert bring(tmp_path / "mine.jsonl", tmp_path / "out", "--split", "test", "--temperature", "1", name="hot") == 0
    files = sorted(map(str, (tmp_path / "out").rglob("eval.jsonl")))
    # a train record with a flag, a prompt in no pool: keys that some files lack
    record = json.loads(Path(files[0]).read_text().splitlines()[0]) | {"split": "train", "extra_tokens": 3}
    record["attempts"][0]["flag"] = "compat"
    files.append(str(write(tmp_path / "more.jsonl", [record])))
    held: Any = datasets.load_dataset(
        "json", data_files=files, split="train", features=record_features(), cache_dir=str(tmp_path / "cache")
    )
    assert len(held) == 13
    assert held["id"][:6] == NAMES
    assert held["split"][:] == [None] * 12 + ["train"]
    assert [attempt["flag"] for attempts in held["attempts"][11:] for attempt in attempts] == [None, "compat"]
    harness.load(tmp_path / "out").to_parquet(tmp_path / "frames")
    held = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "frames" / "attempts.parquet"), split="train",
        cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    assert held["correct"][:] == [True] * 12
