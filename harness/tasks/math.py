r"""MATH (Hendrycks et al. 2021, arXiv 2103.03874): competition problems with one final answer each.

Two splits, neither ever drawn anew: the paper's 12,000 / 500 of PRM800K (Lightman et al. 2023, arXiv 2305.20050), whose
500 test problems are known by id and by the hash of their text (math500.tsv), and the original 7,500 / 5,000.

No text of MATH is in this repository; it comes from a public mirror or from a file.
Differs from the paper: it prints the instructions and not where the problem goes; here one user turn holds both.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.boxed import last_boxed
from harness.core import Message, Problem, Verifier
from harness.registry import register
from harness.tasks.source import DataError, Hub, Loaded, Row, check_columns, load_source_rows, rows_digest

# arXiv 2409.12917v2, appendix C, verbatim; the last sentence asks for the form of the answer.
INSTRUCTION = (
    "You are a math expert. When you respond, respond only with the Solution of the final Problem, thinking step by "
    "step."
)
RETRY = (
    "There might be an error in the solution above because of lack of understanding of the question. Please correct "
    "the error, if any, and rewrite the solution. Only output the final solution!"
)
ENDINGS = {
    "final_answer": "At the end of the Solution, when you give your final answer, write it in the form "
    '"Final Answer: The final answer is $answer$. I hope it is correct."',
    "boxed": r"At the end of the Solution, write your final answer in \boxed{}.",  # ours, for models trained on boxes
}

HUBS = {
    # PRM800K's files as a hub repository: its own train and test are the 12,000 / 500, with unique_id and answer.
    "12000/500": Hub(
        "nlile/hendrycks-MATH-benchmark",
        "465bcdb36f5962aa3512891498966df785fc3c18",
        home="github.com/openai/prm800k, prm800k/math_splits/{train,test}.jsonl",
    ),
    # The original parts, by subject. (The ids of PRM800K's copies are reported to mislabel one training row as test.)
    "7500/5000": Hub(
        "EleutherAI/hendrycks_math",
        "21a5633873b6a120296cce3e2df9d5550074f4a3",
        (
            "algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
            "precalculus",
        ),
        home="github.com/hendrycks/math",
    ),
}  # fmt: skip
SIZES = {"12000/500": (12_000, 500), "7500/5000": (7_500, 5_000)}
GOLD = "cac6a882409ab089a94b56a3835761ebe7b54b0e142b026bd386a49d3919a9ca"  # ids and gold answers of MATH-500


Index = Mapping[str, str]
"""The problems of a test set: {SHA-256 of the problem's text: id}."""


@functools.cache
def load_math500() -> Index:
    """MATH-500, the test problems of PRM800K's split: ids and SHA-256 of the exact text."""
    lines = (Path(__file__).parent / "math500.tsv").read_text(encoding="utf-8").splitlines()
    return {text: name for name, text in (line.split("\t") for line in lines)}


@dataclass(frozen=True)
class Parts:
    """Rows turned into problems.

    Attributes:
        dropped: {id: part} of rows without a gold answer, left out.
        by_id: Test problems found by their id alone: the copy's text differs from the original's.
    """

    train: tuple[Problem, ...]
    test: tuple[Problem, ...]
    dropped: Mapping[str, Literal["train", "test"]]
    by_id: tuple[str, ...] = ()


def text_hash(problem: str) -> str:
    """SHA-256 of a problem's text, unchanged."""
    return hashlib.sha256(problem.encode("utf-8", "surrogatepass")).hexdigest()


def held_out(rows: Sequence[Row], index: Index) -> dict[int, tuple[str, bool]]:
    """Which rows are the test problems: {position: (id, whether the text itself matched)}.

    A row is found by its text; a problem whose text no row has (mirrors differ in blanks) is found by its id.

    Raises:
        DataError: a test problem is missing, so the rows are no whole copy.
    """
    found: dict[str, tuple[int, bool]] = {}
    ids = set(index.values())
    for i, row in enumerate(rows):
        name = index.get(text_hash(row.fields["problem"]))
        if name is not None:
            found.setdefault(name, (i, True))
    for i, row in enumerate(rows):
        name = row.fields.get("unique_id")
        if name in ids:
            found.setdefault(str(name), (i, False))
    missing = sorted(ids - found.keys())
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(ids)} test problems are in no row, by text or by unique_id "
            f"(the first: {missing[0]}): this is no whole copy of MATH, or its texts and ids were changed"
        )
    return {i: (name, exact) for name, (i, exact) in found.items()}


