"""Gin, and the only file that imports it: names from the registry, one injected root, the operative config.

`run` (harness.experiment.Experiment) is the root: gin builds it and its arguments, everything below is plain Python.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gin

from harness import registry

ROOT = Path(__file__).resolve().parent.parent
_roots: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {}  # {name: (the object, gin's wrapper of it)}


class ConfigError(ValueError):
    """A gin file or binding that cannot be used; the message names the place and the nearest existing name."""


def prepare(root: Callable[..., Any], name: str) -> dict[str, str]:
    """Loads all plugins and makes every registered name, and `root` as `name`, known to gin.

    Returns:
        {plugin: error} for plugins that failed to import.

    Raises:
        ConfigError: another package called `verifiers` hides this project's.
    """
    spec = importlib.util.find_spec("verifiers")
    if spec is None or not spec.origin or Path(spec.origin).resolve().parent.parent != ROOT:
        raise ConfigError(
            f"`import verifiers` finds {spec.origin if spec else 'nothing'}, not this project's {ROOT / 'verifiers'}: "
            "another package of that name is installed; uninstall it, or install this one with `pip install -e .`"
        )
    broken = registry.load_plugins()
    with gin.unlock_config():  # an earlier parse of this process has locked it
        _expose()
        if name not in _roots:
            _roots[name] = root, gin.external_configurable(root, name=name)
    gin.add_config_file_search_path(str(ROOT))
    return broken


_exposed: set[tuple[str, str]] = set()


def _expose() -> None:
    for entry in registry.entries():
        if (entry.kind, entry.name) not in _exposed:
            gin.external_configurable(entry.build, name=entry.name, module=entry.kind)
            _exposed.add((entry.kind, entry.name))


def parse(files: Sequence[str], bindings: Sequence[str]) -> None:
    """Parses gin files and then bindings, after forgetting whatever was parsed before.

    Raises:
        ConfigError: a missing file, an unknown name or parameter (with the nearest), a syntax error.
    """
    gin.clear_config(clear_constants=True)
    for file in files:
        if not (Path(file).is_file() or (ROOT / file).is_file()):
            folder = (ROOT / file).parent
            known = [str(path.relative_to(ROOT)) for path in folder.glob("*.gin")] if folder.is_dir() else []
            raise ConfigError(f"no gin file {file!r}{registry.nearest(file, known)}")
        _import_plugins(Path(file) if Path(file).is_file() else ROOT / file)
    # Only while gin is exposed to it: a plugin imported by a gin line registers before its names are read.
    try:
        for file in files:
            gin.parse_config_file(file if Path(file).is_file() else str(ROOT / file))
        for binding in bindings:
            gin.parse_config(binding)
        gin.finalize()
    except Exception as error:  # gin raises ValueError, NameError, SyntaxError, KeyError, OSError and more
        raise ConfigError(_explain(error)) from error


def _import_plugins(path: Path) -> None:
    """Imports what a gin file's `import` lines name before gin reads it, so that the names they register exist."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\s*import\s+([\w.]+)\s*(?:#.*)?$", line):
            if os.getcwd() not in sys.path:
                sys.path.insert(0, os.getcwd())
            try:
                importlib.import_module(match[1])
            except Exception as error:  # a stranger's module may raise anything
                raise ConfigError(f"{path}: import {match[1]} failed: {type(error).__name__}: {error}") from error
        elif match := re.match(r"\s*include\s+['\"](.+)['\"]", line):
            inner = Path(match[1]) if Path(match[1]).is_file() else ROOT / match[1]
            if inner.is_file():
                _import_plugins(inner)
    _expose()


def _explain(error: Exception) -> str:
    """Gin's message with the nearest existing name, on as few lines as it takes."""
    text = str(error).strip()
    names = [f"{entry.kind}.{entry.name}" for entry in registry.entries()] + list(_roots)
    if match := re.search(r"No configurable matching (?:reference )?'?@?([\w./]+)'?", text):
        return f"{text}{registry.nearest(match[1], names)}"
    if match := re.search(r"[Cc]onfigurable '?([\w.]+)'? doesn't have a parameter named '?(\w+)'?", text):
        builds = {entry.name: entry.build for entry in registry.entries()} | {k: v[0] for k, v in _roots.items()}
        build = builds.get(match[1].rpartition(".")[2])
        known = _parameters(build) if build else []
        return f"{text}{registry.nearest(match[2], known)}; it has: {', '.join(known)}"
    return text


def _parameters(build: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(build).parameters if name not in ("args", "kwargs")]


def build(root: str) -> Any:
    """Builds an exposed root from what was parsed.

    Raises:
        ConfigError: a required binding is missing, or an object refuses its parameters.
    """
    try:
        return _roots[root][1]()
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        raise ConfigError(str(error).strip()) from error


def operative() -> str:
    """Every binding in force for the objects built so far, defaults included, one a line; can be parsed again."""
    return _tidy(gin.operative_config_str(max_line_length=100_000))


def _tidy(text: str) -> str:
    """Gin rules its comments as wide as its lines may be; rule them at 80."""
    return re.sub(r"^# =+$", "# " + "=" * 78, text, flags=re.MULTILINE).strip() + "\n"


def lines(text: str) -> dict[str, str]:
    """{binding: value} of a config text with one binding a line."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.partition(" = ")
        if equals and not line.startswith("#"):
            found[name.strip()] = value.strip()
    return found


def differences(old: str, new: str, ignore: Sequence[str] = ()) -> list[str]:
    """'name: old -> new' for every binding that two config texts do not share."""
    return [
        f"{name}: {then or 'not set'} -> {now or 'not set'}"
        for name, then, now in changes(old, new)
        if name not in ignore
    ]


def changes(old: str, new: str) -> list[tuple[str, str | None, str | None]]:
    """(name, old value, new value) of every binding that two config texts do not share; None where it is not set."""
    a, b = lines(old), lines(new)
    return [(name, a.get(name), b.get(name)) for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name)]
