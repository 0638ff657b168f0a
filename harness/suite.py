"""The command line of many runs: `python -m harness.suite --gin gin/suites/embedded.gin`, rows x seeds.

Several at a time on this machine, or through a cluster's own engine, or as a plain list of commands. A cell that fails
is recorded and does not stop the rest; a second start skips finished cells and resumes the others.

Not covered: one pool of workers over several machines (use --commands or --cluster); waiting for a cluster's jobs.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from harness import config
from harness.policy import devices
from harness.terminal import describe_broken_plugin, escape_controls, make_table_console
from harness.training.experiment import Experiment
from harness.training.grid import CONSOLE, IN_USE, Cell, Clock, Launch, Suite, build_cells, parse_options, settle_cell

EPILOG = """examples:
  python -m harness.suite --gin gin/suites/smoke.gin --out /tmp/smoke            every row, small, all cores
  python -m harness.suite --gin gin/suites/embedded.gin --jobs 4                 the comparison, four at a time
  CUDA_VISIBLE_DEVICES=0,1 python -m harness.suite --gin FILE                    two at a time, one on each GPU
  python -m harness.suite --gin gin/suites/embedded.gin --bind "suite.seeds = [0, 1, 2, 3, 4]"
  python -m harness.suite --gin gin/suites/embedded.gin --status                 what is done, nothing run
  python -m harness.suite --gin gin/suites/embedded.gin --commands > todo.txt    for any other engine
  python -m harness.suite --gin gin/suites/embedded.gin --cluster slurm \\
      --cluster-option timeout_min=600 --cluster-option slurm_partition=gpu --cluster-option gpus_per_node=1
