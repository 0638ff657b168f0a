"""Evaluation: greedy two attempts on the test split by default; one record per problem and sample.

`python -m harness.evaluate RUN_FOLDER` adds evaluations to a run that is done.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core import Problem, Task, Trajectory
from harness.dialogue import Dialogue
from harness.drafts import ask_after_drafts
from harness.evaluations import Draft, Evaluation, Split
from harness.rollout import VERIFIER_SECONDS, rollout
from harness.seeds import derive
from harness.store import IN_USE, InUseError, is_disk_full
from harness.terminal import inert

if TYPE_CHECKING:
    from harness.experiment import Experiment
    from harness.policy.engine import Policy
    from harness.store import RunStore

GREEDY = Evaluation()


def evaluate(
    policy: Policy,
    task: Task,
    dialogue: Dialogue,
    evaluation: Evaluation = GREEDY,
    *,
    when: str,
    seed: int = 0,
    done: int = 0,
    verifier_seconds: float = VERIFIER_SECONDS,
    record: Callable[[Sequence[dict[str, Any]]], None],
) -> None:
    """Evaluates in batches of problems and hands each batch's records to `record`.

    Args:
        when: `before` or `after` training.
        done: Records already written by an interrupted evaluation. A batch that was written in part is asked again as
            a whole, as its draws belong together, and what is missing of it is handed on.
        verifier_seconds: As in `rollout.grade`.
    """
    problems, samples = evaluation.chosen(task), evaluation.samples
    behind, written = divmod(done, evaluation.batch * samples)
    for begin in range(behind * evaluation.batch, len(problems), evaluation.batch):
        own_seed = derive(seed, "evaluate", when, task.name, begin, *evaluation.stream)
        if evaluation.control:
            batch = range(begin, min(begin + evaluation.batch, len(problems)))
            groups = ask_after_drafts(
                policy, task, dialogue, evaluation, problems, batch, seed=own_seed,
                verifier_seconds=verifier_seconds,
            )  # fmt: skip
        else:
            groups = rollout(
                policy,
                task,
                dialogue,
                problems[begin : begin + evaluation.batch],
                samples=samples,
                attempts=evaluation.attempts,
                offline_share=float(evaluation.draft == "reference"),
                seed=own_seed,
                temperature=evaluation.temperature,
                verifier_seconds=verifier_seconds,
            )
        more = {"split": evaluation.split} if evaluation.split != "test" else {}
        more |= {"draft": evaluation.control} if evaluation.control else {}
        lines = [
            line(t, when, task.name, i, evaluation.temperature) | more for group in groups for i, t in enumerate(group)
        ]
        record(lines[written:])
        written = 0


def expected(task: Task, evaluation: Evaluation = GREEDY) -> list[tuple[str, int]]:
    """(id, sample) of every record of a finished evaluation, in order."""
    return [name_of(problem, i) for problem in evaluation.chosen(task) for i in range(evaluation.samples)]


def name_of(problem: Problem, sample: int) -> tuple[str, int]:
    """(id, sample) of a record: where one problem has several fixed first attempts, each is a `Problem` whose `meta`
    says which `problem` and which `sample` of it the record is."""
    return problem.meta.get("problem", problem.id), problem.meta.get("sample", sample)


PROBED: tuple[Split, ...] = ("validation", "train")


def probe(
    policy: Policy, task: Task, dialogue: Dialogue, problems: int, verifier_seconds: float = VERIFIER_SECONDS
) -> dict[str, float]:
    """Accuracy of greedy second attempts in mid-training: after the policy's own first attempts and after fixed ones.

    Fixed ones are the base model's, which never change: where they go well and its own do not, the policy has learnt to
    correct what it no longer writes (arXiv 2409.12917v2, figure 5).

    Returns:
        `acc_t2_own_validation`, `acc_t2_fixed_validation` and the same of `train`; fractions of `problems` problems.
    """
    found: dict[str, float] = {}
    for split in PROBED:
        drafts: tuple[tuple[str, Draft], ...] = (("own", "own"), ("fixed", "reference"))
        for name, draft in drafts:
            right: list[bool] = []

            def record(lines: Sequence[dict[str, Any]], right: list[bool] = right) -> None:
                right.extend(entry["attempts"][-1]["correct"] for entry in lines)

            evaluation = Evaluation(split, problems=problems, draft=draft)
            evaluate(policy, task, dialogue, evaluation, when="probe", verifier_seconds=verifier_seconds, record=record)
            found[f"acc_t2_{name}_{split}"] = sum(right) / len(right)
    return found


def line(trajectory: Trajectory, when: str, task: str, sample: int, temperature: float) -> dict[str, Any]:
    """One record of eval.jsonl; holds no time and no path, so equal runs give equal bytes.

    A repair task's records name the problem, not the given program (`name_of`): means then weigh problems alike. The
    problem's text stands in greedy records alone, which are read one by one; a pool would repeat it for every sample.
    """
    name, number = name_of(trajectory.problem, sample)
    text = {} if temperature else {"prompt": trajectory.problem.prompt}
    extra = sum(len(turn.tokens) for turn in trajectory.turns if not turn.scored)
    return {
        "when": when,
        "task": task,
        "id": name,
        "sample": number,
        "temperature": temperature,
        **text,
        "attempts": [
            {
                "text": turn.text,
                "answer": turn.verdict.answer,
                "reward": turn.verdict.reward,
                "correct": turn.verdict.correct,
                "status": turn.verdict.status,
                "tokens": len(turn.tokens),
                "truncated": turn.truncated,
                "by": turn.by,
                **({"flag": turn.verdict.flag} if turn.verdict.flag else {}),
            }
            for turn in trajectory.attempts
        ],
    } | ({"extra_tokens": extra} if extra else {})


# -- the command line --------------------------------------------------------------------------------------------------

EPILOG = """examples:
  python -m harness.evaluate results/runs/arithmetic/arithmetic/score_full/seed0 --gin gin/on/pool.gin
  python -m harness.evaluate RUN_FOLDER --gin gin/on/controls.gin
  python -m harness.evaluate RUN_FOLDER --bind "run.evaluations = [@evaluation.attempts(), @evaluation.fixed_first()]"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Adds evaluations to a run that is done, from its model; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.evaluate",
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
        print(f"evaluate: {full if is_disk_full(error) else ''}{inert(error, newlines=True)}", file=sys.stderr)
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
    from harness.display import LiveDisplay
    from harness.experiment import Stopped, finish_supplement, supplement
    from harness.store import RunStore, StoreError

    if not folder.is_dir():
        raise StoreError(f"{folder} holds no run: it needs run.json and config.gin")
    store = RunStore(folder)
    store.lock()  # before anything is read: another supplement may be on its way
    try:
        info = store.read_info()
        if store.config is None or info is None:
            raise StoreError(f"{folder} holds no run: it needs run.json and config.gin")
        if info.get("status") != "done":
            raise StoreError(f"{folder} holds a run that is not done (status {info.get('status')!r}): finish it first")
        if not isinstance(info.get("supplements", []), list):
            raise StoreError(f"{folder / 'run.json'} is damaged: supplements is no list")
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
        entry = {"evaluations": config.lines(new)["run.evaluations"], "engine": policy.describe()}
        with LiveDisplay() as display:
            added = supplement(experiment, policy, store, display, new, entry)
        return added, [str(evaluation) for evaluation in experiment.evaluations]
    except Stopped:
        raise KeyboardInterrupt from None
    finally:
        store.close()


