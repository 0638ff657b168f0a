"""MBPP-R, from sampling to records: a tiny model's wrong programs, graded in the sandbox, then repaired in one turn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from parrot import teach

from harness.build_mbpp_r import main as run_build_mbpp_r
from harness.core import Problem, Verdict
from harness.metrics.repair import is_repair, repair_rates, same_program
from harness.run import main as run
from harness.runs.store import append_jsonl
from harness.tasks.code_prompts import RETRY
from harness.tasks.mbpp import MBPP
from harness.tasks.mbpp_r import MBPPR, file_hash, provenance_path
from harness.tasks.source import DataError
from harness.tools import mbpp_r
from harness.training.display import format_metrics
from verifiers.code_tests import CodeTests

RIGHT = {"add": "return a + b", "twice": "return 2 * a", "big": "return a if a > b else b", "neg": "return -a"}
TESTS = {"add": "add(1, 2) == 3", "twice": "twice(4) == 8", "big": "big(2, 5) == 5", "neg": "neg(3) == -3"}


def program(name: str, body: str) -> str:
    return f"def {name}({'a' if name in ('twice', 'neg') else 'a, b'}):\n    {body}"


ROWS = [
    {"task_id": i, "text": f"Do {name}.", "code": program(name, RIGHT[name]), "test_list": [f"assert {TESTS[name]}"]}
    for i, name in zip((11, 12, 511, 601), RIGHT, strict=True)
]


def nobody(problem: Problem, text: str) -> Verdict:
    return Verdict(0.0, False)


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a toy MBPP and a model that writes one wrong program for each problem but `twice`."""
    folder = tmp_path_factory.mktemp("mbpp_r")
    data = write(folder / "mbpp.jsonl", ROWS)
    task = MBPP(nobody, shots=0, data=str(data), pin=None)
    problems = [*task.test, *task.validation, *task.train]
    wrong = {"add": "return a - b", "twice": RIGHT["twice"], "big": "return a.x", "neg": "while a: pass"}
    answers = [f"```python\n{program(name, wrong[name])}\n```" for name in RIGHT]
    teach(folder / "parrot", [(task.chat(p, []), answer) for p, answer in zip(problems, answers, strict=True)])
    return folder


def words(home: Path, *more: str) -> list[str]:
    bind = {
        "task.mbpp.data": str(home / "mbpp.jsonl"), "task.mbpp.pin": None, "task.mbpp.shots": 0,
        "verifier.code.time_limit": 2.0, "hf.path": str(home / "parrot"), "hf.max_new_tokens": 80,
        "build_mbpp_r.samples": 2, "build_mbpp_r.keep": 2, "build_mbpp_r.temperature": 0.01,
    }  # fmt: skip
    return [
        "--device",
        "cpu",
        *more,
        *(word for key, value in bind.items() for word in ("--bind", f"{key} = {value!r}")),
    ]


@pytest.fixture(scope="module")
def built(home: Path) -> Path:
    out = home / "sets_v1.5" / "wrong.jsonl"
    assert run_build_mbpp_r(words(home, "--out", str(out))) == 0
    return out


def test_a_models_own_errors_become_a_hashed_set_with_provenance(home, built):
    rows = [json.loads(line) for line in built.read_text().splitlines()]
    assert [(row["task_id"], row["failure"]) for row in rows] == [(11, "assert"), (511, "exception"), (601, "timeout")]
    assert rows[0]["wrong_code"].strip() == program("add", "return a - b")
    assert rows[0]["generator"] == f"{home / 'parrot'}@main"
    told = json.loads(provenance_path(built).read_text())
    assert provenance_path(built).name == "wrong.provenance.json"
    assert told["sha256"] == told["verified"] == file_hash(built)
    assert told["problems_without_failure"] == ["mbpp/12"]
    assert told["sampled"] == {"assert": 2, "exception": 2, "passed": 2, "timeout": 2}
    assert (told["temperature"], told["seed"], told["samples"]) == (0.01, 0, 2)
    assert len(told["prompts_sha256"]) == 64


