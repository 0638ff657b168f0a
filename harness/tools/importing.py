"""Trajectories of other programs as runs: our own JSON lines, TRL's completions, verl's rollouts, inspect_ai's logs.

Each reader gives `Found` trajectories; `import_run` finds their problems in a task, grades the attempts with the task's
verifier (or takes the verdicts that the file has), and writes a run folder that says that it was imported.
Formats: docs/bring_your_own_trajectories.md. Above 300 lines because the formats are four.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import config
from harness.core import Problem, Task, Verdict
from harness.grading import grade_responses
from harness.registry import nearest_hint
from harness.runs import reader
from harness.runs.integrity import count_records, file_sha256
from harness.runs.store import FORMAT, RunStore, StoreError
from harness.tasks.source import DataError, Row, load_rows
from harness.training.experiment import Experiment

GOLD = 10_000  # characters of a gold answer at most: tests of programs can be longer
CORRECT = {"C": True, "I": False, "P": False, "N": False}  # what inspect_ai's scorers write
# Between two replies of one verl rollout, whose tokens were decoded without (or with) the template's special tokens.
USER_TURN = re.compile(
    r"(?:<\|im_end\|>\s*<\|im_start\|>|\n)user\n.*?(?:<\|im_end\|>\s*<\|im_start\|>|\n)assistant\n", re.S
)


class ImportFault(ValueError):
    """A file that cannot become a run; the message names the place and what to do."""


@dataclass(frozen=True)
class Found:
    """One trajectory as it was found.

    Attributes:
        place: Where, for messages: "FILE.jsonl, line 3".
        texts: The attempts, first to last.
        verdicts: What the file says of each attempt; None where it says nothing.
        id: The problem's id, '' where the file has none.
        prompt: The problem as it was asked; it may hold more than the problem's text. '' where the file has none.
        tokens: Of each attempt; empty where the file does not say.
        truncated: Of each attempt; empty where the file does not say.
        temperature: At which it was sampled, None where the file does not say.
        model: What wrote it, '' where the file does not say.
        step: Of the training, None where the file does not say.
    """

    place: str
    texts: tuple[str, ...]
    verdicts: tuple[Verdict | None, ...]
    id: str = ""
    prompt: str = ""
    tokens: tuple[int, ...] = ()
    truncated: tuple[bool, ...] = ()
    temperature: float | None = None
    model: str = ""
    step: int | None = None


@dataclass(frozen=True)
class Request:
    """What the user states about trajectories.

    Attributes:
        name: The row.
        task: A registered task; with `verdicts`, any name.
        updates: How many updates the training behind them made; 0 of a model that was not trained.
        parent: The row that the table compares it with; '' for none.
        responses: How many responses it sampled, None where nobody knows.
        seed: Of that training.
        verdicts: Whether the file's verdicts are taken; else the task's verifier grades.
        verifier: Of the task, where neither `gin` nor `bind` say it.
        policy: Name of the folder, and of the model where neither the file nor `model` says.
        model: The model behind them: rows of one model stand in one table.
        temperature: Where the file does not say; None is 0 if each problem has one trajectory.
        split: Of the task.
        step: Of the training, where the file holds several.
        gin: Gin files that say what the task is.
        bind: Bindings, as of `harness.run`.
    """

    name: str
    task: str
    updates: int
    parent: str = ""
    responses: int | None = None
    seed: int = 0
    verdicts: bool = False
    verifier: str = ""
    policy: str = "imported"
    model: str = ""
    temperature: float | None = None
    split: str = "test"
    step: int | None = None
    gin: Sequence[str] = field(default_factory=tuple)
    bind: Sequence[str] = field(default_factory=tuple)


def import_run(files: Sequence[Path], request: Request, out: Path, form: str = "auto") -> Path:
    """Writes one run of one or several files of trajectories, and returns its folder.

    Args:
        files: Of one format.
        request: What they are.
        out: The results folder.
        form: One of `FORMS`, or `auto`: what the first row looks like.

    Raises:
        ImportFault: a file, a problem or a verdict that cannot be used; nothing was written.
        ConfigError: no such task or verifier.
        GradingError: the verifier failed.
        StoreError: the run is there already, or cannot be written.
    """
    _check_name(request)
    form, found = read_trajectories(files, form)
    found = _of_one_step(found, request.step)
    turns = {len(one.texts) for one in found}
    if len(turns) > 1:
        few = min(found, key=lambda one: len(one.texts))
        raise ImportFault(
            f"{few.place}: {len(few.texts)} attempts, where others have {max(turns)}: one run has as many attempts "
            "in every trajectory"
        )
    task, bound = (None, {}) if request.verdicts and not _is_task(request.task) else _build_task(request)
    problems = [_problem_of(one, task, request) for one in found]
    verdicts = _verdicts_of(found, problems, None if request.verdicts else task)
    records = _records(found, problems, verdicts, task.name if task else request.task, request)
    return _write(files, form, found, task, bound, records, request, out)


def read_trajectories(files: Sequence[Path], form: str = "auto") -> tuple[str, list[Found]]:
    """The format, and every trajectory of the files, in order.

    Raises:
        ImportFault: none there, a line that is none, a format that nobody knows.
    """
    found: list[Found] = []
    told = ""
    for path in files:
        if path.suffix == ".eval" or (form in ("auto", "inspect") and path.suffix == ".json"):
            if form not in ("auto", "inspect"):
                raise ImportFault(f"{path} is a log of inspect_ai, not of the format {form}")
            told, mine = "inspect", _read_inspect(path)
        else:
            try:
                rows = load_rows(path)
            except DataError as error:
                raise ImportFault(str(error)) from error
            if not rows:
                raise ImportFault(f"{path} holds no rows")
            told = _form_of(rows[0]) if form == "auto" else form
            mine = [_read(FORMS[told], row.place, row) for row in rows]
        found += mine
    if not found:
        raise ImportFault(f"{', '.join(map(str, files))}: no trajectories")
    return told, found


def _form_of(row: Row) -> str:
    fields = row.fields
    if "attempts" in fields:
        return "jsonl"
    if {"input", "output"} <= fields.keys():
        return "verl"
    if {"prompt", "completion"} <= fields.keys():
        return "trl"
    near = nearest_hint("attempts", fields)
    raise ImportFault(
        f"{row.place}: its fields {', '.join(map(repr, fields))} are of no format that is known{near}. Ours has 'id' "
        "and 'attempts', TRL's completions 'prompt' and 'completion', verl's rollouts 'input' and 'output'"
    )


# one row of each format ----------------------------------------------------------------------------------------------


def _read_own(row: Row) -> Found:
    fields, place = row.fields, row.place
    attempts = _field(row, "attempts", list)
    if not attempts:
        raise ImportFault(f"{place}: 'attempts' is empty")
    held = [{"text": one} if isinstance(one, str) else one for one in attempts]
    for number, one in enumerate(held, 1):
        if not isinstance(one, Mapping) or not isinstance(one.get("text"), str):
            raise ImportFault(f"{place}: attempt {number} must be a text, or an object with a 'text'")
    tokens = [one.get("tokens") for one in held]
    cut = [one.get("truncated") for one in held]
    return Found(
        place,
        tuple(one["text"] for one in held),
        tuple(_own_verdict(one, f"{place}, attempt {number}") for number, one in enumerate(held, 1)),
        id=str(fields["id"]) if fields.get("id") is not None else "",
        prompt=_text(fields.get("prompt")),
        tokens=tuple(t for t in tokens if type(t) is int) if all(type(t) is int for t in tokens) else (),
        truncated=tuple(bool(c) for c in cut) if any(c is not None for c in cut) else (),
        temperature=fields.get("temperature"),
        model=_text(fields.get("model")),
    )


def _own_verdict(one: Mapping[str, Any], place: str) -> Verdict | None:
    if one.get("correct") is None and one.get("reward") is None:
        return None
    return _verdict(one.get("correct"), one.get("reward"), one.get("answer"), place, one.get("status"))


def _read_trl(row: Row) -> Found:
    """A line of TRL's `log_completions` (or of a rollout data set): each reply of the assistant is an attempt."""
    fields = row.fields
    completion, prompt = fields["completion"], fields["prompt"]
    texts = [completion] if isinstance(completion, str) else _said(completion, "assistant", row.place)
    if not texts:
        raise ImportFault(f"{row.place}: the completion holds no reply of the assistant")
    asked = prompt if isinstance(prompt, str) else "\n".join(_said(prompt, "user", row.place))
    rewards = {name: value for name, value in fields.items() if name not in TRL_OTHERS and _is_number(value)}
    verdict = None
    if len(rewards) == 1:
        verdict = _verdict(None, next(iter(rewards.values())), None, row.place)
    return Found(
        row.place, tuple(texts), (*[None] * (len(texts) - 1), verdict), prompt=asked, step=fields.get("step"),
        id=str(fields["id"]) if fields.get("id") is not None else "",
    )  # fmt: skip


