"""Turns run.json of format 1 into format 2: what it lacks is read from gin text. No other reader parses gin.

Format 1 (runs of before November 2026) held no bindings, parent and difference. `upgrade_format1` takes the bindings
from the run's config.gin and the others from the row's gin file as it is today, `gin/<name>.gin`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.project import GIN_HOME

GIN = GIN_HOME / "gin"


def upgrade_format1(info: Mapping[str, Any], config: str, gin: Path = GIN) -> dict[str, Any]:
    """run.json of format 1 with the entries that format 2 has; its `format` stays 1, and it has no `digest`.

    Args:
        info: What run.json holds.
        config: The text of the run's config.gin.
        gin: Folder of the rows' gin files.
    """
    parent, difference = _lineage(gin / f"{info.get('name')}.gin")
    return {**info, "bindings": _read_bindings(config), "parent": parent, "difference": difference}


def _lineage(path: Path) -> tuple[str, dict[str, str]]:
    """The row that a gin file includes last, and the bindings it adds; nothing where it is missing or includes none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return "", {}
    includes = [line.strip() for line in text.splitlines() if line.strip().startswith("include ")]
    if not includes:
        return "", {}  # the root file: all of its bindings are defaults
    parent = Path(includes[-1][len("include ") :].split("#")[0].strip().strip("'\"")).stem
    return parent, {name: value for name, value in _read_bindings(text).items() if name != "run.name"}


def _read_bindings(text: str) -> dict[str, str]:
    """The bindings of gin text, {'name.param' or 'MACRO': 'value'}; comments, includes and imports left out.

    A line ending in an open bracket or a backslash continues on the next; whitespace inside a value is normalised.
    """
    bindings, pending = {}, ""
    for raw in text.replace("\r", "\n").split("\n"):  # not splitlines: U+2028 may stand inside a text
        line = _uncomment(raw).strip()
        if not line:
            continue
        pending = f"{pending} {line}".strip()
        if pending.endswith("\\"):
            pending = pending[:-1].rstrip()
            continue
        if _depth(pending) > 0 or pending.endswith("="):
            continue
        name, equals, value = pending.partition("=")
        if equals and not pending.startswith(("include ", "import ", "from ")):
            bindings[name.strip()] = " ".join(value.split())
        pending = ""
    return bindings


def _uncomment(line: str) -> str:
    quote = ""
    for i, char in enumerate(line):
        if quote:
            quote = "" if char == quote and line[i - 1] != "\\" else quote
        elif char in "'\"":
            quote = char
        elif char == "#":
            return line[:i]
    return line


def _depth(text: str) -> int:
    quote, depth = "", 0
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote and text[i - 1] != "\\" else quote
        elif char in "'\"":
            quote = char
        else:
            depth += (char in "([{") - (char in ")]}")
    return depth
