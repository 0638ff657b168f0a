"""What a terminal might obey is shown as a visible escape; ordinary text of any script stays as it is."""

from __future__ import annotations

import sys

import pytest

from harness.terminal import escape_controls


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07\x1b[2J", "\\x1b]0;title\\x07\\x1b[2J"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb\u2066c\u200fd\u061ce", "a\\u202eb\\u2066c\\u200fd\\u061ce"),
        ("\ud800", "\\ud800"),
        ("a\r\nb\tc\x7f", "a\\r\\nb\\tc\\x7f"),
        ("a\u2028b\u2029c\x85d\ufeff", "a\\u2028b\\u2029c\\x85d\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_a_terminal_might_obey_is_shown(text: str, shown: str) -> None:
    assert escape_controls(text) == shown


def test_ordinary_text_stays() -> None:
    for text in ("x = 5", "naïve \u00a0 space", "全角　空白", "می\u200cخواهم", "👩\u200d🔬", "[/x] \\ $"):
        assert escape_controls(text) == text
    assert escape_controls("a\nb\x1b", newlines=True) == "a\nb\\x1b"
    assert escape_controls(None) == "None"


def test_no_control_character_of_all_unicode_comes_through() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    kept = escape_controls(every)
    assert not {c for c in kept if ord(c) < 32 or 127 <= ord(c) < 160}
    kept.encode("utf-8")  # no lone surrogate
    assert not set(kept) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")
