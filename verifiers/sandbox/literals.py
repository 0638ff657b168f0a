"""Turns plain Python values into text and back: the only thing that passes between a candidate and its tests.

JSON with one-key objects as tags. Reading builds values of exact built-in types (and a few of the standard library)
and never runs anything that came from the other side. A value of any other class becomes a numbered reference. An
object of a subclass of a built-in type crosses as the built-in value with a reference beside it, which is asked for
what the built-in type lacks: fields of a named tuple, methods, a default for a missing key.

Not covered: identity and shared structure; in-place changes of arguments.
Above 300 lines because writing and reading of every kind of value belong side by side.
"""

from __future__ import annotations

import array
import builtins
import datetime
import importlib
import json
import re
import sys
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, UserString, deque
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from types import MappingProxyType
from typing import Any

MAX_TEXT = 2**24  # characters of one value of a program's
MAX_TRUSTED = 2**24  # characters of the arguments of one call, which trusted tests write
MAX_ITEMS = 200_000  # taken from an iterator
MAX_DEPTH = 12_000  # frames of Python that writing and reading one value may stack up: some 4,000 levels


class NoLiteral(ValueError):
    """The value has no literal form."""


class MatchValue:
    """The content of a regular expression's match, rebuilt from text; true, and equal to nothing but itself."""

    def __init__(self, groups: list[str | None], spans: list[list[int]], names: dict[str, str | None]) -> None:
        self._groups, self._spans, self._names = groups, spans, names

    def group(self, *which: int | str) -> Any:
        picked = tuple(self._names[i] if isinstance(i, str) else self._groups[i] for i in which or (0,))
        return picked[0] if len(picked) == 1 else picked

    __getitem__ = group

    def groups(self) -> tuple[str | None, ...]:
        return tuple(self._groups[1:])

    def groupdict(self) -> dict[str, str | None]:
        return dict(self._names)

    def span(self, group: int = 0) -> tuple[int, int]:
        low, high = self._spans[group]
        return low, high

    def start(self, group: int = 0) -> int:
        return self.span(group)[0]

    def end(self, group: int = 0) -> int:
        return self.span(group)[1]


class TooLarge(ValueError):
    """The value's text is longer than `MAX_TEXT`."""


def write_value(
    value: Any, refer: Callable[[Any], Any] | None = None, always: type | None = None, limit: int = MAX_TEXT
) -> str:
    """The text of a value.

    Args:
        value: Anything made of built-in types.
        refer: Names objects of other classes (the returned tag is sent instead).
        always: A class whose objects go by `refer` whatever else they can do.
        limit: Characters the text may have.

    Raises:
        NoLiteral: another class, and no `refer`.
        TooLarge: more than `limit`.
    """
    text = _deeply(lambda: json.dumps(_tag(value, refer, always), separators=(",", ":")))
    if len(text) > limit:
        raise TooLarge(f"a value of {len(text)} characters")
    return text


def read_value(text: str, resolve: Callable[[Any], Any] | None = None) -> Any:
    """The value of a text; `resolve` turns a reference's number into an object.

    Raises:
        ValueError: malformed text.
    """
    return rebuild_value(parse_json(text), resolve)


def parse_json(text: str) -> Any:
    """The JSON of a text, as deep as `write_value` makes it.

    Raises:
        ValueError: malformed text.
    """
    try:
        return _deeply(lambda: json.loads(text))
    except RecursionError as error:
        raise ValueError(f"malformed value: {type(error).__name__}") from None


def rebuild_value(data: Any, resolve: Callable[[Any], Any] | None = None) -> Any:
    """The value of a text that was parsed as JSON already; as `read_value`."""
    try:
        return _deeply(lambda: _untag(data, resolve))
    except (TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"malformed value: {type(error).__name__}") from None


def _deeply(work: Callable[[], Any]) -> Any:
    """What `work` gives, which may stack up more than programs may."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, MAX_DEPTH))
    try:
        return work()
    finally:
        sys.setrecursionlimit(before)


class _Own:
    """Beside a built-in value of a subclass of the program's: whom to ask for what the built-in type lacks."""

    _remote: Any
    _sent: Any

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_remote", "_sent"):
            raise AttributeError(name)
        return getattr(self._remote, name)

    def __str__(self) -> str:
        return self._remote._say("str")

    def __repr__(self) -> str:
        return self._remote._say("repr")


class _OwnDict(_Own, dict):
    def __missing__(self, key: Any) -> Any:
        return self._remote[key]


_OWN: dict[type, Any] = {
    base: type(f"_Own{base.__name__.title()}", (_Own, base), {})
    for base in (int, str, float, list, tuple, set, frozenset)
}
_OWN[dict] = _OwnDict
_OWN_BASES: dict[type, type] = {own: base for base, own in _OWN.items()}


