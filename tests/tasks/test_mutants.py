"""Single-edit mutants: all of them run, differ, keep the entry point; the edits are the ones described."""

from __future__ import annotations

import ast

import pytest

from harness.tools.mutants import list_mutants

SOURCE = '''
import math

LIMIT = 10

def biggest(numbers, floor: int = 0):
    """The largest of 1, 2 or 3 numbers."""
    best = -1
    for number in numbers:
        if number > best and number != floor:
            best = max(number, best)
    return best
'''


def test_every_mutant_is_another_program_with_the_entry_point():
    found = list(list_mutants(SOURCE, "biggest"))
    texts = [text for text, _ in found]
    assert len(set(texts)) == len(texts) > 10
    assert ast.unparse(ast.parse(SOURCE)) not in texts
    for text in texts:
        assert "def biggest(" in text
        assert "1, 2 or 3 numbers" in text  # docstrings stay
        assert "floor: int" in text
        compile(text, "mutant", "exec")
    assert found == list(list_mutants(SOURCE, "biggest"))


def test_the_edits_are_the_ones_described():
    found = {change: text for text, change in list_mutants(SOURCE, "biggest")}
    assert "number >= best" in found["line 10: > becomes >="]
    assert "number > best or number" in found["line 10: and becomes or"]
    assert "number == floor" in found["line 10: != becomes =="]
    assert "best = min(number, best)" in found["line 11: max becomes min"]
    assert "best = +1" in found["line 8: a minus is lost"]
    assert "LIMIT = 11" in found["line 4: 10 becomes 11"]
    assert "if not (number > best and number != floor)" in found["line 10: a condition is negated"]
    assert "            pass" in found["line 11: assign is lost"]


def test_what_cannot_be_mutated_is_named():
    with pytest.raises(ValueError, match="does not define 'smallest'"):
        next(list_mutants(SOURCE, "smallest"))
    with pytest.raises(ValueError, match="does not parse"):
        next(list_mutants("def f(:", "f"))
