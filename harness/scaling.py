"""`python -m harness.scaling RESULTS`: parallel samples against corrections at equal budget."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.analysis.scaling import as_json, curves, markdown
from harness.metrics import MetricError
from harness.runs import reader
from harness.terminal import inert


def main(argv: Sequence[str] | None = None, prog: str = "python -m harness.scaling") -> int:
    """The command line; returns the exit status."""
    from harness.analysis import tables

    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", help="the results folder")
    parser.add_argument("--row", action="append", default=[], help="only this row; repeatable")
    parser.add_argument("--format", choices=("md", "json"), default="md")
    parser.add_argument("--out", type=Path, help="write to this file instead of the screen")
    options = parser.parse_args(argv)
    try:
        runs, troubles = reader.read_runs(options.results, whens=("after",))
        wanted = [run for run in runs if not options.row or run.name in options.row]
        tables.deliver({"md": markdown, "json": as_json}[options.format](curves(wanted)), options.out)
    except (OSError, MetricError) as error:
        print(f"scaling: {inert(error)}", file=sys.stderr)
        return 2
    for trouble in troubles:
        print(inert(trouble), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
