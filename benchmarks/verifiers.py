"""Speed of both verifiers beside peers, interleaved in one run: `python benchmarks/verifiers.py [--data DIR]`.

Math: answers/s against plain math-verify (parse and verify of the same bare answers in this process, its timeouts on).
Code: programs/s of one worker, all isolation layers on, against a thin re-creation of openai/human-eval's runner
(a Manager and a Process per program, no isolation). Without the real data an embedded workload is used, and said so.

Both sides run one thing at a time. Each round measures ours, peer, peer, ours, so that a drifting machine hits both
alike, in wall time and in CPU time of this process with all its descendants; ratios are medians over the rounds. On a
busy machine trust the CPU ratio: it is what one core would do.

Not covered: accuracy (see tests/verifiers); several cores.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import multiprocessing
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO))

from harness.core import Problem  # noqa: E402
from verifiers.code_tests import CodeTests, answer_of  # noqa: E402
from verifiers.math import answer_parts, answer_text, answer_words, latex_math, real_sets  # noqa: E402
from verifiers.math_answer import MathAnswer  # noqa: E402
from verifiers.sandbox.pool import Sandbox  # noqa: E402

Pair = tuple[str, str]


def math_verify_alone(pairs: list[Pair]) -> int:
    """Plain math-verify with its own timeouts, as its README shows."""
    from math_verify import parse, verify

    return sum(bool(verify(parse(f"${gold}$"), parse(f"${given}$"))) for gold, given in pairs)


def ours(pairs: list[Pair]) -> int:
    """Our ladder with empty caches and one worker that is already running (its own caches are warm after round 1)."""
    for module in (answer_parts, answer_text, answer_words, latex_math, real_sets):
        for function in vars(module).values():
            if hasattr(function, "cache_clear"):
                function.cache_clear()
    verifier = MathAnswer("bare", workers=1)
    verdicts = verifier.batch([(Problem("", "", gold), given) for gold, given in pairs])
    return sum(verdict.correct for verdict in verdicts)


def run_guarded(source: str, result: Any, timeout: float) -> None:
    """What human-eval's child does: exec the joined program in an empty folder, silenced, under a timer."""

    def late(*_: Any) -> None:
        raise TimeoutError

    with tempfile.TemporaryDirectory() as folder:
        here = os.getcwd()
        os.chdir(folder)
        signal.signal(signal.SIGALRM, late)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                signal.setitimer(signal.ITIMER_REAL, timeout)
                try:
                    exec(source, {})
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            result.append("passed")
        except BaseException as error:
            result.append(f"failed: {error}")
        os.chdir(here)


def human_eval_alone(rows: list[dict[str, Any]]) -> int:
    """A Manager and a Process per program, as openai/human-eval's check_correctness, whose runner also loads numpy."""
    import numpy  # noqa: F401

    passed = 0
    for row in rows:
        source = f"{row['prompt']}{row['program']}\n{row['test']}\ncheck({row['entry_point']})"
        with multiprocessing.Manager() as manager:
            result = manager.list()
            process = multiprocessing.Process(target=run_guarded, args=(source, result, 10.0))
            process.start()
            process.join(timeout=11)
            if process.is_alive():
                process.kill()
            passed += list(result) == ["passed"]
    return passed


def family() -> list[int]:
    """This process and all its living descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def cpu() -> float:
    """CPU seconds of the family so far, those of its buried members included."""
    ticks = 0
    for pid in family():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def timed(work: Callable[[], int]) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds and the result."""
    spent, started = cpu(), time.perf_counter()
    answer = work()
    wall = time.perf_counter() - started
    return wall, max(cpu() - spent, 1 / os.sysconf("SC_CLK_TCK")), answer  # less than a tick reads as nothing


