"""`python -m harness.export RUN --format inspect --out FOLDER`: a run's evaluations in other programs' formats."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.analysis import tables
from harness.terminal import escape_controls
from harness.tools.exporting import FORMATS, ExportFault, export_run


def main(argv: Sequence[str] | None = None, prog: str = "python -m harness.export") -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Writes each evaluation of a finished run as a log of inspect_ai or as lighteval's details.",
        epilog=f"example: {prog} results/embedded/arithmetic/arithmetic/score_full/seed0 --format inspect --out logs",
    )
    parser.add_argument("run", type=Path, help="the run's folder, or its place in an archive")
    parser.add_argument("--format", required=True, choices=sorted(FORMATS))
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the files go")
    options = parser.parse_args(argv)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        written = export_run(options.run, options.format, options.out)
    except (ExportFault, OSError) as error:
        print(f"export: {escape_controls(error)}", file=sys.stderr)
        return 2
    tables.write_output("".join(escape_controls(path) + "\n" for path in written))
    return 0


if __name__ == "__main__":
    sys.exit(main())
