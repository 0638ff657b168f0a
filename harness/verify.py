"""`python -m harness.verify RUN_FOLDER [RUN_FOLDER ...]`: grades the saved answers of runs again and compares."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from harness.runs import archive, reader
from harness.terminal import escape_controls, make_table_console
from harness.training.verify import verify_run

EPILOG = """exit status:
  0  every verdict, count and file is what it was
  1  something differs (it is printed)
  2  a run could not be checked: no finished run there, a damaged file, other problems or another grader than it saw
"""
SHOWN = 5  # differences printed of one run


def main(argv: Sequence[str] | None = None, prog: str = "python -m harness.verify") -> int:
    """Checks runs and prints a table; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Grades the saved answers of finished runs again, with each run's own task and verifier, and "
        "compares verdicts, numbers of records and SHA-256 of files. Writes nothing.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, .../<name>/seed<k>, or an archive"
    )
    parser.add_argument(
        "--trust", action="store_true",
        help="let the runs' own config.gin import modules and switch the sandbox off: it then executes code",
    )  # fmt: skip
    options = parser.parse_args(argv)
    table, told, worst = Table(box=None, pad_edge=False), [], 0
    for column in ("run", "records", "attempts graded", "verdicts differ", "counts", "files", "result"):
        table.add_column(column, overflow="fold", justify="left" if column in ("run", "result") else "right")
    try:
        runs = [run for path in options.runs for run in ([path] if path.is_dir() else _archived(path))]
    except archive.ArchiveError as error:
        print(f"verify: {escape_controls(error)}", file=sys.stderr)
        return 2
    for run in runs:
        folder = archive.show_path(run)
        try:
            report = verify_run(run, options.trust)
        except (ValueError, OSError, RuntimeError) as error:  # StoreError, ConfigError, GradingError
            worst = 2
            table.add_row(Text(str(folder)), *["-"] * 5, "not checked")
            told.append((folder, [str(error)]))
            continue
        same = not report.differences
        worst = max(worst, 0 if same else 1)
        counts, files = (_cell(found, report.hashed) for found in (report.counts, report.files))
        numbers = (str(report.records), str(report.graded), str(len(report.verdicts)), counts, files)
        table.add_row(Text(str(folder)), *numbers, "the same" if same else "differs")
        told += [] if same else [(folder, report.differences)]
    console = make_table_console()
    console.print(table)
    for folder, sentences in told:
        shown = [*sentences[:SHOWN], *([f"and {len(sentences) - SHOWN} more"] if len(sentences) > SHOWN else [])]
        console.print(Text("\n  ".join([f"{folder}:", *map(escape_controls, shown)])), soft_wrap=True)
    return worst


def _archived(path: Path) -> list[Path]:
    """The runs of an archive, or of a place in one; any other path as it is, which `verify_run` then has no run in."""
    found = archive.find_folder(path)
    return [path] if found == path else reader.find_runs(path)


def _cell(found: Sequence[str], hashed: bool) -> str:
    return str(len(found)) if hashed else "not recorded"


if __name__ == "__main__":
    sys.exit(main())
