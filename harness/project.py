"""Where this project's files lie, and which bindings change no number of a run."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The folder that holds `gin/`: beside the package in a clone, inside it in a wheel.
GIN_HOME = next((home for home in (ROOT, ROOT / "harness" / "packaged") if (home / "gin" / "base.gin").is_file()), ROOT)
# How programs may be run, how often a run is saved, when a hanging verifier is given up.
NO_SCIENCE = frozenset({"code.unsafe_exec", "run.checkpoint_every", "run.verifier_seconds"})
