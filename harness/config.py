"""Gin, and the only file that imports it: names from the registry, one injected root, the operative config.

`run` (harness.training.experiment.Experiment) is the root: gin builds it and its arguments; everything below is
plain Python.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import gin
from gin import config as gin_config
from gin import config_parser

from harness import registry
from harness.project import GIN_HOME, NO_SCIENCE, ROOT

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
            "another package of that name (PyPI has one) stands in the way, or has overwritten it. Give each an "
            "environment of its own; here: pip uninstall verifiers, then install this project again as before, with "
            "--force-reinstall --no-deps"
        )
    broken = registry.load_plugins()
    with gin.unlock_config():  # an earlier parse of this process has locked it
        _expose()
        if name not in _roots:
            _roots[name] = root, gin.external_configurable(root, name=name)
    gin.add_config_file_search_path(str(GIN_HOME))
    return broken


_exposed: set[tuple[str, str]] = set()


def _expose() -> None:
    for entry in registry.entries():
        if (entry.kind, entry.name) not in _exposed:
            gin.external_configurable(entry.build, name=entry.name, module=entry.kind)
            _exposed.add((entry.kind, entry.name))


FOLDERS = ("gin", "gin/on", "gin/suites")  # where a bare name is looked for: rows first
VALUES = "A value is a number, True, False, None, 'text' in quotes, a list, @name() or %NAME."
_Binding = config_parser.BindingStatement


def parse(files: Sequence[str], bindings: Sequence[str]) -> None:
    """Parses gin files and then bindings, after forgetting whatever was parsed before.

    Files are paths, or bare names as `score_full`. The value of a text parameter may stand without quotes in
    `bindings`. What the files import is imported: they are the user's own (see `parse_recorded` for the others).

    Raises:
        ConfigError: a missing file, an unknown name or parameter (with the nearest), a syntax error.
    """
    _parse(None, files, bindings)


def parse_recorded(
    recorded: Path, files: Sequence[str] = (), bindings: Sequence[str] = (), trust: bool = False
) -> list[str]:
    """Like `parse`, but first a config.gin out of a run folder, which may be a stranger's: it executes nothing.

    Of such a file only bindings count. Without `trust`, an `import` that would execute code is an error, and
    `unsafe_exec` is left out: whether programs run without a sandbox is the caller's decision, not the folder's.
    An import of a module that is loaded already (a plugin's, or one that `files` import) executes nothing.

    Args:
        recorded: The run folder's config.gin.
        files: The user's own gin files, parsed after it.
        bindings: The user's own bindings, parsed last.
        trust: Whether the user vouches for `recorded`.

    Returns:
        What was left out, one sentence each.

    Raises:
        ConfigError: as `parse`, and a recorded config that would execute code.
    """
    if trust:
        _parse(None, [str(recorded), *files], bindings)
        return []
    for file in files:
        _import_plugins(_find(file))
    kept, left_out = [], []
    for statement in _recorded(recorded):
        key = _key(statement)
        if key.rpartition(".")[2] == "unsafe_exec":
            if statement.value:
                left_out.append(
                    f"{recorded}: {key} = {statement.value!r} is left out (--trust, or your own --bind, honours it)"
                )
            continue
        kept.append(statement)
    _parse(kept, files, bindings)
    return left_out


def _recorded(path: Path) -> Iterator[_Binding]:
    """The bindings of a file and of what it includes; raises ConfigError where code would be executed."""
    for file, statement in _walk(path):
        if isinstance(statement, config_parser.ImportStatement) and statement.module not in sys.modules:
            raise ConfigError(
                f"{file} asks to import {statement.module}: that would execute code that a run folder names. "
                "Where you trust the folder and that module, say so with --trust; where the module is a plugin of "
                "yours, name a gin file that imports it with --gin"
            )
        if isinstance(statement, _Binding):
            yield statement


def _walk(path: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Path, Any]]:
    """(file, statement) of a gin file and of what it includes, in order; nothing is looked up or imported.

    Raises:
        ConfigError: a syntax error, an include of a file that is not there or that includes this one.
    """
    here = path.resolve()
    if here in above:
        raise ConfigError(f"{path} includes itself")
    for statement in _statements(_read(path), str(path)):
        if isinstance(statement, config_parser.IncludeStatement):
            yield from _walk(_find(statement.filename, path.parent), (*above, here))
        else:
            yield path, statement


def _parse(recorded: Sequence[_Binding] | None, files: Sequence[str], bindings: Sequence[str]) -> None:
    gin.clear_config(clear_constants=True)
    paths = [_find(file) for file in files]
    for path in paths:
        _import_plugins(path)
    # Only while gin is exposed to it: a plugin imported by a gin line registers before its names are read.
    try:
        for statement in recorded or ():
            gin.parse_config(f"{_key(statement)} = {statement.value!r}")
        for path in paths:
            gin.add_config_file_search_path(str(path.resolve().parent))  # a file includes what lies beside it
            gin.parse_config_file(str(path))
        for binding in bindings:
            gin.parse_config(_quoted(binding))
        gin.finalize()
    except ConfigError:
        raise
    except Exception as error:  # gin raises ValueError, NameError, SyntaxError, KeyError, OSError and more
        raise ConfigError(_explain(error)) from error


def referred(parameter: str) -> list[str]:
    """The configurables that a parameter's parsed value refers to: ['task.arithmetic'] for `run.task`; [] unbound."""
    try:
        value = gin.query_parameter(parameter)
    except ValueError:  # not bound
        return []
    values = value if isinstance(value, list | tuple) else [value]
    references = (one.configurable for one in values if isinstance(one, gin_config.ConfigurableReference))
    return [configurable.selector for configurable in references if configurable]


def _find(file: str, beside: Path | None = None) -> Path:
    """The file of a path (as it is, below this project, or in the folder `beside`) or of a bare name.

    Raises:
        ConfigError: there is none; the nearest is named.
    """
    named = [GIN_HOME / folder / f"{file}.gin" for folder in FOLDERS] if re.fullmatch(r"[\w.+-]+", file) else []
    for path in (Path(file), GIN_HOME / file, *([beside / file] if beside else []), *named):
        if path.is_file():
            return path
    folder = (GIN_HOME / file).parent
    inside = folder.resolve().is_relative_to(GIN_HOME)
    known = [str(path.relative_to(GIN_HOME) if inside else path) for path in folder.glob("*.gin")]
    if named and not file.endswith(".gin"):
        known = [path.stem for folder in FOLDERS for path in (GIN_HOME / folder).glob("*.gin")]
    raise ConfigError(f"no gin file {file!r}{registry.nearest(file, known)}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error


class _Name(str):
    """A reference or macro as written, so that its repr is gin text again."""

    def __repr__(self) -> str:
        return str(self)


class _Unread(config_parser.ParserDelegate):
    """Reads gin text without looking up what it names."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        return _Name(f"@{scoped_configurable_name}{'()' if evaluate else ''}")

    def macro(self, macro_name: str) -> Any:
        return _Name(f"%{macro_name}")


def _statements(text: str, name: str) -> list[Any]:
    """The statements of gin text, nothing looked up, included or imported.

    Raises:
        ConfigError: a syntax error.
    """
    try:
        return list(config_parser.ConfigParser(text, _Unread()))
    except Exception as error:  # gin and Python's tokenizer raise several kinds
        raise ConfigError(f"{name}: {_explain(error)}") from error


def _key(statement: _Binding) -> str:
    name = f"{statement.selector}.{statement.arg_name}" if statement.arg_name else statement.selector
    return f"{statement.scope}/{name}" if statement.scope else name


def bound(text: str) -> list[str]:
    """The names that gin text binds: `run.steps`, and `BETA1` for a macro; what it includes is not read.

    Raises:
        ConfigError: a syntax error.
    """
    return [_key(statement) for statement in _statements(_quoted(text), text) if isinstance(statement, _Binding)]


def bound_by(file: str) -> list[str]:
    """The names that a gin file binds, itself or through its includes; raises ConfigError as `parse` does."""
    return [_key(statement) for _, statement in _walk(_find(file)) if isinstance(statement, _Binding)]


def lineage(row: str, files: Sequence[str]) -> tuple[str, dict[str, str]]:
    """What a row is a variant of: the gin file that its own file includes last, and the bindings it adds to that.

    Args:
        row: The row's name.
        files: The gin files of a run. The row's own is the one of them called `<row>.gin`, else this project's.

    Returns:
        (parent's name, {binding: value as text}); ('', {}) where there is no such file or it includes none.

    Raises:
        ConfigError: a syntax error.
    """
    named = [path for path in map(_find, files) if path.stem == row]
    path = named[-1] if named else GIN_HOME / "gin" / f"{row}.gin"
    statements = _statements(_read(path), str(path)) if path.is_file() else []
    included = [s.filename for s in statements if isinstance(s, config_parser.IncludeStatement)]
    if not included:
        return "", {}
    own = {_key(s): repr(s.value) for s in statements if isinstance(s, _Binding)}
    return Path(included[-1]).stem, {name: value for name, value in own.items() if name != "run.name"}


def _quoted(binding: str) -> str:
    """`binding` with quotes around the value of a text parameter, where they were left out.

    Raises:
        ConfigError: a value that gin cannot read and that is no text either; an unknown parameter comes first.
    """
    name, equals, value = (part.strip() for part in binding.partition("="))
    if not equals or "\n" in binding or not re.fullmatch(r"[\w./]+", name):
        return binding
    builds, parameter = _builds(name), name.rpartition(".")[2]
    known = [p for build in builds if (p := inspect.signature(build).parameters.get(parameter))]
    texts = bool(known) and all(map(_takes_text, known))
    try:
        (read,) = (s.value for s in config_parser.ConfigParser(f"x.y = {value}", _Unread()) if isinstance(s, _Binding))
    except Exception as error:  # gin cannot read the value
        if texts and value and value[0] not in "'\"@%([{":
            return f"{name} = {value!r}"
        if builds and not known:
            parameters = _parameters(builds[0])
            near = registry.nearest(parameter, parameters)
            raise ConfigError(
                f"{binding}: no parameter {parameter!r}{near}; it has: {', '.join(parameters)}"
            ) from error
        takes = f"; {name} takes {_told(known[0])}" if known and _told(known[0]) else ""
        raise ConfigError(f"Unable to parse the value {value!r} of {name}{takes}. {VALUES}") from error
    if not texts or read is None or isinstance(read, str) or "#" in value:
        return binding
    if isinstance(read, bool | int | float) and all(_annotation(p) <= {"str", "None"} for p in known):
        return f"{name} = {value!r}"  # a number or a truth value where only text makes sense: run.name=2024
    return binding


def _takes_text(parameter: inspect.Parameter) -> bool:
    return "str" in _annotation(parameter) or isinstance(parameter.default, str)


def _annotation(parameter: inspect.Parameter) -> set[str]:
    """The members of a parameter's annotation: {'str', 'None'} of `str | None`."""
    text = re.sub(r"^(?:typing\.)?Optional\[(.+)\]$", r"\1 | None", _told(parameter))
    return {part.strip() for part in text.split("|")}


def _told(parameter: inspect.Parameter) -> str:
    """A parameter's annotation as text, '' where it has none."""
    told = parameter.annotation
    if told is parameter.empty:
        return ""
    return told if isinstance(told, str) else told.__name__ if isinstance(told, type) else str(told)


def _builds(name: str) -> list[Callable[..., Any]]:
    """What a binding's `kind.name.parameter` or `name.parameter` may configure."""
    selector = name.rpartition("/")[2].rpartition(".")[0]
    kind, _, last = selector.rpartition(".")
    found = [entry.build for entry in registry.entries() if entry.name == last and kind in ("", entry.kind)]
    return found + ([_roots[last][0]] if last in _roots and not kind else [])


def _import_plugins(path: Path) -> None:
    """Imports what the `import` and `from` lines name before gin reads them, so that the names they register exist.

    A module is looked for as Python does, then in the working directory, then beside the gin file.
    """
    for file, statement in _walk(path):
        if not isinstance(statement, config_parser.ImportStatement) or statement.module.startswith("__gin__"):
            continue
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        if (beside := str(file.resolve().parent)) not in sys.path:
            sys.path.append(beside)
        package, _, name = statement.module.rpartition(".")
        try:
            if not statement.is_from or not hasattr(importlib.import_module(package), name):
                importlib.import_module(statement.module)
        except Exception as error:  # a stranger's module may raise anything
            told = f"{type(error).__name__}: {error}"
            raise ConfigError(f"{file}: import {statement.module} failed: {told}") from error
    _expose()


def _explain(error: Exception) -> str:
    """Gin's message with the nearest existing name, on as few lines as it takes."""
    text = str(error).strip()
    if match := re.search(r"No configurable matching (?:reference )?'?@?([\w./]+)'?", text):
        first, feed, place = text.partition("\n")
        return first.rstrip(".") + _existing(match[1]) + feed + place
    if match := re.search(r"[Cc]onfigurable '?([\w.]+)'? doesn't have a parameter named '?(\w+)'?", text):
        builds = {entry.name: entry.build for entry in registry.entries()} | {k: v[0] for k, v in _roots.items()}
        build = builds.get(match[1].rpartition(".")[2])
        known = _parameters(build) if build else []
        return f"{text}{registry.nearest(match[2], known)}; it has: {', '.join(known)}"
    if re.search(r"malformed node or string|Unable to parse|Failed to parse token|invalid .* literal", text):
        return f"{text}\n  {VALUES}"
    return text


def _existing(name: str) -> str:
    """The tail of a message about an unknown name: the nearest, or all of its kind where none is near."""
    if name == "suite":
        return "; this is a suite's file: python -m harness.suite runs it"
    kind, _, last = name.rpartition("/")[2].rpartition(".")
    of_kind = [entry.name for entry in registry.entries(kind)] if kind in registry.KINDS else []
    if of_kind:
        close = difflib.get_close_matches(last, of_kind, n=1, cutoff=0.6)
        return f" (nearest: {kind}.{close[0]})" if close else f"; the names of {kind}: {', '.join(of_kind)}"
    return registry.nearest(name, [f"{entry.kind}.{entry.name}" for entry in registry.entries()] + list(_roots))


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
        raise ConfigError(_missing(str(error)) or str(error).strip()) from error


def _missing(text: str) -> str | None:
    """'run.method and run.task are not bound' for Python's message about missing arguments."""
    match = re.search(
        r"(\w+)(?:\.__init__|\.__new__)?\(\) missing \d+ required (?:positional|keyword-only) arguments?", text
    )
    if not match:
        return None
    parameters = re.findall(r"'(\w+)'", text[match.end() :].partition("\n")[0])
    builds = {name: pair[0] for name, pair in _roots.items()}
    builds |= {entry.name: entry.build for entry in registry.entries()}
    names = [name for name, build in builds.items() if build.__name__ == match[1]] or [match[1]]
    listed = " and ".join(
        filter(None, (", ".join(f"{names[0]}.{p}" for p in parameters[:-1]), f"{names[0]}.{parameters[-1]}"))
    )
    return f"{listed} {'is' if len(parameters) == 1 else 'are'} not bound"


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


def differences(old: str, new: str, ignore: Collection[str] = ()) -> list[str]:
    """'name: old -> new' for every binding that two config texts do not share, but for NO_SCIENCE and `ignore`."""
    return [
        f"{name}: {then or 'not set'} -> {now or 'not set'}"
        for name, then, now in changes(old, new)
        if name not in NO_SCIENCE and name not in ignore
    ]


def changes(old: str, new: str) -> list[tuple[str, str | None, str | None]]:
    """(name, old value, new value) of every binding that two config texts do not share; None where it is not set.

    A parameter that one text lacks counts as its default, as long as the text has what the parameter belongs to: it is
    newer than the text. So a new parameter must have the default that changes nothing.
    """
    a, b = lines(old), lines(new)
    parts = [{_owner(name) for name in text} | set(_USED.findall(raw)) for text, raw in ((a, old), (b, new))]
    found = []
    for name in sorted(a.keys() | b.keys()):
        then, now = (
            text.get(name) or (_default(name) if _owner(name) in used else None)
            for text, used in zip((a, b), parts, strict=True)
        )
        if then != now:
            found.append((name, then, now))
    return found


_USED = re.compile(r"^# Parameters for (.+):$", re.MULTILINE)  # gin's heading, there for a part without parameters too


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _default(name: str) -> str | None:
    """The default of a binding's parameter as gin writes it, or None where there is none."""
    for build in _builds(name):
        parameter = inspect.signature(build).parameters.get(name.rpartition(".")[2])
        if parameter is not None and parameter.default is not parameter.empty:
            with contextlib.suppress(ValueError, SyntaxError):  # an object: gin does not write it either
                ast.literal_eval(repr(parameter.default))
                return repr(parameter.default)
    return None
