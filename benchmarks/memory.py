"""What a run needs of a GPU, memory by part and seconds a step, from the shape alone: `python -m benchmarks.memory`.

Parameters are counted on the real architecture (on torch's meta device: nothing is allocated), bytes follow from how
the engine keeps things (docs/multi_gpu.md says why). An estimate to choose a machine by: activations are counted as the
inputs of checkpointed layers plus one layer computed again, and fragmentation not at all.

`--measure MODEL` checks the estimate: it loads the model, samples and updates for each of a few lengths, batches and
ways to train, each in a process of its own, and writes the predicted beside the measured peaks to
benchmarks/results/memory_DEVICE.json and as a table to the screen. On a GPU the peak is torch's, on a CPU (Linux) that
of the process.

Above 300 lines because the estimate and what checks it share the shapes and the loads.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import functools
import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.policy.known_models import find_settings

GB = 1e9
QWEN: dict[str, Any] = {
    "vocab_size": 151_936, "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "num_key_value_heads": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "tie_word_embeddings": True,
}  # fmt: skip
# The shapes that the models' own config.json files give.
SHAPES: dict[str, dict[str, Any]] = {
    "0.5b": {**QWEN, "hidden_size": 896, "intermediate_size": 4_864, "num_hidden_layers": 24,
             "num_attention_heads": 14},
    "1.5b": {**QWEN, "hidden_size": 1_536, "intermediate_size": 8_960, "num_hidden_layers": 28,
             "num_attention_heads": 12},
    "3b": {**QWEN, "hidden_size": 2_048, "intermediate_size": 11_008, "num_hidden_layers": 36,
           "num_attention_heads": 16},
    "7b": {**QWEN, "vocab_size": 152_064, "hidden_size": 3_584, "intermediate_size": 18_944, "num_hidden_layers": 28,
           "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False},
}  # fmt: skip


def _shape(width: int, inner: int, layers: int, heads: int, kv: int, head: int, words: int, tied: bool = True) -> Any:
    return {
        "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv, "head_dim": head, "vocab_size": words, "tie_word_embeddings": tied,
    }  # fmt: skip


# {model: (transformers' name of the architecture, its shape)}, for memory by length.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"Qwen/Qwen2.5-{name.upper()}-Instruct": ("qwen2", shape) for name, shape in SHAPES.items()},
    "Qwen/Qwen3-0.6B": ("qwen3", _shape(1_024, 3_072, 28, 16, 8, 128, 151_936)),
    "Qwen/Qwen3-1.7B": ("qwen3", _shape(2_048, 6_144, 28, 16, 8, 128, 151_936)),
    "Qwen/Qwen3-4B": ("qwen3", _shape(2_560, 9_728, 36, 32, 8, 128, 151_936)),
    "Qwen/Qwen3-8B": ("qwen3", _shape(4_096, 12_288, 36, 32, 8, 128, 151_936, tied=False)),
    "meta-llama/Llama-3.2-1B-Instruct": ("llama", _shape(2_048, 8_192, 16, 32, 8, 64, 128_256)),
    "meta-llama/Llama-3.2-3B-Instruct": ("llama", _shape(3_072, 8_192, 28, 24, 8, 128, 128_256)),
    "meta-llama/Llama-3.1-8B-Instruct": ("llama", _shape(4_096, 14_336, 32, 32, 8, 128, 128_256, tied=False)),
    "google/gemma-2-2b-it": ("gemma2", _shape(2_304, 9_216, 26, 8, 4, 256, 256_000)),
    "google/gemma-3-1b-it": ("gemma3_text", _shape(1_152, 6_912, 26, 4, 1, 256, 262_144)),
    "HuggingFaceTB/SmolLM2-135M-Instruct": ("llama", _shape(576, 1_536, 30, 9, 3, 64, 49_152)),
}  # fmt: skip


# Most bytes of the cache at once, over those of its keys and values: room to grow, a quarter. Rows and columns are
# moved in place, one layer after another (harness/policy/sampling.py).
CACHES = 1.25


@dataclass(frozen=True)
class Load:
    """What is asked of the machine.

    Attributes:
        processes: GPUs that the weights, gradients and Adam are divided among (FSDP2); 1 where each holds them whole.
        rows: Conversations decoded at once (`hf.sample_rows`).
        tokens: Longest conversation.
        microbatch: Padded tokens in one forward and backward (`hf.microbatch_tokens`).
        logits: Most logits held at once (`hf.logits_bound`).
        rank: Of LoRA on all matrices but the head; 0 trains all weights.
        half: Whether forwards are in bfloat16 (`hf.dtype`), as on a GPU; a CPU computes in float32.
        again: Whether layers are computed again for backward (`hf.checkpoint_layers`).
    """

    processes: int = 1
    rows: int = 256
    tokens: int = 1_500
    microbatch: int = 16_384
    logits: int = 1 << 26
    rank: int = 0
    half: bool = True
    again: bool = True


@dataclass(frozen=True)
class Machine:
    """One H100, as assumed: its memory's bandwidth, and what eager PyTorch gets out of it until that is measured.

    Attributes:
        bandwidth: Bytes per second.
        flops: Per second, in bfloat16, as achieved (0.4 of the 989e12 in the data sheet).
        launch: Seconds per layer and decoded token that Python and kernel launches take.
        rows: Conversations decoded at once.
    """

    bandwidth: float = 3.35e12
    flops: float = 0.4 * 989e12
    launch: float = 1e-3
    rows: int = 256


@functools.cache
def _count(architecture: str, shape: str) -> tuple[int, int, int, int]:
    """Of a shape (as JSON): all parameters, those of matrices, and, of matrices but the head, the sum of both sides and
    the number."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **json.loads(shape)))
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    inner = [m for m in linear if m is not model.get_output_embeddings()]
    total, matrices = sum(p.numel() for p in model.parameters()), sum(m.weight.numel() for m in linear)
    return total, matrices, sum(m.in_features + m.out_features for m in inner), len(inner)