def _tag(value: Any, refer: Callable[[Any], Any] | None, always: type | None = None) -> Any:
    kind = type(value)
    if value is None or kind in (bool, str, float):
        return value
    if kind is int:
        return value if -(2**53) < value < 2**53 else {"i": hex(value)}
    if kind is list:
        return [_tag(item, refer, always) for item in value]
    name = _SEQUENCES.get(kind)
    if name:
        return {name: [_tag(item, refer, always) for item in value]}
    name = _MAPPINGS.get(kind)
    if name:
        return {name: [[_tag(k, refer, always), _tag(v, refer, always)] for k, v in value.items()]}
    if kind in (bytes, bytearray):
        return {"b" if kind is bytes else "B": value.hex()}
    if kind is complex:
        return {"c": [value.real, value.imag]}
    if kind is range:
        return {"r": [value.start, value.stop, value.step]}
    if kind is slice:
        return {"sl": [_tag(part, refer, always) for part in (value.start, value.stop, value.step)]}
    if kind is Fraction:
        return {"F": [_tag(value.numerator, refer, always), _tag(value.denominator, refer, always)]}
    if kind is Decimal:
        return {"D": str(value)}
    if kind is type(...):
        return {"e": 0}
    if kind is type and _is_builtin(value.__name__, value):
        return {"T": value.__name__}
    if kind is re.Match and isinstance(value.string, str):
        groups = [value.group(0), *value.groups()]
        return {"m": [groups, [list(value.span(i)) for i in range(len(groups))], value.groupdict()]}
    if kind is MatchValue:
        return {"m": [value._groups, value._spans, value._names]}
    for name, dated in _DATES.items():
        if kind is dated:
            return {name: [value.days, value.seconds, value.microseconds] if name == "td" else value.isoformat()}
    tag = _tag_standard(value, refer, always)
    return _tag_other(value, refer, always) if tag is _OTHER else tag


_OTHER = object()


def _tag_standard(value: Any, refer: Callable[[Any], Any] | None, always: type | None) -> Any:
    """Values of other classes of the standard library and numpy, `_OTHER` when it is none of them."""
    kind = type(value)
    if kind in _OWN_BASES:
        base = _OWN_BASES[kind]
        same = refer is not None and base(value) == value._sent
        return _tag(value._remote if same else base(value), refer, always)
    if kind in (ChainMap, MappingProxyType):
        maps = value.maps if kind is ChainMap else [dict(value)]
        return {"cm" if kind is ChainMap else "mp": [_tag(part, refer, always) for part in maps]}
    if kind in (UserDict, UserList, UserString):
        return _tag(value.data, refer, always)
    if isinstance(value, (KeysView, ValuesView)):
        return {"dk" if isinstance(value, KeysView) else "dv": [_tag(item, refer, always) for item in value]}
    if isinstance(value, ItemsView):
        return {"di": [[_tag(k, refer, always), _tag(v, refer, always)] for k, v in value]}
    if kind is array.array:
        return {"ar": [value.typecode, [_tag(item, refer, always) for item in value]]}
    if kind is memoryview and value.format == "B" and value.c_contiguous:
        return {"mv": value.hex()}
    # By name from here on: a value is recognised without an import of pathlib, uuid or numpy.
    if kind.__name__ in _PATHS and kind.__module__.partition(".")[0] == "pathlib":
        return {"p": [kind.__name__, str(value)]}
    if kind.__module__ == "uuid" and kind.__name__ == "UUID":
        return {"u": value.hex}
    if kind.__module__ == "numpy" and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return _tag(value.item(), refer, always)
    if kind.__module__ == "numpy" and kind.__name__ == "ndarray" and value.dtype.kind in "biufcSU":
        return {
            "nd": [value.dtype.str, list(value.shape), [_tag(item, refer, always) for item in value.ravel().tolist()]]
        }
    return _OTHER


def _tag_other(value: Any, refer: Callable[[Any], Any] | None, always: type | None) -> Any:
    """Subclasses of built-in types as their base, iterators as what is left in them, the rest by reference."""
    if refer is not None and always is not None and type(value) is always:
        return refer(value)
    if refer is not None:
        for base in (bool, *_OWN):
            if isinstance(value, base) and type(value) is not base:
                plain = _tag(base(value), refer, always)
                if always is None and _has_more(value, base):  # the program's side: it can be asked later on
                    return {"own": [base.__name__, plain, refer(value)]}
                return plain
        if isinstance(value, Iterator):
            return {"g": [_tag(item, refer, always) for item in islice(value, MAX_ITEMS)]}
        return refer(value)
    raise NoLiteral(f"a {type(value).__name__} has no literal form")


