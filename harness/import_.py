"""`python -m harness.import_ FILE --name mine --task math --updates 9`: trajectories of other programs as runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.config import ConfigError
from harness.grading import GradingError
from harness.runs.store import StoreError
from harness.terminal import escape_controls
from harness.tools.importing import FORMS, ImportFault, Request, import_run

EPILOG = """examples:
  {prog} mine.jsonl --name mine --task arithmetic --updates 200
  {prog} completions/completions_00010.parquet --name grpo --task math --gin math --updates 10
  {prog} rollouts/10.jsonl --name verl --task arithmetic --updates 10 --temperature 1
  {prog} 2026-01-01_gsm8k.eval --name critique --task gsm8k --verdicts --updates 0

Formats: docs/bring_your_own_trajectories.md. The run is graded by the task's verifier unless --verdicts is given.
"""


def main(argv: Sequence[str] | None = None, prog: str = "python -m harness.import_") -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Makes one run, which tables and figures show like any other, of trajectories of other programs.",
        epilog=EPILOG.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".jsonl, .json, .parquet or .eval")
    parser.add_argument("--name", required=True, help="the row")
    parser.add_argument("--task", required=True, help="the task that has the problems; with --verdicts, any name")
    parser.add_argument(
        "--updates", type=int, required=True, metavar="N", help="updates of the training behind it; 0 of none"
    )
    parser.add_argument("--responses", type=int, metavar="N", help="responses that the training sampled, where known")
    parser.add_argument("--parent", default="", metavar="ROW", help="the row that tables compare it with, such as base")
    parser.add_argument("--seed", type=int, default=0, help="of the training (0)")
    parser.add_argument("--out", type=Path, default=Path("results/runs"), help="the results folder (results/runs)")
    parser.add_argument("--format", choices=("auto", *FORMS, "inspect"), default="auto")
    parser.add_argument("--verdicts", action="store_true", help="take the file's verdicts instead of grading")
    parser.add_argument("--verifier", default="", help="of the task: math, code, exact, ...")
    parser.add_argument("--gin", action="append", default=[], metavar="FILE", help="gin file of the task; repeatable")
    parser.add_argument("--bind", action="append", default=[], metavar="BINDING", help="one binding; repeatable")
    parser.add_argument("--model", default="", help="the model behind it: rows of one model stand in one table")
    parser.add_argument("--policy", default="imported", help="name of the folder (imported)")
    parser.add_argument("--temperature", type=float, metavar="T", help="where the file does not say")
    parser.add_argument("--split", choices=("test", "validation", "train"), default="test")
    parser.add_argument("--step", type=int, metavar="N", help="of the training, where the files hold several")
    options = vars(parser.parse_args(argv))
    files, out, form = options.pop("files"), options.pop("out"), options.pop("format")
    try:
        folder = import_run(files, Request(**options), out, form)
    except (ImportFault, ConfigError, GradingError, StoreError, OSError) as error:
        print(f"import: {escape_controls(error, newlines=True)}", file=sys.stderr)
        return 2
    print(escape_controls(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
