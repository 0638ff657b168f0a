"""`python -m harness.plots RESULTS`: the figures of a results folder."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.analysis.terms import FIGURE_NAMES, METRIC_AXES
from harness.metrics import MetricError
from harness.terminal import escape_controls


def main(argv: Sequence[str] | None = None, prog: str = "python -m harness.plots") -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Draws every figure that the results can fill, as PDF and PNG, and says what the others lack.",
        epilog="example: python -m harness.plots results/ --out figures/ --only accuracy --rows base --rows 'score_*'",
    )
    parser.add_argument("results", help="the results folder")
    parser.add_argument("--out", type=Path, default=Path("figures"))
    parser.add_argument("--only", action="append", default=[], choices=FIGURE_NAMES, help="this figure; repeatable")
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        choices=list(METRIC_AXES),
        metavar="NAME",
        help=f"one quantity by row, with intervals; repeatable: {', '.join(METRIC_AXES)}",
    )
    parser.add_argument(
        "--rows",
        action="append",
        default=[],
        metavar="PATTERN",
        help="draw these rows only, as score_full or 'score_*'; repeatable. A row keeps its colour",
    )
    parser.add_argument("--no-titles", action="store_true", help="no title above a figure: for a paper with captions")
    options = parser.parse_args(argv)
    import matplotlib as mpl  # here, as matplotlib takes longer to import than --help may take
    import matplotlib.pyplot as plt

    from harness.analysis import tables
    from harness.analysis.plots import Missing, draw_figures, folder_of, read_scopes, save_figure

    mpl.use("Agg")
    try:
        found, board = read_scopes(options.results)
    except (OSError, MetricError) as error:
        print(f"plots: {escape_controls(error)}", file=sys.stderr)
        return 2
    found = [dataclasses.replace(scope, chosen=tuple(options.rows)) for scope in found]
    if found and not any(scope.rows for scope in found):
        names = sorted({row.name for scope in found for row in scope.section.rows})
        print(
            escape_controls(f"plots: no row is called {', '.join(options.rows)}; there are {', '.join(names)}"),
            file=sys.stderr,
        )
        return 2
    for trouble in board.troubles:
        print(escape_controls(trouble), file=sys.stderr)
    for scope in found:
        folder = options.out / folder_of(scope, found)
        for name, drawn in draw_figures(scope, options.only, options.metric, titled=not options.no_titles):
            if isinstance(drawn, Missing):
                tables.write_output(
                    escape_controls(f"not drawn: {(folder / name).relative_to(options.out)}: {drawn}") + "\n"
                )
                continue
            try:
                tables.write_output(escape_controls(" ".join(map(str, save_figure(drawn, folder / name)))) + "\n")
            except OSError as error:
                print(f"plots: {escape_controls(error)}", file=sys.stderr)
                return 2
            plt.close(drawn)
    if not found:
        tables.write_output("no finished run was found: nothing to draw\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