def _extended(store: RunStore, files: Sequence[str], bindings: Sequence[str], trust: bool) -> tuple[Experiment, str]:
    """The run's experiment with further evaluations, and its configuration as text."""
    from harness import config, registry
    from harness.experiment import Experiment
    from harness.run import check_origin

    old = store.config or ""
    config.prepare(Experiment, "run")
    for left_out in config.parse_recorded(store.folder / "config.gin", files, bindings, trust):
        print(f"evaluate: {inert(left_out)}", file=sys.stderr)
    experiment: Experiment = config.build("run")
    new = config.operative()
    free = {"run.evaluations", "run.probe_every", "run.probe_problems", "run.verifier_seconds"}
    kinds = {entry.name for entry in registry.entries("evaluation")}
    changed = [
        f"{name}: {then} -> {now}"
        for name, then, now in config.changes(old, new)
        if then and name not in free and name.rpartition(".")[0].rpartition("/")[2] not in kinds
    ]
    if changed:
        raise config.ConfigError(
            "only evaluations can be added to a finished run; this changes\n  " + "\n  ".join(changed)
        )
    if not experiment.evaluations:
        raise config.ConfigError("nothing to add: bind run.evaluations (try --gin gin/on/pool.gin, or --help)")
    check_origin(store, experiment)
    return experiment, new


if __name__ == "__main__":
    sys.exit(main())
