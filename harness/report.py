"""`python -m harness.report RESULTS`: one HTML page of a results folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.metrics import MetricError
from harness.runs.format1 import GIN
from harness.terminal import escape_controls


def main(argv: Sequence[str] | None = None, prog: str = "python -m harness.report") -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog, description="One self-contained HTML page: tables, figures, trajectories."
    )
    parser.add_argument("results", help="the results folder")
    parser.add_argument(
        "--out", type=Path, help="the page (default: report.html in the results folder, FILE.html beside an archive)"
    )
    parser.add_argument("--gin", type=Path, default=GIN, help="folder of the gin files")
    parser.add_argument("--trajectories", type=int, default=200, metavar="N", help="problems per run to embed (200)")
    parser.add_argument("--no-figures", action="store_true", help="leave the figures out (much faster)")
    options = parser.parse_args(argv)
    import matplotlib as mpl  # here, as matplotlib takes longer to import than --help may take

    from harness.analysis import tables
    from harness.analysis.report import build_report

    mpl.use("Agg")
    try:
        page = build_report(
            options.results, gin=options.gin, trajectories=options.trajectories, figures=not options.no_figures
        )  # fmt: skip
        results = Path(options.results)
        out = options.out or (results / "report.html" if results.is_dir() else results.with_suffix(".html"))
        tables.write_output(page, out)
    except (OSError, MetricError) as error:
        print(f"report: {escape_controls(error)}", file=sys.stderr)
        return 2
    tables.write_output(escape_controls(f"{out} ({len(page.encode()) / 1e6:.1f} MB)") + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
