"""A benchmark-and-ablation harness for methods that teach a language model to correct itself."""

from harness.core import Budget, Example, Group, Phase, Problem, Trajectory, Turn, Verdict
from harness.registry import register

__all__ = ["Budget", "Example", "Group", "Phase", "Problem", "Trajectory", "Turn", "Verdict", "register"]
__version__ = "0.1.0"
