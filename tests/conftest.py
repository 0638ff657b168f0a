"""Offline, one thread, two small real models that every test can load, and the rule of the fast tier.

An item whose call takes more than SLOW_SECONDS of processor time carries the mark `slow`, and is left out of `make
test-fast`. Processor time, children included, is nearly the same on a busy machine; a run names items without the mark
that took more. The first item of a process that imports torch pays for that (some 3 s), and needs no mark.
"""

from __future__ import annotations

import os

# Before any Hugging Face or torch import.
for _name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"):
    os.environ[_name] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from harness.policy.engine import Policy

# Property tests: the same examples in every run, few enough to be quick, and no limit on one that meets a busy machine.
settings.register_profile("suite", max_examples=60, derandomize=True, deadline=None, database=None)
settings.load_profile("suite")

MICRO = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "a", "b"]


@pytest.fixture(scope="session")
def micro_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama over six tokens: small enough to enumerate every two-turn conversation of short replies."""
    from factories import ROLE_TEMPLATE, write_model
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(MICRO)}, unk_token="<|pad|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")  # type: ignore[assignment]
    tokenizer.decoder = decoders.Fuse()  # type: ignore[assignment]
    tokenizer.add_special_tokens(MICRO[:4])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")
    fast.chat_template = ROLE_TEMPLATE
    return write_model(
        tmp_path_factory.mktemp("models") / "micro", fast, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip


@pytest.fixture
def micro(micro_folder: Path) -> Policy:
    """A fresh engine on the micro model, replies of at most two tokens."""
    from harness.policy import HF

    return HF(path=str(micro_folder), max_new_tokens=2, lr=1e-3).load("cpu")


@pytest.fixture(scope="session")
def embedded() -> Policy:
    """The embedded model; shared, so tests must not train it."""
    from harness.policy import HF

    return HF(path="embedded:arithmetic", max_new_tokens=24).load("cpu")


SLOW_SECONDS, IMPORT_SECONDS = 3.0, 3.0


def read_processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    began, had_torch = read_processor_seconds(), "torch" in sys.modules
    try:
        return (yield)
    finally:
        imported = "torch" in sys.modules and not had_torch
        item.user_properties.append(("processor_seconds", read_processor_seconds() - began - IMPORT_SECONDS * imported))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    long = {
        report.nodeid: seconds
        for report in terminalreporter.stats.get("passed", ())
        for name, seconds in report.user_properties
        if name == "processor_seconds" and seconds > SLOW_SECONDS and "slow" not in report.keywords
    }
    if long:
        terminalreporter.section(f"over {SLOW_SECONDS:g} s of processor time without the mark `slow`")
    for nodeid, seconds in sorted(long.items(), key=lambda entry: -entry[1]):
        terminalreporter.write_line(f"{seconds:5.1f} s  {nodeid}")