TRL_OTHERS = frozenset({"step", "advantage", "prompt", "completion", "id"})  # the others are rewards, one a function


def _read_verl(row: Row) -> Found:
    """A line of verl's `trainer.rollout_data_dir` (or `validation_data_dir`): the score is of the whole rollout."""
    output = _field(row, "output", str)
    texts = [text.removesuffix("<|im_end|>").rstrip("\n") for text in USER_TURN.split(output)]
    score = row.fields.get("score")
    verdict = _verdict(row.fields.get("acc"), score, None, row.place) if score is not None else None
    return Found(
        row.place, tuple(texts), (*[None] * (len(texts) - 1), verdict), prompt=_field(row, "input", str),
        step=row.fields.get("step"),
        id=str(row.fields["id"]) if row.fields.get("id") is not None else "",
    )  # fmt: skip


def _read_inspect(path: Path) -> list[Found]:
    """The samples of a log of inspect_ai, `.eval` or `.json`: each reply of the assistant is an attempt."""
    try:
        if path.suffix == ".eval":
            with zipfile.ZipFile(path) as packed:
                header = json.loads(_unpacked(packed, packed.getinfo("header.json")))
                entries = [entry for entry in packed.infolist() if entry.filename.startswith("samples/")]
                samples = [json.loads(_unpacked(packed, entry)) for entry in entries]
        else:
            header = json.loads(path.read_bytes())
            samples = header.get("samples") or []
        about, plan = header["eval"], (header.get("plan") or {}).get("config") or {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ImportFault(f"{path} is no log of inspect_ai that can be read: {error}") from error
    if header.get("status") != "success":
        raise ImportFault(f"{path}: the evaluation did not end well (status {header.get('status')!r})")
    return [
        _read(_sample, f"{path}, sample {number}", path, sample, about, plan)
        for number, sample in enumerate(samples, 1)
    ]


def _read(read: Callable[..., Found], place: str, *held: Any) -> Found:
    """One trajectory; a value of another kind than its format has, wherever it stands, is told with its place."""
    try:
        found = read(*held)
    except (TypeError, AttributeError, KeyError, IndexError) as error:
        raise ImportFault(f"{place}: it is not as its format has it: {type(error).__name__}: {error}") from error
    if found.temperature is not None and not (_is_number(found.temperature) and found.temperature >= 0):
        raise ImportFault(f"{place}: the temperature {found.temperature!r} is no number from 0")
    if found.step is not None and not isinstance(found.step, int):
        raise ImportFault(f"{place}: the step {found.step!r} is no whole number")
    return found


def _sample(path: Path, sample: Mapping[str, Any], about: Mapping[str, Any], plan: Mapping[str, Any]) -> Found:
    place = f"{path}, sample {sample.get('id')!r}"
    messages = sample.get("messages") or []
    texts = _said(messages, "assistant", place)
    if not texts:
        raise ImportFault(f"{place}: no reply of the assistant")
    scores = sample.get("scores") or {}
    names = [f"attempt_{number}" for number in range(1, len(texts) + 1)]  # as harness.tools.exporting names them
    if set(names) == scores.keys():
        verdicts = tuple(_score(scores[name], place) for name in names)
    else:  # a score is of the sample, so of its last attempt; several scores do not say which is meant
        last = _score(next(iter(scores.values())), place) if len(scores) == 1 else None
        verdicts = (*[None] * (len(texts) - 1), last)
    asked = sample.get("input")
    choices = (sample.get("output") or {}).get("choices") or [{}]
    return Found(
        place, tuple(texts), verdicts, id=str(sample.get("id", "")),
        prompt=asked if isinstance(asked, str) else "\n".join(_said(asked or [], "user", place)),
        truncated=(*[False] * (len(texts) - 1), choices[0].get("stop_reason") == "max_tokens"),
        temperature=plan.get("temperature"), model=_text(about.get("model")),
    )  # fmt: skip


def _score(score: Any, place: str) -> Verdict | None:
    """A score of inspect_ai: C or I, or a number; None for others."""
    value = score.get("value") if isinstance(score, Mapping) else None
    right = CORRECT.get(value) if isinstance(value, str) else None
    if right is None and not _is_number(value):
        return None
    return _verdict(right, None if right is not None else value, score.get("answer"), place)


def _unpacked(packed: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """An entry of a zip file, also of one packed with zstd, which Python's own reader knows from 3.14 on."""
    if entry.compress_type != 93:
        return packed.read(entry)
    import pyarrow as pa

    file = packed.fp
    if file is None:
        raise OSError("the file is closed")
    file.seek(entry.header_offset)
    name, extra = struct.unpack("<HH", file.read(30)[26:30])
    file.seek(name + extra, 1)
    try:
        data = pa.Codec("zstd").decompress(file.read(entry.compress_size), decompressed_size=entry.file_size)
    except pa.ArrowException as error:
        raise ValueError(f"{entry.filename}: {error}") from error
    held = data.to_pybytes()
    if zlib.crc32(held) != entry.CRC:
        raise ValueError(f"{entry.filename} is damaged")
    return held


FORMS: dict[str, Callable[[Row], Found]] = {"jsonl": _read_own, "trl": _read_trl, "verl": _read_verl}


def _said(messages: Any, role: str, place: str) -> list[str]:
    """One side's messages in a list of chat messages; of contents in parts, the texts."""
    if not isinstance(messages, Iterable) or isinstance(messages, str):
        raise ImportFault(f"{place}: a list of chat messages was expected, not {type(messages).__name__}")
    said = []
    for message in messages:
        if not isinstance(message, Mapping) or "role" not in message:
            raise ImportFault(f"{place}: a chat message must be an object with 'role' and 'content'")
        content = message.get("content")
        if message["role"] == role and content:
            parts = [content] if isinstance(content, str) else [_text(part.get("text")) for part in content]
            said.append("\n".join(filter(None, parts)))
    return said


def _field(row: Row, name: str, kind: type) -> Any:
    value = row.fields.get(name)
    if not isinstance(value, kind):
        near = nearest_hint(name, row.fields) if name not in row.fields else ""
        wanted = "text" if kind is str else "a list"
        raise ImportFault(f"{row.place}: the field {name!r} must be {wanted}, found {type(value).__name__}{near}")
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _verdict(correct: Any, reward: Any, answer: Any, place: str, status: Any = None) -> Verdict | None:
    """A verdict that a file gives. Without `correct`, a reward of 1 is right, one of 0 wrong; others tell nothing."""
    if reward is not None and not _is_number(reward) and not isinstance(reward, bool):
        raise ImportFault(f"{place}: the reward {reward!r} is no finite number")
    if correct is None:
        if reward not in (0, 1):
            return None
        correct = bool(reward)
    if correct not in (True, False):
        raise ImportFault(f"{place}: 'correct' is {correct!r}, neither true nor false")
    told = answer if isinstance(answer, str) or answer is None else str(answer)
    return Verdict(float(correct if reward is None else reward), bool(correct), status or "ok", told)


# from trajectories to a run ------------------------------------------------------------------------------------------


def _check_name(request: Request) -> None:
    rows = {path.stem for path in (config.GIN_HOME / "gin").glob("*.gin")} - {"base"}
    if request.name in rows:
        raise ImportFault(
            f"--name {request.name}: this is a row that the harness trains, and its seeds would be mixed with it: "
            "choose another name"
        )
    for what, name in (("--name", request.name), ("--policy", request.policy), ("--task", request.task)):
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
            raise ImportFault(f"{what} {name!r} is no folder name: letters, digits, and . _ + - only")
    if request.seed < 0 or request.updates < 0:
        raise ImportFault("--seed and --updates are whole numbers from 0")


def _of_one_step(found: list[Found], step: int | None) -> list[Found]:
    """The trajectories of one step of the training: at each step another policy wrote them."""
    steps = sorted({one.step for one in found if one.step is not None})
    if step is None:
        if len(steps) > 1:
            raise ImportFault(
                f"these are trajectories of {len(steps)} steps of a training ({steps[0]} to {steps[-1]}), of as many "
                f"policies: choose one with --step, such as --step {steps[-1]}"
            )
        return found
    mine = [one for one in found if one.step == step]
    if not mine:
        raise ImportFault(f"--step {step}: there are only steps {', '.join(map(str, steps)) or '(none is named)'}")
    return mine


def _is_task(name: str) -> bool:
    from harness import registry

    config.prepare_gin(Experiment, "run")
    return any(entry.name == name for entry in registry.list_entries("task"))


def _build_task(request: Request) -> tuple[Task, dict[str, str]]:
    """The task, and the bindings that make it."""
    config.prepare_gin(Experiment, "run")
    binds = [f"run.task = @task.{request.task}()", f"run.name = {request.name!r}"]
    binds += [f"{request.task}.verifier = @verifier.{request.verifier}()"] if request.verifier else []
    config.parse_gin(["base", *request.gin], [*binds, *request.bind])
    experiment: Experiment = config.build_root("run")
    kept = ("hf.", "run.", "intrinsic.", "none.")
    bound = {
        k: v for k, v in config.parse_bindings(config.operative_config()).items() if "." in k and not k.startswith(kept)
    }
    return experiment.task, bound


def _problem_of(one: Found, task: Task | None, request: Request) -> Problem:
    """The problem of a trajectory: by its id, else by its text, else by the longest text that the prompt holds."""
    if task is None:
        if not (one.id or one.prompt):
            raise ImportFault(f"{one.place}: neither an 'id' nor a 'prompt' names the problem")
        return Problem(one.id or hashlib.sha256(one.prompt.encode()).hexdigest()[:16], one.prompt, "")
    by_id, by_prompt = _index(task, request.split)
    if one.id:
        if one.id not in by_id:
            raise ImportFault(
                f"{one.place}: task {task.name} has no {request.split} problem {one.id!r}{nearest_hint(one.id, by_id)}"
            )
        return by_id[one.id]
    if one.prompt.strip() in by_prompt:
        return by_prompt[one.prompt.strip()]
    held = [text for text in by_prompt if text in one.prompt]
    if not held:
        raise ImportFault(
            f"{one.place}: no {request.split} problem of task {task.name} has this text, or is held by it: "
            f"{one.prompt[:60]!r}"
        )
    return by_prompt[max(held, key=len)]


_indexed: dict[tuple[int, str], tuple[dict[str, Problem], dict[str, Problem]]] = {}


def _index(task: Task, split: str) -> tuple[dict[str, Problem], dict[str, Problem]]:
    key = (id(task), split)
    if key not in _indexed:
        problems: Sequence[Problem] = getattr(task, split)
        _indexed.clear()
        _indexed[key] = ({p.id: p for p in problems}, {p.prompt.strip(): p for p in problems})
    return _indexed[key]


def _verdicts_of(found: Sequence[Found], problems: Sequence[Problem], task: Task | None) -> list[tuple[Verdict, ...]]:
    """The verdicts of every trajectory's attempts: of the task's verifier, or of the file."""
    if task is not None:
        pairs = [(problem, text) for one, problem in zip(found, problems, strict=True) for text in one.texts]
        graded = iter(grade_responses(task.verifier, pairs))
        return [tuple(next(graded) for _ in one.texts) for one in found]
    for one in found:
        for number, verdict in enumerate(one.verdicts, 1):
            if verdict is None:
                raise ImportFault(
                    f"{one.place}: nothing says whether attempt {number} is right. Name a task whose verifier grades "
                    "it (--task, without --verdicts)"
                )
    return [tuple(verdict for verdict in one.verdicts if verdict) for one in found]


def _records(
    found: Sequence[Found],
    problems: Sequence[Problem],
    verdicts: Sequence[tuple[Verdict, ...]],
    task: str,
    request: Request,
) -> list[dict[str, Any]]:
    """Records of eval.jsonl, problems in the order met, each with its samples."""
    told = {one.temperature for one in found if one.temperature is not None}
    many = max(Counter(problem.id for problem in problems).values()) > 1
    if request.temperature is None and (len(told) > 1 or (many and not told)):
        raise ImportFault(
            f"say at which temperature these were sampled (--temperature): the file says {sorted(told) or 'nothing'}, "
            f"and {'a problem has several' if many else 'each problem has one'}"
        )
    temperature = request.temperature if request.temperature is not None else float(next(iter(told), 0.0))
    order = {name: place for place, name in enumerate(dict.fromkeys(problem.id for problem in problems))}
    places = sorted(range(len(found)), key=lambda place: order[problems[place].id])
    seen: Counter[str] = Counter()
    records = []
    for place in places:
        one, problem = found[place], problems[place]
        records.append(
            {
                "when": "after", "task": task, "id": problem.id, "sample": seen[problem.id],
                "temperature": temperature,
                **({"prompt": problem.prompt} if temperature == 0 and problem.prompt else {}),
                **({"gold": problem.answer} if temperature == 0 and 0 < len(problem.answer) <= GOLD else {}),
                "attempts": [_attempt(one, number, verdict) for number, verdict in enumerate(verdicts[place])],
                **({"split": request.split} if request.split != "test" else {}),
            }
        )  # fmt: skip
        seen[problem.id] += 1
    counts = set(seen.values())
    if temperature == 0 and counts != {1}:
        name = next(name for name, count in seen.items() if count > 1)
        raise ImportFault(f"problem {name!r} has {seen[name]} trajectories at temperature 0: a greedy one is alone")
    return records


def _attempt(one: Found, number: int, verdict: Verdict) -> dict[str, Any]:
    cut = bool(one.truncated and one.truncated[number])
    return {
        "text": one.texts[number], "answer": verdict.answer, "reward": verdict.reward, "correct": verdict.correct,
        "status": "truncated" if cut and verdict.status == "no_answer" else verdict.status,
        "tokens": one.tokens[number] if one.tokens else 0, "truncated": cut, "by": "policy",
        **({"flag": verdict.flag} if verdict.flag else {}),
    }  # fmt: skip


def _write(
    files: Sequence[Path], form: str, found: Sequence[Found], task: Task | None, bound: Mapping[str, str],
    records: Sequence[dict[str, Any]], request: Request, out: Path,
) -> Path:  # fmt: skip
    models = sorted({one.model for one in found if one.model})
    if not request.model and len(models) > 1:
        raise ImportFault(f"these are of several models ({', '.join(models)}): import each alone, or say --model")
    grader = (
        "the verdicts of the file" if request.verdicts else str(getattr(task and task.verifier, "grader", "") or "")
    )
    bindings = {"run.name": repr(request.name), "run.seed": str(request.seed), **bound}
    name, version = (task.name, str(task.version)) if task else (request.task, "imported")
    told = getattr(task, "provenance", None)
    folder = out / name / request.policy / request.name / f"seed{request.seed}"
    if folder.exists():
        raise StoreError(f"{folder} is there already: choose another --name, --seed or --out")
    store = RunStore(folder)
    store.acquire_lock()
    try:
        store.save_config("".join(f"{name} = {value}\n" for name, value in bindings.items()))
        store.append_records(records)
        (folder / "metrics.jsonl").touch()
        store.update_run_json(
            format=FORMAT, name=request.name, task=name, task_version=version, policy=request.policy,
            seed=request.seed, eval_tasks={name: version}, data={name: told} if told else {},
            **({"graders": {name: grader}} if grader else {}),
            model=request.model or next(iter(models), request.policy), bindings=bindings, parent=request.parent,
            difference={},
            spent={"updates": request.updates}
            | ({"responses": request.responses} if request.responses is not None else {}),
            imported={
                "format": form, "files": {path.name: file_sha256(path) for path in files},
                "tokens": all(one.tokens for one in found),
            },
            isolation={}, error=None, status="done", records=count_records(records), sha256=store.file_hashes(),
        )  # fmt: skip
    except BaseException:
        store.release_lock()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    store.release_lock()
    run, troubles = reader.read_run(folder, out)
    if run is None:  # a text that is too long, a status that is none: what readers leave out is no import
        shutil.rmtree(folder, ignore_errors=True)
        raise ImportFault(
            "; ".join(f"these would be no run that tables take: {trouble.message}" for trouble in troubles)
        )
    return folder