def _has_more(value: Any, base: type) -> bool:
    """Whether an object has attributes that its built-in base lacks, or values for missing keys."""
    classes = type(value).__mro__[: type(value).__mro__.index(base)]
    names = [name for kind in classes for name in vars(kind)]
    return any(not name.startswith("__") or name == "__missing__" for name in names) or bool(
        getattr(value, "__dict__", None)
    )


def _is_builtin(name: str, kind: Any) -> bool:
    """Whether a class is a built-in type under its own name (`builtins.__loader__` is a class of another name)."""
    return isinstance(kind, type) and kind.__name__ == name and getattr(builtins, name, None) is kind


def _untag(data: Any, resolve: Callable[[Any], Any] | None) -> Any:
    if isinstance(data, list):
        return [_untag(item, resolve) for item in data]
    if not isinstance(data, dict):
        return data
    ((name, content),) = data.items()
    if name in _BUILD_SEQUENCE:
        return _BUILD_SEQUENCE[name](_untag(item, resolve) for item in content)
    if name in _BUILD_MAPPING:
        return _BUILD_MAPPING[name]((_untag(k, resolve), _untag(v, resolve)) for k, v in content)
    if name == "ref" and resolve is not None:
        return resolve(content)
    if name == "own" and resolve is not None:
        return _own(content[0], _untag(content[1], resolve), resolve(content[2]["ref"]))
    if name == "ar":
        return array.array(content[0], [_untag(item, None) for item in content[1]])
    if name == "nd":
        return _ndarray(content[0], content[1], [_untag(item, None) for item in content[2]])
    if name == "F":
        return Fraction(_untag(content[0], None), _untag(content[1], None))
    return _BUILD_SCALAR[name](content)


def _builtin_type(name: str) -> type:
    kind = getattr(builtins, name, None)
    if not isinstance(kind, type) or not _is_builtin(name, kind):
        raise ValueError(f"no built-in type {name!r}")
    return kind


def _own(name: str, value: Any, remote: Any) -> Any:
    base = getattr(builtins, name)
    made = _OWN[base](value)
    if type(value) is not base:
        raise ValueError(f"no value of type {name}")
    made._remote, made._sent = remote, value
    return made


def _ndarray(dtype: str, shape: list[int], items: list[Any]) -> Any:
    """A numpy array; without numpy, the list of its items."""
    if not re.fullmatch(r"[<>|=]?[biufcSU]\d+", dtype):
        raise ValueError(f"no plain array type {dtype!r}")
    try:
        numpy = importlib.import_module("numpy")
    except ImportError:
        return items
    return numpy.array(items, dtype=dtype).reshape([int(size) for size in shape])


def _path(parts: list[str]) -> Any:
    if parts[0] not in _PATHS:
        raise ValueError(f"no path {parts[0]!r}")
    return getattr(importlib.import_module("pathlib"), parts[0])(parts[1])


_PATHS = frozenset(["PurePath", "PurePosixPath", "PureWindowsPath", "PosixPath"])
_SEQUENCES: dict[type, str] = {tuple: "t", set: "s", frozenset: "f", deque: "q"}
_MAPPINGS: dict[type, str] = {dict: "d", Counter: "C", OrderedDict: "o"}
_BUILD_SEQUENCE: dict[str, Any] = {
    "t": tuple,
    "s": set,
    "f": frozenset,
    "q": deque,
    "g": lambda items: iter(list(items)),
    "cm": lambda maps: ChainMap(*maps),
    "mp": lambda maps: MappingProxyType(next(maps)),
    "dk": lambda items: dict.fromkeys(items).keys(),
    "dv": lambda items: dict(enumerate(items)).values(),
}
_BUILD_MAPPING: dict[str, Any] = {
    "d": dict,
    "C": lambda pairs: Counter(dict(pairs)),
    "o": OrderedDict,
    "di": lambda pairs: dict(pairs).items(),
}
_BUILD_SCALAR: dict[str, Any] = {
    "i": lambda text: int(text, 16),
    "b": bytes.fromhex,
    "B": bytearray.fromhex,
    "c": lambda parts: complex(*parts),
    "r": lambda parts: range(*parts),
    "sl": lambda parts: slice(*parts),
    "D": Decimal,
    "e": lambda _: ...,
    "T": lambda name: _builtin_type(name),
    "m": lambda parts: MatchValue(*parts),
    "dt": datetime.datetime.fromisoformat,
    "da": datetime.date.fromisoformat,
    "ti": datetime.time.fromisoformat,
    "td": lambda parts: datetime.timedelta(*parts),
    "mv": lambda text: memoryview(bytes.fromhex(text)),
    "p": _path,
    "u": lambda text: importlib.import_module("uuid").UUID(hex=text),
}
_DATES: dict[str, type] = {
    "dt": datetime.datetime,
    "da": datetime.date,
    "ti": datetime.time,
    "td": datetime.timedelta,
}
