"""Model folders and checkpoints: read with one clear error each, checked before use, written whole or not at all.

Nothing here runs code of a model's repository (`trust_remote_code` is False).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

if TYPE_CHECKING:
    from harness.policy import HF

READABLE = 0o644  # safetensors leaves files that their owner alone can read


def require_model(folder: str) -> None:
    """Raises ValueError for anything but a whole model: a file, a LoRA adapter's folder, a folder without a config."""
    if os.path.isfile(folder):
        raise ValueError(f"hf.path must be a folder in Hugging Face's layout or a hub name; {folder!r} is a file")
    if (Path(folder) / "adapter_config.json").is_file():
        raise ValueError(
            f"the folder {folder!r} holds a LoRA adapter (adapter_config.json), which hf.path cannot be: policy and "
            "reference would both be the model without it. Merge it first, and give the merged folder: "
            "peft.AutoPeftModelForCausalLM.from_pretrained(FOLDER).merge_and_unload().save_pretrained(MERGED), with "
            "the tokenizer's files beside it"
        )
    if os.path.isdir(folder) and not (Path(folder) / "config.json").is_file():
        other = sorted(path.name for path in Path(folder).iterdir())[:5] or "nothing"
        raise ValueError(f"the folder {folder!r} holds no complete Hugging Face model: no config.json, only {other}")


def load_pretrained(auto: Any, spec: HF, **options: Any) -> Any:
    """`auto.from_pretrained` of the policy's model.

    Raises:
        ValueError: whatever keeps it from being loaded, with transformers' whole reason.
    """
    local = os.path.isdir(spec.model_source)
    revision = None if local else spec.revision
    try:
        return auto.from_pretrained(spec.model_source, revision=revision, trust_remote_code=False, **options)
    except Exception as error:  # transformers raises anything over files that it cannot use
        reason = " ".join(str(error).split())
        if not isinstance(error, OSError | ValueError | SafetensorError):
            reason = f"{type(error).__name__}: {reason}"
        if "trust_remote_code" in reason:
            reason = f"it needs code of its own repository, and the harness runs none ({reason})"
        elif local and isinstance(error, OSError | SafetensorError):
            raise ValueError(
                f"the folder {spec.model_source!r} holds no complete Hugging Face model: {reason}"
            ) from error
        elif isinstance(error, OSError):
            raise ValueError(
                f"cannot load the model {spec.model_source!r}: no such folder here, and the hub did not give it "
                f"({reason}). "
                "To use a local copy: --bind \"hf.path = '/path/to/model'\""
            ) from error
        raise ValueError(f"cannot load the model {spec.model_source!r}: {reason}") from error


def causal_model(spec: HF) -> Any:
    """The policy's model in float32, with every probability of dropout 0.

    Not by `eval()` alone: some layers drop where they are told that they train, as they are while they are computed
    again for backward.

    Raises:
        ValueError: it cannot be loaded; it is an adapter; it is quantised and its weights are to be trained; or its
            files lack weights, which transformers would draw at random.
    """
    config = load_pretrained(AutoConfig, spec)
    for part in _parts(config):
        for name, value in vars(part).items():
            if "drop" in name and isinstance(value, int | float) and not isinstance(value, bool):
                setattr(part, name, type(value)(0))  # MPT's are whole numbers
    quantised = [q for part in _parts(config) if (q := getattr(part, "quantization_config", None))]
    if quantised and not spec.lora_rank:
        of = quantised[0] if isinstance(quantised[0], dict) else vars(quantised[0])
        raise ValueError(
            f"the model at {spec.model_source!r} is quantised ({of.get('quant_method')}): its weights cannot be "
            "trained. "
            "Give the model it was made from, or train an adapter on it: --bind 'hf.lora_rank = 16'"
        )
    attention = {} if spec.attention == "auto" else {"attn_implementation": spec.attention}
    model, found = load_pretrained(
        AutoModelForCausalLM, spec, config=config, dtype=torch.float32, output_loading_info=True, **attention
    )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ValueError(
            f"{spec.model_source!r} is a LoRA adapter, which hf.path cannot be: merge it into its model first"
        )
    for kind in ("missing", "mismatched"):
        if names := sorted(map(str, found[f"{kind}_keys"])):
            raise ValueError(
                f"the files of {spec.model_source!r} have {len(names)} {kind} weights of {type(model).__name__} "
                f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}): they would be drawn at random. "
                f"The files have {len(found['unexpected_keys'])} weights that the model does not know"
            )
    return model


