"""`python -m harness.tune --gin gin/tune/embedded.gin`: the same trials on validation for every row, one rule.

Writes, below --out: `trials/` (a run for every row, value and seed), `tuning.md` and `tuning.pdf` (how sensitive each
row is, and what k trials are worth), and `rows/ROW.gin` with the picked value, for the comparison that follows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import config
from harness.runs.store import write_atomic
from harness.terminal import describe_broken_plugin, escape_controls
from harness.training.experiment import Experiment
from harness.training.tuning import Tune

EPILOG = """exit status: 0 every row has its value, 1 trials failed or are missing (the same command goes on), 2 a
mistake, 130 interrupted. What follows: python -m harness.suite with suite.rows = ['OUT/rows/ROW.gin', ...]
"""


def main(argv: Sequence[str] | None = None, prog: str = "python -m harness.tune") -> int:
    """Runs the command line; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gin", action="append", required=True, metavar="FILE", help="file that binds tune.NAME")
    parser.add_argument("--bind", action="append", default=[], metavar="'NAME = VALUE'", help="one binding; repeatable")
    parser.add_argument("--out", type=Path, default=Path("results/tuning"), help="folder (default: results/tuning)")
    parser.add_argument("--jobs", type=int, help="as in harness.suite")
    parser.add_argument("--device", default="auto", help="as in harness.run")
    parser.add_argument("--unsafe-exec", action="store_true", help="as in harness.run")
    parser.add_argument("--status", action="store_true", help="print where every trial stands and stop")
    options = parser.parse_args(argv)
    from harness.analysis import tuned  # draws with matplotlib, which takes a while to import

    try:
        for root, name in ((Experiment, "run"), (Tune, "tune")):
            broken = config.prepare_gin(root, name)
        for plugin, error in broken.items():
            print(describe_broken_plugin(plugin, error), file=sys.stderr)
        config.parse_gin(options.gin, options.bind)
        tune: Tune = config.build_root("tune")
        suite = tune.write_suite(options.out)
    except (config.ConfigError, ValueError, OSError) as error:
        print(f"error: {escape_controls(error, newlines=True)}", file=sys.stderr)
        return 2
    command = [sys.executable, "-m", "harness.suite", "--gin", str(suite), "--out", str(options.out / "trials")]
    command += ["--device", options.device, *(["--jobs", str(options.jobs)] if options.jobs else [])]
    command += ["--unsafe-exec"] if options.unsafe_exec else []
    if options.status:
        return subprocess.call([*command, "--status"])
    try:
        status = subprocess.call(command)
    except KeyboardInterrupt:
        return 130
    if status in (2, 130):
        return status
    names = {tune.name(row, value): (row, value) for row, _, value in tune.trials}
    rows, missing = tuned.read_trials(options.out / "trials", names, tune.seeds, tune.metric)
    text = tuned.markdown(rows, missing, tune.parameter, tune.metric)
    write_atomic(options.out / "tuning.md", text)
    print(escape_controls(text, newlines=True), end="")
    if rows:
        tuned.draw_sensitivity(rows, tune.parameter, tune.metric).savefig(
            options.out / "tuning.pdf", metadata={"CreationDate": None}
        )
    for row in rows:
        told = tuned.describe_choice(row, tune.parameter, tune.metric)
        print(f"{tune.write_row(options.out / 'rows', row.row, row.picked, told)}: {escape_controls(told)}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
