"""One registry for methods, tasks, verifiers and everything else a gin file can name.

In-tree entries and installed plugins are loaded the same way: by an entry point of the group `score_harness.plugins`
that names a module; importing the module runs its `@register` lines. A gin file may also say `import my_module`.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

GROUP = "score_harness.plugins"
IN_TREE = frozenset(
    {
        "harness.credit",
        "harness.training.dialogue",
        "harness.training.evaluations",
        "harness.policy",
        "harness.tasks",
        "methods",
        "verifiers",
    }
)
KINDS = (
    "method",
    "phase",
    "bonus",
    "advantage",
    "kl",
    "dialogue",
    "task",
    "verifier",
    "policy",
    "evaluation",
    "metric",
)

T = TypeVar("T", bound=Callable[..., Any])


class UnknownName(KeyError):
    """A name that nothing registered; the message shows the nearest that exists."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Entry:
    """One registered name: `kind.name`, what it builds, and which distribution supplied it."""

    kind: str
    name: str
    build: Callable[..., Any]

    @property
    def source(self) -> str:
        """'distribution version' that supplied the name, or the file when it is not installed."""
        return _source(self.build.__module__)

    @property
    def summary(self) -> str:
        """The first line of the entry's docstring."""
        return (self.build.__doc__ or "").strip().partition("\n")[0]


_entries: dict[tuple[str, str], Entry] = {}


def register(kind: str, name: str) -> Callable[[T], T]:
    """Class or function decorator that makes `name` known to gin as `kind.name`; the object itself stays plain.

    Raises:
        ValueError: unknown kind, or a name already held by another object (both holders are named).
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r} for {name!r}{nearest_hint(kind, KINDS)}")

    def add(build: T) -> T:
        held, holder = _entries.get((kind, name)), _holder(build)
        if held is not None and _holder(held.build) != holder:
            raise ValueError(f"{kind}.{name} is registered twice: by {_holder(held.build)} and by {holder}")
        _entries[kind, name] = Entry(kind, name, build)
        return build

    return add


def list_entries(kind: str | None = None) -> Iterator[Entry]:
    """All entries (of one kind), sorted by kind as in KINDS, then by name."""
    for key in sorted(_entries, key=lambda key: (KINDS.index(key[0]), key[1])):
        if kind in (None, key[0]):
            yield _entries[key]


def get_entry(kind: str, name: str) -> Entry:
    """The entry `kind.name`.

    Raises:
        UnknownName: with the nearest name of that kind.
    """
    try:
        return _entries[kind, name]
    except KeyError:
        names = [entry.name for entry in list_entries(kind)]
        raise UnknownName(f"no {kind} is called {name!r}{nearest_hint(name, names)}") from None


def nearest_hint(name: str, names: Any) -> str:
    """' (nearest: ...)' with the closest of `names`, or '' when none is close: the tail of an error message."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" (nearest: {close[0]})" if close else ""


def find_place(error: BaseException) -> str:
    """'file.py:12', the deepest line of an error that is in the files of a method, task, verifier, policy or plugin.

    An error is often raised below the line that is wrong: in this package, or in a library. '' where no such line is
    in its traceback.
    """
    here = Path(__file__).resolve().parent
    modules = {entry.build.__module__ for entry in list_entries()}
    files = [file for module in modules if (file := getattr(sys.modules.get(module), "__file__", None))]
    folders = {folder for file in files if not (folder := Path(file).resolve().parent).is_relative_to(here)}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename).resolve()
        for folder in folders:
            inside = path.is_relative_to(folder) and not path.is_relative_to(here)
            if inside and "site-packages" not in path.relative_to(folder).parts:
                return f"{frame.filename}:{frame.lineno}"
    return ""


def load_plugins(in_tree: bool = True) -> dict[str, str]:
    """Imports every plugin module; returns {plugin: error} for those that failed, which do not stop the rest.

    Args:
        in_tree: Whether the harness's own modules, which import the engine, are wanted as well.

    Raises:
        RuntimeError: the harness's own entry points are missing, so the package is not installed.
    """
    points, broken = list(importlib.metadata.entry_points(group=GROUP)), {}
    if not in_tree:
        points = [point for point in points if point.value not in IN_TREE]
    elif "methods" not in {point.value for point in points}:
        raise RuntimeError(
            "the harness is not installed in this environment: run `pip install -e . -c constraints.txt`"
        )
    for point in sorted(points, key=lambda point: (point.value not in IN_TREE, point.name)):
        try:
            importlib.import_module(point.module)
        except Exception as error:  # a plugin's module may raise anything; it is named, the others are loaded
            if point.value in IN_TREE:
                raise
            dist = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
            broken[f"{point.name} = {point.value} (from {dist})"] = f"{type(error).__name__}: {error}"
    return broken


def _holder(build: Callable[..., Any]) -> str:
    return f"{build.__module__}.{getattr(build, '__qualname__', repr(build))}"


_distributions = functools.cache(importlib.metadata.packages_distributions)  # reads every installed record: once


def _source(module: str) -> str:
    names = _distributions().get(module.partition(".")[0], [])
    if names:
        return f"{names[0]} {importlib.metadata.version(names[0])}"
    path = getattr(sys.modules.get(module), "__file__", None)
    return f"{path or module} (not installed)"
