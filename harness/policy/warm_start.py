"""Warm starts: a LoRA adapter that is merged into a model first, so that policy and reference begin there.

A small pretrained model often cannot answer a task at all, or copies its first answer. Some minutes of supervised
training put it where methods can be compared; the adapter that holds this training is small enough to be shipped, while
the weights are the user's (`harness/tools/warm_start.py` makes one). It is merged once into a folder in the cache, and
that folder is used from then on: samplers and checkpoints know a plain model.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.policy.cache import cache_folder, make_once
from harness.policy.gguf_files import PROVENANCE as GGUF_PROVENANCE
from harness.registry import nearest_hint

if TYPE_CHECKING:
    from harness.policy import HF

ADAPTERS = Path(__file__).parent / "adapters"
PROVENANCE = "warm_start.json"


def find_adapter(name: str) -> Path:
    """The folder that `hf.warm_start` names: a folder in peft's layout, or `embedded:NAME` for a shipped one.

    Raises:
        ValueError: there is no such adapter; the message names the nearest shipped one.
    """
    prefix, _, short = name.rpartition(":")
    if prefix == "embedded":
        shipped = sorted(path.name for path in ADAPTERS.iterdir() if path.is_dir()) if ADAPTERS.is_dir() else []
        if short not in shipped:
            raise ValueError(f"no warm start {short!r} is shipped{nearest_hint(short, shipped)}: {', '.join(shipped)}")
        return ADAPTERS / short
    folder = Path(name).expanduser()
    if not (folder / "adapter_config.json").is_file():
        raise ValueError(f"hf.warm_start: the folder {name!r} holds no LoRA adapter (no adapter_config.json)")
    return folder


def merge_adapter(source: str, spec: HF) -> Path:
    """The folder with `spec.warm_start` merged into the model at `source`; made once, then found in the cache.

    Args:
        source: What `from_pretrained` is given for the model without the adapter.
        spec: The policy's settings.

    Raises:
        ValueError: model or adapter cannot be found or loaded, or the adapter belongs to another model.
    """
    adapter = find_adapter(spec.warm_start)
    with open(adapter / "adapter_model.safetensors", "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return _merged(source, spec.revision, str(adapter), digest)


@functools.cache
def _merged(source: str, revision: str, adapter: str, digest: str) -> Path:
    told = {"adapter": Path(adapter).name, "adapter_sha256": digest, "base": _fingerprint(source, revision)}
    name = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
    folder = cache_folder("warm_start") / f"{Path(adapter).name}-{name}"

    def write(beside: Path) -> None:
        _write_merged(source, revision, adapter, beside)
        (beside / PROVENANCE).write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    return make_once(folder, PROVENANCE, write)


def read_warm_start(folder: str | Path) -> dict[str, Any] | None:
    """What was merged into the model of a folder, or None where nothing was."""
    try:
        return json.loads((Path(folder) / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _fingerprint(source: str, revision: str) -> str:
    """Changes with the model's files: names, sizes and times of a folder, or name and revision of the hub."""
    if not os.path.isdir(source):
        return f"{source}@{revision}"
    files = sorted(Path(source).glob("*.safetensors")) + sorted(Path(source).glob("*.bin"))
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return f"{Path(source).name} {hashlib.sha256(repr(stats).encode()).hexdigest()[:12]}"


def _write_merged(source: str, revision: str, adapter: str, folder: Path) -> None:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ValueError("hf.warm_start needs peft: pip install -e '.[peft]' -c constraints.txt") from error
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from harness.policy import HF
    from harness.policy.files import load_pretrained

    plain = HF(path=source, revision=revision)
    model = load_pretrained(AutoModelForCausalLM, plain, dtype=torch.float32)
    tokenizer = load_pretrained(AutoTokenizer, plain)
    try:
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except (RuntimeError, ValueError) as error:  # of other shapes, or for modules that this model lacks
        raise ValueError(
            f"hf.warm_start: the adapter {adapter!r} does not fit the model {source!r}: {error}"
        ) from error
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if (origin := Path(source) / GGUF_PROVENANCE).is_file():
        shutil.copyfile(origin, folder / GGUF_PROVENANCE)
