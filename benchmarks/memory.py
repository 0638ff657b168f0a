"""What a run needs of a GPU, memory by part and seconds a step, from the shape alone: `python -m benchmarks.memory`.

Parameters are counted on the real architecture (on torch's meta device: nothing is allocated), bytes follow from how
the engine keeps things (docs/multi_gpu.md says why). An estimate to choose a machine by, not a measurement: activations
are counted as the inputs of checkpointed layers plus one layer computed again, and fragmentation not at all.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Load:
    """What is asked of the machine.

    Attributes:
        processes: GPUs that the weights, gradients and Adam are divided among (FSDP2); 1 where each holds them whole.
        rows: Conversations decoded at once (`hf.sample_rows`).
        tokens: Longest conversation.
        microbatch: Padded tokens in one forward and backward (`hf.microbatch_tokens`).
        logits: Most logits held at once (`hf.logits_bound`).
        adapter: Share of the parameters that LoRA trains; 0 trains all.
    """

    processes: int = 1
    rows: int = 256
    tokens: int = 1_500
    microbatch: int = 16_384
    logits: int = 1 << 26
    adapter: float = 0.0


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


def parts(shape: dict[str, Any], load: Load, architecture: str = "qwen2") -> dict[str, float]:
    """Bytes of each part on one GPU: what is there always, and what sampling and the update add in turn."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **shape))
    total = sum(p.numel() for p in model.parameters())
    embedding = shape["vocab_size"] * shape["hidden_size"]
    matrices = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    rest = total - matrices + (embedding if shape["tie_word_embeddings"] else 0)  # an untied copy keeps its embedding
    half = 2 * matrices + 4 * rest  # harness/policy/precision.py: matrices in bfloat16, the rest in float32
    trained = load.adapter * total if load.adapter else total
    head = shape.get("head_dim") or shape["hidden_size"] // shape["num_attention_heads"]
    width, layers = shape["hidden_size"], shape["num_hidden_layers"]
    share = 1 / load.processes
    return {
        "parameters": total,
        "weights": half + 4 * trained if load.adapter else 4 * total * share,
        "reference": 0.0 if load.adapter else half,
        "Adam": 8 * trained * share,
        "gradients": 4 * trained * share,
        "copy": half if load.processes > 1 else 2 * matrices * (not load.adapter),
        "cache": load.rows * load.tokens * layers * 2 * shape["num_key_value_heads"] * head * 2.0,
        "activations": load.microbatch * (layers * width * 4 + 2 * (4 * shape["intermediate_size"] + 12 * width)),
        # logits, log-probabilities, probabilities and their gradients, of the policy and (half of them) the reference
        "logits": 6 * 4.0 * load.logits,
    }


def peaks(found: dict[str, float], processes: int) -> tuple[float, float]:
    """Bytes while sampling and while updating. With sharded weights the copy that samples stays during the update."""
    always = found["weights"] + found["reference"] + found["Adam"]
    update = found["gradients"] + found["activations"] + found["logits"] + (found["copy"] if processes > 1 else 0.0)
    return always + found["copy"] + found["cache"], always + update


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


def print_lengths(processes: int, lengths: Sequence[int]) -> None:
    """The larger peak of each known model by the length of a conversation, with the rows that the harness takes."""
    print(f"| model | parameters | rows | {' | '.join(f'{n:,} tokens' for n in lengths)} |")
    print("|---|--:|--:|" + "--:|" * len(lengths))
    for name, (architecture, shape) in MODELS.items():
        known = {"sample_rows": Load.rows, "microbatch_tokens": Load.microbatch, **find_settings(name)}
        rows, microbatch = known["sample_rows"], known["microbatch_tokens"]
        found = [parts(shape, Load(processes, rows, n, max(n, microbatch)), architecture) for n in lengths]
        most = [max(peaks(one, processes)) / GB for one in found]
        print(f"| `{name}` | {found[0]['parameters'] / 1e9:.2f} B | {rows} | ", end="")
        print(" | ".join(f"{value:.0f}" for value in most) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 8], help="GPUs that share the weights (FSDP2)")
    parser.add_argument("--rows", type=int, default=Load.rows)
    parser.add_argument("--tokens", type=int, default=Load.tokens)
    parser.add_argument("--microbatch", type=int, default=Load.microbatch)
    parser.add_argument("--lengths", type=int, nargs="+", metavar="TOKENS", help="only: peaks of each model by length")
    args = parser.parse_args()
    if args.lengths:
        print_lengths(args.processes[0], args.lengths)
        return
    columns = ["weights", "reference", "Adam", "gradients", "copy", "cache", "activations", "logits"]
    print("| Qwen2.5 | parameters | GPUs | " + " | ".join(columns) + " | **sampling** | **update** |")
    print("|---|--:|--:|" + "--:|" * (len(columns) + 2))
    kinds = [(n, 0.0) for n in args.processes] + [(1, 0.01)]
    for name, shape in SHAPES.items():
        for processes, adapter in kinds:
            found = parts(shape, Load(processes, args.rows, args.tokens, args.microbatch, adapter=adapter))
            cells = [found[column] for column in columns] + list(peaks(found, processes))
            kind = "1, LoRA" if adapter else f"{processes}, FSDP2" if processes > 1 else "1"
            print(f"| {name} | {found['parameters'] / 1e9:.2f} B | {kind} | ", end="")
            print(" | ".join(f"{value / GB:.1f}" for value in cells) + " |")
    print("\n| Qwen2.5 | sampling, s | update, s | steps an hour |\n|---|--:|--:|--:|")
    for name, shape in SHAPES.items():
        sampling, update = seconds(parts(shape, Load()), shape["num_hidden_layers"], Machine())
        print(f"| {name} | {sampling:.0f} | {update:.0f} | {3600 / (sampling + update):.0f} |")


if __name__ == "__main__":
    main()
