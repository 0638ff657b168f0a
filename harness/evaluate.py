"""`python -m harness.evaluate RUN_FOLDER`: adds evaluations to a run that is done."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.runs.store import IN_USE, InUseError, is_disk_full
from harness.terminal import escape_controls

if TYPE_CHECKING:
    from harness.runs.store import RunStore
    from harness.training.experiment import Experiment


# -- the command line --------------------------------------------------------------------------------------------------

EPILOG = """examples:
  python -m harness.evaluate results/runs/arithmetic/arithmetic/score_full/seed0 --gin gin/eval/pool.gin
  python -m harness.evaluate RUN_FOLDER --gin gin/eval/controls.gin
  python -m harness.evaluate RUN_FOLDER --bind "run.evaluations = [@evaluation.attempts(), @evaluation.fixed_first()]"
"""


def main(argv: Sequence[str] | None = None, prog: str = "python -m harness.evaluate") -> int:
    """Adds evaluations to a run that is done, from its model; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Adds evaluations to a run that is done, from the model in its folder, without training again. "
        "What its eval.jsonl holds already stays as it is; interrupted, the same command goes on.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="the run's folder, .../<name>/seed<k>")
    parser.add_argument(
        "--gin", action="append", default=[], metavar="FILE", help="gin file after the run's own config"
    )
    parser.add_argument("--bind", action="append", default=[], metavar="'NAME = VALUE'", help="one binding; repeatable")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default: 1, as in harness.run)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1")
    parser.add_argument(
        "--trust", action="store_true",
        help="honour imports and unsafe_exec in the run's own config.gin: whoever wrote that folder runs code here",
    )  # fmt: skip
    options = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = str(max(1, options.threads))  # before torch is imported
    try:
        added, asked = _supplement(options.run, options.gin, options.bind, options.device, options.trust)
    except (ValueError, OSError, RuntimeError) as error:  # ConfigError, StoreError, a model that cannot be read
        full = "the disk is full, or cannot be written; the same command goes on after a repair: "
        print(
            f"evaluate: {full if is_disk_full(error) else ''}{escape_controls(error, newlines=True)}", file=sys.stderr
        )
        return IN_USE if isinstance(error, InUseError) else 2
    except KeyboardInterrupt:
        print("interrupted; nothing is lost: the same command goes on where it stopped", file=sys.stderr)
        return 130
    what = f"{added} records added to" if added else "nothing to add, these are there already:"
    print(f"{what} {options.run / 'eval.jsonl'}: {'; '.join(asked)}")
    return 0


def _supplement(
    folder: Path, files: Sequence[str], bindings: Sequence[str], device: str, trust: bool = False
) -> tuple[int, list[str]]:
    """Records added, and the evaluations asked for.

    Raises:
        StoreError: no finished run with its model there, or the task has changed since.
        ConfigError: a gin file or binding that cannot be used, or one that changes more than evaluations.
    """
    from harness import config
    from harness.runs.schema import info_changed
    from harness.runs.store import RunStore, StoreError
    from harness.training.display import LiveDisplay
    from harness.training.loop import Stopped, add_evaluations, finish_supplement

    if not folder.is_dir():
        raise StoreError(f"{folder} holds no run: it needs run.json and config.gin")
    store = RunStore(folder)
    store.acquire_lock()  # before anything is read: another supplement may be on its way
    try:
        info = store.read_info()
        if store.saved_config is None or info is None:
            raise StoreError(f"{folder} holds no run: it needs run.json and config.gin")
        if info.get("status") != "done":
            raise StoreError(f"{folder} holds a run that is not done (status {info.get('status')!r}): finish it first")
        if not isinstance(info.get("supplements", []), list):
            raise StoreError(f"{folder / 'run.json'} is damaged: supplements is no list")
        if why := info_changed(info):  # before anything writes it anew, with a new digest
            raise StoreError(f"{folder / 'run.json'}: {why}. Put back a whole copy, or move the folder away")
        store.info = info
        finish_supplement(store)
        store.check_unchanged()
        store.sound_records()
        experiment, new = _extended(store, files, bindings, trust)
        if experiment.phases() and not (folder / "model").is_dir():
            raise StoreError(
                f"{folder / 'model'} is missing: without the trained model only a new run can evaluate more"
            )
        store.check_unchanged("model")
        policy = experiment.policy.load(device)
        if experiment.phases():
            policy.adopt(folder / "model")
        entry = {"evaluations": config.parse_bindings(new)["run.evaluations"], "engine": policy.describe()}
        with LiveDisplay() as display:
            added = add_evaluations(experiment, policy, store, display, new, entry)
        return added, [str(evaluation) for evaluation in experiment.evaluations]
    except Stopped:
        raise KeyboardInterrupt from None
    finally:
        store.release_lock()


def _extended(store: RunStore, files: Sequence[str], bindings: Sequence[str], trust: bool) -> tuple[Experiment, str]:
    """The run's experiment with further evaluations, and its configuration as text."""
    from harness import config, registry
    from harness.training.experiment import Experiment
    from harness.training.provenance import check_origin

    old = store.saved_config or ""
    config.prepare_gin(Experiment, "run")
    for left_out in config.parse_recorded(store.folder / "config.gin", files, bindings, trust):
        print(f"evaluate: {escape_controls(left_out)}", file=sys.stderr)
    experiment: Experiment = config.build_root("run")
    new = config.operative_config()
    free = {"run.evaluations", "run.probe_every", "run.probe_problems", *config.NO_SCIENCE}
    kinds = {entry.name for entry in registry.list_entries("evaluation")}
    changed = [
        f"{name}: {then} -> {now}"
        for name, then, now in config.changed_bindings(old, new)
        if then and name not in free and name.rpartition(".")[0].rpartition("/")[2] not in kinds
    ]
    if changed:
        raise config.ConfigError(
            "only evaluations can be added to a finished run; this changes\n  " + "\n  ".join(changed)
        )
    if not experiment.evaluations:
        raise config.ConfigError("nothing to add: bind run.evaluations (try --gin gin/eval/pool.gin, or --help)")
    check_origin(store, experiment)
    return experiment, new


if __name__ == "__main__":
    sys.exit(main())
