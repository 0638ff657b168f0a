"""Writes docs/plugin_reference.md: the fields and members that a plugin reads, writes or implements.

    python -m harness.tools.plugin_reference > docs/plugin_reference.md

Everything comes from the classes and docstrings of `harness`, so the page cannot say what the code does not.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any, get_args

import harness
from harness.core import Status

HEAD = """# Reference for plugin authors

Written by `python -m harness.tools.plugin_reference`; a test compares this page with the code. All names come from
`harness` (`from harness import Problem, Verdict`). How they are used: [adding_a_method.md](adding_a_method.md).
"""
DATA = ("Problem", "Verdict", "Turn", "Trajectory", "Example", "Phase", "Budget", "TurnStats")
PROTOCOLS = ("Method", "Task", "Verifier", "PolicySpec", "Policy", "Session")


def make_page() -> str:
    """The page as Markdown: one table a dataclass, one list a protocol, and the functions."""
    parts = [HEAD, "## Data\n", *map(_table, DATA), "## What a plugin implements\n", *map(_members, PROTOCOLS)]
    parts += ["## Functions\n", *(_function(name) for name in ("register", "reinforce"))]
    return "\n".join(parts).rstrip() + "\n"


def _table(name: str) -> str:
    of = getattr(harness, name)
    told = _attributes(of)
    rows = ["| field | type | default | what it is |", "|---|---|---|---|"]
    for field in dataclasses.fields(of):
        kind = str(field.type).replace("|", "\\|")
        empty = field.default is dataclasses.MISSING
        made = field.default_factory is not dataclasses.MISSING
        default = "`{}`" if made else "must be given" if empty else f"`{field.default!r}`"
        rows.append(f"| `{field.name}` | `{kind}` | {default} | {told.get(field.name, '')} |")
    properties = [key for key, value in vars(of).items() if isinstance(value, property)]
    if name == "Verdict":
        rows += [
            "",
            f"`Status` is one of {', '.join(f'`{status}`' for status in get_args(Status))}; any other is refused.",
        ]
    more = [f"- `.{key}`: {_first(getattr(of, key))}" for key in properties]
    return "\n".join([f"### {name}\n", _first(of), "", *rows, "", *more, *([""] if more else [])])


def _members(name: str) -> str:
    of = getattr(harness, name)
    lines = []
    for key, value in vars(of).items():
        if isinstance(value, property):
            kind = getattr(value.fget, "__annotations__", {}).get("return", "")
            lines.append(f"- `{key}: {kind}` {_first(value)}")
        elif inspect.isfunction(value) and (key == "__call__" or not key.startswith("_")):
            text = _signature(value).replace("(self, ", "(").replace("(self)", "()")
            lines.append(f"- `{key}{text}` {_first(value) if value.__doc__ else ''}")
    lines += [f"- `{key}: {kind}`" for key, kind in vars(of).get("__annotations__", {}).items()]
    return "\n".join([f"### {name}\n", _first(of), "", *(line.rstrip() for line in lines), ""])


def _function(name: str) -> str:
    of = getattr(harness, name)
    return f"### {name}\n\n```text\n{name}{_signature(of)}\n\n{inspect.getdoc(of)}\n```\n"


def _signature(of: Any) -> str:
    """As written: without the quotes that annotations have, which are not evaluated."""
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(of)))


def _first(of: Any) -> str:
    """The docstring's first paragraph on one line."""
    return " ".join((inspect.getdoc(of) or "").partition("\n\n")[0].split())


def _attributes(of: Any) -> dict[str, str]:
    """{field: text} of the docstring's section `Attributes`."""
    _, _, section = (inspect.getdoc(of) or "").partition("Attributes:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n      .*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()).replace("|", "\\|") for name, text in found}


if __name__ == "__main__":
    print(make_page(), end="")
