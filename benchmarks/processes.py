"""Several processes against one: `python -m benchmarks.processes time`, `python -m benchmarks.processes same MODEL`.

- `time`: the main job's training with one process of one thread, one process of two threads and two processes,
  interleaved; seconds of the wall of all updates, and of the whole command. Written to
  benchmarks/results/processes.json.
- `same MODEL`: two updates of score_full on task.word_filter with a real checkpoint, all weights in two sharded
  processes (FSDP2) and LoRA in two data-parallel ones, each against one process, and each stopped in the middle and
  resumed. Two processes must give the same rewards, the same sampled tokens and gradient norms within 1e-4; the
  largest differences are printed and written to benchmarks/results/processes_same.json. The reward is a rule that
  random replies meet half of the time: a small model earns none on the task itself, and no reward is no gradient.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.core import Problem, Verdict
from harness.machine import cpu_name
from harness.registry import register

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
LAUNCH = [
    "-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
    "--dynamo_backend", "no", "--main_process_port", "0",
]  # fmt: skip
KINDS = {
    "one": [], "data_parallel": [*LAUNCH, "--multi_gpu"],
    "sharded": [*LAUNCH, "--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP"],
}  # fmt: skip
NUMBERS = ("reward_t1", "reward_t2", "length_t1", "length_t2", "kl_t1", "kl_t2", "grad_norm")
SMALL = (
    "word_filter.verifier = @verifier.parity()", "word_filter.test_size = 2", "hf.max_new_tokens = 8", "hf.lr = 1e-4",
    "run.eval_tasks = [@task.word_filter()]", "run.evaluate_before = False", "run.steps = 2", "run.problems = 2",
    "run.samples = 3", "run.checkpoint_every = 1",
)  # fmt: skip


class Parity:
    """A made-up reward for checks of processes: whether the bytes of the reply have an even sum."""

    def __call__(self, problem: Problem, text: str) -> Verdict:
        right = sum(text.encode()) % 2 == 0
        return Verdict(float(right), right, answer=text[:8])


def command(kind: str, words: Sequence[str], out: Path, device: str = "cpu", resume: bool = False) -> list[str]:
    """The command line of one run, launched as `kind` says."""
    end = ["--out", str(out), "--device", device, *(["--processes", "2"] if KINDS[kind] else [])]
    return [sys.executable, *KINDS[kind], "-m", "benchmarks.processes", "run", *words, *end, *["--resume"] * resume]


def environment(device: str = "cpu") -> dict[str, str]:
    """This process's, in which accelerate starts several processes on a CPU too."""
    use = {"ACCELERATE_USE_CPU": "true"} if device == "cpu" else {}
    return {**os.environ, **use, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}