def test_an_interrupted_build_goes_on_and_gives_the_same_bytes(home, built, monkeypatch, capsys):
    out, parts = home / "again.jsonl", ("--bind", "build_mbpp_r.parts = ('test', 'validation')")
    monkeypatch.setattr(mbpp_r, "BATCH", 2)
    monkeypatch.setattr(mbpp_r, "append_jsonl", stop_after(1))
    assert run_build_mbpp_r(words(home, "--out", str(out), *parts)) == 130
    assert "the same command goes on" in capsys.readouterr().err
    kept = (home / "again.samples.jsonl").read_text()
    assert len(kept.splitlines()) == 3  # the recipe and the first batch
    (home / "again.samples.jsonl").write_text(kept + '{"id": "mbpp/5')  # killed while writing
    monkeypatch.setattr(mbpp_r, "append_jsonl", stop_after(99))
    assert run_build_mbpp_r(words(home, "--out", str(out), *parts)) == 0
    assert [r["wrong_code"] for r in lines(out)] == [r["wrong_code"] for r in lines(built)[:2]]
    first = out.read_bytes()
    assert run_build_mbpp_r(words(home, "--out", str(out), *parts)) == 0  # nothing left to sample
    assert out.read_bytes() == first
    assert run_build_mbpp_r(words(home, "--out", str(out), "--bind", "build_mbpp_r.parts = ('test',)")) == 2
    assert "programs of another recipe" in capsys.readouterr().err


def stop_after(batches: int):
    count = [0]

    def stopped(path: Path, found: list) -> None:
        if count[0] == batches:
            raise KeyboardInterrupt
        count[0] += 1
        append_jsonl(path, found)

    return stopped


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_task_gives_the_wrong_program_and_asks_for_its_repair(home, built):
    task = MBPPR(nobody, data=str(built))
    assert task.name == "MBPP-R (rebuilt, base=parrot)"
    assert (len(task.train), len(task.validation), len(task.test)) == (1, 1, 1)
    (problem,) = task.test
    assert (problem.id, problem.meta["problem"], problem.meta["sample"]) == ("mbpp/11#0", "mbpp/11", 0)
    asked, given, retry = task.chat(problem, list(problem.given))
    assert "assert add(1, 2) == 3" in asked["content"]
    assert given["content"].strip() == program("add", "return a - b")
    assert retry["content"] == RETRY
    assert task.provenance["built"]["generator"] == f"{home / 'parrot'}@main"


def test_mutants_need_no_model_and_several_programs_of_one_problem_are_its_samples(home, tmp_path):
    out = home / "mutants.jsonl"
    assert run_build_mbpp_r(words(home, "--out", str(out), "--mutants")) == 0
    task = MBPPR(CodeTests(), data=str(out))
    assert task.name == "MBPP-R (rebuilt, base=mutants)"
    samples = [(p.meta["problem"], p.meta["sample"]) for p in task.test]
    assert samples[:3] == [("mbpp/11", 0), ("mbpp/12", 0), ("mbpp/12", 1)]
    gin = tmp_path / "repair.gin"
    gin.write_text(
        "include 'gin/base.gin'\nrun.task = @task.mbpp_r()\ntask.mbpp_r.verifier = @verifier.code()\n"
        f"task.mbpp_r.data = '{out}'\nhf.path = '{home / 'parrot'}'\nhf.max_new_tokens = 60\n"
    )
    assert run(["--gin", str(gin), "--out", str(tmp_path / "runs"), "--device", "cpu"]) == 0
    folder = next((tmp_path / "runs").rglob("run.json")).parent
    records = lines(folder / "eval.jsonl")
    assert [(r["id"], r["sample"]) for r in records] == samples
    assert {r["attempts"][0]["by"] for r in records} == {"given"}
    assert {r["attempts"][0]["correct"] for r in records} == {False}
    assert is_repair(records)
    told = json.loads((folder / "run.json").read_text())
    assert told["data"][task.name]["built"]["generator"] == "mutants"
    assert told["eval_tasks"] == {task.name: task.version}


