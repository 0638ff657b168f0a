"""The embedded code tasks: specs, forms, corpus and tokenizer; rows and transfer through the real sandbox."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest

from harness import config
from harness.policy import EMBEDDED, HF
from harness.policy.engine import Policy
from harness.run import main
from harness.tasks.embedded_code import (
    RETRY,
    EmbeddedCode,
    EmbeddedHumanEval,
    EmbeddedRepair,
    humaneval_prompt,
    mbpp_prompt,
    program_source,
)
from harness.tasks.embedded_code_specs import (
    CORES,
    OPERATORS,
    SIZES,
    Spec,
    example_arguments,
    mistaken_spec,
    pool_specs,
    work_comment,
)
from harness.tools.code_corpus import CODE_CLEAN, CodeMix, code_line
from harness.tools.pretrain import CORPORA, encode_lines
from harness.tools.pretrain import main as pretrain
from harness.training.display import format_metrics
from verifiers.code_tests import CodeTests

POOLS = ("corpus", "train", "validation", "test")
FORMS = (EmbeddedCode, EmbeddedHumanEval, EmbeddedRepair)


@pytest.fixture(scope="module")
def speaker() -> Policy:
    """The embedded model for code; shared, so tests must not train it."""
    return HF(path="embedded:code", max_new_tokens=40).load("cpu")


def test_the_pools_partition_the_space() -> None:
    everything = [spec.expression for pool in POOLS for spec in pool_specs(pool)]
    per_core = sum(len(constants) for _, constants in OPERATORS.values())
    assert len(everything) == len(set(everything)) == len(CORES) * per_core
    assert {pool: len(pool_specs(pool)) for pool in SIZES} == SIZES
    assert len({core.text for core in CORES}) == len(CORES)


@pytest.mark.parametrize("form", FORMS)
def test_solutions_pass_and_given_programs_fail_in_the_sandbox(form: type[EmbeddedCode]) -> None:
    task = form(CodeTests())
    chosen = random.Random(0).sample(list(task.test), 24)
    solved = task.verifier.batch([(p, p.solution or "") for p in chosen])  # type: ignore[attr-defined]
    assert all(verdict.correct for verdict in solved)
    given = [(p, text) for p in chosen for text in p.given]
    assert len(given) == (24 if form is EmbeddedRepair else 0)
    assert not any(verdict.correct for verdict in task.verifier.batch(given))  # type: ignore[attr-defined]
    if form is EmbeddedHumanEval:  # its hidden tests see through what the docstring shows
        assert all("\n    assert candidate(" in json.loads(p.answer)["test"] for p in chosen)


def test_the_three_forms_ask_for_the_same_functions() -> None:
    whole, body, repair = (form(CodeTests()).test for form in FORMS)
    assert [p.id for p in whole] == [p.id for p in body] == [p.id for p in repair]
    assert [p.id for p in whole] == [spec.expression for spec in pool_specs("test")]
    chat = EmbeddedRepair(CodeTests()).chat(repair[0], repair[0].given)
    assert [m["content"] for m in chat] == [repair[0].prompt, *repair[0].given, RETRY]
    with pytest.raises(ValueError, match=r"task\.embedded_repair\.test_size must lie in 1\.\.200"):
        EmbeddedRepair(CodeTests(), test_size=201)


def test_a_mistake_is_one_edit_that_the_tests_see() -> None:
    rng = random.Random(0)
    for spec in pool_specs("validation"):
        tests = example_arguments(spec, 3, rng)
        other = mistaken_spec(spec, tests, rng)
        assert any(other.return_value(x) != spec.return_value(x) for x in tests)
        changed = [getattr(spec, part) != getattr(other, part) for part in ("core", "operator", "constant")]
        assert sum(changed) == 1
        far = mistaken_spec(spec, tests, rng, far=True)
        assert (far.core, far.operator) == (spec.core, spec.operator)


def test_work_finds_the_constant_and_a_slip_another() -> None:
    rng = random.Random(0)
    for spec in pool_specs("train")[:300]:
        first = example_arguments(spec, 3, rng)[0]
        line, found = work_comment(spec, first)
        assert found == spec
        left, right = line.strip().removeprefix("# ").split(" = ")
        assert eval(left) == int(right) == spec.constant
        assert spec.operator == " * " or work_comment(spec, first, slip=1)[1] != spec


def test_corpus_lines_come_from_the_corpus_pool_only() -> None:
    rng, mix = random.Random(0), CodeMix()
    lines = [code_line(mix, rng) for _ in range(2000)]
    texts = {spec.text for spec in pool_specs("corpus")}
    clean = dataclasses.replace(mix, **CODE_CLEAN)
    direct = [(prompt, reply) for prompt, first, reply in (code_line(clean, rng) for _ in range(500)) if first is None]
    allowed = {spec.expression for spec in pool_specs("corpus")}
    assert {reply.rpartition("return ")[2] for _, reply in direct} <= allowed
    assert all(any(f"ind {text}." in prompt for text in texts) for prompt, _, _ in lines[:100])
    reviews = [(first, reply) for _, first, reply in lines if first is not None]
    assert len(reviews) / len(lines) == pytest.approx(1 - mix.single, abs=0.04)
    times = sum(spec.operator == " * " for spec in pool_specs("corpus")) / len(pool_specs("corpus"))
    copied = mix.copy_times * times + mix.copy * (1 - times)
    assert sum(first == reply for first, reply in reviews) / len(reviews) == pytest.approx(copied, abs=0.04)


def test_the_tokenizer_keeps_every_text(speaker: Policy) -> None:
    tokenizer, rng = speaker.tokenizer, random.Random(1)
    texts = [p for form in FORMS for q in form(CodeTests()).test for p in (q.prompt, q.solution or "", *q.given)]
    _, mixed = CORPORA["code"].stretches(CodeMix())
    texts += [text for chat, reply in (mixed(rng) for _ in range(300)) for text in (reply, chat[0]["content"])]
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text


def test_both_embedded_models_know_the_words_of_arithmetic_by_the_same_ids(speaker: Policy, embedded: Policy) -> None:
    old, new = (policy.tokenizer.get_vocab() for policy in (embedded, speaker))
    assert {word: new[word] for word in old} == old
    chat = [{"role": "user", "content": "Compute $1"}, {"role": "assistant", "content": "2"}]
    ((ids, begin),) = encode_lines(speaker.tokenizer, [(chat[:1], "2")])
    assert ids[:begin] == speaker.chat.encode_opening(chat[:1])
    assert ids[begin:] == speaker.chat.encode_given("2")


def test_pre_training_is_a_function_of_its_options(tmp_path: Path) -> None:
    options = ["--task", "code", "--clean", "1", "--steps", "1", "--batch", "6"]
    for name in ("a", "b"):
        pretrain([*options, "--out", str(tmp_path / name)])
    a, b = (json.loads((tmp_path / name / "provenance.json").read_text()) for name in ("a", "b"))
    assert a == b
    assert (a["arguments"]["start"], a["arguments"]["batch"]) == ("arithmetic", 6)


SMALL = [
    "run.steps = 3", "run.problems = 4", "run.samples = 2",
    "embedded_humaneval.test_size = 6", "embedded_repair.test_size = 6",
]  # fmt: skip


def run(tmp_path: Path, row: str, *bindings: str) -> Path:
    words = [word for binding in (*SMALL, *bindings) for word in ("--bind", binding)]
    files = ["--gin", f"gin/{row}.gin", "--gin", "gin/task/embedded_code.gin"]
    assert main([*files, "--out", str(tmp_path), "--device", "cpu", *words]) == 0
    return next(tmp_path.rglob("run.json")).parent


@pytest.mark.slow
@pytest.mark.parametrize("row", ["score_full", "sft_oracle", "star"])
def test_rows_train_and_are_evaluated_on_both_tasks(row: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = run(tmp_path, row)
    assert folder.relative_to(tmp_path).parts == ("embedded_code", "code", row, "seed0")
    info = json.loads((folder / "run.json").read_text())
    assert (info["status"], info["spent"]["updates"]) == ("done", 3)
    assert all("seccomp" in walls or "bwrap" in walls for walls in info["isolation"].values())
    assert set(info["isolation"]) == {"embedded_code", "embedded_humaneval", "embedded_repair"}
    records = [json.loads(line) for line in (folder / "eval.jsonl").read_text().splitlines()]
    assert len(records) == 2 * 2 * 6
    assert all(attempt["status"] in ("ok", "no_answer") for r in records for attempt in r["attempts"])
    repairs = [r for r in records if r["task"] == "embedded_repair"]
    assert [[a["by"] for a in r["attempts"]] for r in repairs] == [["given", "policy"]] * 12
    assert not any(r["attempts"][0]["correct"] for r in repairs)
    shown = format_metrics([r for r in repairs if r["when"] == "before"])
    assert list(shown)[:4] == ["problems", "Acc@t1", "Acc@t2", "copied unchanged"]
    assert "delta" not in shown
    assert "given, all wrong" in capsys.readouterr().out


def test_transfer_from_arithmetic_is_one_binding(tmp_path: Path) -> None:
    folder = run(tmp_path, "naive_multi_turn_rl", "run.task = @task.arithmetic()", "run.steps = 2")
    assert folder.relative_to(tmp_path).parts[0] == "arithmetic"
    info = json.loads((folder / "run.json").read_text())
    assert (info["task"], set(info["eval_tasks"])) == ("arithmetic", {"embedded_humaneval", "embedded_repair"})
    assert info["spent"]["updates"] == 2


def test_the_gin_file_names_the_model_that_is_shipped() -> None:
    text = (config.ROOT / "gin" / "task" / "embedded_code.gin").read_text()
    assert "hf.path = 'embedded:code'" in text
    provenance = json.loads((EMBEDDED / "code" / "provenance.json").read_text())
    defaults = {**{f.name: f.default for f in dataclasses.fields(CodeMix)}, **CORPORA["code"].sizes}
    assert {name: provenance["arguments"][name] for name in defaults} == defaults


def test_forms_write_what_python_reads() -> None:
    spec = next(s for s in pool_specs("train") if s.core.loose and s.operator == " * ")
    assert spec.expression == f"(a + b) * {spec.constant}"
    tests = [(1, 2), (3, 4), (5, 6)]
    value = 3 * spec.constant
    assert mbpp_prompt(spec, tests).startswith(
        "Write a function to find the sum of two numbers times a fixed number. "
        f"Your code should pass these tests:\n\nassert f(1, 2) == {value}\n"
    )
    assert humaneval_prompt(spec, tests[:1]) == (
        'def f(a, b):\n    """Find the sum of two numbers times a fixed number.\n\n'
        f'    >>> f(1, 2)\n    {value}\n    """\n'
    )
    names: dict = {}
    exec(program_source(spec, work_comment(spec, tests[0])[0]), names)
    assert names["f"](1, 2) == value == Spec(spec.core, spec.operator, spec.constant).return_value((1, 2))