def run_to_end(
    kind: str, words: Sequence[str], out: Path, device: str = "cpu", stop: bool = False, seconds: float = 1800
) -> tuple[list[dict[str, Any]], bytes]:
    """One run: its metrics' lines and its eval.jsonl.

    Args:
        kind: A key of KINDS.
        words: Of `harness.run`.
        out: Results folder.
        device: cpu or cuda.
        stop: Whether it is interrupted after its first update and then resumed.
        seconds: How long it may take.

    Raises:
        RuntimeError: it failed; or it was to be interrupted and had ended before.
    """
    for resume in (False, True) if stop else (False,):
        with tempfile.TemporaryFile("w+") as screen:
            process = subprocess.Popen(
                command(kind, words, out, device, resume), cwd=ROOT, env=environment(device), stdout=screen,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
            if stop and not resume:
                while process.poll() is None and not any(path.stat().st_size for path in out.rglob("metrics.jsonl")):
                    time.sleep(0.1)
                process.send_signal(signal.SIGINT)
            code = process.wait(seconds)
            screen.seek(0)
            told = screen.read()[-3000:]
        infos = [json.loads(path.read_text()) for path in out.rglob("run.json")]
        expected = "interrupted" if stop and not resume else "done"
        if [info["status"] for info in infos] != [expected]:
            raise RuntimeError(f"{kind}: expected a run that is {expected}; exit status {code}: {told}")
    at = next(out.rglob("run.json")).parent
    lines = [json.loads(line) for line in (at / "metrics.jsonl").read_text().splitlines()]
    return lines, (at / "eval.jsonl").read_bytes()


def compare(
    kinds: Sequence[str], words: Sequence[str], folder: Path, device: str = "cpu", stop: bool = False
) -> dict[str, Any]:
    """{kind: {number: largest difference from one process over all updates, ...}} of one job."""
    one, evaluated = run_to_end("one", words, folder / "one", device)
    found: dict[str, Any] = {}
    for kind in kinds:
        lines, own = run_to_end(kind, words, folder / kind, device, stop)
        found[kind] = {name: max(abs(a[name] - b[name]) for a, b in zip(one, lines, strict=True)) for name in NUMBERS}
        found[kind] |= {"same_eval_jsonl": own == evaluated, "grad_norms": [line["grad_norm"] for line in one]}
    return found


def check_real(model: str, kind: str, rank: int, folder: Path) -> dict[str, Any]:
    """A real checkpoint in two processes against one, resumed once.

    Raises:
        RuntimeError: rewards or lengths differ, or a gradient's norm by more than 1e-4 of it.
    """
    words = ["--gin", "gin/score_full.gin", "--gin", "gin/task/word_filter.gin", "--model", model]
    words += [word for binding in (*SMALL, f"hf.lora_rank = {rank}") for word in ("--bind", binding)]
    began = time.perf_counter()
    found = compare([kind], words, folder, stop=True)[kind]
    found |= {"lora_rank": rank, "seconds": round(time.perf_counter() - began)}
    equal = all(found[name] == 0 for name in NUMBERS if name.startswith(("reward", "length")))
    if not equal or found["grad_norm"] > 1e-4 * max(found["grad_norms"]):
        raise RuntimeError(f"{kind} differs from one process: {found}")
    return found


def time_main_job(minutes: float, steps: int, folder: Path) -> dict[str, Any]:
    """Seconds of the main job's training by processes and threads, interleaved: one round, and more while they fit."""
    ways = {
        "1 process, 1 thread": [], "1 process, 2 threads": ["--threads", "2"], "2 processes": ["--processes", "2"],
    }  # fmt: skip
    bind = ("run.evaluate_before = False", "run.probe_every = 0", f"run.steps = {steps}", "arithmetic.test_size = 20")
    words = ["-m", "harness.run", "--gin", "gin/score_full.gin", "--device", "cpu"]
    words += [word for binding in bind for word in ("--bind", binding)]
    found: dict[str, dict[str, list[float]]] = {name: {"training_s": [], "command_s": []} for name in ways}
    end, longest, number = time.perf_counter() + 60 * minutes, 0.0, 0
    while not number or time.perf_counter() + longest < end:
        first = time.perf_counter()
        for name in ways if number % 2 else reversed(ways):
            out = folder / f"{number} {name}"
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, *words, *ways[name], "--out", str(out)], cwd=ROOT, env=environment(), check=True,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
            found[name]["command_s"].append(round(time.perf_counter() - began, 2))
            info = json.loads(next(out.rglob("run.json")).read_text())
            found[name]["training_s"].append(round(info["training_seconds"], 2))
            told = f"{name}: training {found[name]['training_s'][-1]} s, command {found[name]['command_s'][-1]} s"
            print(told, flush=True)
        longest, number = max(longest, time.perf_counter() - first), number + 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    clock = kinds.add_parser("time")
    clock.add_argument("--minutes", type=float, default=6.0, help="rounds are begun while they fit (default: 6)")
    clock.add_argument("--steps", type=int, default=200, help="updates; the main job has 200")
    clock.add_argument("--out", type=Path, default=RESULTS / "processes.json")
    same = kinds.add_parser("same")
    same.add_argument("model", help="hf.path of a real checkpoint")
    same.add_argument("--out", type=Path, default=RESULTS / "processes_same.json")
    args = parser.parse_args()
    report: dict[str, Any] = {"machine": cpu_name(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        if args.kind == "same":
            report |= {"model": args.model.rpartition("/")[2], "results": {}}
            for kind, rank in (("sharded", 0), ("data_parallel", 8)):
                report["results"][kind] = check_real(args.model, kind, rank, Path(folder) / kind)
                print(json.dumps({kind: report["results"][kind]}), flush=True)
                args.out.write_text(json.dumps(report, indent=1) + "\n")
        else:
            found = time_main_job(args.minutes, args.steps, Path(folder))
            report |= {"updates": args.steps, "results": found}
            print("| main job | training, s | whole command, s |\n|---|--:|--:|")
            for name, told in found.items():
                cells = [f"{statistics.median(v):.1f} ({min(v):.1f}-{max(v):.1f})" for v in told.values()]
                print(f"| {name} | {' | '.join(cells)} |")
    args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:  # one process of `same`: harness.run, which knows the made-up reward
        from harness.policy.ranks import end_process, world_size
        from harness.run import main as run

        register("verifier", "parity")(Parity)  # here alone: elsewhere nobody is to see a made-up verifier
        status = run(sys.argv[2:])
        if world_size() > 1:
            end_process(status)
        sys.exit(status)
    main()
