r"""The two splits of MATH on toy problems of our own: which rows are the test, what is dropped, what a version is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from real_data import real

from harness.core import Problem
from harness.tasks.math import GOLD, Math, held_out, load_math500, split_problems, text_hash
from harness.tasks.source import DataError, Row, rows_digest
from verifiers.math_answer import MathAnswer


def row(problem: str, answer: str | None = "1", part: str = "", **fields: object) -> Row:
    told = {} if answer is None else {"answer": answer}
    return Row({"problem": problem, "solution": rf"It is \boxed{{{answer or 2}}}.", **told, **fields}, problem, part)


INDEX = {text_hash("What is 1 + 1?"): "test/algebra/1.json", text_hash("What is 2 + 2?"): "test/geometry/7.json"}


def test_test_problems_are_found_by_text_whatever_their_place_and_id():
    rows = [row("What is 3 + 3?"), row("What is 2 + 2?"), row("What is 1 + 1?", unique_id="wrong/id")]
    assert held_out(rows, INDEX) == {1: ("test/geometry/7.json", True), 2: ("test/algebra/1.json", True)}
    parts = split_problems(rows, "12000/500", INDEX, "boxed")
    assert [p.id for p in parts.test] == ["test/geometry/7.json", "test/algebra/1.json"]
    assert [p.id for p in parts.train] == [f"math/{text_hash('What is 3 + 3?')[:16]}"]


def test_a_text_that_differs_in_blanks_is_found_by_id_and_counted():
    rows = [row("What is  1 + 1?", unique_id="test/algebra/1.json"), row("What is 2 + 2?")]
    parts = split_problems(rows, "12000/500", INDEX, "boxed")
    assert parts.by_id == ("test/algebra/1.json",)
    assert len(parts.test) == 2


def test_an_id_used_twice_takes_the_row_whose_text_is_the_test_problem():
    rows = [
        row("Another problem", unique_id="test/algebra/1.json"),
        row("What is 1 + 1?", unique_id="test/algebra/1.json"),
        row("What is 2 + 2?"),
    ]
    parts = split_problems(rows, "12000/500", INDEX, "boxed")
    assert [p.prompt for p in parts.test] == ["What is 1 + 1?", "What is 2 + 2?"]
    assert [p.id for p in parts.train] == ["test/algebra/1.json#2"]


def test_a_copy_without_all_test_problems_is_refused():
    with pytest.raises(DataError, match=r"1 of the 2 test problems are in no row.*test/geometry/7.json"):
        held_out([row("What is 1 + 1?")], INDEX)


def test_rows_without_a_gold_answer_are_dropped_and_named_and_answers_stripped():
    rows = [
        row("What is 1 + 1?", " 2 "),
        row("What is 2 + 2?", None),  # no field: the last box of the solution
        row("a", "", unique_id="train/number_theory/7115.json"),
        row("b", "$ $", unique_id="train/number_theory/7117.json"),
    ]
    parts = split_problems(rows, "12000/500", INDEX, "boxed")
    assert [p.answer for p in parts.test] == ["2", "2"]
    assert parts.dropped == {"train/number_theory/7115.json": "train", "train/number_theory/7117.json": "train"}
    assert parts.train == ()


def test_the_original_split_is_told_by_the_id_or_the_file():
    rows = [row("a", unique_id="test/algebra/1.json", part="train"), row("b", part="test"), row("c", part="train")]
    parts = split_problems(rows, "7500/5000", INDEX, "boxed")
    assert ([p.prompt for p in parts.test], [p.prompt for p in parts.train]) == (["a", "b"], ["c"])
    with pytest.raises(DataError, match="neither a unique_id nor the file's name"):
        split_problems([row("d")], "7500/5000", INDEX, "boxed")


def test_levels_and_solutions_of_both_forms():
    (problem,) = split_problems(
        [row("a", part="test", level="Level 5", type="Algebra")], "7500/5000", INDEX, "final_answer"
    ).test
    assert problem.meta == {"level": 5, "subject": "Algebra"}
    assert str(problem.solution).endswith("Final Answer: The final answer is $1$. I hope it is correct.")
    (boxed,) = split_problems([row("a", part="test", level="Level ?")], "7500/5000", INDEX, "boxed").test
    assert (boxed.meta["level"], boxed.solution) == (None, r"It is \boxed{1}.")


def test_the_index_is_the_500_of_math500():
    index = load_math500()
    assert len(index) == len(set(index.values())) == 500
    assert all(name.startswith("test/") and name.endswith(".json") for name in index.values())
    assert Counter(map(len, index)) == {64: 500}


def whole_copy(path: Path, train: int = 12_000, answers: dict[str, str] | None = None) -> Path:
    """A file of MATH's shape: the 500 test ids, and as many training rows as asked for, all with toy problems."""
    rows = [
        {"problem": f"Toy {name}", "solution": "x", "answer": (answers or {}).get(name, "1"), "unique_id": name}
        for name in sorted(load_math500().values())
    ]
    rows += [
        {"problem": f"What is {i} + 1?", "solution": "x", "answer": f"{i + 1}", "unique_id": f"train/toy/{i}.json"}
        for i in range(train)
    ]
    rows[-1]["answer"] = ""
    path.write_text("".join(json.dumps(item) + "\n" for item in rows))
    return path


