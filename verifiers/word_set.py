"""Grades a list of words as a set: order, case and repetition do not count; one word too many or too few is wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.core import Problem, Verdict
from harness.registry import register


@register("verifier", "word_set")
@dataclass(frozen=True)
class WordSet:
    """The words of the last line that is not empty, behind its last colon, against the gold words, as sets.

    A review may so stand before the list. Words are separated by commas or `and`; marks around a word do not count. A
    line that names none of the words that the problem shows (`meta["words"]`) or asks for holds no answer.
    """

    def __call__(self, problem: Problem, text: str) -> Verdict:
        lines = [line for line in text.splitlines() if line.strip()]
        named = read_word_set(lines[-1].rpartition(":")[2]) if lines else frozenset()
        gold = read_word_set(problem.answer)
        shown = frozenset(word.lower() for word in problem.meta.get("words", ())) | gold
        if not named & shown:
            return Verdict(0.0, False, "no_answer")
        correct = named == gold
        return Verdict(float(correct), correct, "ok", ", ".join(sorted(named)))


def read_word_set(text: str) -> frozenset[str]:
    """The words of a list, in lower case, without the marks around them."""
    items = re.split(r",|;|\band\b|&", text.lower())
    return frozenset(word for item in items if (word := re.sub(r"^[\W_]+|[\W_]+$", "", item)))
