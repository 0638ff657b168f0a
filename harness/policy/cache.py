"""The user's cache: models that were made of other files once, each in a folder that appears when it is whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

CACHE_VARIABLE = "SCORE_HARNESS_CACHE"


def cache_folder(kind: str) -> Path:
    """Where models of one kind are kept: below $SCORE_HARNESS_CACHE, else below `score-harness` in the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(CACHE_VARIABLE) or Path(home) / "score-harness") / kind


def make_once(folder: Path, marker: str, write: Callable[[Path], None]) -> Path:
    """`folder`, written by `write` unless it is there; processes that come at the same time each write, one is kept.

    Args:
        folder: Its place in the cache.
        marker: A file that `write` writes last: a folder without it is not whole.
        write: Is given the folder to write into.
    """
    if (folder / marker).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write(beside)
        beside.chmod(0o755)
        try:
            beside.rename(folder)
        except OSError:  # another process was first
            if not (folder / marker).is_file():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder
