"""A benchmark-and-ablation harness for methods that teach a language model to correct itself.

The names here are what a plugin is written with (docs/adding_a_method.md); a test pins their fields and signatures.
"""

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
    "register",
    "reinforce",
]
__version__ = "0.1.0"
