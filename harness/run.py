"""The command line of one run: `python -m harness.run --gin gin/score_full.gin`.

Above 300 lines because the options, what they start and how a run ends are read together.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from harness import config, registry
from harness.core import Display
from harness.grading import try_verifier
from harness.policy.devices import count_devices
from harness.policy.ranks import Ranks, RanksError, check_world_size, end_process, is_launched, join_ranks, world_size
from harness.runs.store import (
    IN_USE,
    InUseError,
    ReadOnlyRunStore,
    RunStore,
    StoreError,
    has_results,
    is_blank,
    is_disk_full,
)  # fmt: skip
from harness.terminal import describe_broken_plugin, escape_controls, make_table_console
from harness.training.experiment import Experiment
from harness.training.loop import Stopped, run_experiment
from harness.training.provenance import changes_since, check_origin, describe_run, graders_of, isolation_of, model_of

if TYPE_CHECKING:
    from harness.policy.trackers import TrackerDisplay

EPILOG = """examples:
  python -m harness.run --gin gin/score_full.gin                       the whole method, embedded model and task
  python -m harness.run --gin gin/naive_multi_turn_rl.gin --seed 1     another row, another seed
  python -m harness.run --gin gin/score_full.gin --bind "run.steps = 100" --bind "progress.alpha = 5.0" --out /tmp/r
  python -m harness.run --gin gin/score_full.gin --resume              go on after an interrupt
  python -m harness.run --gin gin/score_full.gin --print-config        every binding in force, nothing run
  python -m harness.run --gin gin/score_full.gin --processes 8         eight processes: on eight GPUs, or on CPU
  python -m harness.run --list                                         all names a gin file can use
"""


def main(argv: Sequence[str] | None = None, prog: str = "python -m harness.run") -> int:
    """Runs the command line; returns the exit status, as `start_run` does."""
    parser = make_parser(prog)
    return start_run(parser, parser.parse_args(argv))


def start_run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Starts what the parsed words of `make_parser`'s parser ask for.

    Returns:
        0 when the run is done, 1 when it failed, 2 for a mistake, 3 where another process has the run, 130 on Ctrl-C.
    """
    _set_threads(args.threads)
    if args.model is not None:
        args.bind = [*args.bind, f"{config.MODEL} = {args.model!r}"]
    if (args.processes or 1) > 1 and not is_launched() and not (args.list or args.print_config):
        _launch(args)
    try:
        ranks = Ranks() if args.list or args.print_config else join_ranks(args.device)
    except RanksError as error:
        print(f"error: {escape_controls(error, newlines=True)}", file=sys.stderr)
        return 2
    if ranks.size > 1:
        # When one process dies, the launcher ends the others at once: too soon to write down why. During the loop
        # SIGTERM is a clean stop as ever (harness.training.experiment); a launcher that waits in vain kills.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        return _main(parser, args, ranks)
    finally:
        ranks.shut_down()


def _launch(args: argparse.Namespace) -> NoReturn:
    """Becomes accelerate's launcher, which runs the same command in `--processes` processes.

    In place of a child process: signals then reach the launcher and its processes as if they had been started by hand.
    """
    words, env = shlex.split(_command(args))[3:], {**os.environ}
    if args.device == "cpu" or count_devices() < args.processes:
        env["ACCELERATE_USE_CPU"] = "true"  # the launcher's own --cpu starts one process
        words += ["--device", "cpu"] if args.device == "auto" else []
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(args.processes)]
    launcher += ["--num_machines", "1", "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"]
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", *launcher, "-m", "harness.run", *words], env)


def _main(parser: argparse.ArgumentParser, args: argparse.Namespace, ranks: Ranks) -> int:
    console = _Screen(stderr=True, highlight=False, quiet=not ranks.is_first)
    try:
        if not (args.list or args.print_config):
            check_world_size(args.processes)
        broken = config.prepare_gin(Experiment, "run")
        for plugin, error in broken.items():
            console.print(describe_broken_plugin(plugin, error), soft_wrap=True)
        if args.list:
            print_names()
            return 0
        if not args.gin:
            parser.error("--gin FILE is needed (try --gin gin/score_full.gin, or --help)")
        seed = [f"run.seed = {args.seed}"] if args.seed is not None else []
        unsafe = ["code.unsafe_exec = True"] if args.unsafe_exec else []
        ranks.run_on_all_ranks(lambda: config.parse_gin(args.gin, [*args.bind, *seed, *unsafe]))
        experiment: Experiment = ranks.run_on_all_ranks(lambda: config.build_root("run"))
        if args.print_config:
            print(config.operative_config(), end="")
            return 0
        return _run(experiment, args, console, ranks)
    except (config.ConfigError, StoreError, RanksError) as error:
        console.print("[bold red]error:[/] ", end="")
        console.print(escape_controls(error, newlines=True), markup=False, soft_wrap=True)
        return IN_USE if isinstance(error, InUseError) else 2


