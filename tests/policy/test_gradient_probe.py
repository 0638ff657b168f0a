"""What an update is made of: the parts are the gradient's, and looking at them changes nothing."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from test_budgets import experiment_of, ran

from harness import config, run
from harness.analysis import mechanism
from harness.core import Example, Verdict
from harness.policy.engine import Policy
from harness.runs import reader

SMALL = ["run.steps = 4", "run.problems = 4", "run.samples = 2", "arithmetic.test_size = 20", "hf.max_new_tokens = 8"]


def examples(policy: Policy) -> list[Example]:
    session = policy.open([[{"role": "user", "content": text}] for text in "ab"], 3, 1, 1.0)
    first = session.reply()
    session.ask(["b"] * 6)
    turns = [*first, *session.reply()]
    made = [Example(turn, weight=(-1.0) ** i * (1 + i), kl=0.1 * (1 + turn.index)) for i, turn in enumerate(turns)]
    return [dataclasses.replace(e, turn=dataclasses.replace(e.turn, verdict=Verdict(0.0, False))) for e in made]


def test_the_parts_sum_to_the_whole_gradient(micro: Policy) -> None:
    micro.step(examples(micro), 6.0)  # away from the base model, where the KL's gradient is 0
    batch = examples(micro)
    found = micro.measure_gradient(batch, 6.0)
    parts = ("reward_t1", "reward_t2", "kl_t1", "kl_t2")
    norms = {part: found[f"gradient_norm_{part}"] for part in parts}
    assert all(norm > 0 for norm in norms.values())
    square = sum(norm**2 for norm in norms.values())
    for i, a in enumerate(parts):
        for b in parts[i + 1 :]:
            assert abs(found[f"gradient_cosine_{a}_{b}"]) <= 1 + 1e-9
            square += 2 * found[f"gradient_cosine_{a}_{b}"] * norms[a] * norms[b]
    assert sum(found[f"gradient_share_{part}"] for part in parts) == pytest.approx(1, abs=1e-9)
    whole = micro._gradient(batch, 6.0)
    alone = [
        [dataclasses.replace(e, weight=e.weight * (kind == "reward"), kl=e.kl * (kind == "kl")) if e.turn.index == i
         else dataclasses.replace(e, weight=0.0, kl=0.0) for e in batch]
        for kind in ("reward", "kl") for i in (0, 1)
    ]  # fmt: skip
    assert float((sum(micro._gradient(part, 6.0) for part in alone) - whole).norm() / whole.norm()) < 1e-5
    assert all(p.grad is None for p in micro.model.parameters())
    _, norm = micro.step(batch, 6.0)
    assert found["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    assert math.sqrt(square) == pytest.approx(norm, rel=1e-5)
    assert found["gradient_clipped"] == float(norm > micro.spec.max_grad_norm)


def test_a_term_without_a_gradient_is_no_part(micro: Policy) -> None:
    batch = [dataclasses.replace(e, weight=0.0 if e.turn.index == 0 else e.weight, kl=0.0) for e in examples(micro)]
    found = micro.measure_gradient(batch, 6.0)
    assert found["gradient_share_reward_t2"] == pytest.approx(1)
    assert not any("t1" in key or "kl" in key for key in found)
    nothing = micro.measure_gradient([dataclasses.replace(e, weight=0.0) for e in batch], 6.0)
    assert nothing == {"gradient_norm": 0.0, "gradient_clipped": 0.0}


def test_probes_and_evaluations_on_the_way_change_no_byte(tmp_path: Path) -> None:
    words = ["--gin", str(config.ROOT / "gin" / "score_full.gin"), "--device", "cpu"]
    words += [word for binding in SMALL for word in ("--bind", binding)]
    looks = ["run.gradient_probe_every = 2", "run.evaluate_every = 2"]
    more = [word for binding in looks for word in ("--bind", binding)]
    assert run.main([*words, "--out", str(tmp_path / "plain")]) == 0
    assert run.main([*words, *more, "--out", str(tmp_path / "looked")]) == 0
    one, two = (next((tmp_path / name).rglob("eval.jsonl")) for name in ("plain", "looked"))
    assert one.read_bytes() == two.read_bytes()
    plain, looked = (
        [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()] for path in (one, two)
    )
    assert [any(key.startswith("gradient_share") for key in line) for line in looked] == [False, True, False, True]
    assert [line.get("midway_problems", 0) > 0 for line in looked] == [False, True, False, True]
    for a, b in zip(plain, looked, strict=True):
        kept = {key: value for key, value in b.items() if not key.startswith(("gradient_", "midway_", "spent_"))}
        assert {**kept, "trajectories_per_second": 0} == {**a, "trajectories_per_second": 0}
    spent = json.loads((two.parent / "run.json").read_text())["spent"]
    assert {f"spent_{key}": value for key, value in spent.items()} == {
        key: value for key, value in looked[-1].items() if key.startswith("spent_")
    }
    runs, troubles = reader.read_runs(tmp_path / "looked", whens=("after",))
    assert not troubles
    rows = mechanism.made_of(runs)
    assert {row[0] for row in rows} == {"score_full"}
    assert sum(row[2] for row in rows) == 2
    assert "## What an update is made of" in mechanism.render_markdown(runs, "x")
    bare, _ = reader.read_runs(tmp_path / "plain", whens=("after",))
    assert "made of" not in mechanism.render_markdown(bare, "x")


def test_a_policy_without_a_gradient_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gradient_probe_every"):
        ran(tmp_path, experiment_of(gradient_probe_every=1))
