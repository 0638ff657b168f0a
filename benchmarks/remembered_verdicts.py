"""Grading of real training batches on the embedded code task, with and without remembered verdicts, side by side.

`python benchmarks/remembered_verdicts.py` samples batches as a training step does (16 problems, 4 trajectories, 2
attempts, the base model) and grades them twice in turns: once running every program, once remembering.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.policy import HF
from harness.seeds import derive_seed, epoch_indices
from harness.tasks.embedded_code import EmbeddedCode
from harness.training.dialogue import Intrinsic
from harness.training.rollout import sample_rollouts
from verifiers.code_tests import CodeTests


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batches", type=int, default=6)
    options = parser.parse_args()
    every, remembering = CodeTests(remember=0), CodeTests()
    task = EmbeddedCode(remembering)
    policy = HF(path="embedded:code", max_new_tokens=40).load("cpu")
    batches = []
    for step in range(options.batches):
        chosen = [task.train[i] for i in epoch_indices(0, "problems", len(task.train), 16 * step, 16)]
        groups = sample_rollouts(
            policy,
            task,
            Intrinsic(),
            chosen,
            samples=4,
            attempts=2,
            seed=derive_seed(0, "rollout", step),
            temperature=1.0,
        )
        turns = [(t.problem, turn.text) for group in groups for t in group for turn in t.turns]
        batches += [turns[0::2], turns[1::2]]  # a step grades all first attempts, then all second ones
    fresh = CodeTests()
    seconds = {"every program": 0.0, "remembering": 0.0}
    for batch in batches:
        verdicts = []
        for name, verifier in (("every program", every), ("remembering", fresh)):
            started = time.perf_counter()
            verdicts.append(verifier.batch(batch))
            seconds[name] += time.perf_counter() - started
        assert verdicts[0] == verdicts[1]
    responses = [(p.id, text) for batch in batches for p, text in batch]
    print(f"{len(responses)} responses, {len(set(responses))} different; load {os.getloadavg()[0]:.1f}")
    for name, spent in seconds.items():
        print(f"{name}: {len(responses) / spent:.0f} responses/s")
    print(f"ratio: {seconds['every program'] / seconds['remembering']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
