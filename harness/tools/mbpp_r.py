"""Builds a set like MBPP-R: wrong programs for MBPP's problems, from a model's own errors or from mutants.

The model samples programs on the project's own engine, the sandbox grades them, and of each problem the first few
distinct programs that parse, define the function and fail are kept. The file is fixed and hashed; beside it stand its
provenance and every program sampled, from which an interrupted build goes on and any other selection can be made.

Differs from Ni et al. 2024 (arXiv 2404.14662): the writer is the model you name, not PaLM 2, and the cap per problem is
ours. Above 300 lines because the recipe, the selection and the command line that explains them are read together.
"""

from __future__ import annotations

import ast
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.core import Problem, Verdict
from harness.grading import grade_responses
from harness.policy import HF
from harness.python_source import defined_names, parse_program
from harness.runs.store import append_jsonl, dump_json_line, read_jsonl, write_atomic
from harness.seeds import derive_seed
from harness.tasks.mbpp import MBPP, entry_points
from harness.tasks.mbpp_r import SCHEMA, file_hash, not_wrong, problems_of, provenance_path, sibling_path
from harness.tasks.source import Hub, check_columns, load_source_rows
from harness.tools.mutants import list_mutants
from harness.training.display import LiveDisplay

BASE = "gin/data/mbpp_r.gin"
BATCH = 16  # problems sampled and graded before anything is written
WRONG = ("assert", "exception", "timeout", "failed")


@dataclass(frozen=True)
class Recipe:
    """How wrong programs are made; gin builds it as `build_mbpp_r`.

    Attributes:
        task: MBPP, with the prompt the programs are written for and the verifier that grades them.
        policy: The model that writes them; None makes mutants of the reference programs.
        samples: Programs per problem (mutants: at most).
        keep: Wrong programs kept per problem.
        temperature: Of sampling.
        seed: Of every draw.
        parts: Parts of MBPP to cover.
        problems: Problems of each part, from the first; None takes all.
    """

    task: MBPP
    policy: HF | None = None
    samples: int = 16
    keep: int = 4
    temperature: float = 1.0
    seed: int = 0
    parts: Sequence[str] = ("test", "validation", "train")
    problems: int | None = None

    def __post_init__(self) -> None:
        if min(self.samples, self.keep) < 1 or self.temperature <= 0:
            raise ValueError("build_mbpp_r: samples and keep must be at least 1, temperature above 0")
        if not self.parts or set(self.parts) - {"test", "validation", "train"}:
            raise ValueError(f"build_mbpp_r.parts must be of test, validation and train, not {list(self.parts)}")

    @property
    def chosen_problems(self) -> list[Problem]:
        """The problems to cover, part by part."""
        return [problem for part in self.parts for problem in getattr(self.task, part)[: self.problems]]

    @property
    def generator_name(self) -> str:
        """What writes the programs: `path@revision`, or `mutants`."""
        return f"{self.policy.path}@{self.policy.revision}" if self.policy else "mutants"

    def describe(self) -> dict[str, Any]:
        """Everything that decides which programs come out; an interrupted build is resumed only when it is the same."""
        prompts = json.dumps([self.task.chat(problem, []) for problem in self.chosen_problems])
        return {
            "generator": self.generator_name,
            "samples": self.samples,
            "temperature": self.temperature if self.policy else None,
            "max_new_tokens": self.policy.max_new_tokens if self.policy else None,
            "seed": self.seed,
            "parts": list(self.parts),
            "problems": len(self.chosen_problems),
            "mbpp_version": self.task.version,
            "prompts_sha256": hashlib.sha256(prompts.encode()).hexdigest(),
        }


# building ------------------------------------------------------------------------------------------------------------


def build_set(recipe: Recipe, out: Path, device: str = "auto") -> dict[str, Any]:
    """Makes and grades all programs, selects, and writes the set; returns its provenance.

    Args:
        recipe: What writes the programs, and how many are kept.
        out: The file of the set; provenance and samples are written next to it.
        device: For the model that writes programs, if there is one.

    Raises:
        ValueError: there is an unfinished build of another recipe.
    """
    path = sibling_path(out, ".samples.jsonl")
    out.parent.mkdir(parents=True, exist_ok=True)
    done = _resumed(path, recipe.describe())
    problems = recipe.chosen_problems
    todo = [problem for problem in problems if problem.id not in done]
    policy = recipe.policy.load(device) if recipe.policy and todo else None
    with LiveDisplay() as display:
        display.phase(f"wrong programs from {recipe.generator_name}", len(problems), len(problems) - len(todo))
        for begin in range(0, len(problems), BATCH):  # batches do not depend on where a build was interrupted
            batch = problems[begin : begin + BATCH]
            if all(problem.id in done for problem in batch):
                continue
            texts = _sampled(recipe, policy, batch, begin) if policy else _mutated(recipe, batch)
            lines = _graded(recipe, batch, texts)
            append_jsonl(path, lines)
            done |= {line["id"]: line["programs"] for line in lines}
            display.advance(count=len(batch))
    rows, report = select_rows(recipe, problems, done)
    write_atomic(out, "".join(dump_json_line(row) for row in rows))
    found = file_hash(out)
    walls = getattr(recipe.task.verifier, "isolation", None)
    provenance = {
        **recipe.describe(),
        "keep": recipe.keep,
        "sha256": found,
        "verified": found,  # every program in it was graded wrong, here
        "isolation": str(getattr(walls, "level", walls)) if walls else None,
        "mbpp": recipe.task.provenance,
        **report,
    }
    write_atomic(provenance_path(out), json.dumps(provenance, indent=1, sort_keys=True) + "\n")
    _print(out, provenance)
    return provenance


