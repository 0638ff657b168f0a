"""How a training step grows, and where sharing prompts breaks even: `python -m benchmarks.growth`.

Growth: samples, length of the replies, turns and parameters are doubled one after another from one small step, and
sampling and the gradient (policy forward and backward, kl 0) timed apart. A small step costs what its calls cost,
however little they do: it bends where work begins to decide. One plot of each goes to docs/images/growth.svg.

Sharing: the gradient of groups of four rows, plain and as trees, where the counts of `harness.policy.tree` predict
savings of 5 to 50 %. `tree.WORTH` says from which saving on trees are used.

Process CPU seconds, least of some rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import pages
from benchmarks.step import NEVER, Workload, llama, model_folder
from harness.core import Example, Turn, Verdict
from harness.policy import HF, tree
from harness.policy.engine import Policy
from harness.policy.loss import merge_examples

FIGURE = pages.PAGE.parent / "images" / "growth.svg"
PROBLEMS, ASK = 4, "?"
SAVINGS = (0.05, 0.1, 0.2, 0.3, 0.5)
GROUP, TAIL = 4, 64  # rows of a group that share a prompt, and tokens of each behind it


class Step(NamedTuple):
    """What is doubled; `width` is the hidden size of a Llama of five layers."""

    samples: int = 2
    length: int = 16
    turns: int = 2
    width: int = 128


AXES: dict[str, tuple[str, tuple[int, ...]]] = {
    "samples": ("samples", (1, 2, 4, 8, 16, 32)),
    "length": ("length", (8, 16, 32, 64, 128, 256)),
    "turns": ("turns", (1, 2, 4, 8)),
    "parameters": ("width", (64, 96, 128, 192, 256, 384, 512)),
}


def load(width: int, folder: Path, replies: int) -> Policy:
    """A random Llama of five layers with the embedded model's tokenizer, whose replies all have the same length."""
    work = Workload(f"width{width}", 0, 0, 0, 0, llama(width, 5, width // 32, width // 32, 3 * width, 27))
    policy = HF(path=str(model_folder(work, folder)), max_new_tokens=replies, lr=0.0).load("cpu")
    policy.end_ids = [NEVER]
    return policy


def roll(policy: Policy, step: Step, seed: int) -> list[Turn]:
    chats = [[{"role": "user", "content": str(1000 + i)}] for i in range(PROBLEMS)]
    session = policy.open(chats, step.samples, seed=seed, temperature=1.0)
    turns = session.reply()
    for _ in range(step.turns - 1):
        session.ask([ASK] * PROBLEMS * step.samples)
        turns += session.reply()
    return turns


def seconds(call: Callable[[], Any]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def measure_growth(folder: Path, rounds: int) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {}
    for axis, (field, values) in AXES.items():
        found[axis] = []
        for value in values:
            step = Step()._replace(**{field: value})
            policy = load(step.width, folder, step.length)
            sampling, gradient = [], []
            for seed in range(rounds + 1):
                begin = time.process_time()
                turns = roll(policy, step, seed)
                sampling.append(time.process_time() - begin)
                examples = [Example(turn, 1.0 + i % 3, 0.0) for i, turn in enumerate(turns)]
                policy.optimizer.state[next(p for _, p in policy._trained())]["step"] = 1  # no reference for the log
                gradient.append(seconds(lambda p=policy, e=examples: p.accumulate_gradients(e, len(e))))
                policy.optimizer.zero_grad()
            size = sum(p.numel() for p in policy.model.parameters()) if field == "width" else value
            found[axis].append({"value": size, "sample": min(sampling[1:]), "gradient": min(gradient[1:])})
            print(axis, found[axis][-1], flush=True)
    return found


def groups(policy: Policy, prompt: int, problems: int) -> list[Example]:
    """Groups of rows of random tokens that share a prompt of so many."""
    draw, found = random.Random(0), []
    for _ in range(problems):
        context = tuple(draw.randrange(policy.rows) for _ in range(prompt))
        for _ in range(GROUP):
            tokens = tuple(draw.randrange(policy.rows) for _ in range(TAIL))
            found.append(Example(Turn(context, tokens, "", Verdict(0.0, False, "error"), index=0), 1.0, 0.0))
    return found


def predict_saving(policy: Policy, prompt: int) -> float:
    """The share of a gradient's operations that sharing a prompt of so many tokens saves, by the counts."""
    rows, cost = merge_examples(groups(policy, prompt, 1)), policy._cost
    plain = sum(len(row.ids) * cost.token + len(row.ids) ** 2 / 2 * cost.pair for row in rows)
    size = len(tree.Tree(rows).ids)
    return 1 - (size * cost.token + size**2 * cost.pair) / plain


def measure_sharing(folder: Path, rounds: int) -> list[dict[str, Any]]:
    found = []
    worth = tree.WORTH
    for width, problems in ((128, 16), (320, 4)):
        policy = load(width, folder, TAIL)
        policy.optimizer.state[next(p for _, p in policy._trained())]["step"] = 1
        for saving in SAVINGS:
            prompt = next(n for n in range(1, 2000) if predict_saving(policy, n) >= saving)
            examples, spent = groups(policy, prompt, problems), {"plain": math.inf, "shared": math.inf}
            for number in range(rounds + 1):
                for name in spent:
                    tree.WORTH, policy.shares_prompts = 2.0, name == "shared"
                    one = seconds(lambda p=policy, e=examples: p.accumulate_gradients(e, len(e)))
                    policy.optimizer.zero_grad()
                    spent[name] = min(spent[name], one) if number else math.inf
            found.append(
                {"model": f"width {width}", "prompt": prompt, "predicted": predict_saving(policy, prompt), **spent}
            )
            print(found[-1], flush=True)
    tree.WORTH = worth
    return found


def plot(growth: dict[str, list[dict[str, float]]]) -> None:
    """One plot of each axis, both scales logarithmic; a dotted line grows as the work does."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "growth"  # the same file for the same numbers
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(growth), figsize=(3.4 * len(growth), 3.2), sharey=True, layout="constrained")
    for ax, (axis, points) in zip(axes, growth.items(), strict=True):
        values = [point["value"] for point in points]
        for phase, marker in (("sample", "o"), ("gradient", "s")):
            ax.loglog(values, [point[phase] for point in points], marker=marker, label=phase)
        last = points[-1]["gradient"]
        ax.loglog(values, [last * v / values[-1] for v in values], ":", color="gray", label="in proportion")
        ax.set_xlabel(axis)
        ax.grid(visible=True, which="major", alpha=0.3)
    axes[0].set_ylabel("CPU seconds of a step")
    axes[0].legend()
    figure.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--plot", action="store_true", help="draw the committed results again and measure nothing")
    args = parser.parse_args()
    file = pages.RESULTS / "growth.json"
    if not args.plot:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            report = {**pages.describe_machine(), "rounds": args.rounds, "load": os.getloadavg()[0]}
            report["base"] = {"problems": PROBLEMS, **Step()._asdict()}
            report["sharing"] = measure_sharing(Path(folder), args.rounds)
            report["growth"] = measure_growth(Path(folder), args.rounds)
        file.write_text(json.dumps(report, indent=1) + "\n")
    plot(json.loads(file.read_text())["growth"])
    pages.fill_page()


if __name__ == "__main__":
    main()
