"""What two processes find, for test_ranks.py: `accelerate launch ... tests/policy/two_processes.py MODEL FOLDER`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from harness.core import Example
from harness.policy import HF, sharding
from harness.policy.engine import Policy
from harness.policy.ranks import Ranks, RanksError, end_process
from harness.tasks.arithmetic import Arithmetic
from harness.training.dialogue import Intrinsic
from harness.training.rollout import sample_rollouts
from verifiers.exact import Exact

MODEL, FOLDER = sys.argv[1], Path(sys.argv[2])
SPEC = HF(path=MODEL, max_new_tokens=5, lr=1e-2, microbatch_tokens=64)


class Letters(Arithmetic):
    """Arithmetic's problems asked in the micro model's alphabet."""

    def chat(self, problem: Any, answers: Any) -> list[dict[str, str]]:
        text = "".join("ab"[int(c) % 2] for c in problem.prompt if c.isdigit())
        return [{"role": "user", "content": text}] if not answers else [{"role": "user", "content": "b"}]


TASK = Letters(Exact(), test_size=5)


def alone() -> Policy:
    """The same engine as if this were the only process."""
    policy = SPEC.load("cpu")
    policy.ranks = Ranks()
    return policy


def sample(policy: Policy) -> list[Any]:
    groups = sample_rollouts(policy, TASK, Intrinsic(), TASK.test, samples=3, attempts=2, seed=7, temperature=1.0)
    return [turn for group in groups for t in group for turn in t.turns]


def gap(a: Policy, b: Policy) -> float:
    """Largest difference between the trained weights of two engines."""
    mine, other = dict(a._trained()), dict(b._trained())
    return max(_gap(p, other[name]) for name, p in mine.items())


def _gap(a: Any, b: Any) -> float:
    return float((sharding.gather_tensor(a) - sharding.gather_tensor(b)).detach().abs().max())


def compare(policy: Policy, one: Policy, folder: Path) -> dict[str, Any]:
    """Two steps in both engines on the same examples, then back and forth through a checkpoint."""
    turns = sample(one)
    found: dict[str, Any] = {"same_tokens": [t.tokens for t in sample(policy)] == [t.tokens for t in turns]}
    examples = [Example(t, 1.0 - 0.3 * i % 2, 0.1) for i, t in enumerate(turns)]
    for engine in (policy, one):
        engine.accumulate_gradients(examples, len(turns))
    pairs = zip(policy._trained(), one._trained(), strict=True)
    found["gradient_gap"] = max(_gap(p.grad, q.grad) for (_, p), (_, q) in pairs)
    found["gradient"] = max(_gap(q.grad, 0 * q) for _, q in one._trained())
    for engine in (policy, one):
        engine.optimizer.zero_grad()
    for count in (len(examples), 1):  # the second batch has fewer rows than processes
        (stats, norm), (stats_one, norm_one) = (engine.step(examples[:count], count) for engine in (policy, one))
        found[f"stats_gap_{count > 1}"] = max(
            abs(a.logprob - b.logprob) + abs((a.kl or 0.0) - (b.kl or 0.0))
            for a, b in zip(stats, stats_one, strict=True)
        )
        found[f"norm_gap_{count > 1}"] = abs(norm - norm_one)
    found["weights_gap"] = gap(policy, one)
    found["same_tokens_after"] = [t.tokens for t in sample(policy)] == [t.tokens for t in sample(one)]

    policy.save(folder / "state")
    policy.export(folder / "model")
    torch.distributed.barrier()
    other = alone()
    other.load(folder / "state")
    found["loaded_by_one_gap"] = gap(policy, other)
    found["exported_gap"] = gap(other, HF(path=str(folder / "model")).load("cpu"))
    if policy.ranks.is_first:
        one.save(folder / "one")
    torch.distributed.barrier()
    policy.load(folder / "one")
    for engine in (policy, one):
        engine.step(examples, len(turns))
    found["continued_gap"] = gap(policy, one)
    return found


def main() -> None:
    policy = SPEC.load("cpu")
    ranks = policy.ranks
    report: dict[str, Any] = {"size": ranks.size, "data_parallel": compare(policy, alone(), FOLDER / "dp")}
    policy.restart()
    report["restart_gap"] = gap(policy, alone())

    def fail() -> None:
        if ranks.rank == 1:
            raise ValueError("no such thing")

    try:
        ranks.run_on_all_ranks(fail)
    except RanksError as error:
        report["failure"] = str(error)
    except ValueError:
        pass  # this is the process that failed
    report["any"] = [ranks.any_rank(ranks.rank == 1), ranks.any_rank(False)]
    report["map"] = ranks.shard_map(lambda part, begin: [(begin + i) * x for i, x in enumerate(part)], [1, 2, 3])

    os.environ["ACCELERATE_USE_FSDP"] = "true"
    sharded = SPEC.load("cpu")
    os.environ["ACCELERATE_USE_FSDP"] = "false"
    report["is_sharded"] = sharded.sharded and all(hasattr(p, "full_tensor") for _, p in sharded._trained())
    report["sharded"] = compare(sharded, alone(), FOLDER / "fsdp")
    if ranks.is_first:
        (FOLDER / "report.json").write_text(json.dumps(report))
    ranks.shut_down()
    end_process(0)


if __name__ == "__main__":
    main()
