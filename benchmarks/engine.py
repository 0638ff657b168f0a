"""The engine against the usual structure on the same work, side by side: `python -m benchmarks.engine [--model PATH]`.

Two comparisons, each behind an equivalence gate (no ratio is printed for work that differs):

- sampling two turns: one cache for both turns, finished rows leaving, the prompt prefilled once for all samples,
  against `generate`, which reads every prompt and the whole first turn again for every row;
- scoring two turns: one forward for both turns' log-probabilities against one forward per turn.

Process CPU seconds (CUDA: wall seconds after synchronising), interleaved A B B A, after a warm-up; median and spread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from harness.policy import HF
from harness.policy.engine import Policy
from harness.policy.loss import pack_rows, split_microbatches
from harness.policy.tree import Row, Tree
from harness.tasks.arithmetic import RETRY, Arithmetic
from verifiers.exact import Exact


def clock(policy: Policy) -> float:
    """Seconds on the clock that fits the device."""
    if policy.device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def race(policy: Policy, ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Median seconds of both, interleaved, their ratio and its spread over the repeats."""
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    ours()
    theirs()
    for i in range(repeats):
        for name in ("ours", "theirs") if i % 2 else ("theirs", "ours"):
            begin = clock(policy)
            {"ours": ours, "theirs": theirs}[name]()
            seconds[name].append(clock(policy) - begin)
    ratios = sorted(b / a for a, b in zip(seconds["ours"], seconds["theirs"], strict=True))
    return {
        "ours_s": statistics.median(seconds["ours"]),
        "theirs_s": statistics.median(seconds["theirs"]),
        "ratio": statistics.median(ratios),
        "ratio_min": ratios[0],
        "ratio_max": ratios[-1],
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:arithmetic")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    policy = HF(path=args.model, max_new_tokens=32).load(args.device)
    task = Arithmetic(Exact())
    chats = [task.chat(problem, []) for problem in task.test[: args.problems]]

    def ours() -> list[Any]:
        session = policy.open(chats, args.samples, seed=0, temperature=0.0)
        first = session.reply()
        session.ask([RETRY] * len(first))
        return [*first, *session.reply()]

    def generate(contexts: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        width = max(map(len, contexts))
        ids = torch.tensor([[policy.pad_id] * (width - len(c)) + list(c) for c in contexts], device=policy.device)
        mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts], device=policy.device)
        out = policy.model.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=32, pad_token_id=policy.pad_id
        )
        replies = []
        for row in out[:, width:].tolist():
            end = next((i for i, token in enumerate(row) if token in policy.end_ids), len(row) - 1)
            replies.append(tuple(row[: end + 1]))
        return replies

    def theirs() -> list[tuple[int, ...]]:
        contexts = [tuple(policy.chat.encode_opening(chat)) for chat in chats for _ in range(args.samples)]
        first = generate(contexts)
        follow = [c + r + tuple(policy.chat.encode_followup(RETRY, r)) for c, r in zip(contexts, first, strict=True)]
        return [*first, *generate(follow)]

    turns = ours()
    if [turn.tokens for turn in turns] != theirs():
        raise SystemExit("the two samplers wrote different tokens: no ratio")
    result = {"sampling two turns, against generate": race(policy, ours, theirs, args.repeats)}

    # One sample of each of as many problems: equal rows would be merged, and that is no fair race.
    session = policy.open([task.chat(p, []) for p in task.test[: len(turns) // 2]], 1, seed=0, temperature=1.0)
    first = session.reply()
    session.ask([RETRY] * len(first))
    turns = [*first, *session.reply()]

    def one_forward() -> list[list[float]]:
        return policy.turn_logprobs(turns)

    def one_per_turn() -> list[list[float]]:
        whole = [(i, turn.context + turn.tokens) for i, turn in enumerate(turns)]
        trees = [Tree([Row(ids, [(i, len(turns[i].context), len(ids))])]) for i, ids in whole]
        found: list[list[float]] = [[] for _ in turns]
        for part in split_microbatches(trees, policy.spec.microbatch_tokens):
            batch = pack_rows(part, policy.pad_id, policy.device)
            values, at = policy.scorer(batch).logprob.tolist(), 0
            for example, count in batch.spans:
                found[example], at = values[at : at + count], at + count
        return found

    gap = max(abs(x - y) for a, b in zip(one_forward(), one_per_turn(), strict=True) for x, y in zip(a, b, strict=True))
    if gap > 1e-4:
        raise SystemExit(f"one forward and one per turn differ by {gap}: no ratio")
    result["scoring two turns, against a forward per turn"] = race(policy, one_forward, one_per_turn, args.repeats)
    report = {
        "model": args.model, "device": str(policy.device), "rows": len(turns) // 2, "repeats": args.repeats,
        "load": os.getloadavg()[0], "cores": os.cpu_count(), "torch": torch.__version__, "results": result,
    }  # fmt: skip
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
