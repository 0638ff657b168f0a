"""What a user waits for besides training: `python -m benchmarks.waits` writes benchmarks/results/waits.md and .json.

- `--help` of every command, which is what a command needs before it does anything;
- the tables, the figures and the page of a results folder (`--runs` runs of `--problems` problems, made up);
- an evaluation of 5,000 problems: the base row on the embedded model, two attempts, greedy.

Each in a fresh process of one thread on one core: CPU seconds, wall seconds and peak memory, median of `--rounds`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import reading
from harness.cli import COMMANDS
from harness.machine import cpu_name

RESULTS = Path(__file__).parent / "results"


def waits(runs: int, problems: int, evaluated: int, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """(what is waited for, its command line), in order; results folders are made when they are reached."""
    for name, (module, _) in COMMANDS.items():
        if module:
            yield f"{name} --help", ["-m", module, "--help"]
    large, few = folder / "large", max(1, runs // 10)
    reading.write(large, runs, problems)
    yield (
        f"leaderboard of {runs:,} runs x {problems} problems",
        ["-m", "harness.leaderboard", str(large), "--format", "csv"],
    )
    small = folder / "small"
    reading.write(small, few, problems)
    yield (
        f"plots of {few} runs x {problems} problems",
        ["-m", "harness.plots", str(small), "--out", str(folder / "figures")],
    )
    page = ["-m", "harness.report", str(small), "--out", str(folder / "page.html")]
    yield f"report of {few} runs x {problems} problems", page
    yield f"report of {few} runs x {problems} problems, no figures", [*page, "--no-figures"]
    # The embedded task has 2,000 test problems: all but one of these are training problems, asked in the same way.
    bind = ["arithmetic.test_size = 1", "run.evaluations = [@evaluation.train()]", f"train.problems = {evaluated - 1}"]
    words = ["-m", "harness.run", "--gin", "gin/base.gin", "--device", "cpu", "--out", str(folder / "runs")]
    yield (
        f"evaluation of {evaluated:,} problems",
        [*words, *(w for b in bind for w in ("--bind", b)), "--seed", "{round}"],
    )


def table(found: Sequence[dict[str, Any]]) -> str:
    """Medians, as Markdown."""
    lines = ["| waited for | CPU s | wall s | peak GB |", "|---|--:|--:|--:|"]
    for one in found:
        cpu, wall, peak = (statistics.median(values) for values in zip(*one["rounds"], strict=True))
        lines.append(f"| {one['name']} | {cpu:.2f} | {wall:.2f} | {peak:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--evaluated", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default=str(RESULTS / "waits"), help="where .json and .md are written")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # children inherit it
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, words in waits(args.runs, args.problems, args.evaluated, Path(folder)):
            os.sync()  # writing results back to the disk is not what is measured
            rounds = [
                reading.measure([sys.executable, *(word.replace("{round}", str(number)) for word in words)])
                for number in range(args.rounds)
            ]
            found.append({"name": name, "rounds": [[round(value, 3) for value in one] for one in rounds]})
            print(table(found[-1:]).splitlines()[-1], flush=True)
    about = {"cpu": cpu_name(), "rounds": args.rounds, "load": os.getloadavg()[0]}
    told = f"`python -m benchmarks.waits`: {about['cpu']}, one core; median of {args.rounds} rounds"
    told += f"; load {about['load']:.1f}"
    Path(f"{args.out}.json").write_text(json.dumps({**about, "waits": found}, indent=1) + "\n")
    Path(f"{args.out}.md").write_text(f"{told}\n\n{table(found)}\n")


if __name__ == "__main__":
    main()