def original_part(row: Row) -> str:
    """`train` or `test` of the original 7,500 / 5,000; '' where the row does not tell."""
    name = row.fields.get("unique_id")
    prefix = name.partition("/")[0] if isinstance(name, str) else ""
    return prefix if prefix in ("train", "test") else row.part


def split_problems(rows: Sequence[Row], split: str, index: Index, answer_form: str) -> Parts:
    """Problems of both parts, in the rows' order; rows without a gold answer are left out and named.

    Args:
        rows: Of the whole data set.
        split: `12000/500`, in which the index decides, or the original parts.
        index: The test problems, {hash of the text: id}.
        answer_form: How the gold answer is taken from the solution.

    Raises:
        DataError: as `held_out`; or a row that does not tell its original part where that decides.
    """
    tests = held_out(rows, index) if split == "12000/500" else {}
    parts: dict[bool, list[Problem]] = {True: [], False: []}
    dropped: dict[str, Literal["train", "test"]] = {}
    uses = {name: 1 for name, _ in tests.values()}
    for i, row in enumerate(rows):
        if split == "12000/500":
            in_test = i in tests
        elif part := original_part(row):
            in_test = part == "test"
        else:
            raise DataError(f"{row.place}: neither a unique_id nor the file's name tells whether it is train or test")
        name = tests[i][0] if i in tests else _name(row, uses)
        problem = _problem(row, name, answer_form)
        if problem.answer:
            parts[in_test].append(problem)
        else:
            dropped[name] = "test" if in_test else "train"
    loose = tuple(name for name, exact in tests.values() if not exact)
    return Parts(tuple(parts[False]), tuple(parts[True]), dropped, loose)


def _name(row: Row, uses: dict[str, int]) -> str:
    """The row's id: its unique_id, or one made from its text; a second row of one id is told apart."""
    given = row.fields.get("unique_id")
    name = given if isinstance(given, str) and given else f"math/{text_hash(row.fields['problem'])[:16]}"
    uses[name] = uses.get(name, 0) + 1
    return name if uses[name] == 1 else f"{name}#{uses[name]}"


def _problem(row: Row, name: str, answer_form: str) -> Problem:
    fields, solution = row.fields, str(row.fields.get("solution") or "")
    answer = fields.get("answer")
    answer = (answer if isinstance(answer, str) else last_boxed(solution)[0] or "").strip()
    if solution and answer_form == "final_answer":  # what SFT-oracle fits ends as the prompt asks
        solution = f"{solution}\nFinal Answer: The final answer is ${answer}$. I hope it is correct."
    meta: dict[str, Any] = {"subject": fields.get("subject") or fields.get("type")}
    level = str(fields.get("level", "")).removeprefix("Level ")
    meta["level"] = int(level) if level.isdigit() else None  # two rows have none
    return Problem(
        name, fields["problem"].strip(), "" if not answer.strip("$ ") else answer, solution or None, meta=meta
    )


def _shared(train: Sequence[Problem], test: Sequence[Problem]) -> int:
    """Training problems with the text of a test problem, blanks aside: none in a sound copy."""
    texts = {"".join(problem.prompt.split()) for problem in test}
    return sum("".join(problem.prompt.split()) in texts for problem in train)