def parts(shape: dict[str, Any], load: Load, architecture: str = "qwen2") -> dict[str, float]:
    """Bytes of each part on one GPU: what is there always, and what sampling and the update add in turn."""
    total, matrices, sides, inner = _count(architecture, json.dumps(shape))
    embedding = shape["vocab_size"] * shape["hidden_size"]
    rest = total - matrices + (embedding if shape["tie_word_embeddings"] else 0)  # an untied copy keeps its embedding
    # harness/policy/precision.py: frozen matrices in bfloat16, the rest in float32
    frozen = 2 * matrices + 4 * rest if load.half else 4 * total
    trained = load.rank * sides if load.rank else total
    head = shape.get("head_dim") or shape["hidden_size"] // shape["num_attention_heads"]
    width, layers = shape["hidden_size"], shape["num_hidden_layers"]
    share, number = 1 / load.processes, 2 if load.half else 4
    layer = number * (4 * shape["intermediate_size"] + 12 * width)  # of one token: what a layer keeps for backward
    return {
        "parameters": total,
        "weights": frozen + 4 * trained if load.rank else 4 * total * share,
        "reference": 0.0 if load.rank else frozen,
        "Adam": 8 * trained * share,
        "gradients": 4 * trained * share,
        "copy": (frozen if load.processes > 1 else 2 * matrices * (not load.rank)) if load.half else 0.0,
        "cache": load.rows * load.tokens * layers * 2 * shape["num_key_value_heads"] * head * float(number),
        "activations": load.microbatch * (layers * width * 4 + layer if load.again else layers * layer),
        # logits, log-probabilities, probabilities and their gradients, of the policy and (half of them) the reference
        "logits": 6 * 4.0 * load.logits,
        # autograd adds the gradients of a matrix that several parts of a batch read, out of place: the head's, thrice
        "head": 0.0 if load.rank else 3 * 4.0 * embedding,
        # Adam's step: on a GPU one more tensor for every weight, on a CPU two of the largest one
        "step": 4 * trained * share if load.half else 8.0 * (trained / inner if load.rank else embedding),
    }


def peaks(found: dict[str, float], processes: int) -> tuple[float, float]:
    """Bytes while sampling and while updating. With sharded weights the copy that samples stays during the update."""
    always = found["weights"] + found["reference"] + found["Adam"]
    update = found["gradients"] + max(found["activations"] + found["logits"] + found["head"], found["step"])
    return (
        always + found["copy"] + CACHES * found["cache"],
        always + update + (found["copy"] if processes > 1 else 0.0),
    )


