"""Builds the embedded model: `python -m harness.policy.pretrain --out FOLDER` writes a Hugging Face folder.

Deterministic: same script, config and seed give the same weights on one CPU thread; provenance.json records them with
the hash. Not covered: any other corpus than `harness.policy.corpus`.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness.policy.corpus import CLEAN, Mix, line
from harness.tasks.arithmetic import RETRY, Operands, ask

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|unknown|>"]
WORDS = ["Compute $", r" \times ", " + ", " = ", "$.", "$ ", "$", r"\boxed{", "}", " ", RETRY]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per digit and per fixed phrase of the task; exact both ways on the task's own text."""
    words = SPECIAL + [str(digit) for digit in range(10)] + WORDS
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<|unknown|>"))
    longest_first = sorted(WORDS, key=len, reverse=True)
    pattern = "|".join([*(_escape(word) for word in longest_first), "[0-9]", "[^0-9]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")  # type: ignore[assignment]
    tokenizer.decoder = decoders.Fuse()  # type: ignore[assignment]
    tokenizer.add_special_tokens(SPECIAL)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", unk_token="<|unknown|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _escape(word: str) -> str:
    return "".join("\\" + ch if ch in r"\$+{}." else ch for ch in word)


def encode(
    tokenizer: PreTrainedTokenizerFast, lines: list[tuple[Operands, str | None, str]]
) -> list[tuple[list[int], int]]:
    """Token ids of each line and the position where its trained response begins."""
    chats = []
    for operands, first, _ in lines:
        review = [] if first is None else [{"role": "assistant", "content": first}, {"role": "user", "content": RETRY}]
        chats.append([{"role": "user", "content": ask(operands)}, *review])
    contexts: Any = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    replies = [response + "<|end|>" for _, _, response in lines]
    ids = [tokenizer(texts, add_special_tokens=False)["input_ids"] for texts in (contexts, replies)]
    return [(context + reply, len(context)) for context, reply in zip(*ids, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--clean", type=int, default=1000, help="steps on right answers and right work")
    parser.add_argument("--steps", type=int, default=300, help="further steps on the whole mix, habits included")
    parser.add_argument("--batch", type=int, default=256, help="corpus lines a step")
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--init", type=float, default=0.08, help="standard deviation of the initial weights")
    parser.add_argument("--rope-theta", type=float, default=100.0, help="short texts want short wavelengths")
    parser.add_argument("--seed", type=int, default=0)
    for item in dataclasses.fields(Mix):
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=float, default=item.default)
    args = parser.parse_args()
    mix = Mix(**{item.name: getattr(args, item.name) for item in dataclasses.fields(Mix)})

    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # a sum split among threads is another sum
    rng, tokenizer = random.Random(args.seed), build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden,
        intermediate_size=args.hidden * 3,
        num_hidden_layers=args.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=args.init,
        rope_parameters={"rope_type": "default", "rope_theta": args.rope_theta},
        pad_token_id=SPECIAL.index("<|pad|>"),
        bos_token_id=None,
        eos_token_id=SPECIAL.index("<|end|>"),
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01, betas=(0.9, 0.98))
    warmup, total = 100, args.clean + args.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1.0, (i + 1) / warmup) * (1 - i / total) ** 0.5
    )
    clean = dataclasses.replace(mix, **CLEAN)
    for step in track(range(total), description="pre-training"):
        stage = clean if step < args.clean else mix
        lines = encode(tokenizer, [line(stage, rng) for _ in range(args.batch)])
        width = max(len(ids) for ids, _ in lines)
        ids_BT = torch.full((len(lines), width), SPECIAL.index("<|pad|>"))
        labels_BT = torch.full((len(lines), width), -100)
        for row, (ids, begin) in enumerate(lines):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
            labels_BT[row, begin : len(ids)] = torch.tensor(ids[begin:])
        loss = model(input_ids=ids_BT, labels=labels_BT).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0 or step == total - 1:
            print(f"step {step} loss {loss.item():.4f}", flush=True)

    out = Path(args.out)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    provenance = {
        "script": "python -m harness.policy.pretrain",
        "arguments": {key: value for key, value in sorted(vars(args).items()) if key != "out"},
        "parameters": sum(p.numel() for p in model.parameters()),
        "torch": torch.__version__.partition("+")[0],
        "sha256": hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(),
    }
    (out / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n")


if __name__ == "__main__":
    main()