def compare(name: str, count: int, ours: Callable[[], int], peer: Callable[[], int], rounds: int) -> dict[str, Any]:
    """Measures both sides in the order A B B A, `rounds` times."""
    results = {"ours": 0, "peer": 0}
    walls: list[tuple[float, float]] = []
    cpus: list[tuple[float, float]] = []
    for _ in range(rounds):
        wall, spent = {"ours": 0.0, "peer": 0.0}, {"ours": 0.0, "peer": 0.0}
        for side, work in (("ours", ours), ("peer", peer), ("peer", peer), ("ours", ours)):
            took, busy, results[side] = timed(work)
            wall[side] += took / 2
            spent[side] += busy / 2
        walls.append((wall["ours"], wall["peer"]))
        cpus.append((spent["ours"], spent["peer"]))
    record: dict[str, Any] = {"what": name, "items": count, "load": round(os.getloadavg()[0], 1)}
    for kind, times in (("wall", walls), ("cpu", cpus)):
        ratios = [theirs / mine for mine, theirs in times]
        record[kind] = {
            "ours_per_s": round(count / statistics.median(mine for mine, _ in times), 1),
            "peer_per_s": round(count / statistics.median(theirs for _, theirs in times), 1),
            "ratio": round(statistics.median(ratios), 2),
            "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        }
    return record | {"ours_right": results["ours"], "peer_right": results["peer"]}


def processor() -> str:
    """The processor's name where Linux tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def math_pairs(folder: Path) -> tuple[dict[str, list[Pair]], str]:
    path = folder / "math500_answers.jsonl"
    if path.exists():
        gold = [json.loads(line)["answer"] for line in path.read_text().splitlines()]
        turned = gold[1:] + gold[:1]
        return {"equal": list(zip(gold, gold, strict=True)), "unequal": list(zip(gold, turned, strict=True))}, path.name
    table = REPO / "tests" / "verifiers" / "answer_pairs.tsv"
    rows = [line.split("\t") for line in table.read_text().splitlines() if line and line[0] != "#"]
    split = {
        "equal": [(r[2], r[3]) for r in rows if r[1] == "="],
        "unequal": [(r[2], r[3]) for r in rows if r[1] == "!"],
    }
    return split, table.name


def programs(folder: Path) -> tuple[list[dict[str, Any]], str]:
    path = folder / "humaneval.jsonl"
    if path.exists():
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [row | {"program": row["canonical_solution"]} for row in rows], path.name
    rows = [
        {
            "prompt": f"def f{i}(xs):\n",
            "program": f"    return sorted(x * {i} for x in xs)\n",
            "entry_point": f"f{i}",
            "test": "def check(c):\n"
            + "".join(f"    assert c([{k}, 1]) == sorted([{k * i}, {i}])\n" for k in range(8)),
        }
        for i in range(100)
    ]
    return rows, "embedded programs"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=REPO.parent / "shared" / "data", help="folder of the real data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every", type=int, default=1, help="use every n-th item (a quick look)")
    parser.add_argument("--only", choices=("math", "code"), help="one verifier alone")
    parser.add_argument("--out", type=Path, default=REPO / "benchmarks" / "results")
    options = parser.parse_args()
    pairs, math_source = math_pairs(options.data)
    pairs = {kind: some[:: options.every] for kind, some in pairs.items()}
    rows, code_source = programs(options.data)
    rows = rows[:: options.every]
    report: dict[str, Any] = {
        "command": "python benchmarks/verifiers.py" + (f" --only {options.only}" if options.only else ""),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "rounds": options.rounds,
        "every": options.every,
        "math_source": math_source,
        "code_source": code_source,
    }

    # Programs first: math-verify, once loaded, would make this process, and so the peer's forks, larger.
    results: list[dict[str, Any]] = []
    items = [(Problem(str(i), row["prompt"], answer_of(row)), row["program"]) for i, row in enumerate(rows)]
    for mode in ("split", "compat") if options.only != "math" else ():
        code = CodeTests(time_limit=10, mode=mode, workers=1, remember=0)
        report["isolation"] = code.isolation.level
        code(*items[0])
        results.append(
            compare(
                f"code, {mode} mode, one worker",
                len(rows),
                lambda code=code: sum(verdict.correct for verdict in code.batch(items)),
                lambda: human_eval_alone(rows),
                options.rounds,
            )
        )
    if options.only != "code":
        pairs["all"] = [pair for some in pairs.values() for pair in some]
        MathAnswer("bare", workers=1)(Problem("", "", "\\sum_{k=1}^{2} k"), "\\sqrt{9}")  # both sides warm
        math_verify_alone([("\\frac{1}{2}", "0.5")])
        results += [
            compare(
                f"math, {kind} pairs",
                len(some),
                lambda p=some: ours(p),
                lambda p=some: math_verify_alone(p),
                options.rounds,
            )
            for kind, some in pairs.items()
        ]

    if options.only != "math":
        bare = Sandbox(workers=1, bubblewrap=False)
        report["isolation without bubblewrap"] = bare.isolation.level
        bare.close()
    report["results"] = results
    options.out.mkdir(parents=True, exist_ok=True)
    name = "verifiers" if options.only is None else f"verifiers_{options.only}"
    (options.out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    lines = [
        "# Verifiers: speed beside peers",
        "",
        f"`{report['command']}`, {report['date']}, Python {report['python']}, {report['processor']}, "
        f"{report['cores']} cores (one used);",
        f"isolation: {report.get('isolation', 'not used')}; data: {math_source}, {code_source}. "
        f"Medians of {options.rounds} rounds, each ours, peer, peer, ours.",
        "Peers: plain math-verify; openai/human-eval's runner, re-created, no isolation. CPU: all processes of a side.",
        "",
        "| what | items | load | ours /s | peer /s | ratio, wall (range) | ours /CPU s | peer /CPU s "
        "| ratio, CPU (range) | passed or matched, ours / peer |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        cells = [r["what"], r["items"], r["load"]]
        for kind in ("wall", "cpu"):
            low, high = r[kind]["ratio_range"]
            cells += [r[kind]["ours_per_s"], r[kind]["peer_per_s"], f"{r[kind]['ratio']} ({low}-{high})"]
        lines.append("| " + " | ".join(str(cell) for cell in [*cells, f"{r['ours_right']} / {r['peer_right']}"]) + " |")
    (options.out / f"{name}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
