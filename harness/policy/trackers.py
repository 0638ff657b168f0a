"""An optional mirror of a run's numbers, in TensorBoard, Weights & Biases, trackio and others: accelerate's trackers.

All runs stand in one project, where they can be laid over each other: grouped by row, named by row and seed. Never the
truth: tables and figures read the run folder alone. A tracker that fails is named once and left out from then on; the
run goes on.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from harness.config import ConfigError
from harness.registry import nearest_hint

if TYPE_CHECKING:
    from harness.core import Display

PROJECT = "self-correction"


@dataclass(frozen=True)
class TrackedRun:
    """What a service is told of a run.

    Attributes:
        folder: The run's folder; what a tracker writes lies in a folder of its name below it.
        row: The gin file's name: runs of one row are a group.
        seed: The training seed.
        tags: Further words to find the run by (task, policy).
        bindings: The run's configuration.
    """

    folder: Path
    row: str
    seed: int
    tags: tuple[str, ...] = ()
    bindings: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Row and seed."""
        return f"{self.row}-seed{self.seed}"


def check_trackers(names: Sequence[str]) -> None:
    """Refuses trackers that do not exist or are not installed, before anything is computed.

    Raises:
        ConfigError: naming the tracker and what is there.
    """
    installed = sorted(str(getattr(name, "value", name)) for name in get_available_trackers())
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = sorted(LOGGER_TYPE_TO_CLASS)
            raise ConfigError(f"no tracker is called {name!r}{nearest_hint(name, known)}: {', '.join(known)}")
        if name not in installed:
            raise ConfigError(
                f"tracker {name!r} is not installed (pip install {name.replace('_', '-')} -c constraints.txt); "
                f"installed here: {', '.join(installed) or 'none'}"
            )


class TrackerDisplay:
    """A display that hands every line of the training log on to trackers as well, and in the end the evaluations.

    Args:
        display: Where progress is shown.
        names: The trackers, as accelerate calls them.
        run: What they are told of the run.
        say: Told of a tracker that failed.
    """

    def __init__(self, display: Display, names: Sequence[str], run: TrackedRun, say: Callable[[str], None]) -> None:
        self._display, self._say, self._trackers = display, say, {}
        for name in names:
            with self._forgiving(name):
                tracker = _start(name, run)
                about = {"row": run.row, "seed": run.seed, "tags": ", ".join(run.tags)}
                tracker.store_init_configuration({**about, **run.bindings})
                self._trackers[name] = tracker

    def phase(self, text: str, total: int, done: int = 0) -> None:
        """As `Display.phase`; trackers have no use for it."""
        self._display.phase(text, total, done)

    def advance(self, line: dict[str, Any] | None = None, count: int = 1) -> None:
        """As `Display.advance`; the numbers of `line` go to every tracker, at its step."""
        self._display.advance(line, count)
        if line:
            values = {
                f"train/{key}": float(value) for key, value in line.items() if isinstance(value, Real) and key != "step"
            }
            self._each(lambda tracker: tracker.log(values, step=line["step"]))

    def report(self, numbers: Mapping[str, float], step: int) -> None:
        """The numbers of the run's evaluations, at its last update: a service shows them in the run's summary."""
        values = {f"eval/{key}": value for key, value in numbers.items()}
        if values:
            self._each(lambda tracker: tracker.log(values, step=step))

    def finish_trackers(self) -> None:
        """Lets every tracker write what it still holds."""
        self._each(lambda tracker: tracker.finish())

    def _each(self, do: Callable[[Any], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            with self._forgiving(name):
                do(tracker)

    @contextlib.contextmanager
    def _forgiving(self, name: str) -> Any:
        try:
            yield
        except Exception as error:  # a service, a network, a full disk: whatever it is, the run is worth more
            self._trackers.pop(name, None)
            reason = str(error).strip().partition("\n")[0]
            self._say(f"tracker {name} is left out from here on: {type(error).__name__}: {reason}")


def _start(name: str, run: TrackedRun) -> Any:
    """Starts one tracker: the run it began earlier, where the folder tells of one."""
    PartialState()  # accelerate's trackers ask it; a policy without accelerate has made none
    kind, folder = LOGGER_TYPE_TO_CLASS[name], run.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    if name == "tensorboard":  # one folder a run: `tensorboard --logdir RESULTS` lays them over each other
        tracker = kind(run.name, logging_dir=folder)
    elif kind.requires_logging_directory:
        tracker = kind(PROJECT, logging_dir=folder)
    elif name == "wandb":
        known = _known(folder) or uuid.uuid4().hex[:12]
        tracker = kind(
            PROJECT, name=run.name, group=run.row, id=known, resume="allow", tags=list(run.tags), dir=str(run.folder)
        )
        _keep(folder, known)
    elif name == "trackio":  # it knows runs by their names; its one data base is where trackio has it (TRACKIO_DIR)
        known = _known(folder)
        resume = "allow" if known else "never"
        tracker = kind(PROJECT, name=known or run.name, group=run.row, resume=resume, embed=False)
    else:
        tracker = kind(PROJECT)
    tracker.start()
    if name == "trackio":
        _keep(folder, str(tracker.tracker.name))
    return tracker


def _known(folder: Path) -> str:
    """The id under which a service knows this run; '' before it was first told of it."""
    file = folder / "id"
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


def _keep(folder: Path, known: str) -> None:
    (folder / "id").write_text(f"{known}\n", encoding="utf-8")
