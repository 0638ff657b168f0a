"""A benchmark-and-ablation harness for methods that teach a language model to correct itself.

The names here are what a plugin is written with (docs/adding_a_method.md); a test pins their fields and signatures.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.core import (
    Budget,
    Example,
    Group,
    Message,
    Method,
    Phase,
    Policy,
    PolicySpec,
    Problem,
    Session,
    Task,
    Trajectory,
    Turn,
    TurnStats,
    Verdict,
    Verifier,
)
from harness.credit import reinforce
from harness.registry import register

if TYPE_CHECKING:
    from harness.analysis.frames import Results

__all__ = [
    "Budget",
    "Example",
    "Group",
    "Message",
    "Method",
    "Phase",
    "Policy",
    "PolicySpec",
    "Problem",
    "Session",
    "Task",
    "Trajectory",
    "Turn",
    "TurnStats",
    "Verdict",
    "Verifier",
    "load",
    "register",
    "reinforce",
]
__version__ = "0.1.0"


def load(path: Path | str) -> Results:
    """The finished runs of a results folder as pandas frames `runs`, `updates`, `attempts` (docs/results_as_data.md).

    Raises:
        FileNotFoundError: `path` is no folder.
    """
    from harness.analysis import frames  # pandas only for those who ask

    return frames.load_frames(path)