def record(problem: str, sample: int, repaired: bool, copied: bool = False) -> dict:
    texts = ["def f(a):\n  return a", "def f(a):\n    return a  # same" if copied else "def f(a): return -a"]
    attempts = [
        {
            "text": f"```\n{text}\n```",
            "answer": text,
            "correct": bool(i and repaired),
            "by": ("given", "policy")[i],
            "status": "ok",
        }
        for i, text in enumerate(texts)
    ]
    return {"id": problem, "sample": sample, "attempts": attempts}


def test_problems_weigh_alike_and_copies_are_counted_by_syntax():
    records = [record("a", 0, True), *(record("b", i, False, copied=i < 2) for i in range(3))]
    rates = repair_rates(records)
    assert (rates["problems"], rates["programs"], rates["repaired"]) == (2, 4, 1)
    assert (rates["macro"], rates["per_program"], rates["copied"]) == (0.5, 0.25, 0.5)
    assert not is_repair([{**records[0], "attempts": records[0]["attempts"][:1]}])
    shown = format_metrics(records)
    assert list(shown) == ["problems", "Acc@t1", "Acc@t2", "copied unchanged", "wrong programs given",
                           "Acc@t2 over programs"]  # fmt: skip
    assert (shown["problems"], shown["Acc@t1"], shown["Acc@t2 over programs"]) == ("2", "given, all wrong", "25.0")
    assert shown["Acc@t2"].startswith("50.0 [")
    fixed_first = {**records[0], "attempts": [{**turn, "correct": True} for turn in records[0]["attempts"]]}
    assert not is_repair([*records, fixed_first])
    assert same_program("I  do not know", "I do not\nknow")
    assert not same_program("x = 1", "I do not know")


def test_another_set_is_verified_before_use_and_can_be_cleaned(home, tmp_path, capsys):
    fine = {"prompt": "Do add.", "test_list": ["assert add(1, 2) == 3"], "wrong_code": program("add", "return b + a")}
    wrong = {**fine, "wrong_code": program("add", "return a")}
    theirs = write(tmp_path / "theirs.jsonl", [{"task_id": 11, **wrong}, {"task_id": 11, **fine}])
    task = MBPPR(CodeTests(), data=str(theirs), label="MBPP-R")
    with pytest.raises(DataError, match=r"1 of 2 given programs .* program 1 of mbpp/11, passes all tests"):
        _ = task.test
    with pytest.raises(DataError, match=r"not every row names its generator.*task\.mbpp_r\.label"):
        _ = MBPPR(CodeTests(), data=str(theirs)).name
    clean = tmp_path / "clean.jsonl"
    assert run_build_mbpp_r(words(home, "--check", str(theirs))) == 1
    assert "line 2: task 11 passes all tests" in capsys.readouterr().out
    assert run_build_mbpp_r(words(home, "--check", str(theirs), "--out", str(clean))) == 0
    checked = MBPPR(nobody, data=str(clean), label="MBPP-R")
    assert (checked.name, len(checked.test)) == ("MBPP-R", 1)
    write(clean, [{"task_id": 11, **fine}])
    with pytest.raises(DataError, match=r"was changed after clean\.provenance\.json"):
        _ = MBPPR(nobody, data=str(clean), label="MBPP-R").test


def test_help_and_tasks_do_not_import_torch():
    code = "import sys, harness.build_mbpp_r as b, datasets\ntry: b.main(['--help'])\nexcept SystemExit: pass\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "print('torch' in sys.modules)"], capture_output=True, text=True, timeout=60
    )
    assert "from a model's own errors" in done.stdout
    assert done.stdout.strip().endswith("False"), done.stderr


def test_what_is_missing_is_said_before_anything_runs(home, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"never published: build one with .*harness\.build_mbpp_r"):
        MBPPR(nobody)
    with pytest.raises(SystemExit):
        run_build_mbpp_r(["--mutants"])
    with pytest.raises(SystemExit):
        run_build_mbpp_r(["--out", str(tmp_path / "x.jsonl")])
    assert "which model?" in capsys.readouterr().err
    bad = write(tmp_path / "bad.jsonl", [{"task_id": 11, "prompt": "x", "test_list": ["assert f()"]}])
    with pytest.raises(DataError, match=r"bad\.jsonl, line 1: the field 'wrong_code' is missing"):
        _ = MBPPR(nobody, data=str(bad), label="x").test
