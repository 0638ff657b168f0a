"""The real data files, where a checkout has them beside it (marker `data`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


def real(name: str) -> str:
    """The path of a real data file; skips the test where there is none."""
    if not (FOLDER / name).exists():
        pytest.skip(f"{name} is not in {FOLDER} (set SHARED_DATA)")
    return str(FOLDER / name)
