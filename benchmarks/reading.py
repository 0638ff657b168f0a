"""How long the leaderboard takes over many runs: `python -m benchmarks.reading [--runs 1000] [--problems 500]`.

Writes synthetic run folders (200 rows x 5 seeds by default, greedy evaluation before and after training, two attempts)
to a temporary folder, then builds the leaderboard, several times, each in a fresh process limited to one core, and
prints its CPU time, wall time and peak memory, beside what the same core needed for twenty million additions in plain
Python: seconds mean little without the machine. The aim: 1,000 runs x 500 problems in under 10 s and 1 GB on one core;
the exit status says whether the median of the rounds met it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.runs import integrity

ROOT = Path(__file__).parents[1]
SEEDS, LIMIT_S, LIMIT_GB = 5, 10.0, 1.0
ADDITIONS = "n = 0\nfor i in range(20_000_000):\n    n += i"


def attempt(rng: random.Random, right: float) -> dict[str, Any]:
    """One attempt of realistic length (about 120 characters)."""
    correct = rng.random() < right
    a, b = rng.randint(100, 999), rng.randint(2, 9)
    answer = str(a * b + (0 if correct else rng.choice([-10, -1, 1, 10])))
    text = f"We split ${a} \\times {b}$ into ${a // 10 * 10} \\times {b} + {a % 10} \\times {b}$, which adds up to "
    text += f"${answer}$. \\boxed{{{answer}}}"
    return {"text": text, "answer": answer, "reward": float(correct), "correct": correct, "status": "ok",
            "tokens": len(text) // 3, "truncated": False, "by": "policy"}  # fmt: skip


def lines(rng: random.Random, when: str, problems: int) -> str:
    """The eval.jsonl lines of one evaluation."""
    rows = (
        {"when": when, "task": "bench", "id": f"test-{p:05}", "sample": 0, "temperature": 0.0,
         "attempts": [attempt(rng, 0.5), attempt(rng, 0.6)]}
        for p in range(problems)
    )  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in rows)


def integrity_of(folder: Path, problems: int) -> dict[str, Any]:
    """What run.json says of a finished run's files, as the writer has it: readers compare."""
    records = {f"{when} bench test T=0 policy 2": problems for when in ("before", "after")}
    return {"records": records, "sha256": integrity.hash_files(folder, integrity.READ)}


def write(root: Path, runs: int, problems: int) -> int:
    """Writes the run folders; twenty different evaluations are dealt out among them. Returns bytes of eval.jsonl."""
    rng, size, dealt = random.Random(0), 0, []
    before, decks = lines(rng, "before", problems), [lines(rng, "after", problems) for _ in range(20)]
    for run in range(runs):
        name, seed = f"row{run // SEEDS:03}", run % SEEDS + 1
        folder = root / "runs" / "bench" / "tiny" / name / f"seed{seed}"
        folder.mkdir(parents=True)
        info = {"format": 1, "name": name, "task": "bench", "task_version": "1", "policy": "tiny", "seed": seed,
                "status": "done", "spent": {"responses": 1, "updates": 1}, "eval_tasks": {"bench": "1"}}  # fmt: skip
        (folder / "config.gin").write_text(f"run.name = '{name}'\nrun.seed = {seed}\n")
        if run % SEEDS == 0:
            dealt = rng.sample(decks, SEEDS)  # two seeds of one row with the same records would be a copy
        (folder / "eval.jsonl").write_text(text := before + dealt[run % SEEDS])
        (folder / "run.json").write_text(json.dumps({**info, **integrity_of(folder, problems)}))
        size += len(text)
    return size


def measure(command: list[str]) -> tuple[float, float, float]:
    """Runs a command on one core with one thread: seconds of CPU, seconds of wall clock, peak GB."""
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    begin = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **threads}, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with status {process.returncode}")
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    return used.ru_utime + used.ru_stime, time.perf_counter() - begin, peak


def main() -> int:
    """Writes, measures, prints; 0 when both limits hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # children inherit it
    with tempfile.TemporaryDirectory() as folder:
        size = write(Path(folder), options.runs, options.problems)
        os.sync()  # writing them back to the disk is not what is measured
        print(f"{options.runs} runs x {options.problems} problems, before and after: {size / 1e6:.0f} MB of eval.jsonl")
        board = [sys.executable, "-m", "harness.leaderboard", folder, "--format", "csv", "--out", f"{folder}/board.csv"]
        rounds = []
        for _ in range(options.rounds):
            pace = measure([sys.executable, "-c", ADDITIONS])[0]
            cpu, wall, peak = measure(board)
            rounds.append((cpu, wall, peak))
            print(
                f"leaderboard: {cpu:.1f} s CPU, {wall:.1f} s wall on one core, peak {peak:.2f} GB "
                f"(twenty million additions: {pace:.2f} s CPU)",
                flush=True,
            )
    cpu, _, peak = map(statistics.median, zip(*rounds, strict=True))
    met = cpu < LIMIT_S and peak < LIMIT_GB
    print(f"median {cpu:.1f} s CPU, {peak:.2f} GB: {'under' if met else 'NOT under'} {LIMIT_S:g} s and {LIMIT_GB:g} GB")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