def test_the_task_on_a_whole_copy(tmp_path):
    task = Math(MathAnswer("final_answer"), data=str(whole_copy(tmp_path / "math.jsonl")), pin=None)
    assert (len(task.train), len(task.validation), len(task.test)) == (11_999, 0, 500)
    assert task.provenance["dropped_without_answer"] == ["train/toy/11999.json"]
    assert task.provenance["training_problems_that_are_test_problems"] == 0
    held = Math(MathAnswer("final_answer"), data=task.data, pin=None, validation_size=500)
    names = [{p.id for p in part} for part in (held.train, held.validation, held.test)]
    assert [len(part) for part in names] == [11_499, 500, 500]
    assert len(set.union(*names)) == 12_499
    assert held.version != task.version
    assert task.version.startswith("1-12000/500-final_answer-")
    right = f"So it is 12. Final Answer: The final answer is ${task.train[11].answer}$. I hope it is correct."
    assert task.verifier(task.train[11], right).correct


def test_other_sizes_and_other_answers_than_the_pinned_are_refused(tmp_path):
    verifier = MathAnswer("final_answer")
    short = Math(verifier, data=str(whole_copy(tmp_path / "short.jsonl", train=11_000)))
    with pytest.raises(DataError, match=r"gives 11,000 training and 500 test problems, not 12,000 and 500"):
        _ = short.test
    other = Math(verifier, data=str(whole_copy(tmp_path / "other.jsonl")))
    with pytest.raises(DataError, match=r"other gold answers for the 500 test problems"):
        _ = other.test


def test_a_row_without_solution_serves_and_one_without_either_is_told(tmp_path):
    (only,) = split_problems(
        [Row({"problem": "a", "answer": "3", "solution": ""}, "", "test")], "7500/5000", INDEX, "boxed"
    ).test
    assert (only.answer, only.solution) == ("3", None)
    (tmp_path / "bare.jsonl").write_text('{"problem": "What is 1?"}\n')
    with pytest.raises(DataError, match=r"bare\.jsonl, line 1: the fields 'answer' and 'solution' are both missing"):
        _ = Math(MathAnswer("final_answer"), data=str(tmp_path / "bare.jsonl")).test


def test_a_training_problem_that_is_a_test_problem_is_counted(tmp_path):
    path = whole_copy(tmp_path / "math.jsonl", train=3)
    leaked = {"problem": f"Toy  {min(load_math500().values())}", "answer": "1"}
    path.write_text(path.read_text() + json.dumps(leaked) + "\n")
    task = Math(MathAnswer("final_answer"), data=str(path), pin=None)
    assert task.provenance["training_problems_that_are_test_problems"] == 1


def test_prompt_and_verifier_must_agree_on_the_form():
    with pytest.raises(ValueError, match=r"task\.math\.answer_form and verifier\.math\.answer_form alike"):
        Math(MathAnswer("boxed"))
    assert Math(MathAnswer("boxed"), answer_form="boxed")
    with pytest.raises(ValueError, match="split must be 12000/500 or 7500/5000"):
        Math(MathAnswer("final_answer"), split="12500")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="go together"):
        Math(MathAnswer("final_answer"), repository="someone/math")


@pytest.mark.data
def test_gold_answers_of_math500_pass_through_the_task(tmp_path):
    lines = Path(real("math500_answers.jsonl")).read_text(encoding="utf-8").splitlines()
    known = [json.loads(line) for line in lines]
    assert {item["problem_sha256"]: item["unique_id"] for item in known} == load_math500()
    gold = {item["unique_id"]: item["answer"] for item in known}
    assert rows_digest({"unique_id": name, "answer": answer.strip()} for name, answer in gold.items()) == GOLD
    task = Math(MathAnswer("final_answer"), data=str(whole_copy(tmp_path / "math.jsonl", answers=gold)))
    assert (len(task.train), len(task.test)) == (11_999, 500)
    said = [f"Final Answer: The final answer is ${p.answer}$. I hope it is correct." for p in task.test]
    verdicts = MathAnswer("final_answer").batch(list(zip(task.test, said, strict=True)))
    assert sum(verdict.correct for verdict in verdicts) == 500
    solutions: list[tuple[Problem, str]] = [(p, str(p.solution)) for p in task.test]
    assert sum(verdict.correct for verdict in MathAnswer("final_answer").batch(solutions)) == 500
