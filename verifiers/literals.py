"""Turns plain Python values into text and back: the only thing that passes between a candidate and its tests.

JSON with one-key objects as tags. Reading builds values of exact built-in types (and a few of the standard library)
and never runs anything that came from the other side. A value of any other class becomes a numbered reference.

Not covered: identity and shared structure; in-place changes of arguments.
"""

from __future__ import annotations

import builtins
import datetime
import json
import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from typing import Any

MAX_TEXT = 2**20  # characters of one value of a program's
MAX_TRUSTED = 2**24  # characters of the arguments of one call, which trusted tests write
MAX_ITEMS = 200_000  # taken from an iterator


class NoLiteral(ValueError):
    """The value has no literal form."""


class MatchValue:
    """What a regular expression's match says, rebuilt from text; true, and equal to nothing but itself."""

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


def write(
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
    text = json.dumps(_tag(value, refer, always), separators=(",", ":"))
    if len(text) > limit:
        raise TooLarge(f"a value of {len(text)} characters")
    return text


def read(text: str, resolve: Callable[[Any], Any] | None = None) -> Any:
    """The value of a text; `resolve` turns a reference's number into an object.

    Raises:
        ValueError: malformed text.
    """
    try:
        data = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"malformed value: {type(error).__name__}") from None
    return rebuild(data, resolve)


def rebuild(data: Any, resolve: Callable[[Any], Any] | None = None) -> Any:
    """The value of a text that was parsed as JSON already; as `read`."""
    try:
        return _untag(data, resolve)
    except (TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"malformed value: {type(error).__name__}") from None


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
    if kind is type and getattr(builtins, value.__name__, None) is value:
        return {"T": value.__name__}
    if kind is re.Match and isinstance(value.string, str):
        groups = [value.group(0), *value.groups()]
        return {"m": [groups, [list(value.span(i)) for i in range(len(groups))], value.groupdict()]}
    if kind is MatchValue:
        return {"m": [value._groups, value._spans, value._names]}
    for name, dated in _DATES.items():
        if kind is dated:
            return {name: [value.days, value.seconds, value.microseconds] if name == "td" else value.isoformat()}
    return _tag_other(value, refer, always)


def _tag_other(value: Any, refer: Callable[[Any], Any] | None, always: type | None) -> Any:
    """Subclasses of built-in types as their base, iterators as what is left in them, the rest by reference."""
    if refer is not None and always is not None and type(value) is always:
        return refer(value)
    if type(value).__module__ == "numpy" and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return _tag(value.item(), refer, always)
    if refer is not None:  # the candidate's side: be generous, the reader builds plain values anyway
        bases: tuple[Any, ...] = (bool, int, str, float, list, tuple, dict, set, frozenset)
        for base in bases:
            if isinstance(value, base) and type(value) is not base:
                return _tag(base(value), refer, always)
        if isinstance(value, Iterator):
            return {"g": [_tag(item, refer, always) for item in islice(value, MAX_ITEMS)]}
        if isinstance(value, (type({}.keys()), type({}.values()), type({}.items()))):
            return {"g": [_tag(item, refer, always) for item in value]}
        return refer(value)
    raise NoLiteral(f"a {type(value).__name__} has no literal form")


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
    if name == "F":
        return Fraction(_untag(content[0], None), _untag(content[1], None))
    return _BUILD_SCALAR[name](content)


def _builtin_type(name: str) -> type:
    kind = getattr(builtins, name, None)
    if not isinstance(kind, type):
        raise ValueError(f"no built-in type {name!r}")
    return kind


_SEQUENCES: dict[type, str] = {tuple: "t", set: "s", frozenset: "f", deque: "q"}
_MAPPINGS: dict[type, str] = {dict: "d", defaultdict: "d", Counter: "C", OrderedDict: "o"}
_BUILD_SEQUENCE: dict[str, Any] = {
    "t": tuple,
    "s": set,
    "f": frozenset,
    "q": deque,
    "g": lambda items: iter(list(items)),
}
_BUILD_MAPPING: dict[str, Any] = {"d": dict, "C": lambda pairs: Counter(dict(pairs)), "o": OrderedDict}
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
}
_DATES: dict[str, type] = {
    "dt": datetime.datetime,
    "da": datetime.date,
    "ti": datetime.time,
    "td": datetime.timedelta,
}