@register("task", "math")
@dataclass(frozen=True)
class Math:
    r"""MATH, zero-shot, 12,000 / 500 problems (or the original 7,500 / 5,000); from the hub or a file.

    Attributes:
        verifier: Grades a response; must read answers of `answer_form`.
        split: `12000/500` (the paper's) or `7500/5000` (ten times the test problems: smaller intervals).
        answer_form: `final_answer` (the paper's prompt) or `boxed`.
        data: A local copy instead of the hub: file, folder, or a list of them.
        repository: Another hub repository with `problem`, `answer` or `solution`, and `unique_id` if it can.
        revision: Its commit.
        pin: Digest of the 500 ids and gold answers; None accepts other numbers of rows and other answers.
        validation_size: Training problems held out for validation: those whose hashed ids come first.
    """

    verifier: Verifier
    split: Literal["12000/500", "7500/5000"] = "12000/500"
    answer_form: Literal["final_answer", "boxed"] = "final_answer"
    data: str | Sequence[str] | None = None
    repository: str | None = None
    revision: str | None = None
    pin: str | None = GOLD
    validation_size: int = 0
    name: str = "math"

    def __post_init__(self) -> None:
        for key, known in (("split", tuple(SIZES)), ("answer_form", tuple(ENDINGS))):
            if getattr(self, key) not in known:
                raise ValueError(f"task.math.{key} must be {' or '.join(known)}, not {getattr(self, key)!r}")
        form = getattr(self.verifier, "answer_form", self.answer_form)
        if form != self.answer_form:
            raise ValueError(
                f"task.math asks for answers of the form {self.answer_form!r} and its verifier reads {form!r}: bind "
                "task.math.answer_form and verifier.math.answer_form alike"
            )
        if (self.repository is None) != (self.revision is None):
            raise ValueError("task.math.repository and task.math.revision go together: a repository needs its commit")

    @functools.cached_property
    def _loaded(self) -> tuple[Loaded, Parts]:
        hub = HUBS[self.split] if self.repository is None else Hub(self.repository, str(self.revision))
        loaded = check_columns(load_source_rows("math", hub, self.data), {"problem": str})
        for row in loaded.rows:
            if "answer" not in row.fields and "solution" not in row.fields:
                raise DataError(f"{row.place}: the fields 'answer' and 'solution' are both missing")
        parts = split_problems(loaded.rows, self.split, load_math500(), self.answer_form)
        if self.pin is not None:
            self._check(loaded, parts)
        found = rows_digest({"id": p.id, "problem": p.prompt, "answer": p.answer} for p in (*parts.train, *parts.test))
        return Loaded(loaded.rows, loaded.origin, found), parts

    def _check(self, loaded: Loaded, parts: Parts) -> None:
        """Raises DataError for other numbers of rows than the split's, or other gold answers than PRM800K's."""
        wanted, lost = SIZES[self.split], list(parts.dropped.values())
        found = len(parts.train) + lost.count("train"), len(parts.test) + lost.count("test")
        only_test = self.split == "12000/500" and found[0] == 0  # a copy of MATH-500 alone serves evaluation
        if found != wanted and not only_test:
            raise DataError(
                f"{loaded.origin} gives {found[0]:,} training and {found[1]:,} test problems, not {wanted[0]:,} and "
                f'{wanted[1]:,}. If that is meant: --bind "task.math.pin = None"'
            )
        told = all(isinstance(row.fields.get("answer"), str) for row in loaded.rows)
        if self.split == "12000/500" and told:
            gold = rows_digest({"unique_id": p.id, "answer": p.answer} for p in parts.test)
            if gold != self.pin:
                raise DataError(
                    f"{loaded.origin} has other gold answers for the 500 test problems than PRM800K (digest "
                    f'{gold[:12]}..., not {str(self.pin)[:12]}...). If that is meant: --bind "task.math.pin = None"'
                )

    @property
    def version(self) -> str:
        validation = f"-validation{self.validation_size}" if self.validation_size else ""
        return f"1-{self.split}-{self.answer_form}{validation}-{self._loaded[0].digest[:8]}"

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the problems came from and what was left out, for run.json."""
        loaded, parts = self._loaded
        return {
            "origin": loaded.origin,
            "digest": loaded.digest,
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test),
            "dropped_without_answer": list(parts.dropped),
            "test_problems_found_by_id_only": len(parts.by_id),
            "training_problems_that_are_test_problems": _shared(self.train, self.test),
        }

    @functools.cached_property
    def _validation(self) -> frozenset[str]:
        names = sorted((p.id for p in self._loaded[1].train), key=lambda n: text_hash(f"validation {n}"))
        return frozenset(names[: self.validation_size])

    @functools.cached_property
    def train(self) -> Sequence[Problem]:
        return [p for p in self._loaded[1].train if p.id not in self._validation]

    @functools.cached_property
    def validation(self) -> Sequence[Problem]:
        return [p for p in self._loaded[1].train if p.id in self._validation]

    @property
    def test(self) -> Sequence[Problem]:
        return self._loaded[1].test

    def chat(self, problem: Problem, answers: Sequence[str]) -> list[Message]:
        ending = ENDINGS[self.answer_form]
        messages = [{"role": "user", "content": f"{INSTRUCTION} {ending}\n\nProblem: {problem.prompt}"}]
        for answer in answers:
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": f"{RETRY} {ending}"}]
        return messages
