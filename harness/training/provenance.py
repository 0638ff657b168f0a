"""What run.json records of a run: what it is of, on what it ran, with which versions; and what changed at a resume."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence
from typing import Any

from harness import config, registry
from harness.runs.schema import FORMAT
from harness.runs.store import RunStore, StoreError
from harness.training.experiment import Experiment


def check_origin(store: RunStore, experiment: Experiment) -> None:
    """Compares the problems and graders that a run has seen (run.json) with those of now.

    Raises:
        StoreError: versions, data or graders differ, so that old and new records would not belong together.
    """
    told = []
    versions = store.info.get("eval_tasks")
    data, graders = (found if isinstance(found := store.info.get(key), dict) else {} for key in ("data", "graders"))
    for task in {task.name: task for task in (experiment.task, *experiment.evaluated_tasks)}.values():
        then = versions.get(task.name) if isinstance(versions, dict) else None
        then = store.info.get("task_version") if then is None and task.name == store.info.get("task") else then
        if then is not None and str(then) != str(task.version):
            told.append(f"task {task.name} is now version {task.version}; the run saw version {then}")
        old, new = data.get(task.name), getattr(task, "provenance", None)
        if isinstance(old, dict) and isinstance(new, dict) and old.get("digest") != new.get("digest"):
            told.append(f"the data of task {task.name} has digest {new.get('digest')}; the run saw {old.get('digest')}")
        grader = getattr(task.verifier, "grader", None)
        if grader is not None and graders.get(task.name, str(grader)) != str(grader):
            told.append(f"task {task.name} is now graded by {grader}; the run was graded by {graders[task.name]}")
    if told:
        listed = "\n  ".join(told)
        raise StoreError(
            f"{store.folder} was computed on other problems or by another grader:\n  {listed}\n"
            "Go on with what it saw, or start a new run with another --out"
        )


def changes_since(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What a resumed run computes on that differs from before: {entry: [then, now]}, of entries that both have."""
    found: dict[str, Any] = {}
    for key in ("commit", "python", "platform", "versions", "plugins", "engine", "isolation", "data"):
        then, now = old.get(key), new.get(key)
        if isinstance(then, dict) and isinstance(now, dict):
            found |= {
                f"{key}.{name}": [then.get(name), now.get(name)]
                for name in sorted(then.keys() | now.keys())
                if then.get(name) != now.get(name)
            }
        elif key in old and then != now:
            found[key] = [then, now]
    return found


def describe_run(
    experiment: Experiment, command: str, operative: str, files: Sequence[str], bindings: Sequence[str] = ()
) -> dict[str, Any]:
    """What run.json records of a run from its start on (docs/results_format.md).

    Args:
        command: The command line.
        operative: The configuration in force, as text (`config.operative_config`).
        files: The gin files that the command names.
        bindings: What it binds beside them.
    """
    budget, (parent, difference) = experiment.budget, config.parent_and_difference(files, bindings)
    return {
        "format": FORMAT,
        "name": experiment.name,
        "task": experiment.task.name,
        "task_version": experiment.task.version,
        "eval_tasks": {task.name: task.version for task in experiment.evaluated_tasks},
        "data": _data(experiment),
        "policy": experiment.policy.key,
        "seed": experiment.seed,
        "bindings": config.parse_bindings(operative),
        "parent": parent,
        "difference": difference,
        "budget": {"steps": budget.steps, "problems": budget.problems, "samples": budget.samples},
        "spent": {"trajectories": 0, "responses": 0, "updates": 0},
        "plugins": {f"{entry.kind}.{entry.name}": entry.source for entry in registry.list_entries()},
        "versions": _versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": find_commit(),
        "command": command,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _versions() -> dict[str, str | None]:
    """{package: version} of VERSIONS; None of one that is not installed."""
    found: dict[str, str | None] = {}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _data(experiment: Experiment) -> dict[str, Any]:
    """{task: where its problems came from}, for tasks that read data."""
    tasks = {task.name: getattr(task, "provenance", None) for task in (experiment.task, *experiment.evaluated_tasks)}
    return {name: told for name, told in tasks.items() if told is not None}


def isolation_of(experiment: Experiment) -> dict[str, str]:
    """{task: the isolation layers its verifier runs programs in}, for verifiers that run any."""
    tasks = {
        task.name: getattr(task.verifier, "isolation", None) for task in (experiment.task, *experiment.evaluated_tasks)
    }
    return {name: str(getattr(walls, "level", walls)) for name, walls in tasks.items() if walls is not None}


def graders_of(experiment: Experiment) -> dict[str, dict[str, str]]:
    """`graders`, {task: what graded it, with mode and versions}, of verifiers that say; empty when none does."""
    tasks = {
        task.name: getattr(task.verifier, "grader", None) for task in (experiment.task, *experiment.evaluated_tasks)
    }
    known = {name: str(grader) for name, grader in tasks.items() if grader is not None}
    return {"graders": known} if known else {}


def model_of(experiment: Experiment, engine: dict[str, Any]) -> dict[str, str]:
    """`model`, where the bound path alone does not say what it is: dequantised weights are not the original's."""
    told = [f"dequantised from {engine['gguf']['quantisation']}"] if "gguf" in engine else []
    if "warm_start" in engine:
        told.append(f"warm start {engine['warm_start']['adapter']}")
    path = getattr(experiment.policy, "path", experiment.policy.key)
    return {"model": f"{path} ({', '.join(told)})"} if told else {}


# What samples, trains, grades or computes intervals.
VERSIONS = (
    "torch", "transformers", "accelerate", "tokenizers", "safetensors", "huggingface-hub", "jinja2", "gin-config",
    "math-verify", "latex2sympy2-extended", "antlr4-python3-runtime", "sympy", "mpmath", "rapidfuzz", "orjson",
    "numpy", "scipy",
)  # fmt: skip


def find_commit() -> str | None:
    """The commit of the working tree, with '+' when it has changes; None outside git."""
    try:
        git = ["git", "-C", str(config.ROOT)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, timeout=10
        )
        return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return None
