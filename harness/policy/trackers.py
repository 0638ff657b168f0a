"""An optional mirror of a run's training log, in TensorBoard, Weights & Biases and others: accelerate's trackers.

Never the truth: tables and figures read the run folder alone. A tracker that fails is named once and left out from then
on; the run goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from harness.config import ConfigError
from harness.registry import nearest

if TYPE_CHECKING:
    from harness.core import Display


def check(names: Sequence[str]) -> None:
    """Refuses trackers that do not exist or are not installed, before anything is computed.

    Raises:
        ConfigError: naming the tracker and what is there.
    """
    installed = sorted(str(getattr(name, "value", name)) for name in get_available_trackers())
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = sorted(LOGGER_TYPE_TO_CLASS)
            raise ConfigError(f"no tracker is called {name!r}{nearest(name, known)}: {', '.join(known)}")
        if name not in installed:
            raise ConfigError(
                f"tracker {name!r} is not installed (pip install {name.replace('_', '-')} -c constraints.txt); "
                f"installed here: {', '.join(installed) or 'none'}"
            )


class Mirror:
    """A display that hands every line of the training log on to trackers as well.

    Args:
        display: Where progress is shown.
        names: The trackers, as accelerate calls them.
        folder: The run's folder; trackers that write files write below it.
        project: What runs are grouped by, where a tracker knows projects.
        settings: The run's bindings.
        say: Told of a tracker that failed.
    """

    def __init__(
        self, display: Display, names: Sequence[str], folder: Path, project: str, settings: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._display, self._say, self._trackers = display, say, {}
        for name in names:
            with self._forgiving(name):
                kind = LOGGER_TYPE_TO_CLASS[name]
                tracker = kind(project, logging_dir=folder / name) if kind.requires_logging_directory else kind(project)
                tracker.start()
                tracker.store_init_configuration(dict(settings))
                self._trackers[name] = tracker

    def phase(self, text: str, total: int, done: int = 0) -> None:
        """As `Display.phase`; trackers have no use for it."""
        self._display.phase(text, total, done)

    def advance(self, line: dict[str, Any] | None = None, count: int = 1) -> None:
        """As `Display.advance`; the numbers of `line` go to every tracker, at its step."""
        self._display.advance(line, count)
        if line:
            values = {key: float(value) for key, value in line.items() if isinstance(value, Real) and key != "step"}
            self._each(lambda tracker: tracker.log(values, step=line["step"]))

    def finish(self) -> None:
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
