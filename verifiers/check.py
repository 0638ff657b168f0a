r"""Audits outputs from a file: `python -m verifiers.check FILE.jsonl --verifier math|code [--bare] [--out OUT.jsonl]`.

Math rows: {"gold": ..., "prediction": ...} with a full response, or with `--bare` a bare answer; an optional
"problem" text tells whether a percent sign or a number base was asked for.
Code rows: {"prompt", "entry_point", "test", "program"} (HumanEval's form; the program may be a completion of the
prompt) or {"test_list", "test_setup_code" or "test_imports", "program"} (MBPP's).

OUT has one line per row, in order: `correct`, `status` (ok, no_answer, truncated, timeout, error, bad_row),
`seconds`, `answer`, `detail`, for code also `mode` (split, or compat: flagged). A row that cannot be read is recorded
as bad_row and the rest go on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.core import Problem
from harness.terminal import escape_controls
from verifiers.code_tests import BadTests, CodeTests, answer_of
from verifiers.math_answer import MathAnswer
from verifiers.sandbox.pool import UnsafeMachine
from verifiers.workers import WorkerDied

CHUNK = 256  # rows graded before their lines are written
SHOWN = 3  # bad rows whose fault is told on the screen; --out has all


class BadRow(ValueError):
    """A line of the file that is not a row of the stated form."""


def main(argv: Sequence[str] | None = None, prog: str = "python -m verifiers.check") -> int:
    """Runs the command; 0 when every row was read and graded, 1 with bad rows, 2 when nothing could run."""
    options = _parser(prog).parse_args(argv)
    try:
        lines = options.file.read_text(encoding="utf-8", errors="surrogateescape").split("\n")  # not U+2028
    except OSError as error:
        print(f"cannot read {options.file}: {error.strerror}", file=sys.stderr)
        return 2
    lines = [line for line in lines if line.strip()]
    try:
        grade, isolation = _math(options) if options.verifier == "math" else _code(options)
        inspect = _inspect_math if options.verifier == "math" else _inspect_code
        counts: Counter[str] = Counter()
        bad: list[str] = []
        correct, started = 0, time.perf_counter()
        out = options.out.open("w", encoding="utf-8") if options.out else None
        try:
            for record in _records(lines, grade, inspect):
                counts[record["status"] + (" (compat)" if record.get("mode") == "compat" else "")] += 1
                correct += record["correct"]
                bad += [record["error"]] if record["status"] == "bad_row" and len(bad) < SHOWN else []
                if out:
                    out.write(json.dumps(record) + "\n")
        finally:
            if out:
                out.close()
    except (UnsafeMachine, WorkerDied, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    wall = time.perf_counter() - started
    print(f"{len(lines)} rows, {correct} correct")
    for status, count in sorted(counts.items()):
        print(f"  {status:<20} {count}")
    print(f"{len(lines) / wall:.1f} rows/s" if wall else "0 rows/s")
    print(f"isolation: {isolation}")
    for fault in bad:
        print(escape_controls(fault), file=sys.stderr)
    if counts["bad_row"] > len(bad):
        print(f"and {counts['bad_row'] - len(bad)} more bad rows; --out FILE has them all", file=sys.stderr)
    return 1 if counts["bad_row"] else 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="one JSON object per line")
    parser.add_argument("--verifier", choices=("math", "code"), required=True)
    parser.add_argument("--bare", action="store_true", help="math: the prediction is the answer itself, not a response")
    parser.add_argument("--final-answer", action="store_true", help='math: read "The final answer is $...$", not a box')
    parser.add_argument(
        "--compat", action="store_true", help="code: one process, as published harnesses; can be forged"
    )
    parser.add_argument("--time-limit", type=float, help="seconds of one row (default: math 3, code 10)")
    parser.add_argument("--memory-mb", type=int, default=1024, help="code: address space of a program")
    parser.add_argument("--workers", type=int, help="rows graded at a time")
    parser.add_argument("--unsafe-exec", action="store_true", help="code: run even without sound isolation")
    parser.add_argument("--out", type=Path, help="one line per row, in order")
    return parser


Row = dict[str, Any]
Grader = Callable[[list[Row]], list[Row]]


def _math(options: argparse.Namespace) -> tuple[Grader, str]:
    form = "bare" if options.bare else "final_answer" if options.final_answer else "boxed"
    verifier = MathAnswer(form, options.time_limit or 3.0, options.workers)

    def grade(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        items = [
            (Problem(str(i), _field(row, "problem", ""), _field(row, "gold")), _field(row, "prediction"))
            for i, row in enumerate(rows)
        ]
        return [
            {
                "correct": verdict.correct,
                "status": verdict.status,
                "seconds": round(found.seconds, 6),
                "answer": verdict.answer,
                "rung": found.rung,
                "detail": found.detail,
            }
            for verdict, found in verifier.judge_all(items)
        ]

    return grade, f"{verifier.workers} killable math workers (address space and time bounded)"


def _code(options: argparse.Namespace) -> tuple[Grader, str]:
    mode = "compat" if options.compat else "split"
    verifier = CodeTests(options.time_limit or 10.0, options.memory_mb, mode, options.workers, options.unsafe_exec)
    isolation = verifier.isolation

    def grade(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        items = [
            (Problem(str(i), _field(row, "prompt", ""), answer_of(row)), _field(row, "program"))
            for i, row in enumerate(rows)
        ]
        return [
            {
                "correct": found.verdict.correct,
                "status": found.verdict.status,
                "seconds": round(found.seconds, 6),
                "mode": found.mode,
                "detail": found.reason,
            }
            for found in verifier.judge_all(items)
        ]

    return grade, isolation.level + ("" if isolation.safe else " (UNSAFE)") + f", {mode} mode"


def _field(row: dict[str, Any], name: str, default: str | None = None) -> str:
    value = row.get(name, default)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and name in ("gold", "prediction"):
        value = str(value)
    if not isinstance(value, str):
        found = (
            f"found {type(value).__name__}"
            if name in row
            else f"and the row has none; it has {', '.join(row) or 'no keys'}"
        )
        raise BadRow(f"{name!r} must be text, {found}")
    return value


def _inspect_math(row: Row) -> None:
    for name in ("gold", "prediction"):
        _field(row, name)
    _field(row, "problem", "")


def _inspect_code(row: Row) -> None:
    _field(row, "program")
    _field(row, "prompt", "")
    answer_of(row)


def _records(lines: Sequence[str], grade: Grader, inspect: Callable[[Row], None]) -> Iterator[Row]:
    """One record per line, in order; a chunk at a time, bad rows apart."""
    for start in range(0, len(lines), CHUNK):
        rows: list[dict[str, Any] | None] = []
        bad: dict[int, str] = {}
        for i, line in enumerate(lines[start : start + CHUNK]):
            try:
                rows.append(_row(line, inspect))
            except (BadRow, BadTests) as error:
                bad[i] = str(error)
                rows.append(None)
        done = iter(grade([row for row in rows if row is not None]))
        for i, row in enumerate(rows):
            if row is None:
                yield {"correct": False, "status": "bad_row", "seconds": 0.0, "error": f"row {start + i + 1}: {bad[i]}"}
            else:
                yield next(done)


def _row(line: str, inspect: Callable[[Row], None]) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"no JSON: {error}") from None
    if not isinstance(row, dict):
        raise BadRow(f"a row is an object, not {type(row).__name__}")
    inspect(row)
    return row


if __name__ == "__main__":
    sys.exit(main())
