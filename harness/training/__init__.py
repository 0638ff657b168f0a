"""Training makes runs: the experiment, its loop, rollouts, evaluations, and what is shown meanwhile."""