def seconds(
    found: dict[str, float], layers: int, machine: Machine, trajectories: int = 512, reply: int = 512, prompt: int = 200
) -> tuple[float, float]:
    """Seconds of one step of two-attempt trajectories on one GPU: (sampling, update).

    Sampling: a token of every row costs reading the weights once, or the launches of the layers where those take
    longer. Update: 2 FLOPs per parameter and token, for the reference, forward, layers again, and twice for backward.
    """
    batches = -(-trajectories // machine.rows)
    token = max(2 * found["parameters"] / machine.bandwidth, layers * machine.launch)
    length = 2 * (prompt + reply)
    return 2 * reply * batches * token, 10 * found["parameters"] * trajectories * length / machine.flops


def lengths_table(processes: int, lengths: Sequence[int]) -> str:
    """The larger peak of each known model by the length of a conversation, with the rows that the harness takes."""
    lines = [f"| model | parameters | rows | {' | '.join(f'{n:,} tokens' for n in lengths)} |"]
    lines.append("|---|--:|--:|" + "--:|" * len(lengths))
    for name, (architecture, shape) in MODELS.items():
        known = {"sample_rows": Load.rows, "microbatch_tokens": Load.microbatch, **find_settings(name)}
        rows, microbatch = known["sample_rows"], known["microbatch_tokens"]
        found = [parts(shape, Load(processes, rows, n, max(n, microbatch)), architecture) for n in lengths]
        most = [f"{max(peaks(one, processes)) / GB:.0f}" for one in found]
        lines.append(f"| `{name}` | {found[0]['parameters'] / 1e9:.2f} B | {rows} | {' | '.join(most)} |")
    return "\n".join(lines)


def parts_table(processes: Sequence[int], rows: int, tokens: int, microbatch: int) -> str:
    """GB of each part and both peaks for the sizes of Qwen2.5, by the number of GPUs, and with LoRA on one."""
    columns = ["weights", "reference", "Adam", "gradients", "copy", "cache", "activations", "logits", "head"]
    lines = ["| Qwen2.5 | parameters | GPUs | " + " | ".join(columns) + " | **sampling** | **update** |"]
    lines.append("|---|--:|--:|" + "--:|" * (len(columns) + 2))
    for name, shape in SHAPES.items():
        for number, rank in [(n, 0) for n in processes] + [(1, 16)]:
            found = parts(shape, Load(number, rows, tokens, microbatch, rank=rank))
            cells = [found[column] for column in columns] + list(peaks(found, number))
            kind = "1, LoRA" if rank else f"{number}, FSDP2" if number > 1 else "1"
            told = " | ".join(f"{value / GB:.1f}" for value in cells)
            lines.append(f"| {name} | {found['parameters'] / 1e9:.2f} B | {kind} | {told} |")
    return "\n".join(lines)


def seconds_table() -> str:
    """Seconds of one step by the size of Qwen2.5."""
    lines = ["| Qwen2.5 | sampling, s | update, s | steps an hour |", "|---|--:|--:|--:|"]
    for name, shape in SHAPES.items():
        sampling, update = seconds(parts(shape, Load()), shape["num_hidden_layers"], Machine())
        lines.append(f"| {name} | {sampling:.0f} | {update:.0f} | {3600 / (sampling + update):.0f} |")
    return "\n".join(lines)


LENGTHS = (512, 1_024, 2_048, 4_096, 8_192)


def put_tables(page: str, tables: Sequence[str]) -> str:
    """The page with each table in the place of the one that has the same head.

    Raises:
        ValueError: the page has no such table.
    """
    for new in tables:
        head = new.split("\n", 1)[0] + "\n"
        before, found, rest = page.partition(head)
        if not found:
            raise ValueError(f"no table with this head: {head}")
        lines = rest.split("\n")
        end = next(i for i, line in enumerate(lines) if not line.startswith("|"))
        page = before + new + "\n" + "\n".join(lines[end:])
    return page


# -- checked against real runs ----------------------------------------------------------------------------------------

RESULTS = Path(__file__).parent / "results"
REPLY, SAMPLES = 16, 4  # tokens of a reply, conversations on a prompt
# One thread; and the C library gives every large block back at once: what it keeps for later is nobody's need.
EXACT = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 18)}
# What is measured: (name, load). Sampling takes all rows, the update as many conversations as fill one micro-batch.
CASES: tuple[tuple[str, Load], ...] = (
    ("all weights, short", Load(rows=16, tokens=256, microbatch=1_024, logits=1 << 22)),
    ("all weights, long", Load(rows=8, tokens=1_024, microbatch=2_048, logits=1 << 24)),
    ("all weights, layers kept", Load(rows=16, tokens=256, microbatch=1_024, logits=1 << 22, again=False)),
    ("LoRA, short", Load(rows=16, tokens=256, microbatch=1_024, logits=1 << 22, rank=8)),
    ("LoRA, long", Load(rows=8, tokens=1_024, microbatch=2_048, logits=1 << 24, rank=8)),
)  # fmt: skip