def context_window(config: Any) -> int:
    """Longest conversation in tokens that the model reads exactly.

    Phi-3's longrope has one set of rotations up to its original window and another beyond; a key that was cached
    before the switch keeps the first, so only the original window is used.

    Raises:
        ValueError: longrope without an original window.
    """
    found = next((w for name in ("max_position_embeddings", "max_seq_len") if (w := getattr(config, name, None))), None)
    rope = getattr(config, "rope_parameters", None) or {}
    for part in (rope, *(part for part in rope.values() if isinstance(part, Mapping))):
        if "longrope" in (part.get("rope_type"), part.get("type")):
            original = part.get("original_max_position_embeddings")
            original = original or getattr(config, "original_max_position_embeddings", None)
            if not original:
                raise ValueError(f"{config.model_type} has longrope but no original_max_position_embeddings")
            found = min(found or original, original)
    return found or 1 << 30


def find_nonfinite(tensors: Mapping[str, Tensor], infinite: frozenset[str] = frozenset()) -> str | None:
    """The name of the first tensor with NaN, or with infinities where it is not among the `infinite`; else None."""
    for name, value in tensors.items():
        local = value.to_local() if hasattr(value, "to_local") else value  # type: ignore[operator]
        forbidden = torch.isnan if name in infinite else lambda part: ~torch.isfinite(part)
        if local.is_floating_point() and bool(forbidden(local).any()):
            return name
    return None


def read_file(load: Callable[[], Any], path: object) -> Any:
    """What `load` reads of a file.

    Raises:
        ValueError: the file is damaged, or no such file at all.
        OSError: it cannot be read.
    """
    try:
        return load()
    except FileNotFoundError:
        raise
    except Exception as error:  # torch and pickle raise anything over bytes that are not theirs
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error


def load_tensors(path: Path) -> Any:
    """What `torch.save` wrote; see `read_file` for the errors. No code in the file is run."""
    return read_file(lambda: torch.load(path, map_location="cpu", weights_only=True), path)


def require_alike(
    found: Any, wanted: Mapping[str, Tensor], source: object, infinite: frozenset[str] = frozenset()
) -> None:
    """Checks weights before they are taken over: names, shapes and numbers.

    Args:
        found: What was read; anything.
        wanted: The model's own weights by name.
        source: What the message names as their origin.
        infinite: Names whose weights may be infinite.

    Raises:
        ValueError: one is missing, has another shape, or holds NaN or (unless among the `infinite`) infinities.
    """
    if not isinstance(found, Mapping):
        raise ValueError(f"{source} holds no weights by name but a {type(found).__name__}")
    for name, p in wanted.items():
        if not isinstance(value := found.get(name), Tensor):
            raise ValueError(f"{source} has no weights {name!r}: it belongs to another model")
        if value.shape != p.shape:
            raise ValueError(
                f"{source} has {name!r} in the shape {list(value.shape)}, the model has {list(p.shape)}: it belongs to "
                "another model"
            )
    if name := find_nonfinite({name: found[name] for name in wanted}, infinite):
        raise ValueError(f"{source} has numbers in {name!r} that are not finite")


def require_moments(state: Any, trained: Sequence[Tensor], source: object) -> None:
    """Checks an optimiser's state before it is taken over.

    Args:
        state: What was read; anything.
        trained: The trained weights, in the optimiser's order.
        source: What the message names as its origin.

    Raises:
        ValueError: it is none, or belongs to other weights, or holds numbers that are not finite.
    """
    try:
        groups, moments = state["param_groups"], state["state"]
        numbers = [number for group in groups for number in group["params"]]
        fits = numbers == list(range(len(trained))) and set(moments) <= set(numbers)
        for i, of in moments.items() if fits else ():
            for name, value in of.items():
                fits = fits and isinstance(value, Tensor) and value.shape in (trained[i].shape, torch.Size())
                if fits and find_nonfinite({name: value}):
                    raise ValueError(f"{source} has numbers in {name!r} of weight {i} that are not finite")
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{source} holds no optimiser's state") from error
    if not fits:
        raise ValueError(f"{source} holds the optimiser's state of another model")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `folder` when everything is written and on the disk.

    Until then it lies beside under a hidden name that no reader looks for; what an interrupted writer has left there is
    removed first.
    """
    beside, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("partial", "old"))
    for leftover in (beside, old):
        if leftover.exists():
            shutil.rmtree(leftover)
    beside.mkdir(parents=True)
    try:
        yield beside
        for path in sorted(beside.rglob("*")):
            if path.is_file():
                path.chmod(READABLE)
            _sync(path)
        _sync(beside)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    if folder.exists():  # a folder with files in it cannot be renamed over
        folder.rename(old)
    beside.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _parts(config: Any) -> Iterator[Any]:
    """A config and those within it (a text model's in a multimodal one's, attention's in MPT's)."""
    yield config
    for value in vars(config).values():
        if isinstance(value, PreTrainedConfig):
            yield from _parts(value)
