"""`python -m harness.scaling RESULTS`: parallel samples against corrections at equal budget."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.analysis.scaling import as_json, render_markdown, scaling_curves
from harness.metrics import MetricError
from harness.runs import reader
from harness.terminal import escape_controls


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
        tables.write_output(
            {"md": render_markdown, "json": as_json}[options.format](scaling_curves(wanted)), options.out
        )
    except (OSError, MetricError) as error:
        print(f"scaling: {escape_controls(error)}", file=sys.stderr)
        return 2
    for trouble in troubles:
        print(escape_controls(trouble), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