"""
POLL_SECONDS = 0.2


def main(argv: Sequence[str] | None = None, prog: str = "python -m harness.suite") -> int:
    """Runs the command line.

    Returns:
        0 when every cell is done, 1 when one failed, 2 for a mistake, 3 where all that is not done is in the hands of
        other processes, 130 on Ctrl-C.
    """
    parser = _parser(prog)
    args = parser.parse_args(argv)
    console = make_table_console()
    try:
        for name, root in (("run", Experiment), ("suite", Suite)):
            broken = config.prepare_gin(root, name)
        for plugin, error in broken.items():
            console.print(describe_broken_plugin(plugin, error), soft_wrap=True)
        suite = _suite(args.gin, args.bind)
        options = ["--device", args.device, *(["--unsafe-exec"] if args.unsafe_exec else [])]
        grid = build_cells(suite, Path(args.out), options)
        cluster_options = parse_options(args.cluster_option)
    except (config.ConfigError, ValueError) as error:
        Console(stderr=True).print("[bold red]error:[/] ", end="")
        Console(stderr=True).print(escape_controls(error, newlines=True), markup=False, highlight=False, soft_wrap=True)
        return 2
    todo = [cell for cell in grid if cell.status != "done"]
    if args.commands:
        print("\n".join(shlex.join(cell.command) for cell in todo))
        return 0
    if args.status:
        console.print(_table(grid))
        return 0
    if len(todo) < len(grid):
        console.print(f"{len(grid) - len(todo)} of {len(grid)} runs are done already")
    if args.cluster:
        return _submit(todo, args.cluster, cluster_options, Path(args.out), console)
    groups, jobs = _place(suite, args.device, args.jobs if todo else 1)
    if groups:
        console.print(f"{jobs} at a time, on GPU {'; '.join(','.join(group) for group in groups)}", markup=False)
    stopped, elsewhere = _run(todo, jobs, console, groups)
    console.print(_table(grid))
    if stopped:
        console.print("stopped; nothing is lost: the same command goes on")
        return 130
    console.print(f"next: python -m harness.leaderboard {args.out}", markup=False, soft_wrap=True)
    left = [cell for cell in grid if cell.status != "done"]
    if not left:
        return 0
    return IN_USE if all(cell in elsewhere for cell in left) else 1


def _suite(files: Sequence[str], bindings: Sequence[str]) -> Suite:
    """The suite of these files; bindings that are not its own are for every cell, after the suite's.

    Raises:
        ConfigError: a file or binding that cannot be used.
    """
    own, every = list[str](), list[str]()
    for binding in bindings:
        names = config.bound_names(binding)
        of_suite = [_is_suites(name) for name in names]
        if any(of_suite) and not all(of_suite):
            raise config.ConfigError(f"one --bind for the suite and another for its rows, please: {binding!r}")
        if all(of_suite) or "." not in names[0]:  # a macro may be used by both
            own.append(binding)
        if not any(of_suite):
            every.append(binding)
    for file in files:
        lost = [
            name for name in config.bound_by(file) if ("." in name or name == config.MODEL) and not _is_suites(name)
        ]
        if "run.method" in lost:
            raise config.ConfigError(
                f"{file} is a row's file, a suite file binds suite.rows; one row runs with harness.run --gin {file}"
            )
        if lost:
            raise config.ConfigError(
                f"{file} binds {', '.join(lost)}, which no row would see: a suite file binds suite.NAME alone; "
                "bindings for all rows stand in suite.bindings, files for all rows (gin/task/...) in suite.on"
            )
    config.parse_gin(files, own)
    suite: Suite = config.build_root("suite")
    return dataclasses.replace(suite, bindings=[*suite.bindings, *every])


def _is_suites(name: str) -> bool:
    return name.rpartition("/")[2].rpartition(".")[0] == "suite"


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--gin", action="append", required=True, metavar="FILE", help="suite file; repeat to override")
    parser.add_argument(
        "--bind", action="append", default=[], metavar="'NAME = VALUE'",
        help="one binding of the suite (suite.NAME), or of every run of it (run.steps = 100); repeatable",
    )  # fmt: skip
    parser.add_argument("--out", default="results/runs", help="results folder (default: results/runs)")
    parser.add_argument(
        "--jobs", type=int, help=f"runs at a time (default: one a GPU; without any, a core: {_cores()})"
    )
    parser.add_argument("--device", default="auto", help="as in harness.run")
    parser.add_argument("--unsafe-exec", action="store_true", help="as in harness.run")
    parser.add_argument("--status", action="store_true", help="print where every cell stands and stop")
    parser.add_argument("--commands", action="store_true", help="print the commands of the cells to do, one a line")
    parser.add_argument(
        "--cluster", metavar="NAME", help="submit the cells through submitit: slurm, or local (needs the `slurm` extra)"
    )
    parser.add_argument(
        "--cluster-option", action="append", default=[], metavar="NAME=VALUE",
        help="parameter of submitit's executor, such as timeout_min=600; repeatable",
    )  # fmt: skip
    return parser


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _place(suite: Suite, device: str, jobs: int | None) -> tuple[list[tuple[str, ...]], int]:
    """The groups of GPUs that runs are given in turn ([]: they are not placed), and how many run at a time.

    With `--device cuda:1` all runs share that one GPU, and run one after another unless `--jobs` says otherwise.
    """
    groups: list[tuple[str, ...]] = []
    if device in ("auto", "cuda"):
        groups = devices.group_devices(devices.visible_devices(), suite.devices_per_run)
    default = len(groups) or (1 if device.startswith("cuda:") else _cores())
    return groups, max(1, default if jobs is None else jobs)


def _run(
    todo: Sequence[Cell], jobs: int, console: Console, groups: Sequence[tuple[str, ...]] = ()
) -> tuple[bool, set[Cell]]:
    """Runs cells `jobs` at a time, each on the group of GPUs that has the fewest.

    Returns:
        Whether the user stopped it, and the cells that other processes work on.
    """
    placed = dict[Cell, tuple[str, ...]]()
    waiting, total, elsewhere = list(todo), len(todo), set[Cell]()
    running = dict[Cell, tuple[subprocess.Popen[bytes], Clock, float]]()
    finished = 0
    with _Stop() as stop, _Bars(total, console) as bars:
        while running or (waiting and not stop.asked):
            while waiting and len(running) < jobs and not stop.asked:
                cell = waiting.pop(0)
                if groups:
                    taken = [placed[other] for other in running]
                    placed[cell] = min(groups, key=taken.count)
                process = _start(cell, placed.get(cell))
                running[cell] = process, Clock(cell, process), time.monotonic()
                bars.start(cell)
            for cell, (_, clock, began) in list(running.items()):
                bars.move(cell)
                code = clock.poll()
                if code is None:
                    continue
                del running[cell]
                finished += 1
                error, seconds = settle_cell(cell, code, clock.reason), time.monotonic() - began
                if code == IN_USE or (error is None and cell.status not in ("done", "interrupted")):
                    elsewhere.add(cell)
                bars.end(cell)
                said = _said(cell, error, cell in elsewhere)
                console.print(Text(f"[{finished}/{total}] ") + said + Text(f", {seconds:.0f} s"), soft_wrap=True)
            for number in stop.take():
                for process, _, _ in running.values():
                    process.send_signal(number)
            time.sleep(POLL_SECONDS)
    return stop.asked, elsewhere


def _said(cell: Cell, error: str | None, elsewhere: bool) -> Text:
    """What is said of a cell that ended; text out of run.json is shown, never obeyed."""
    said = Text(f"{escape_controls(cell.label)}: ")
    if error:
        return said.append("failed:", "red").append(
            f" {escape_controls(error)} (see {escape_controls(cell.folder / CONSOLE)})"
        )
    return said.append("another process works on it" if elsewhere else escape_controls(cell.status))


def _start(cell: Cell, gpus: Sequence[str] | None = None) -> subprocess.Popen[bytes]:
    """A process in a session of its own: Ctrl-C reaches it from here alone; it ends cleanly if this one is killed.

    Args:
        cell: What it runs.
        gpus: The only GPUs that it sees; None: those that this process sees.
    """
    environment = {**os.environ, devices.VISIBLE: ",".join(gpus)} if gpus else None
    with Launch(cell).console_path() as screen:
        return subprocess.Popen(
            cell.command, stdin=subprocess.DEVNULL, stdout=screen, stderr=screen, start_new_session=True,
            env=environment,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )  # fmt: skip


def _die_with_parent() -> None:
    """The kernel sends SIGTERM, on which a run saves a checkpoint, when the process that started it dies."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class _Stop:
    """Collects Ctrl-C and SIGTERM, for the children to be told: the first ends them cleanly, the second at once."""

    def __init__(self) -> None:
        self.asked, self._new = False, 0
        self._old: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        self._old = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: Any) -> None:
        self.asked, self._new = True, self._new + 1

    def take(self) -> list[int]:
        """The signals to hand on."""
        new, self._new = self._new, 0
        return [signal.SIGINT] * new


