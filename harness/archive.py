"""`python -m harness.archive RESULTS --out study.parquet`: a results folder as one file, and back with `--expand`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.runs import archive, reader
from harness.terminal import escape_controls

EPILOG = """examples:
  {prog} results/embedded --out study.parquet      every run's run.json, config.gin, metrics.jsonl, eval.jsonl
  {prog} study.parquet --expand results/again      the same bytes, file by file

Every command that reads results takes the archive in place of a folder, or finds it inside one.
"""


def main(argv: Sequence[str] | None = None, prog: str = "python -m harness.archive") -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Writes the runs of a results folder into one Parquet file, or such a file's runs into a folder.",
        epilog=EPILOG.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, help="the results folder; with --expand, the archive")
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--out", type=Path, metavar="FILE", help="the archive to write; its name ends in .parquet")
    goal.add_argument("--expand", type=Path, metavar="FOLDER", help="write the archive's runs below this new folder")
    options = parser.parse_args(argv)
    try:
        if options.expand:
            count = archive.expand_archive(options.results, options.expand)
            print(escape_controls(f"{options.expand}: {count} files"))
            return 0
        if options.out.suffix != archive.SUFFIX:
            parser.error(f"--out: an archive's name ends in {archive.SUFFIX}: readers look for that")
        runs = reader.find_runs(options.results)
        count = archive.write_archive(runs, options.results, options.out)
    except OSError as error:
        print(f"archive: {escape_controls(error)}", file=sys.stderr)
        return 2
    size = options.out.stat().st_size
    print(escape_controls(f"{options.out}: {len(runs)} runs, {count} files, {size / 1e6:.1f} MB"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
