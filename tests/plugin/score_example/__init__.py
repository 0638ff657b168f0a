"""An example plugin: importing it registers a method, a task and a verifier."""

from score_example import method, task, verifier

__all__ = ["method", "task", "verifier"]
