"""`python -m harness.mechanism RESULTS`: what the updates of the runs were made of."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.analysis.mechanism import render_markdown
from harness.metrics import MetricError
from harness.runs import reader


def main(argv: Sequence[str] | None = None, prog: str = "python -m harness.mechanism") -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", help="the results folder")
    parser.add_argument("--out", type=Path, help="write to this file instead of the screen")
    options = parser.parse_args(argv)
    try:
        runs, troubles = reader.read_runs(options.results, whens=("after",))
    except (OSError, MetricError) as error:
        print(f"mechanism: {error}", file=sys.stderr)
        return 2
    for trouble in troubles:
        print(f"left out: {trouble.path}: {trouble.message}", file=sys.stderr)
    text = render_markdown(runs, Path(options.results).as_posix())
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8", newline="\n")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
