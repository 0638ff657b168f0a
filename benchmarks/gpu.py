"""Every check that needs a GPU, in one command: `python -m benchmarks.gpu`; writes benchmarks/results/gpu_DEVICE.json.

- `main_job`: SCoRe on the embedded model and task, the whole run;
- `stages_<size>`: one full step of Stage I and of Stage II at the shapes of Qwen2.5 0.5B and 1.5B with random weights:
  512 trajectories, replies of 512 tokens, bfloat16; peak memory and seconds of sampling and of the update;
- `agreement_<size>`: the sampler's and the trainer's log-probabilities of the same tokens, per token; the untrained
  policy's KL to its reference, which must be 0; bfloat16 against float32;
- `processes`: where there are two GPUs, two processes (data-parallel, then FSDP2) against one; else left out, and said.

`--tiny --device cpu` goes through the same code at toy size, which proves the script and measures nothing;
`--few --device cpu` takes the real 0.5B shape in float32, with a batch small enough for a CPU. A check that fails is
recorded with its error, the others still run, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.memory import SHAPES
from harness.core import Problem, Verdict
from harness.policy import HF
from harness.policy.engine import Policy
from harness.run import main as run
from harness.tasks.arithmetic import Arithmetic
from harness.training.dialogue import Intrinsic
from harness.training.rollout import sample_rollouts
from methods.score import Phase1, Phase2

ROOT = Path(__file__).parents[1]
TINY = {"vocab_size": 700, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}  # fmt: skip
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOLERANCE = 0.05  # nats per token, mean absolute difference of two bfloat16 forwards


@dataclasses.dataclass(frozen=True)
class Size:
    """How much work a check does."""

    problems: int
    samples: int
    reply: int
    steps: int
    shapes: dict[str, dict[str, Any]]
    dtype: str = "bfloat16"


FULL = Size(problems=128, samples=4, reply=512, steps=200, shapes={name: SHAPES[name] for name in ("0.5b", "1.5b")})
FEW = Size(problems=2, samples=2, reply=16, steps=4, shapes={"0.5b": SHAPES["0.5b"]}, dtype="float32")
TOY = Size(problems=4, samples=3, reply=8, steps=4, shapes={"0.5b": TINY})


class Parity:
    """A made-up reward that random weights earn about half of the time, so that every term has a gradient."""

    def __call__(self, problem: Problem, text: str) -> Verdict:
        right = sum(text.encode()) % 2 == 0
        return Verdict(float(right), right, answer=text[:8])


def random_model(shape: dict[str, Any], folder: Path, device: str) -> Path:
    """A Qwen2.5 of this shape with random weights, a byte-level tokenizer and ChatML."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*special, *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHATML
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = Qwen2ForCausalLM(Qwen2Config(**shape, eos_token_id=[2, 0], pad_token_id=0, bos_token_id=None))
    model.generation_config.eos_token_id = [2, 0]
    model.to(torch.bfloat16).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@contextmanager
