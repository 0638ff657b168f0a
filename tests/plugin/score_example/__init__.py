"""An example plugin: importing it registers a method, a task, a verifier, a policy and a metric."""

from score_example import method, metric, policy, task, verifier

__all__ = ["method", "metric", "policy", "task", "verifier"]
