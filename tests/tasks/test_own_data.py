"""task.jsonl and task.hub: any two fields are a task; what is missing, empty or shared with the test split is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import cli, registry
from harness.core import Problem, Verdict
from harness.tasks.jsonl import HubData, Jsonl
from harness.tasks.source import DataError

registry.load_plugins()


def verifier(problem: Problem, text: str) -> Verdict:
    return Verdict(float(text == problem.answer), text == problem.answer)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def rows(first: int, count: int) -> list[dict[str, Any]]:
    return [{"question": f"{i} + 1?", "result": f"One more.\n#### {i + 1}"} for i in range(first, first + count)]


def own(tmp_path: Path, **more: Any) -> Jsonl:
    files: dict[str, Any] = {
        "train_data": write(tmp_path / "train.jsonl", rows(0, 8)),
        "test_data": write(tmp_path / "test.jsonl", rows(100, 3)),
        "prompt": "question",
        "answer": "result",
    }
    return Jsonl(verifier=verifier, **files | more)


def test_fields_become_problems(tmp_path: Path) -> None:
    task = own(tmp_path, answer_after="####", instruction="Box it.")
    assert [(p.prompt, p.answer, p.solution) for p in task.test[:1]] == [("100 + 1?", "101", "One more.")]
    assert (len(task.train), len(task.validation), len(task.test)) == (8, 0, 3)
    assert len({p.id for p in (*task.train, *task.test)}) == 11
    assert task.chat(task.test[0], ["7"]) == [
        {"role": "user", "content": "Box it.\n\n100 + 1?"}, {"role": "assistant", "content": "7"},
        {"role": "user", "content": task.retry},
    ]  # fmt: skip
    assert task.provenance["test"] == 3
    assert "test.jsonl" in task.provenance["origin"]
    assert len(own(tmp_path, answer_after="####", test_size=2).test) == 2


def test_numbers_and_ids_of_ones_own(tmp_path: Path) -> None:
    file = write(
        tmp_path / "mine.jsonl", [{"prompt": "2?", "answer": 2, "n": 7}, {"prompt": "3?", "answer": 3.5, "n": 8}]
    )
    task = Jsonl(verifier=verifier, test_data=file, id="n")
    assert [(p.id, p.answer) for p in task.test] == [("7", "2"), ("8", "3.5")]
    assert list(task.train) == []


def test_the_version_changes_with_data_and_prompts(tmp_path: Path) -> None:
    versions = {own(tmp_path).version, own(tmp_path, instruction="Box it.").version, own(tmp_path, retry="?").version}
    versions.add(own(tmp_path, test_data=write(tmp_path / "other.jsonl", rows(50, 3))).version)
    assert len(versions) == 4
    assert own(tmp_path).version in versions


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"prompt": "questions"}, r"test.jsonl, line 1: the field 'questions' is missing \(nearest: question\)"),
        ({"answer": "results"}, r"the field 'results' is missing \(nearest: result\); it has question, result"),
        ({"answer_after": "@@"}, "has nothing after '@@'"),
        ({"id": "result", "test_data": [{"question": "a", "result": "1"}, {"question": "b", "result": "1"}]}, "seen"),
        ({"test_data": [{"question": "a", "result": "1"}] * 2}, "was seen already"),
        ({"test_data": [{"question": "a", "result": None}]}, "must be a text or a number, not NoneType"),
        ({"test_data": [{"question": " ", "result": "1"}]}, "'question' is empty"),
        ({"test_data": rows(7, 2)}, r"train.jsonl, line 8: this train problem is a test problem as well .*line 1"),
        ({"test_data": [{"question": " 7  +\n1?", "result": "8"}]}, "is a test problem as well"),
        ({"validation_data": rows(101, 1)}, "this validation problem is a test problem as well"),
        ({"test_data": []}, "no test problems"),
        ({"test_data": "nowhere.jsonl"}, "there is no file nowhere.jsonl"),
    ],
)
def test_faults_of_data_are_told(changed: dict[str, Any], told: str, tmp_path: Path) -> None:
    changed = {
        key: write(tmp_path / f"{key}.jsonl", value) if isinstance(value, list) else value
        for key, value in changed.items()
    }
    task = own(tmp_path, **changed)
    with pytest.raises(DataError, match=told):
        task.version  # noqa: B018 - asked when an experiment is built


def test_a_repository_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    write(tmp_path / "repo" / "train.jsonl", rows(0, 4))
    write(tmp_path / "repo" / "test.jsonl", rows(100, 2))
    more: Any = {"repository": str(tmp_path / "repo"), "revision": "main", "prompt": "question", "answer": "result"}
    task = HubData(verifier=verifier, answer_after="####", **more)
    assert [p.answer for p in task.test] == ["101", "102"]
    assert len(task.train) == 4
    with pytest.raises(DataError, match=r"no split 'testing' \(nearest: test\); it has train, test"):
        HubData(verifier=verifier, test_split="testing", **more).version  # noqa: B018
    with pytest.raises(ValueError, match=r"repository and task\.hub\.revision must be bound"):
        HubData(verifier=verifier)


def test_a_row_trains_on_it_and_the_overlap_is_told_at_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [{"q": f"Compute ${i} \\times 2 + 3$.", "a": 2 * i + 3} for i in range(10, 40)]
    train, test = write(tmp_path / "train.jsonl", data[:20]), write(tmp_path / "test.jsonl", data[20:])
    binds = {
        "run.task": "@task.jsonl()", "jsonl.verifier": "@verifier.exact()", "jsonl.train_data": repr(train),
        "jsonl.test_data": repr(test), "jsonl.prompt": "'q'", "jsonl.answer": "'a'", "jsonl.name": "'doubled'",
        "run.problems": "4", "run.samples": "2", "hf.max_new_tokens": "8", "run.evaluate_before": "False",
    }  # fmt: skip
    words = ["run", "naive_multi_turn_rl", "--steps", "1", "--out", str(tmp_path / "out"), "--device", "cpu"]
    words += [word for key, value in binds.items() for word in ("--bind", f"{key} = {value}")]
    assert cli.main(words) == 0, capsys.readouterr().err
    (file,) = (tmp_path / "out" / "doubled").rglob("eval.jsonl")
    assert len(file.read_text().splitlines()) == 10
    info = json.loads((file.parent / "run.json").read_text())
    assert info["data"]["doubled"]["train"] == 20
    write(tmp_path / "test.jsonl", data[15:])
    capsys.readouterr()
    assert cli.main([*words[:2], "--name", "again", *words[2:]]) == 2
    assert "is a test problem as well" in capsys.readouterr().err
    assert not (tmp_path / "out" / "doubled" / "arithmetic" / "again").exists()
