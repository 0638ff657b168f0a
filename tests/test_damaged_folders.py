"""Whatever happened to a run folder: no reader stops, none hangs, and no number changes without a word.

Placed cases are each kind of damage that a format can take; the campaign draws random ones from a seed. Of a run with
counts and digests in run.json (all that are finished now), every change must leave the numbers as they were or be told.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import synthetic

from harness.analysis import leaderboard, plots, report, scaling, tables
from harness.runs import reader

mpl.use("Agg")
RUN = Path("runs", synthetic.TASK, synthetic.POLICY, "score_full", "seed1")
Harm = Callable[[Path], Any]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pristine")
    for name in ("base", "score_full"):
        trained, rates = name != "base", synthetic.RATES[name]
        rows = synthetic.records(synthetic.RATES["base"], 0, when="before", problems=4) if trained else []
        rows += synthetic.records(rates, 1, problems=4) + synthetic.records(rates, 1, problems=4, samples=2)
        logged = synthetic.steps(6, 1) if trained else []
        config = ["progress.alpha = 10.0", "synthetic.verifier = @verifier.exact()"]
        synthetic.seal(synthetic.write_run(root, name, 1, rows, logged=logged, trained=trained, config=config))
    return root


@pytest.fixture(scope="module")
def truth(pristine: Path) -> dict[Any, Any]:
    numbers, told = read_everything(pristine)
    assert told == []
    return numbers


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON: the page's script would stop")


def read_everything(root: Path) -> tuple[dict[Any, Any], list[str]]:
    """All numbers that four readers show, by row; and the paths of the runs that they tell something of."""

    def hang(*_: object) -> None:
        raise AssertionError("a reader hangs")

    signal.signal(signal.SIGALRM, hang)
    signal.alarm(30)
    try:
        board = leaderboard.build_board(root)
        data = json.loads(tables.as_json(board), parse_constant=_refuse_constant)
        for text in (tables.render_markdown(board), tables.as_csv(board), tables.render_latex(board)):
            text.encode()
        numbers: dict[Any, Any] = {
            (table["problems"], row["name"]): [row["cells"], row["rates"], row["budget"], row["p"], row["seeds"]]
            for table in data["tables"]
            for row in table["rows"]
        }
        curves = scaling.scaling_curves(reader.read_runs(root, whens=("after",))[0])
        scaling.render_markdown(curves).encode()
        found = json.loads(scaling.as_json(curves), parse_constant=_refuse_constant)
        numbers |= {("scaling", curve["name"]): curve for curve in found}
        page = report.build_report(root, figures=False)
        page.encode()
        json.loads(page.split('id="data">')[1].split("</script>")[0], parse_constant=_refuse_constant)
        for scope in plots.read_scopes(root)[0]:
            for _, figure in plots.draw_figures(scope, ["training", "farming", "bonus_sweep"]):
                if not isinstance(figure, plots.Missing):
                    figure.canvas.draw()
                    plt.close(figure)
    finally:
        signal.alarm(0)
        plt.close("all")
    return numbers, [trouble.path for trouble in board.troubles]


# -- placed cases ------------------------------------------------------------------------------------------------------


def raw(change: Callable[[bytes], bytes]) -> Harm:
    return lambda file: file.write_bytes(change(file.read_bytes()))


def edit(line: int, **values: Any) -> Harm:
    def harm(file: Path) -> None:
        rows = [json.loads(text) for text in file.read_text().splitlines()]
        rows[line].update(values)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    return harm


def attempt(line: int, **values: Any) -> Harm:
    def harm(file: Path) -> None:
        rows = [json.loads(text) for text in file.read_text().splitlines()]
        rows[line]["attempts"][1].update(values)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    return harm


def without(line: int, key: str) -> Harm:
    def harm(file: Path) -> None:
        rows = [json.loads(text) for text in file.read_text().splitlines()]
        (rows[line] if key in rows[line] else rows[line]["attempts"][1]).pop(key)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    return harm


def replace(by: Callable[[Path], Any]) -> Harm:
    return lambda file: (file.unlink(), by(file))


NAN, DEEP = float("nan"), b"[" * 100_000 + b"]" * 100_000
ANY_FILE: dict[str, Harm] = {
    "missing": lambda file: file.unlink(),
    "empty": raw(lambda data: b""),
    "half": raw(lambda data: data[: len(data) // 2]),
    "byte order mark": raw(lambda data: b"\xef\xbb\xbf" + data),
    "NULs": raw(lambda data: b"\0" * 4096),
    "no UTF-8": raw(lambda data: data.replace(b"e", b"\xff", 1)),
    "deep": raw(lambda data: DEEP + b"\n"),
    "deep line": raw(lambda data: data + DEEP + b"\n"),
    "huge integer": raw(lambda data: data + b'{"x":' + b"9" * 5000 + b"}\n"),
    "folder": replace(lambda file: file.mkdir()),
    "pipe": replace(os.mkfifo),
    "device": replace(lambda file: file.symlink_to("/dev/zero")),
    "link to itself": replace(lambda file: file.symlink_to(file.name)),
}
RECORDS: dict[str, Harm] = {
    **{f"{key} {value!r}"[:40]: edit(5, **{key: value}) for key, values in {
        "id": [7, None, [1], "", "\ud800", "x" * 1_000_000], "sample": ["x", 0.5, None, 10**30, -1, True, NAN],
        "temperature": ["hot", None, [1], NAN, math.inf, -1, False], "when": ["during", None, ["after"]],
        "task": ["", ["a"], {}, None, "\ud800"], "split": ["tset", [], None], "prompt": [5, [5]],
        "attempts": [[], "xx", 3, None, ["a", "b"], {"0": 1}, [None, None]], "extra_tokens": ["x", NAN, None, -1],
    }.items() for value in values},
    **{f"attempt {key} {value!r}"[:40]: attempt(5, **{key: value}) for key, values in {
        "correct": ["no", "false", 2, 0, None, NAN, [0]], "reward": [NAN, math.inf, "x", None, True, 10**400],
        "tokens": ["x", NAN, -5, None, 10**400, 1.5, True], "text": [5, None, ["a"]],
        "answer": [[1], {"a": 1}, 5, NAN], "status": ["great", None, []], "truncated": ["no", None, 1],
        "by": ["me", None, []], "flag": [3, [1], None, "", {}],
    }.items() for value in values},
    **{f"no {key}": without(5, key) for key in ("when", "task", "id", "sample", "temperature", "attempts", "text",
       "answer", "reward", "correct", "status", "tokens", "truncated", "by")},
    "a line of another file": raw(lambda data: data + b'{"phase":"p","step":1}\n'),
    "a line twice": raw(lambda data: data.split(b"\n")[0] + b"\n" + data),
    "two lines glued": raw(lambda data: data.replace(b"}\n{", b"}{", 1)),
}  # fmt: skip
LOG: dict[str, Harm] = {
    **{f"{key} {value!r}"[:40]: edit(3, **{key: value}) for key, values in {
        "step": ["x", None, [1], NAN, math.inf, 3, 0, 10**400, True, 2.5], "phase": [[1], None, 3, "\ud800"],
        "acc_t1": ["x", None, NAN, math.inf, True, 10**400, 1.7e308, [1], {}], "bonus_farming": ["x", [1], 2],
    }.items() for value in values},
    "no step": without(3, "step"), "no phase": without(3, "phase"),
    "reversed": raw(lambda data: b"\n".join(reversed(data.split(b"\n")[:-1])) + b"\n"),
    "twice": raw(lambda data: data + data),
}  # fmt: skip


def of_run(**values: Any) -> Harm:
    return lambda file: file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


INFO: dict[str, Harm] = {
    f"{key} {value!r}"[:50]: of_run(**{key: value})
    for key, values in {
        "format": [2, "1", None, 1.0, True, [1]], "status": ["DONE", None, 3, ["done"], "running"],
        "spent": [None, [], "x", 5, {}, {"updates": "x"}, {"updates": None}, {"updates": -1}, {"updates": [1]},
                  {"updates": 100, "responses": "<b>"}, {"updates": 100, "x": {}}],
        "eval_tasks": [None, [], "x", {"synthetic": None}, {"synthetic": [1]}], "task_version": [None, 3, [], {}],
        "graders": [[], "x", None, {"synthetic": 3}, {"synthetic": None}], "model": [3, [], None, {"a": 1}],
        "seed": [2, "1", None, 1.0, True], "name": ["other", None, 3], "task": ["other", []], "policy": ["other", {}],
        "records": [3, [], None, {}, {"a": "b"}, {"after": 10**400}], "sha256": [3, [], None, {"eval.jsonl": 3}],
        "error": [NAN, "\ud800"],
    }.items() for value in values
}  # fmt: skip
CONFIG: dict[str, Harm] = {
    "open bracket": raw(lambda data: data + b"a.b = (((\n"),
    "not finite": raw(lambda data: data.replace(b"10.0", b"1e999")),
    "no number": raw(lambda data: data.replace(b"10.0", b"nan")),
    "line separator": raw(lambda data: data + "x.y = 'a\u2028progress.alpha = 3'\n".encode()),
}
PLACED = [
    (file, name, harm)
    for file, more in (("eval.jsonl", RECORDS), ("metrics.jsonl", LOG), ("run.json", INFO), ("config.gin", CONFIG))
    for name, harm in {**ANY_FILE, **more}.items()
]


@pytest.mark.parametrize("file", ["eval.jsonl", "metrics.jsonl", "run.json", "config.gin"])
@pytest.mark.parametrize("sealed", [True, False])
def test_every_kind_of_damage_is_told_and_costs_the_run_alone(
    file: str, sealed: bool, pristine: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "results" / RUN
    for own, name, harm in PLACED:
        if own != file:
            continue
        shutil.rmtree(tmp_path / "results", ignore_errors=True)
        shutil.copytree(pristine / RUN, folder)
        if not sealed:
            info = json.loads((folder / "run.json").read_text())
            (folder / "run.json").write_text(
                json.dumps({key: value for key, value in info.items() if key not in ("records", "sha256")})
            )
        harm(folder / file)
        runs, troubles = reader.read_runs(tmp_path / "results")
        assert len(runs) == (not any(trouble.left_out for trouble in troubles)), name
        for run in runs:
            assert [step["step"] for step in run.read_steps()] == sorted({step["step"] for step in run.read_steps()}), (
                name
            )
            assert run.bindings is not None
            assert run.was_trained
        if file == "metrics.jsonl":
            assert len(runs) == 1, name
            assert troubles or name in ("empty", "acc_t1 None", "acc_t1 True", "bonus_farming 2"), name
        elif file != "config.gin" or sealed:
            (trouble,) = troubles
            assert trouble.left_out, name
            assert trouble.path == RUN.as_posix()
            if name in RECORDS and "line" not in name:
                assert trouble.message.startswith(("eval.jsonl: line 6", "eval.jsonl: line 7")), (name, trouble)
            if name in INFO and not name.startswith("status"):
                assert trouble.message.startswith(("run.json", "eval.jsonl holds")), (name, trouble)


# -- a campaign --------------------------------------------------------------------------------------------------------

JUNK = [None, True, -1, 0.5, "x", "", [], {}, [[]], 1e308, NAN, 10**30, "\ud800", "\u2028", "<b>"]
WAYS = (
    *("flip", "flip", "flips", "insert", "delete", "zero", "cut", "cut line", "drop line", "double line", "swap lines"),
    *("value", "value", "value", "drop key", "digit", "digit"),
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, held in inner:
        yield (*path, key)
        yield from _paths(held, (*path, key))


def _change_value(rng: random.Random, text: bytes, drop: bool) -> bytes:
    value = json.loads(text)
    *path, last = rng.choice(list(_paths(value)))
    inner = value
    for key in path:
        inner = inner[key]
    if drop:
        del inner[last]
    else:
        inner[last] = rng.choice(JUNK)
    return json.dumps(value).encode()


def mutate(rng: random.Random, file: Path) -> str:
    """Changes a file in one random way; returns which."""
    data, way = file.read_bytes(), rng.choice(WAYS)
    if not data or (way in ("value", "drop key") and file.suffix == ".gin"):
        way = "insert"
    at, lines = rng.randrange(len(data) + 1), data.split(b"\n")
    one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
    if way in ("flip", "flips"):
        changed = bytearray(data)
        for _ in range(8 if way == "flips" else 1):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        data = bytes(changed)
    elif way == "insert":
        data = data[:at] + rng.randbytes(rng.randint(1, 6)) + data[at:]
    elif way == "delete":
        data = data[:at] + data[at + rng.randint(1, 40) :]
    elif way == "zero":
        data = data[:at] + bytes(min(512, len(data) - at)) + data[at + 512 :]
    elif way == "cut":
        data = data[:at]
    elif way == "digit":
        digits = [place for place, byte in enumerate(data) if 48 <= byte <= 57]
        place = rng.choice(digits)
        data = data[:place] + str(rng.randrange(10)).encode() + data[place + 1 :]
    elif way in ("value", "drop key"):
        if file.suffix == ".json":
            data = _change_value(rng, data, way == "drop key")
        else:
            one = rng.randrange(len(lines) - 1)
            lines[one] = _change_value(rng, lines[one], way == "drop key")
            data = b"\n".join(lines)
    else:
        if way == "cut line":
            del lines[one:]
        elif way == "drop line":
            del lines[one]
        elif way == "double line":
            lines.insert(one, lines[one])
        else:
            lines[one], lines[two] = lines[two], lines[one]
        data = b"\n".join(lines)
    file.write_bytes(data)
    return way


def _without_budget(numbers: dict[Any, Any]) -> dict[Any, Any]:
    return {key: [*value[:2], *value[3:]] if isinstance(value, list) else value for key, value in numbers.items()}


def campaign(seed: int, count: int, pristine: Path, truth: dict[Any, Any], tmp_path: Path) -> None:
    rng, root = random.Random(seed), tmp_path / "damaged"
    for number in range(count):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(pristine, root)
        file = rng.choice(["eval.jsonl"] * 5 + ["run.json"] * 3 + ["metrics.jsonl"] * 3 + ["config.gin"])
        row = rng.choice(["score_full", "score_full", "base"])
        way = mutate(rng, root / RUN.parent.parent / row / "seed1" / file)
        numbers, told = read_everything(root)
        if file == "run.json":  # it has no digest of its own: nothing is compared with what it says was spent
            numbers, expected = _without_budget(numbers), _without_budget(truth)
        else:
            expected = truth
        same = all(numbers.get(key) == value for key, value in expected.items() if row in key[1])
        assert same or any(f"/{row}/" in path for path in told), f"number {number} of seed {seed}: {row} {file} {way}"


def test_a_short_campaign_of_random_damage(pristine: Path, truth: dict[Any, Any], tmp_path: Path) -> None:
    campaign(11, 12, pristine, truth, tmp_path)


@pytest.mark.slow
def test_a_long_campaign_of_random_damage(pristine: Path, truth: dict[Any, Any], tmp_path: Path) -> None:
    campaign(12, 80, pristine, truth, tmp_path)
