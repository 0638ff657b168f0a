"""Writes small synthetic run folders for the tests of everything that reads results; never results themselves."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.runs import integrity

TASK, POLICY = "synthetic", "tiny"


def attempt(correct: bool, gold: int, rng: random.Random, *, verbose: int = 1, by: str = "policy") -> dict[str, Any]:
    """One attempt at a problem whose gold answer is `gold`; wrong answers are off by a little."""
    answer = gold if correct else gold + rng.choice([-10, -2, -1, 1, 2, 10])
    work = " ".join(f"${answer - i} + {i} = {answer}$" for i in range(1, verbose + 1))
    text = rf"{work} \boxed{{{answer}}}"
    status = "ok"
    if not correct and rng.random() < 0.05:
        status, text, answer = "no_answer", work, None
    return {
        "text": text,
        "answer": None if answer is None else str(answer),
        "reward": float(correct),
        "correct": correct,
        "status": status,
        "tokens": len(text),
        "truncated": False,
        "by": by,
    }


def trajectory(
    rng: random.Random, gold: int, rates: Sequence[float], turns: int = 2, given: bool = False
) -> list[dict[str, Any]]:
    """Attempts at one problem. rates: P(t1 right), P(fix | wrong), P(break | right), P(copy)."""
    right, fix, spoil, copy = rates
    attempts = [attempt(False if given else rng.random() < right, gold, rng, by="given" if given else "policy")]
    for _ in range(turns - 1):
        before = attempts[-1]
        now = rng.random() >= spoil if before["correct"] else rng.random() < fix
        same = now == before["correct"] and rng.random() < copy
        attempts.append({**before, "by": "policy"} if same else attempt(now, gold, rng, verbose=rng.randint(1, 3)))
    return attempts


def records(
    rates: Sequence[float], seed: int | str, *, when: str = "after", problems: int = 60, samples: int = 0,
    turns: int = 2, task: str = TASK, split: str = "test", given: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Greedy records, or with `samples` that many at temperature 0.7."""
    rng, rows = random.Random(f"{seed} {when} {split} {samples} {given}"), []
    for p in range(problems):
        gold, hard = 100 + 7 * p, random.Random(p).random()
        for sample in range(max(1, samples)):
            mine = (min(1.0, max(0.0, rates[0] + 0.6 * (0.5 - hard))), *rates[1:])
            row = {
                "when": when, "task": task, "id": f"p{p:04}", "sample": sample,
                "temperature": 0.7 if samples else 0.0, "attempts": trajectory(rng, gold, mine, turns, given),
            }  # fmt: skip
            rows.append(row if split == "test" else {**row, "split": split})
    return rows


