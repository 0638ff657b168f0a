"""`python -m harness.same ROW ROW`: are two rows the same gradient, exactly, in expectation, or not?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import config
from harness.runs import reader
from harness.tools.same import build_row, compare_rows, render_page, row_names
from harness.training.experiment import Experiment


def main(argv: Sequence[str] | None = None, prog: str = "python -m harness.same") -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python -m harness.same score_full score_turn2_weight\n"
        "  python -m harness.same naive_multi_turn_rl naive_last_reward \\\n"
        "      --bind-first 'naive_multi_turn_rl.scale = (0.0, 1.0)'\n"
        "  python -m harness.same --all --out results/equivalences.md",
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="two names of gin/, or paths of gin files")
    parser.add_argument("--all", action="store_true", help="every pair of the rows of gin/, as a Markdown page")
    parser.add_argument("--bind", action="append", default=[], metavar="BINDING", help="for all rows; repeatable")
    parser.add_argument("--bind-first", action="append", default=[], metavar="BINDING", help="for the first row alone")
    parser.add_argument(
        "--bind-second", action="append", default=[], metavar="BINDING", help="for the second row alone"
    )
    parser.add_argument(
        "--records", type=Path, metavar="RUN", help="a run folder whose sampled trajectories are the large batch"
    )
    parser.add_argument("--out", type=Path, help="write to this file instead of the screen")
    options = parser.parse_args(argv)
    if options.all == bool(options.rows) or (options.rows and len(options.rows) != 2):
        parser.error("give two rows, or --all")
    try:
        config.prepare_gin(Experiment, "run")
        records = reader.read_records(options.records) if options.records else None
        if options.all:
            text = render_page([build_row(row, options.bind, records) for row in row_names()])
        else:
            own = options.bind_first, options.bind_second
            pair = [build_row(r, [*options.bind, *mine], records) for r, mine in zip(options.rows, own, strict=True)]
            text = "\n".join(compare_rows(*pair)) + "\n"
    except (ValueError, OSError) as error:
        print(f"same: {error}", file=sys.stderr)
        return 2
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8", newline="\n")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
