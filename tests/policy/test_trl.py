"""One turn of this engine against TRL's RLOO: same batch, same loss, same gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.core import Problem, Trajectory, Turn, Verdict
from harness.credit import LeaveOneOut, reinforce
from harness.policy import HF

pytestmark = pytest.mark.slow  # imports trl

pytest.importorskip("trl", reason="TRL is a development dependency (pip install -e '.[dev]')")


@pytest.mark.filterwarnings("ignore")
def test_loss_and_gradient_equal_trls_rloo(micro_folder: Path, tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.rloo_config import RLOOConfig
    from trl.trainer.rloo_trainer import RLOOTrainer

    seen: dict[str, Any] = {}

    class Recorder(RLOOTrainer):
        """Keeps the first batch, its loss and its gradient; TRL does the sampling, the advantages and the loss."""

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            if not seen:
                grads = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
                seen.update(inputs=inputs, loss=float(loss.detach()), grad=torch.cat([g.flatten() for g in grads]))
            return loss

    def reward(completions: list[str], **_: Any) -> Any:
        return [float(text.count("a") == 1) for text in completions]

    tokenizer = AutoTokenizer.from_pretrained(micro_folder, padding_side="left")
    settings: dict[str, Any] = {
        "output_dir": str(tmp_path), "use_cpu": True, "per_device_train_batch_size": 16, "num_generations": 4,
        "max_completion_length": 3, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "beta": 0.0, "max_steps": 1,
        "report_to": "none", "learning_rate": 0.0, "gradient_checkpointing": False, "bf16": False,
        "save_strategy": "no",
        "normalize_advantages": False, "disable_dropout": True, "seed": 0,
    }  # fmt: skip
    trainer = Recorder(
        model=AutoModelForCausalLM.from_pretrained(micro_folder, dtype=torch.float32),
        reward_funcs=reward,
        args=RLOOConfig(**settings),
        train_dataset=Dataset.from_dict({"prompt": ["ab", "a", "bba", "b"] * 4}),
        processing_class=tokenizer,
    )
    trainer.train()

    inputs = seen["inputs"]
    prompts = [ids[mask.bool()] for ids, mask in zip(inputs["prompt_ids"], inputs["prompt_mask"], strict=True)]
    answers = [ids[mask.bool()] for ids, mask in zip(inputs["completion_ids"], inputs["completion_mask"], strict=True)]
    groups: dict[tuple[int, ...], list[Trajectory]] = {}
    for prompt, answer in zip(prompts, answers, strict=True):
        text = tokenizer.decode(answer, skip_special_tokens=True)
        value = reward([text])[0]
        turn = Turn(tuple(prompt.tolist()), tuple(answer.tolist()), text, Verdict(value, bool(value)))
        groups.setdefault(turn.context, []).append(Trajectory(Problem(str(turn.context), "", "a"), (turn,)))
    # TRL groups consecutive rows; equal prompts of one batch are one group here only if TRL drew them as one.
    rows = [trajectory for group in groups.values() for trajectory in group]
    grouped = [group[i : i + 4] for group in groups.values() for i in range(0, len(group), 4)]
    assert all(len(group) == 4 for group in grouped)
    examples = reinforce(grouped, advantage=LeaveOneOut(), kl=(0.0,))
    assert sorted(e.weight for e in examples) == pytest.approx(sorted(inputs["advantages"].tolist()), abs=1e-6)
    assert any(e.weight for e in examples)

    policy = HF(path=str(micro_folder)).load("cpu")
    policy.accumulate_gradients(examples, len(rows))
    grad = torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])
    assert float((grad - seen["grad"]).abs().max()) < 1e-5
    # TRL's loss is written with the ratio pi / pi_old, which is 1 here: its value is minus the mean advantage.
    assert seen["loss"] == pytest.approx(-sum(e.weight for e in examples) / len(rows), abs=1e-5)