def make_parser(prog: str) -> argparse.ArgumentParser:
    """The options of one run."""
    parser = argparse.ArgumentParser(
        prog=prog, description=(__doc__ or "").partition("\n")[0], epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--gin", action="append", default=[], metavar="FILE", help="gin file; repeat to override")
    parser.add_argument("--bind", action="append", default=[], metavar="'NAME = VALUE'", help="one binding; repeatable")
    parser.add_argument("--model", metavar="NAME", help="hub name or folder of the model; short for --bind MODEL=NAME")
    parser.add_argument("--seed", type=int, help="short for --bind 'run.seed = N'")
    parser.add_argument("--out", default="results/runs", help="results folder (default: results/runs)")
    parser.add_argument("--resume", action="store_true", help="go on with an unfinished run of the same key and config")
    parser.add_argument(
        "--threads", type=int, default=1,
        help="CPU threads of torch (default: 1; on another number the last bits of a result may differ)",
    )  # fmt: skip
    parser.add_argument(
        "--unsafe-exec", action="store_true",
        help="run model programs even where no sandbox stands (short for --bind 'code.unsafe_exec = True')",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1")
    parser.add_argument(
        "--processes", type=int, metavar="N",
        help="data-parallel processes: started here, or under accelerate launch or torchrun the number that must have "
        "been started (docs/multi_gpu.md)",
    )  # fmt: skip
    parser.add_argument(
        "--tracker", action="append", default=[], metavar="NAME",
        help="mirror the run's numbers in tensorboard, wandb, trackio, ... (where installed); repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--push-to-hub", metavar="USER/NAME",
        help="when the run is done, upload its model with a card; asked of a run that is done, that alone "
        "(harness.push; a new repository is private)",
    )  # fmt: skip
    parser.add_argument("--print-config", action="store_true", help="print every binding in force and stop")
    parser.add_argument("--list", action="store_true", help="print all registered names and stop")
    return parser


def print_names(kinds: Sequence[str] = ()) -> None:
    """Prints the registered names and the gin files with what each is; on a pipe, one line each.

    Args:
        kinds: Kinds of names (`method`, `task`, ...) or of gin files (`row`, `suite`, ...); all without any.

    Raises:
        ConfigError: there is no such kind.
    """
    entries = list(registry.list_entries())
    folders = {folder: about.partition(":")[0] for folder, about in config.FOLDERS.items()}
    known = list(dict.fromkeys([*(entry.kind for entry in entries), *folders.values()]))
    for kind in kinds:
        if kind not in known:
            near = registry.nearest_hint(kind, known)
            raise config.ConfigError(f"no kind of names {kind!r}{near}; there are {', '.join(known)}")
    tables = []
    if shown := [entry for entry in entries if not kinds or entry.kind in kinds]:
        tables.append(_make_table("name", "what it is", "from"))
        for entry in shown:
            tables[-1].add_row(
                *(Text(escape_controls(text)) for text in (f"{entry.kind}.{entry.name}", entry.summary, entry.source))
            )
    for folder, about in config.FOLDERS.items():
        if kinds and folders[folder] not in kinds:
            continue
        tables.append(_make_table(f"{about} ({folder}/NAME.gin)", "what it is"))
        for path in sorted((config.GIN_HOME / folder).glob("*.gin")):
            tables[-1].add_row(path.stem, escape(path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")))
    console = make_table_console()
    for number, table in enumerate(tables):
        if number:
            console.print()
        console.print(table)


def _make_table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _run(experiment: Experiment, args: argparse.Namespace, console: Console, ranks: Ranks) -> int:
    from harness.training.display import LiveDisplay, evaluation_numbers, final_table

    out = _Screen(highlight=False, quiet=not ranks.is_first)
    text, folder = config.operative_config(), experiment.run_folder(Path(args.out))
    store = RunStore(folder) if ranks.is_first else ReadOnlyRunStore(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()] if ranks.is_first else []
    ranks.run_on_all_ranks(store.acquire_lock)
    found, began, before = _sizes(folder), time.monotonic(), 0.0
    try:
        ranks.run_on_rank0(lambda: _clear_failed_start(folder))
        try:
            done = ranks.run_on_rank0(lambda: _is_done(store, experiment, text, args.resume))
        except OSError as error:
            raise StoreError(_told(error, folder)) from error
        if done:
            out.print(f"{folder} is done already: nothing to run.", markup=False, soft_wrap=True)
            out.print(final_table(experiment.name, store.sound_records()))
            return _push(folder, args, ranks)
        if args.tracker:
            from harness.policy import trackers

            trackers.check_trackers(args.tracker)
        old = store.read_info() or {}
        before = float(old.get("seconds") or 0.0)
        try:
            store.info = dict(old)
            store.save_config(text)
            store.update_run_json(
                **describe_run(experiment, _command(args), text, args.gin, args.bind), status="running", error=None
            )
            with LiveDisplay(out) as display, contextlib.ExitStack() as stack:
                ranks.run_on_rank0(lambda: _rehearse_verifiers(experiment))
                policy = ranks.run_on_all_ranks(lambda: experiment.policy.load(args.device))
                engine = policy.describe()
                store.update_run_json(
                    engine=engine,
                    isolation=isolation_of(experiment),
                    **graders_of(experiment),
                    **model_of(experiment, engine),
                )
                if changed := changes_since(old, store.info):
                    store.update_run_json(resumed=[*old.get("resumed", []), changed])
                names = args.tracker if ranks.is_first else []
                mirror = _mirror(display, experiment, folder, text, names, console, stack)
                run_experiment(experiment, policy, store, mirror or display)
                if mirror:
                    updates = (store.info.get("spent") or {}).get("updates", 0)
                    mirror.report(evaluation_numbers(store.read_records()), updates)
            store.update_run_json(status="done", seconds=round(before + time.monotonic() - began, 3))
        except (Stopped, KeyboardInterrupt):
            with contextlib.suppress(OSError):  # a full disk: the status stays, and --resume goes on all the same
                store.update_run_json(status="interrupted", seconds=round(before + time.monotonic() - began, 3))
            console.print("interrupted; nothing is lost. Go on with:", markup=False)
            console.print(f"  {_command(args, resume=True)}", markup=False, soft_wrap=True)
            return 130
        except Exception as error:
            told = _told(error, folder)
            with contextlib.suppress(OSError):  # a full disk must not hide the error itself
                store.update_run_json(status="failed", error=told, seconds=round(before + time.monotonic() - began, 3))
            expected = isinstance(error, ValueError | OSError | StoreError | RanksError) or is_disk_full(error)
            if ranks.is_first and not expected:
                console.print(
                    escape_controls(traceback.format_exc(), newlines=True), markup=False, soft_wrap=True, end=""
                )
            console.print("[bold red]failed:[/] ", end="")
            rest = _what_now(folder, made, _sizes(folder) != found, args)
            console.print(f"{escape_controls(told, newlines=True)}\n{rest}", markup=False, soft_wrap=True)
            return 1
        store.drop_checkpoint()
        out.print(final_table(experiment.name, store.read_records()))
        out.print(
            f"results: {folder}\nnext: python -m harness.leaderboard {args.out} (or harness.plots, harness.report)",
            markup=False,
            soft_wrap=True,
        )
        return _push(folder, args, ranks)
    finally:
        if made and made[0] == folder and not has_results(folder):
            _remove(made)
        store.release_lock()


def _rehearse_verifiers(experiment: Experiment) -> None:
    for task in experiment.evaluated_tasks:
        try_verifier(task.verifier, task.test[0], experiment.verifier_seconds)


class _Screen(Console):
    """A console that goes silent when nobody reads it any more (`... | head`): the run continues."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        with contextlib.suppress(OSError, ValueError):  # so that closing it raises nothing either
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def _told(error: Exception, folder: Path) -> str:
    """What run.json and the screen say of an error, in one sentence where the disk is full."""
    if is_disk_full(error):
        reason = str(error).partition("\n")[0]
        return f"the disk is full, or cannot be written: {folder} ({type(error).__name__}: {reason})"
    return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])


def _clear_failed_start(folder: Path) -> None:
    """Makes room where an earlier start failed before anything was computed: its config does not block this one."""
    if is_blank(folder):
        for name in ("run.json", "config.gin"):
            (folder / name).unlink(missing_ok=True)


def _remove(made: Sequence[Path]) -> None:
    """Removes the run folder that this process made, and the folders above it that it made and nobody else uses."""
    shutil.rmtree(made[0], ignore_errors=True)
    with contextlib.suppress(OSError):  # another run has come to live there
        for path in made[1:]:
            path.rmdir()


def _sizes(folder: Path) -> list[int]:
    """Bytes of the run's logs: other numbers later say that something was computed."""
    paths = [folder / name for name in ("eval.jsonl", "metrics.jsonl")]
    return [path.stat().st_size if path.exists() else 0 for path in paths]


def _what_now(folder: Path, made: Sequence[Path], computed: bool, args: argparse.Namespace) -> str:
    """The end of a failure's message: what is left, and how to continue."""
    if not has_results(folder):
        left = "no folder is left" if folder in made else f"the corrected command takes over {folder}"
        return f"Nothing was computed, and {left}: correct the command and run it again."
    if not computed:
        return f"{folder} is as it was before this start: correct the command and run it again with --resume."
    return (
        f"What was computed is kept in {folder}. Once the cause is mended, go on with:\n"
        f"  {_command(args, resume=True)}\n"
        "A binding cannot be changed on the way: with another one it is another run, with its own run.name or --out."
    )


def _mirror(
    display: Display, experiment: Experiment, folder: Path, text: str, names: Sequence[str], console: Console,
    stack: contextlib.ExitStack,
) -> TrackerDisplay | None:  # fmt: skip
    """The display with a mirror in trackers, where some are asked for; `stack` closes them."""
    if not names:
        return None
    from harness.policy.trackers import TrackedRun, TrackerDisplay

    def say(message: str) -> None:
        console.print(escape_controls(message, newlines=True), style="yellow", markup=False, soft_wrap=True)

    tags = (experiment.task.name, experiment.policy.key)
    run = TrackedRun(folder, experiment.name, experiment.seed, tags, config.parse_bindings(text))
    mirror = TrackerDisplay(display, names, run, say)
    stack.callback(mirror.finish_trackers)
    return mirror


def _is_done(store: RunStore, experiment: Experiment, text: str, resume: bool) -> bool:
    """Whether the folder holds this very run, finished and as it was when it ended.

    Raises:
        StoreError: it holds a run of another config, of other problems or graders, a finished one that was changed, or
            an unfinished one and `--resume` was not given.
    """
    info, old = store.read_info(), store.saved_config
    if old is not None and (changed := config.describe_differences(old, text)):
        listed = "\n  ".join(changed)
        raise StoreError(
            f"{store.folder} holds a run with another config; these bindings differ (old -> new):\n  {listed}\n"
            "Give this run its own run.name, another --seed or another --out."
        )
    if info is None:
        return False
    store.info = info
    if info.get("status") == "done":
        store.check_unchanged()
        if not store.sound_records():
            raise StoreError(f"{store.folder} is done, but its eval.jsonl is missing or empty: put back a whole copy")
        return True
    reached = store.last_checkpoint(verify=False)
    if not resume:
        raise StoreError(
            f"{store.folder} holds an unfinished run (status {info.get('status')!r}, checkpoint at update "
            f"{reached[0]['step'] if reached else 0}): add --resume to go on, or choose another --out"
        )
    if reached or store.sound_records():  # else nothing was computed yet on the old problems
        check_origin(store, experiment)
    return False


def _push(folder: Path, args: argparse.Namespace, ranks: Ranks) -> int:
    """Uploads a finished run's model where `--push-to-hub` asks for it; returns the exit status."""
    if not args.push_to_hub or not ranks.is_first:
        return 0
    from harness.tools import hub

    try:
        print(hub.push_model(folder, args.push_to_hub))
    except (hub.PushError, ValueError, OSError) as error:
        print(f"error: {escape_controls(error, newlines=True)}\nThe run is done and kept in {folder}.", file=sys.stderr)
        return 1
    return 0


def _set_threads(threads: int) -> None:
    """Before torch is imported: idle OpenMP threads that spin halve the speed of a busy machine."""
    os.environ["OMP_NUM_THREADS"] = str(max(1, threads))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _command(args: argparse.Namespace, resume: bool = False) -> str:
    words = [*(["accelerate", "launch", "..."] if world_size() > 1 else ["python"]), "-m", "harness.run"]
    for name in ("gin", "bind"):
        for value in getattr(args, name):
            words += [f"--{name}", value]
    for name, default in (("seed", None), ("out", "results/runs"), ("threads", 1), ("device", "auto")):
        if getattr(args, name) != default:
            words += [f"--{name}", str(getattr(args, name))]
    words += [word for name in args.tracker for word in ("--tracker", name)]
    words += ["--unsafe-exec"] if args.unsafe_exec else []
    words += ["--processes", str(args.processes)] if args.processes else []
    return shlex.join([*words, *(["--resume"] if resume or args.resume else [])])


if __name__ == "__main__":
    status = main()
    if world_size() > 1:
        end_process(status)
    sys.exit(status)