def _resumed(path: Path, recipe: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """{problem: graded programs} of an earlier call, its file cut to whole lines and begun where there is none."""
    lines, damaged = read_jsonl(path)
    if not lines:
        write_atomic(path, dump_json_line({"recipe": recipe}))
        return {}
    old = lines[0].get("recipe", {})
    if changed := [f"{key}: {old.get(key)} -> {value}" for key, value in recipe.items() if old.get(key) != value]:
        raise ValueError(
            f"{path} holds programs of another recipe ({'; '.join(changed)}): choose another --out or remove it"
        )
    if damaged:
        write_atomic(path, "".join(dump_json_line(line) for line in lines))
    return {line["id"]: line["programs"] for line in lines[1:]}


def _sampled(recipe: Recipe, policy: Any, problems: Sequence[Problem], begin: int) -> list[list[str]]:
    seed = derive_seed(recipe.seed, "mbpp_r", begin)
    chats = [recipe.task.chat(problem, []) for problem in problems]
    replies = policy.open(chats, recipe.samples, seed, recipe.temperature).reply()
    texts = [turn.text for turn in replies]
    return [texts[i : i + recipe.samples] for i in range(0, len(texts), recipe.samples)]


def _mutated(recipe: Recipe, problems: Sequence[Problem]) -> list[list[str]]:
    """Seeded choices among each reference program's mutants."""
    found = []
    for problem in problems:
        entry = entry_points(problem.meta["code"], problem.meta["tests"])[0]
        programs = [text for text, _ in list_mutants(problem.meta["code"], entry)]
        random.Random(derive_seed(recipe.seed, "mutants", problem.id)).shuffle(programs)
        found.append(programs[: recipe.samples])
    return found


def _graded(recipe: Recipe, problems: Sequence[Problem], texts: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """One line per problem: each of its programs with how it went."""
    pairs = [(problem, text) for problem, mine in zip(problems, texts, strict=True) for text in mine]
    results = _judged(recipe, pairs)
    late = [i for i, (verdict, _, _) in enumerate(results) if verdict.status == "timeout"]
    for i, result in zip(late, _judged(recipe, [pairs[i] for i in late]), strict=True):
        results[i] = result  # the machine may have been busy: late counts when it happens twice
    outcomes = iter(results)
    lines = []
    for problem, mine in zip(problems, texts, strict=True):
        programs = []
        for text in mine:
            verdict, reason, found = next(outcomes)
            kind = failure_kind(verdict, reason)
            found = found if found is not None else program_in(text, problem)
            if kind in WRONG and not _defines(found, problem):
                kind = "no_function"
            programs.append({"failure": kind, "program": found} | ({} if found == text else {"text": text}))
        lines.append({"id": problem.id, "programs": programs})
    return lines


def _judged(recipe: Recipe, pairs: Sequence[tuple[Problem, str]]) -> list[tuple[Verdict, str, str | None]]:
    """Verdicts with reason and program as it was written, where the verifier tells them."""
    judge_all = getattr(recipe.task.verifier, "judge_all", None)
    if judge_all:
        return [(graded.verdict, graded.reason, graded.program) for graded in judge_all(pairs)]
    return [(verdict, "", verdict.answer) for verdict in grade_responses(recipe.task.verifier, pairs)]


def failure_kind(verdict: Verdict, reason: str) -> str:
    """How a program fared: passed, assert, exception, timeout, syntax (none that parses), error (nobody can tell)."""
    if verdict.correct:
        return "passed"
    if verdict.status != "ok":
        return {"no_answer": "syntax", "truncated": "syntax"}.get(verdict.status, verdict.status)
    if not reason:
        return "failed"  # the verifier gives no reasons
    return "assert" if reason.startswith("AssertionError") else "exception"


def program_in(text: str, problem: Problem) -> str | None:
    """The program of a response the sandbox had to stop, which therefore reported none: whole, fenced or marked."""
    fenced = re.findall(r"```[\w+]*\n(.*?)(?:```|\Z)", text, re.DOTALL)
    marked = text.rpartition("[BEGIN]")[2].partition("[DONE]")[0]
    return next((piece for piece in (*reversed(fenced), marked, text) if _defines(piece, problem)), None)


def _defines(program: str | None, problem: Problem) -> bool:
    """Whether a text is a program that parses and defines a function the problem's tests call."""
    tree = parse_program(program) if program else None
    return tree is not None and bool(
        defined_names(tree) & set(entry_points(problem.meta["code"], problem.meta["tests"]))
    )


def select_rows(
    recipe: Recipe, problems: Sequence[Problem], graded: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of the set, and what provenance records of the selection.

    Of each problem the first `keep` programs that fail, parse and define the function; programs with one syntax tree
    are one program.

    Args:
        recipe: `keep` is the most programs of one problem.
        problems: In any order; rows are sorted by task id.
        graded: {problem id: its programs with how each failed}.
    """
    rows, kinds, without = [], Counter[str](), []
    for problem in sorted(problems, key=lambda p: p.meta["task_id"]):
        mine = list(_distinct(graded[problem.id]))[: recipe.keep]
        if not mine:
            without.append(problem.id)
        for sample, entry in mine:
            kinds[entry["failure"]] += 1
            rows.append(_row(recipe, problem, sample, entry))
    all_kinds = Counter(entry["failure"] for mine in graded.values() for entry in mine)
    return rows, {
        "programs": len(rows),
        "problems_with_programs": len(problems) - len(without),
        "problems_without_failure": without,
        "failures": dict(sorted(kinds.items())),
        "sampled": dict(sorted(all_kinds.items())),
    }


def _distinct(programs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    seen: set[str] = set()
    for sample, entry in enumerate(programs):
        program = entry["program"]
        if entry["failure"] in WRONG:
            key = ast.unparse(ast.parse(program))
            if key not in seen:
                seen.add(key)
                yield sample, entry


def _row(recipe: Recipe, problem: Problem, sample: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    tests = json.loads(problem.answer)
    return {
        "task_id": problem.meta["task_id"],
        "prompt": problem.prompt,
        **{name: tests[name] for name in ("test_list", "test_setup_code", "test_imports") if name in tests},
        "code": problem.meta["code"],
        "entry_point": entry_points(problem.meta["code"], problem.meta["tests"])[0],
        "wrong_code": entry["program"],
        "failure": entry["failure"],
        "generator": recipe.generator_name,
        "sample": sample,
        "seed": recipe.seed,
        "sha256": hashlib.sha256(entry["program"].encode("utf-8", "surrogatepass")).hexdigest(),
    }


def _print(out: Path, provenance: Mapping[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"{out}: {provenance['programs']} wrong programs for {provenance['problems_with_programs']} problems")
    console.print(f"  of {sum(provenance['sampled'].values())} programs: {_counts(provenance['sampled'])}")
    console.print(f"  kept: {_counts(provenance['failures'])}")
    console.print(f"  problems without a failure: {len(provenance['problems_without_failure'])}")
    console.print(f"  sha256 {provenance['sha256']}; provenance: {provenance_path(out)}")
    console.print(f"next: --bind \"task.mbpp_r.data = '{out}'\" (gin/task/mbpp_r.gin)")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


# checking ------------------------------------------------------------------------------------------------------------


def _check(recipe: Recipe, path: Path, out: Path | None) -> int:
    """Grades the wrong programs of a file; 0 when all are wrong (or those that are have been written to `out`)."""
    loaded = check_columns(load_source_rows("mbpp_r", Hub("", ""), str(path)), SCHEMA)
    problems = problems_of(loaded.rows, 0)
    fine = {id(problem): why for problem, why in not_wrong(recipe.task.verifier, problems)}
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"{path}: {len(problems) - len(fine)} of {len(problems)} programs fail their tests here")
    for row, problem in zip(loaded.rows, problems, strict=True):
        if id(problem) in fine:
            console.print(f"  {row.place}: task {problem.meta['task_id']} {fine[id(problem)]}", markup=False)
    if out is None and fine:
        console.print("write those that fail to a file of their own with --out NEW.jsonl")
        return 1
    target = out or path
    if out is not None:
        kept = [row.fields for row, problem in zip(loaded.rows, problems, strict=True) if id(problem) not in fine]
        write_atomic(out, "".join(dump_json_line(fields) for fields in kept))
    beside = provenance_path(target)
    old = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() and out is None else {}
    found = file_hash(target)
    write_atomic(beside, json.dumps({**old, "sha256": found, "verified": found}, indent=1, sort_keys=True) + "\n")
    console.print(f"{target} is checked: sha256 {found}; {beside.name} says so")
    return 0