def measured(policy: Policy, into: dict[str, Any], name: str) -> Iterator[None]:
    """Seconds (after synchronising) and the peak of allocated memory (on CPU: of the process's memory)."""
    cuda = policy.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    yield
    if cuda:
        torch.cuda.synchronize()
        into[f"{name}_peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
    else:  # of the whole process, since it began; ru_maxrss is in KiB on Linux
        into[f"{name}_peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)
    into[f"{name}_s"] = round(time.perf_counter() - begin, 3)


def spec(folder: Path, size: Size, **options: Any) -> HF:
    """The engine's settings for a real model, as in gin/machine/gpu.gin."""
    return HF(
        path=str(folder),
        max_new_tokens=size.reply,
        dtype=size.dtype,
        sample_rows=256,
        checkpoint_layers=True,
        **options,
    )


def main_job(size: Size, device: str, folder: Path) -> dict[str, Any]:
    """The embedded job by the command line."""
    words = ["--gin", "gin/score_full.gin", "--device", device, "--out", str(folder / "runs"), "--bind"]
    begin = time.perf_counter()
    if run(
        [*words, f"run.steps = {size.steps}", *(["--bind", "arithmetic.test_size = 20"] if size is not FULL else [])]
    ):
        raise RuntimeError("the run failed; what it printed says why")
    at = next((folder / "runs").rglob("run.json")).parent
    records = [json.loads(line) for line in (at / "eval.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {"seconds": round(time.perf_counter() - begin, 1)}
    for when in ("before", "after"):
        mine = [r["attempts"] for r in records if r["when"] == when]
        found |= {f"{when}_acc_t{i + 1}": round(sum(a[i]["correct"] for a in mine) / len(mine), 4) for i in (0, 1)}
    steps = [json.loads(line) for line in (at / "metrics.jsonl").read_text().splitlines()]
    return found | {"largest_sampler_gap": max(step["sampler_gap"] for step in steps)}


def stages(size: Size, device: str, folder: Path) -> dict[str, Any]:
    """One step of each stage on the whole batch; the second one's Adam holds its moments already."""
    found: dict[str, Any] = {"trajectories": size.problems * size.samples, "reply_tokens": size.reply}
    task = Arithmetic(Parity())
    policy = spec(folder, size, max_prompt_tokens=2048).load(device)
    found |= {"parameters": sum(p.numel() for p in policy.model.parameters())}
    if policy.device.type == "cuda":
        found["loaded_gb"] = round(torch.cuda.memory_allocated() / 1e9, 3)
    for number, phase in enumerate((Phase1(), Phase2())):
        name = f"stage{number + 1}"
        with measured(policy, found, f"{name}_sampling"):
            groups = sample_rollouts(
                policy, task, Intrinsic(), task.train[: size.problems], samples=size.samples, attempts=2, seed=number,
                temperature=1.0,
            )  # fmt: skip
        turns = [turn for group in groups for t in group for turn in t.turns]
        examples = list(phase.credit(groups))
        with measured(policy, found, f"{name}_update"):
            stats, norm = policy.step(examples, len(turns) // 2, fresh=True)
        tokens = sum(len(turn.tokens) for turn in turns)
        gaps = [abs(sum(e.turn.logprobs) - s.logprob) / s.tokens for e, s in zip(examples, stats, strict=True)]
        found |= {
            f"{name}_sampled_tokens": tokens,
            f"{name}_sampled_tokens_per_s": round(tokens / found[f"{name}_sampling_s"]),
            f"{name}_grad_norm": norm,
            f"{name}_sampler_gap": sum(gaps) / len(gaps),
            f"{name}_largest_kl": max(abs(s.kl or 0.0) for s in stats),
        }
        if not norm > 0 or norm != norm:
            raise RuntimeError(f"{name}: the gradient's norm is {norm}")
    if found["stage1_largest_kl"] > 1e-3:
        raise RuntimeError(f"the untrained policy is {found['stage1_largest_kl']} nats from its reference, not 0")
    return found


def agreement(size: Size, device: str, folder: Path) -> dict[str, Any]:
    """Log-probabilities of one small batch: sampler, trainer, reference and float32."""
    task = Arithmetic(Parity())
    policy = spec(folder, size).load(device)
    groups = sample_rollouts(policy, task, Intrinsic(), task.train[:8], samples=4, attempts=2, seed=9, temperature=1.0)
    turns = [turn for group in groups for t in group for turn in t.turns]
    half, reference = policy.turn_logprobs(turns), policy.turn_logprobs(turns, reference=True)
    del policy
    exact = HF(path=str(folder), max_new_tokens=size.reply, dtype="float32").load(device).turn_logprobs(turns)

    def gap(a: Any, b: Any) -> dict[str, float]:
        values = [abs(x - y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)]
        return {"mean": sum(values) / len(values), "max": max(values)}

    sampled = [turn.logprobs for turn in turns]
    found = {
        "sampler_and_trainer": gap(sampled, half), "trainer_and_reference": gap(half, reference),
        "bfloat16_and_float32": gap(half, exact),
    }  # fmt: skip
    if found["sampler_and_trainer"]["mean"] > TOLERANCE:
        raise RuntimeError(f"sampler and trainer differ by more than {TOLERANCE} nats per token: {found}")
    return found


def processes(size: Size, device: str, folder: Path) -> dict[str, Any]:
    """Two processes against one on the embedded task, data-parallel and sharded."""
    if device != "cpu" and torch.cuda.device_count() < 2:
        return {"left_out": f"{torch.cuda.device_count()} GPU here, two are needed"}
    words = ["-m", "harness.run", "--gin", "gin/score_full.gin", "--device", device]
    for binding in ("run.steps = 4", "run.problems = 16", "arithmetic.test_size = 40", "hf.dtype = 'float32'"):
        words += ["--bind", binding]
    launch = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1", "--mixed_precision",
              "no", "--dynamo_backend", "no", "--main_process_port", "0"]  # fmt: skip
    sharded = ["--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP"]
    kinds = {"one": [], "data_parallel": [*launch, "--multi_gpu"], "sharded": [*launch, *sharded]}
    lines: dict[str, Any] = {}
    for name, prefix in kinds.items():
        end = ["--out", str(folder / name), *(["--processes", "2"] if prefix else [])]
        use = {"ACCELERATE_USE_CPU": "true"} if device == "cpu" else {}
        done = subprocess.run(
            [sys.executable, *prefix, *words, *end], capture_output=True, text=True, cwd=ROOT,
            env={**os.environ, **use, "PYTHONPATH": str(ROOT)}, timeout=1800,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr[-1500:]}")
        at = next((folder / name).rglob("run.json")).parent
        lines[name] = [json.loads(line) for line in (at / "metrics.jsonl").read_text().splitlines()]
    keys = ("reward_t1", "reward_t2", "kl_t1", "kl_t2", "grad_norm")
    return {
        name: {key: max(abs(a[key] - b[key]) for a, b in zip(lines["one"], lines[name], strict=True)) for key in keys}
        for name in ("data_parallel", "sharded")
    }


def main(argv: list[str] | None = None) -> int:
    """Runs the checks; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy sizes: proves the script, measures nothing")
    parser.add_argument("--few", action="store_true", help="the real 0.5B shape, a batch of four short trajectories")
    parser.add_argument("--only", action="append", metavar="NAME", help="one check; repeatable (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    args = parser.parse_args(argv)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("error: torch finds no CUDA device here (to go through the script: --tiny --device cpu)", file=sys.stderr)
        return 2
    if args.device == "cpu" and not (args.tiny or args.few):
        print("error: the full sizes are for a GPU: add --tiny or --few", file=sys.stderr)
        return 2
    size, kind = (TOY, "_tiny") if args.tiny else (FEW, "_few") if args.few else (FULL, "")
    name = "cpu" if args.device == "cpu" else re.sub(r"\W+", "_", torch.cuda.get_device_name()).lower()
    report: dict[str, Any] = {
        "device": args.device if args.device == "cpu" else torch.cuda.get_device_name(),
        "size": kind.strip("_") or "full", "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "cuda": torch.version.cuda, "started": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "checks": {},
    }  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    path, failed = args.out / f"gpu_{name}{kind}.json", False
    with tempfile.TemporaryDirectory() as scratch:
        for check, work in _checks(size, args.device, Path(scratch)):
            if args.only and check not in args.only:
                continue
            print(f"{check} ...", flush=True)
            try:
                report["checks"][check] = work()
            except Exception as error:  # the other checks are still worth their time
                traceback.print_exc()
                report["checks"][check], failed = {"failed": f"{type(error).__name__}: {error}"}, True
            if args.device != "cpu":
                torch.cuda.empty_cache()
            path.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    print(f"written to {path}")
    return int(failed)


def _checks(size: Size, device: str, scratch: Path) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    yield "main_job", lambda: main_job(size, device, scratch)
    for name, shape in size.shapes.items():
        folder = scratch / name

        def model(shape: dict[str, Any] = shape, folder: Path = folder) -> Path:
            return folder if folder.exists() else random_model(shape, folder, device)

        yield f"agreement_{name}", lambda model=model: agreement(size, device, model())
        yield f"stages_{name}", lambda model=model: stages(size, device, model())
    yield "processes", lambda: processes(size, device, scratch / "processes")


if __name__ == "__main__":
    sys.exit(main())