def steps(count: int, seed: int, *, collapse: bool = False) -> list[dict[str, Any]]:
    """Training steps with two phases and every monitored key."""
    rng, rows = random.Random(seed), []
    for step in range(1, count + 1):
        done, second = step / count, step > count // 2
        first, last = 0.3 + 0.2 * done * second, 0.35 + (0.18 if collapse else 0.3) * done
        noise = lambda scale=0.02: rng.gauss(0, scale)  # noqa: E731
        rows.append(
            {
                "phase": "phase2" if second else "phase1", "step": step,
                "phase_step": step - count // 2 if second else step,
                "reward_t1": first + noise(), "acc_t1": first + noise(), "reward_t2": last + noise(),
                "acc_t2": last + noise(),
                "acc_t2_own_validation": 0.4 - 0.1 * done, "acc_t2_fixed_validation": 0.4 + 0.2 * done,
                "acc_t2_fixed_train": 0.42 + 0.3 * done,
                "kl_t1": 0.02 * done + abs(noise(0.003)), "kl_t2": 0.05 * done,
                "answer_change": max(0.0, (0.4 * (1 - done) if collapse else 0.4 + 0.05 * done) + noise()),
                "edit_ratio": 0.3 + noise(), "truncated_t1": 0.0, "no_answer_t1": 0.02, "error_t1": 0.0,
                "length_t1": 20 + noise(1), "entropy_t1": 1 - 0.5 * done, "grad_norm": 1 + abs(noise(0.3)),
                "bonus": 0.5 * done + noise(), "bonus_farming": step == count - 2, "delta": last - first,
                "trajectories_per_second": 100.0,
            }
        )  # fmt: skip
        if step % max(1, count // 8) == 0:
            up = 5 if collapse else 5 + round(25 * done)
            rows[-1] |= {
                "midway_problems": 100, "midway_correct_t1": 40, "midway_correct_t2": 35 + up, "midway_i_to_c": up,
                "midway_c_to_i": 5, "spent_updates": step, "spent_responses": 256 * step,
                "spent_sampled_tokens": round(256 * (14 + 8 * done) * step),
            }  # fmt: skip
    return rows


def write_run(
    root: Path, name: str, seed: int, rows: Sequence[dict[str, Any]], *, task: str = TASK, policy: str = POLICY,
    logged: Sequence[dict[str, Any]] = (), config: Sequence[str] = (), trained: bool = True, **info: Any,
) -> Path:  # fmt: skip
    """One run folder under `root/runs`; keyword arguments overwrite entries of run.json."""
    folder = root / "runs" / task / policy / name / f"seed{seed}"
    folder.mkdir(parents=True)
    run = {
        "format": 1, "name": name, "task": task, "task_version": "1", "policy": policy, "seed": seed,
        "status": "done", "error": None, "budget": {"steps": 100, "problems": 16, "samples": 8},
        "spent": {"trajectories": 12800, "responses": 25600, "updates": 100} if trained else {"updates": 0},
        "versions": {}, "plugins": {}, "device": "cpu", "threads": 1, "started": "2001-01-01T00:00:00Z", "seconds": 1.0,
        "eval_tasks": {row["task"]: "1" for row in rows}, **info,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "config.gin").write_text("\n".join([f"run.name = '{name}'", f"run.seed = {seed}", *config]) + "\n")
    for file, lines in (("eval.jsonl", rows), ("metrics.jsonl", logged)):
        (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def seal(folder: Path) -> Path:
    """Writes into run.json what the writer does when a run ends: counts of records and digests of files."""
    info = json.loads((folder / "run.json").read_text())
    rows = [json.loads(line) for line in (folder / "eval.jsonl").read_text().splitlines()]
    info |= {"records": integrity.count_records(rows), "sha256": integrity.hash_files(folder, integrity.READ)}
    (folder / "run.json").write_text(json.dumps(info))
    return folder


RATES = {  # P(t1 right), P(fix | wrong), P(break | right), P(copy)
    "base": (0.45, 0.12, 0.20, 0.2),
    "self_refine": (0.45, 0.10, 0.15, 0.3),
    "star_plus": (0.48, 0.06, 0.05, 0.8),
    "pair_sft": (0.46, 0.10, 0.08, 0.7),
    "single_turn_rl": (0.60, 0.05, 0.08, 0.6),
    "naive_multi_turn_rl": (0.60, 0.01, 0.01, 0.98),
    "score_full": (0.60, 0.25, 0.04, 0.5),
    "score_no_shaping": (0.60, 0.15, 0.05, 0.6),
}


def write_suite(root: Path, *, seeds: Sequence[int] = (1, 2, 3), problems: int = 60, samples: int = 0) -> Path:
    """Every row of `RATES`, with training logs, and sampled pools where `samples` is given; returns `root`."""
    for name, rates in RATES.items():
        trained = name not in ("base", "self_refine")
        for seed in seeds if trained else seeds[:1]:
            rows = records(RATES["base"], 0, when="before", problems=problems) if trained else []
            rows += records(rates, seed, problems=problems)
            if samples and name in ("base", "single_turn_rl", "score_full"):
                rows += records(rates, seed, problems=problems, samples=samples)
            logged = steps(40, seed, collapse=name == "naive_multi_turn_rl") if name.endswith("rl") else []
            logged = steps(40, seed) if name.startswith("score") else logged
            config = ["score_phase2.gamma = 0.0", "progress.alpha = 10.0"] if name == "score_full" else []
            write_run(root, name, seed, rows, logged=logged, trained=trained, config=config)
    return root


def write_everything(root: Path) -> Path:
    """A suite that fills every figure: splits, ten attempts, bonus and discount sweeps, a failed run."""
    write_suite(root, samples=8, problems=40)
    for name, gamma, alpha in (
        ("score_discounted", 0.8, 10.0),
        ("score_discounted_1", 1.0, 10.0),
        ("score_bonus_1", 0.0, 1.0),
        ("score_bonus_3", 0.0, 3.0),
    ):
        for seed in (1, 2):
            rows = records(RATES["score_no_shaping"], seed, problems=40)
            rows += records(RATES["pair_sft"], seed, problems=40, split="train")
            config = [f"score_phase2.gamma = {gamma}", f"progress.alpha = {alpha}"]
            write_run(root, name, seed, rows, logged=steps(40, seed, collapse=gamma > 0.5), config=config)
    for name in ("base", "pair_sft", "score_full"):
        rows = records(RATES[name], 1, problems=40, turns=10, task="synthetic10")
        write_run(root, name, 7, rows, trained=name != "base", policy="ten")
    evil = "<script>document.title='pwned'</script> | `x`"
    write_run(root, "crashed", 1, [], status="failed", error=evil)
    return root
