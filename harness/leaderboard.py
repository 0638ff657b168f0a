"""`python -m harness.leaderboard RESULTS`: the tables of a results folder."""

from __future__ import annotations

import argparse
import difflib
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from harness.analysis.leaderboard import GIN, build_board
from harness.analysis.screen import print_board
from harness.metrics import MetricError
from harness.metrics.stats import MARGIN
from harness.terminal import escape_controls


def main(argv: Sequence[str] | None = None, prog: str = "python -m harness.leaderboard") -> int:
    """The command line; returns the exit status."""
    from harness.analysis import tables

    parser = argparse.ArgumentParser(
        prog=prog,
        description="Tables of all finished runs, every number recomputed from eval.jsonl.",
        epilog="example: python -m harness.leaderboard results/ --format md --out results/leaderboard.md",
    )
    parser.add_argument("results", help="the results folder")
    parser.add_argument(
        "--format", choices=sorted(tables.FORMATS),
        help="default: tables that fit the terminal, and Markdown where the output is a file or a pipe",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="write to this file instead of the screen")
    parser.add_argument("--check", type=Path, metavar="FILE", help="compare with FILE; exit 1 and show how it differs")
    parser.add_argument("--gin", type=Path, default=GIN, help="folder of the gin files (for 'difference from parent')")
    parser.add_argument(
        "--margin", type=_points, default=MARGIN, metavar="POINTS",
        help=f"points of accuracy within which two rows count as the same (default: {100 * MARGIN:g})",
    )  # fmt: skip
    options = parser.parse_args(argv)
    held = ""
    try:
        board = build_board(options.results, gin=options.gin, margin=options.margin)
        if not (options.format or options.out or options.check) and sys.stdout.isatty():
            print_board(board, Console(highlight=False))
            return 0
        text = tables.FORMATS[options.format or "md"](board)
        if options.check:
            held = options.check.read_text(encoding="utf-8")
        if not options.check:
            tables.write_output(text, options.out)
    except (OSError, UnicodeDecodeError, MetricError) as error:  # the latter: --check of a file that is no text
        print(f"leaderboard: {escape_controls(error)}", file=sys.stderr)
        return 2
    if options.check:
        change = list(
            difflib.unified_diff(held.splitlines(), text.splitlines(), str(options.check), "now", lineterm="")
        )
        change = change or [f"{options.check} is what the runs give"]
        tables.write_output(escape_controls("\n".join(change), newlines=True) + "\n")
        return 1 if held != text else 0
    return 0


def _points(text: str) -> float:
    """Points of accuracy, more than 0 and less than 100, as a fraction."""
    try:
        points = float(text)
    except ValueError:
        points = math.nan
    if not 0 < points < 100:
        raise argparse.ArgumentTypeError(f"{escape_controls(text)!r} is no number of points between 0 and 100")
    return points / 100


if __name__ == "__main__":
    sys.exit(main())
