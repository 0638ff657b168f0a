"""A warm start: policy and reference both begin at the model with the adapter merged in; what does not fit is told."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import safetensors.torch

from harness.core import Example
from harness.policy import HF
from harness.policy.warm_start import ADAPTERS, read_warm_start
from harness.tasks.word_filter import make_problems
from harness.tools.warm_start import WarmMix, draw_attempts, judge_words, make_parser
from verifiers.word_set import read_word_set

pytest.importorskip("peft", reason="peft is an extra (pip install -e '.[peft]')")
CHATS = [[{"role": "user", "content": text}] for text in ("a", "ab", "b")]


@pytest.fixture
def adapter(micro_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a LoRA run has left, and an empty cache."""
    monkeypatch.setenv("SCORE_HARNESS_CACHE", str(tmp_path / "cache"))
    policy = HF(path=str(micro_folder), max_new_tokens=4, lora_rank=2, lr=0.05).load("cpu")
    turns = policy.open(CHATS, 4, seed=0, temperature=1.0).reply()
    policy.step([Example(turn, 1.0) for turn in turns], 12)
    policy.export(tmp_path / "taught")
    return tmp_path / "taught"


@pytest.mark.parametrize("rank", [0, 2], ids=["whole", "lora"])
def test_policy_and_reference_begin_at_the_merged_model(micro_folder: Path, adapter: Path, rank: int) -> None:
    taught = HF(path=str(micro_folder), max_new_tokens=4, lora_rank=2).load("cpu")
    taught.adopt(adapter)
    turns = taught.open(CHATS, 4, seed=1, temperature=1.0).reply()

    spec = HF(path=str(micro_folder), warm_start=str(adapter), max_new_tokens=4, lora_rank=rank)
    warm = spec.load("cpu")
    assert spec.key == f"{micro_folder.name}+taught"
    assert warm.describe()["warm_start"]["adapter"] == "taught"
    wanted, before = taught.turn_logprobs(turns), taught.turn_logprobs(turns, reference=True)
    assert max(abs(a - b) for x, y in zip(wanted, before, strict=True) for a, b in zip(x, y, strict=True)) > 1e-3
    for reference in (False, True):
        for found, expected in zip(warm.turn_logprobs(turns, reference=reference), wanted, strict=True):
            assert found == pytest.approx(expected, abs=1e-4)


def test_a_merged_model_is_made_once_for_each_adapter_and_base(
    micro_folder: Path, adapter: Path, tmp_path: Path
) -> None:
    spec = HF(path=str(micro_folder), warm_start=str(adapter))
    first = spec.model_source
    assert spec.model_source == first
    assert read_warm_start(first)
    assert sorted(path.name for path in Path(first).parent.iterdir()) == [Path(first).name]  # nothing half written
    moved = shutil.copytree(adapter, tmp_path / "other" / "taught")
    weights = safetensors.torch.load_file(moved / "adapter_model.safetensors")
    safetensors.torch.save_file({k: 2 * v for k, v in weights.items()}, moved / "adapter_model.safetensors")
    assert HF(path=str(micro_folder), warm_start=str(moved)).model_source != first


def test_what_is_no_adapter_of_this_model_is_told(micro_folder: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is shipped \(nearest: word_filter_smollm2\)"):
        HF(warm_start="embedded:word_filter_smolm2").load("cpu")
    with pytest.raises(ValueError, match="holds no LoRA adapter"):
        HF(warm_start=str(micro_folder)).load("cpu")
    with pytest.raises(ValueError, match="does not fit the model"):
        HF(warm_start=str(adapter)).load("cpu")  # the embedded model has other shapes


def test_the_corpus_has_the_shares_that_it_names() -> None:
    mix, rng = WarmMix(), random.Random(0)
    problems = make_problems("train", 6, near=False, words="known", categories="known")[:2000]
    pairs = [(problem, *draw_attempts(problem, mix, rng)) for problem in problems]
    reviews = [second for _, _, second in pairs if ":" in second]
    assert len(reviews) / 2000 == pytest.approx(1 - mix.keep - mix.anew, abs=0.03)
    right = sum(read_word_set(first) == read_word_set(problem.answer) for problem, first, _ in pairs)
    assert right / 2000 == pytest.approx((1 - mix.slip) ** 6, abs=0.04)
    for problem, _, second in pairs:
        told, _, answer = second.rpartition(":")
        judged = [item.rsplit(" ", 1) for item in told.split(", ") if item]
        if judged:  # an answer follows from its review, of all words in their order
            assert [word for word, _ in judged] == list(problem.meta["words"])
            assert [word for word, label in judged if label == "yes"] == answer.strip().split(", ")
    assert judge_words([True, False], 0.0, rng) == [True, False]


@pytest.mark.parametrize("folder", sorted(ADAPTERS.iterdir()), ids=lambda path: path.name)
def test_a_shipped_adapter_is_what_its_provenance_says(folder: Path) -> None:
    import hashlib

    told = json.loads((folder / "provenance.json").read_text())
    file = folder / "adapter_model.safetensors"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == told["sha256"]
    assert file.stat().st_size < 8e6
    assert told["base"]["sha256"]


def test_the_defaults_make_the_shipped_adapter() -> None:
    told = json.loads((ADAPTERS / "word_filter_smollm2" / "provenance.json").read_text())["arguments"]
    asked = vars(make_parser().parse_args(["--model", told["model"], "--out", "x"]))
    assert {key: value for key, value in asked.items() if key not in ("out", "save_every")} == told
