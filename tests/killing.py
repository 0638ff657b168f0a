"""Kills `harness.run` and `harness.evaluate` at chosen changes of files, or fails one as on a full disk, and goes on.

    LD_PRELOAD=kill_points.so python killing.py LIBRARY FOLDER KIND POINTS

KIND is `run`, `disk` or `evaluate`; POINTS is how many places are tried, spread over all there are. Children are forked
from one warm process. Prints one JSON object: {"calls", "tried", "wrong": [sentences]}.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

SMALL = [
    "run.steps = 4", "run.problems = 3", "run.samples = 2", "run.checkpoint_every = 1", "arithmetic.test_size = 6",
    "hf.max_new_tokens = 6",
]  # fmt: skip
MORE = ["run.evaluations = [@evaluation.attempts()]", "attempts.count = 3", "attempts.problems = 4"]
SEED = "arithmetic/arithmetic/score_full/seed0"
ONCE = ("seconds", "started", "command", "training_seconds", "digest")  # the last is of the others too


def words(bindings: list[str]) -> list[str]:
    return [word for binding in bindings for word in ("--bind", binding)]


class Killer:
    def __init__(self, library: str, folder: Path) -> None:
        self.library, self.folder, self.log = ctypes.CDLL(library), folder, folder / "log"
        self.library.arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int]
        self.library.calls.restype = ctypes.c_long

    def call(self, module: str, argv: list[str], root: Path, point: int = -1, mode: int = 0) -> tuple[int, str, int]:
        """Exit code (negative: the signal), what was printed, and the changes of files counted."""
        self.log.write_bytes(b"")
        out, into = os.pipe()
        pid = os.fork()
        if not pid:
            code = 99
            try:
                screen = os.open(self.log, os.O_WRONLY | os.O_APPEND)
                os.dup2(screen, 1)
                os.dup2(screen, 2)
                main = importlib.import_module(module).main
                self.library.arm(str(root).encode(), point, mode)
                code = main(argv)
                os.write(into, str(self.library.calls()).encode())
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        os.close(into)
        _, status = os.waitpid(pid, 0)
        count = os.read(out, 100)
        os.close(out)
        return os.waitstatus_to_exitcode(status), self.log.read_text(errors="replace"), int(count or 0)

    def run(self, root: Path, point: int = -1, mode: int = 0) -> tuple[int, str, int]:
        argv = ["--gin", "gin/score_full.gin", "--device", "cpu", *words(SMALL), "--out", str(root), "--resume"]
        return self.call("harness.run", argv, root, point, mode)

    def evaluate(self, root: Path, point: int = -1, mode: int = 0) -> tuple[int, str, int]:
        return self.call("harness.evaluate", [str(root / SEED), "--device", "cpu", *words(MORE)], root, point, mode)


def state(root: Path) -> dict[str, Any]:
    folder = root / SEED
    info = {k: v for k, v in json.loads((folder / "run.json").read_text()).items() if k not in ONCE}
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    files = {str(p.relative_to(folder)) for p in folder.rglob("*")} - {"eval.jsonl.damaged"}
    return {
        "run.json": info,
        "metrics.jsonl": [{k: v for k, v in step.items() if k != "trajectories_per_second"} for step in steps],
        "eval.jsonl": (folder / "eval.jsonl").read_bytes(),
        "weights": (folder / "model" / "model.safetensors").read_bytes(),
        "names of files": sorted(files),
    }


def main() -> None:
    library, folder, kind, points = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    for name in ("torch", "transformers", "harness.policy.engine", "harness.training.display", "harness.run"):
        importlib.import_module(name)
    killer = Killer(library, folder)
    done = folder / "done"
    code, text, _ = killer.run(done)
    assert code == 0, text
    begin: Path | None = None
    act = killer.run
    if kind == "evaluate":
        begin, act = done, killer.evaluate
    whole = folder / "whole"
    if begin:
        shutil.copytree(begin, whole)
    code, text, calls = act(whole)
    assert code == 0, text
    wanted, wrong, root = state(whole), [], folder / "x"
    chosen = sorted({1 + i * (calls - 1) // max(1, points - 1) for i in range(points)})
    for number, point in enumerate(chosen):
        mode = 3 if kind == "disk" else number % 3
        shutil.rmtree(root, ignore_errors=True)
        if begin:
            shutil.copytree(begin, root)
        first, text, _ = act(root, point, mode)
        if "Traceback" in text:
            wrong.append(f"{kind} {point} mode {mode}: a traceback: {text[-300:]}")
        if kind == "disk" and first not in (0, 1, 2):
            wrong.append(f"{kind} {point}: exit status {first}: {text[-300:]}")
        code, text, _ = act(root)
        if code:
            wrong.append(f"{kind} {point} mode {mode} (first {first}): then exit status {code}: {text[-300:]}")
            continue
        found = state(root)
        wrong += [f"{kind} {point} mode {mode}: {key} differs" for key in wanted if found[key] != wanted[key]]
    print(json.dumps({"calls": calls, "tried": len(chosen), "wrong": wrong}))


if __name__ == "__main__":
    main()