class _Bars:
    """One bar for the suite and one for each running cell, on a terminal."""

    def __init__(self, total: int, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._live = Live(self._bars, console=console, refresh_per_second=2, transient=True)
        self._all = self._bars.add_task("suite", total=total)
        self._each: dict[Cell, Any] = {}
        self._terminal = console.is_terminal

    def __enter__(self) -> _Bars:
        if self._terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            self._live.stop()

    def start(self, cell: Cell) -> None:
        self._each[cell] = self._bars.add_task(cell.label, total=cell.steps or None)

    def move(self, cell: Cell) -> None:
        if self._terminal:
            self._bars.update(self._each[cell], completed=cell.steps_done)

    def end(self, cell: Cell) -> None:
        self._bars.remove_task(self._each.pop(cell))
        self._bars.advance(self._all)


def _submit(todo: Sequence[Cell], cluster: str, options: dict[str, Any], out: Path, console: Console) -> int:
    """Hands the cells to submitit, as one array; it requeues a preempted cell, which then goes on."""
    try:
        import submitit
    except ImportError:
        console.print("[bold red]error:[/] --cluster needs submitit: pip install -e '.\\[slurm]' -c constraints.txt")
        return 2
    try:
        executor: Any = submitit.AutoExecutor(folder=str(out / "submitit"), cluster=cluster)
        executor.update_parameters(name="score_harness", **options)
    except (RuntimeError, ValueError, NameError, AssertionError) as error:  # the last one for a value of another type
        console.print("[bold red]error:[/] ", end="")
        console.print(escape_controls(f"submitit refuses cluster {cluster!r}: {error}"), markup=False, soft_wrap=True)
        return 2
    if not todo:
        return 0
    launches: list[Callable[[], str]] = [Launch(cell) for cell in todo]
    with executor.batch():
        jobs = [executor.submit(launch) for launch in launches]
    for cell, job in zip(todo, jobs, strict=True):
        console.print(f"{cell.label}: job {job.job_id}", markup=False)
    told = f"{len(jobs)} jobs submitted; logs in {out / 'submitit'}; --status says how they stand"
    console.print(told, markup=False, soft_wrap=True)
    return 0


def _table(grid: Sequence[Cell]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("row", "seed", "status", "updates", "seconds", "error"):
        table.add_column(
            column, overflow="fold", justify="right" if column in ("seed", "updates", "seconds") else "left"
        )
    for cell in grid:
        info = cell.run_info
        seconds = info.get("seconds")
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            seconds = f"{float(seconds):.0f}"  # pyright: ignore[reportArgumentType]
        cells = (cell.name, cell.seed, cell.status, f"{cell.steps_done}/{cell.steps}", seconds or "")
        table.add_row(
            *(Text(escape_controls(text)) for text in cells),
            Text(escape_controls(info.get("error") or "", newlines=True)),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
