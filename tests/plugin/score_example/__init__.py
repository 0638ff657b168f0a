"""An example plugin: importing it registers a method, a task, a verifier and a policy."""

from score_example import method, policy, task, verifier

__all__ = ["method", "policy", "task", "verifier"]
