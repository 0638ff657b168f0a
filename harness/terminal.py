"""Text from run folders, plugins and models on a terminal: shown, never obeyed."""

from __future__ import annotations

import sys
import unicodedata

from rich.console import Console
from rich.text import Text

WIDE = 10_000  # columns that no row of a table needs
_JOINERS = "\u200c\u200d"  # without them Persian, Hindi and many emoji are misspelt


def escape_controls(text: object, newlines: bool = False) -> str:
    r"""`text` with everything that a terminal might obey as a visible escape (`\x1b`, `\x9b`, `\u202e`, `\ud800`).

    That is every character that Python calls not printable: controls (C0, DEL, C1), marks and overrides of the writing
    direction, lone surrogates (which no encoding can write), line and paragraph separators. Spaces of all widths stay.

    Args:
        text: What is to be shown; anything else than text is shown as `str` has it.
        newlines: Whether line feeds stay; without, the result is one line.
    """
    return "".join(
        char if char.isprintable() or char in _JOINERS or (newlines and char == "\n") else _shown(char)
        for char in str(text)
    )


def _shown(char: str) -> str:
    return char if unicodedata.category(char) == "Zs" else char.encode("unicode_escape").decode("ascii")


def describe_broken_plugin(plugin: str, error: str) -> Text:
    """What is said of a plugin that cannot be imported."""
    return Text.assemble(
        (f"plugin {escape_controls(plugin)} failed to import and is left out:", "yellow"), f" {escape_controls(error)}"
    )


def make_table_console() -> Console:
    """The standard output for tables: folded at the terminal's width, one line a row where it is a file or a pipe."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