def shape_of(path: str) -> tuple[str, dict[str, Any]]:
    """transformers' name of a model's architecture, and its shape, from its config.json."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path).get_text_config()
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
             "head_dim", "vocab_size", "tie_word_embeddings")  # fmt: skip
    return config.model_type, {name: getattr(config, name) for name in names if hasattr(config, name)}


class Meter:
    """Bytes in use beyond those at the start, now and at most since the last `reset`."""

    def __init__(self, cuda: bool) -> None:
        self.cuda, self._begin = cuda, 0.0
        self._begin = self.reset()

    def reset(self) -> float:
        """Gives free memory back, begins the peak anew, and returns what is in use."""
        gc.collect()
        if self.cuda:
            import torch

            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated() - self._begin
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS") - self._begin

    def peak(self) -> float:
        """The most since the last reset."""
        if self.cuda:
            import torch

            return torch.cuda.max_memory_allocated() - self._begin
        return _status("VmHWM") - self._begin


def _status(name: str) -> float:
    """A line of this process's memory account, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def measure_here(path: str, load: Load, device: str, samples: int = SAMPLES, reply: int = REPLY) -> dict[str, float]:
    """Loads the model in this process, samples and updates twice; bytes of each phase of the second time.

    The first time is a small one: Adam has its moments after it, and libraries their buffers.

    Args:
        path: As `hf.path`.
        load: Rows that are sampled at once, tokens of a conversation of one prompt and two replies, and so on.
        device: cpu or cuda.
        samples: Conversations on each prompt.
        reply: Tokens of each reply; no token ends one.
    """
    import torch

    from harness.core import Example
    from harness.policy import HF, engine  # noqa: F401

    _ = torch.ones(1, device=device) @ torch.ones(1, device=device)  # the device's own libraries are no part of a run
    meter, dtype = Meter(device != "cpu"), "bfloat16" if load.half else "float32"
    spec = HF(
        path=path, max_new_tokens=reply, lr=1e-6, lora_rank=load.rank, dtype=dtype, sample_rows=load.rows,
        microbatch_tokens=load.microbatch, logits_bound=load.logits, checkpoint_layers=load.again,
    )  # fmt: skip
    policy = spec.load(device)
    policy.end_ids = [-1]
    ask = "There might be an error in the answer above."
    found: dict[str, float] = {}

    def prompt(number: int, tokens: int) -> list[dict[str, str]]:
        """About so many tokens, each prompt other than the next."""
        words = [f"{number + 7 * i}" for i in range(tokens)]
        text, spare = " ".join(words), tokens - 2 * reply - len(policy.chat.encode_followup(ask, ()))
        ids = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
        frame = len(policy.chat.encode_opening([{"role": "user", "content": ""}]))
        return [{"role": "user", "content": policy.tokenizer.decode(ids[: max(1, spare - frame)])}]

    def step(rows: int, tokens: int) -> None:
        chats = [prompt(number, tokens) for number in range(max(1, rows // samples))]
        found["always"] = meter.reset()
        session = policy.open(chats, min(samples, rows), seed=0, temperature=1.0)
        first = session.reply()
        session.ask([ask] * len(first))
        turns = list(zip(first, session.reply(), strict=True))
        found["sampling"] = meter.peak()
        del session
        meter.reset()
        found["tokens"] = max(len(b.context) + len(b.tokens) for _, b in turns)
        # One conversation of each prompt first: conversations of one prompt share its tokens.
        turns = sorted(turns, key=lambda pair: turns.index(pair) % samples)[: max(1, load.microbatch // tokens)]
        policy.step([Example(turn, 1.0, 0.01) for pair in turns for turn in pair], len(turns))
        found["update"] = meter.peak()

    step(1, 128)
    step(load.rows, load.tokens)
    return found


def predict(report: dict[str, Any], name: str) -> dict[str, float]:
    """Bytes of each phase of a measured case, by the estimate."""
    case = report["cases"][name]
    load = Load(**{**case["load"], "tokens": int(case["measured"]["tokens"])})
    found = parts(report["shape"], load, report["architecture"])
    sampling, update = peaks(found, load.processes)
    return {"always": found["weights"] + found["reference"] + found["Adam"], "sampling": sampling, "update": update}


def measure(path: str, device: str, cases: Sequence[tuple[str, Load]], out: Path) -> dict[str, Any]:
    """Measures every case in a process of its own, and writes each as soon as it is there.

    A case that the file has already, of the same model and load, is not measured again.
    """
    architecture, shape = shape_of(_source(path))
    report: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"cases": {}}
    report |= {**_machine(device), "architecture": architecture, "shape": shape}
    for name, load in cases:
        load = dataclasses.replace(load, half=device != "cpu")
        told = {"model": model_name(path), "load": dataclasses.asdict(load)}
        old = report["cases"].get(name, {})
        if {key: old.get(key) for key in told} == told:
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        words = ["--measure", path, "--device", device, "--case", json.dumps(told["load"])]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", *words], capture_output=True, text=True,
            cwd=Path(__file__).parents[1], env={**os.environ, **EXACT},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr[-1500:]}")
        report["cases"][name] = {**told, "measured": json.loads(done.stdout.splitlines()[-1])}
        out.write_text(json.dumps(report, indent=1) + "\n")
    return report


def _source(path: str) -> str:
    from harness.policy import HF

    return HF(path=path).model_source


def model_name(path: str) -> str:
    """The model's name, without the folder that it lies in on this machine."""
    return path.rstrip("/").rpartition("/")[2]


def _machine(device: str) -> dict[str, Any]:
    import torch

    from harness.machine import cpu_name

    name = cpu_name() if device == "cpu" else torch.cuda.get_device_name()
    return {"device": name, "torch": torch.__version__, "threads": torch.get_num_threads()}


def table(report: dict[str, Any]) -> str:
    """Predicted and measured GB of each case."""
    phases = ("always", "sampling", "update")
    lines = ["| case | rows | tokens | micro-batch | " + " | ".join(f"{name}: predicted, measured" for name in phases)]
    lines = [lines[0] + " |", "|---|--:|--:|--:|" + "--:|" * len(phases)]
    for name, case in report["cases"].items():
        load = case["load"]
        predicted = predict(report, name)
        cells = [f"{predicted[p] / GB:.2f}, {case['measured'][p] / GB:.2f}" for p in phases]
        lines.append(
            f"| {name} | {load['rows']} | {load['tokens']:,} | {load['microbatch']:,} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 8], help="GPUs that share the weights (FSDP2)")
    parser.add_argument("--rows", type=int, default=Load.rows)
    parser.add_argument("--tokens", type=int, default=Load.tokens)
    parser.add_argument("--microbatch", type=int, default=Load.microbatch)
    parser.add_argument("--lengths", type=int, nargs="+", metavar="TOKENS", help="only: peaks of each model by length")
    parser.add_argument("--page", type=Path, help="only: put all tables into this page, in the place of the old ones")
    parser.add_argument("--measure", metavar="MODEL", help="only: predicted against measured, in real runs of a model")
    parser.add_argument("--device", default="cpu", help="where it is measured: cpu (default), cuda")
    parser.add_argument("--out", type=Path, help="with --measure: the .json (default: in benchmarks/results/)")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure_here(args.measure, Load(**json.loads(args.case)), args.device)))
        return
    if args.measure:
        name = re.sub(r"\W+", "_", _machine(args.device)["device"]).lower() if args.device != "cpu" else "cpu"
        print(table(measure(args.measure, args.device, CASES, args.out or RESULTS / f"memory_{name}.json")))
        return
    if args.lengths:
        print(lengths_table(args.processes[0], args.lengths))
        return
    tables = [parts_table(args.processes, args.rows, args.tokens, args.microbatch), seconds_table()]
    if args.page:
        measured = [table(json.loads(path.read_text())) for path in [RESULTS / "memory_cpu.json"] if path.exists()]
        page = put_tables(args.page.read_text(), [*tables, lengths_table(1, LENGTHS), *measured])
        args.page.write_text(page)
        return
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
