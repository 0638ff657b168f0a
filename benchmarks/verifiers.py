"""Speed of both verifiers beside peers, interleaved in one run: `python benchmarks/verifiers.py [--data DIR]`.

Math: answers/s against plain math-verify (parse and verify of the same bare answers in this process, its timeouts on).
Code: programs/s of one worker, all isolation layers on, against a thin re-creation of openai/human-eval's runner
(a Manager and a Process per program, no isolation). Without the real data an embedded workload is used, and said so.

Not covered: accuracy (see tests/verifiers); several cores (both sides run one program at a time).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO))

from harness.core import Problem  # noqa: E402
from verifiers.code_tests import CodeTests, answer_of  # noqa: E402
from verifiers.math_answer import MathAnswer  # noqa: E402
from verifiers.sandbox import Sandbox  # noqa: E402

Pair = tuple[str, str]


def math_verify_alone(pairs: list[Pair]) -> int:
    """Plain math-verify with its own timeouts, as its README shows."""
    from math_verify import parse, verify

    return sum(bool(verify(parse(f"${gold}$"), parse(f"${given}$"))) for gold, given in pairs)


def ours(pairs: list[Pair]) -> int:
    """Our ladder with an empty cache and one worker that is already running."""
    verifier = MathAnswer("bare", workers=1)
    verdicts = verifier.batch([(Problem("", "", gold), given) for gold, given in pairs])
    return sum(verdict.correct for verdict in verdicts)


def run_guarded(source: str, result: Any) -> None:
    """What human-eval's child does: exec the joined program, report through the shared list."""
    try:
        exec(source, {})
        result.append("passed")
    except BaseException as error:
        result.append(f"failed: {error}")


def human_eval_alone(rows: list[dict[str, Any]]) -> int:
    """A Manager and a Process per program, as openai/human-eval's check_correctness."""
    passed = 0
    for row in rows:
        source = f"{row['prompt']}{row['program']}\n{row['test']}\ncheck({row['entry_point']})"
        with multiprocessing.Manager() as manager:
            result = manager.list()
            process = multiprocessing.Process(target=run_guarded, args=(source, result))
            process.start()
            process.join(timeout=10)
            if process.is_alive():
                process.kill()
            passed += list(result) == ["passed"]
    return passed


def timed(work: Callable[[], int]) -> tuple[float, int]:
    started = time.perf_counter()
    answer = work()
    return time.perf_counter() - started, answer


def compare(name: str, count: int, first: Callable[[], int], second: Callable[[], int], rounds: int) -> dict[str, Any]:
    """Alternates the two sides; the ratio is the median over the rounds, so a busy machine hits both alike."""
    times: list[tuple[float, float]] = []
    answers = (0, 0)
    for _ in range(rounds):
        (a, right_a), (b, right_b) = timed(first), timed(second)
        times.append((a, b))
        answers = (right_a, right_b)
    return {
        "what": name,
        "items": count,
        "ours_per_s": round(count / statistics.median(a for a, _ in times), 1),
        "peer_per_s": round(count / statistics.median(b for _, b in times), 1),
        "ratio": round(statistics.median(b / a for a, b in times), 2),
        "ratio_range": [round(min(b / a for a, b in times), 2), round(max(b / a for a, b in times), 2)],
        "ours_right": answers[0],
        "peer_right": answers[1],
    }


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
    parser.add_argument("--out", type=Path, default=REPO / "benchmarks" / "results")
    options = parser.parse_args()
    pairs, math_source = math_pairs(options.data)
    pairs = {kind: some[:: options.every] for kind, some in pairs.items()}
    rows, code_source = programs(options.data)
    rows = rows[:: options.every]
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "math_source": math_source,
        "code_source": code_source,
    }

    MathAnswer("bare", workers=1)(Problem("", "", "\\sum_{k=1}^{2} k"), "\\sqrt{9}")  # both sides warm
    math_verify_alone([("\\frac{1}{2}", "0.5")])
    results = [
        compare(
            f"math, {kind} pairs",
            len(some),
            lambda p=some: ours(p),
            lambda p=some: math_verify_alone(p),
            options.rounds,
        )
        for kind, some in pairs.items()
    ]
    mixed = [pair for some in pairs.values() for pair in some]
    results.append(
        compare("math, all pairs", len(mixed), lambda: ours(mixed), lambda: math_verify_alone(mixed), options.rounds)
    )

    items = [(Problem(str(i), row["prompt"], answer_of(row)), row["program"]) for i, row in enumerate(rows)]
    for mode in ("split", "compat"):
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
    bare = Sandbox(workers=1, bubblewrap=False)
    report["isolation without bubblewrap"] = bare.isolation.level
    bare.close()
    report["results"] = results
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "verifiers.json").write_text(json.dumps(report, indent=1) + "\n")
    lines = [
        "# Verifiers: speed beside peers",
        "",
        f"`python benchmarks/verifiers.py`, Python {report['python']}, {report['cores']} cores, load {report['load']}; "
        f"isolation: {report['isolation']}; data: {math_source}, {code_source}. Median of {options.rounds} interleaved rounds.",  # noqa: E501
        "",
        "| what | items | ours /s | peer /s | ratio (range) | graded right, ours / peer |",
        "|---|---|---|---|---|---|",
    ]
    for r in results:
        low, high = r["ratio_range"]
        lines.append(
            f"| {r['what']} | {r['items']} | {r['ours_per_s']} | {r['peer_per_s']} | {r['ratio']} ({low}-{high}) "
            f"| {r['ours_right']} / {r['peer_right']} |"
        )
    (options.out / "verifiers.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
