"""Word filter: which of these words are animals? A task in plain English for small pretrained models; no download.

> Which of these are animals? apple, horse, chair, duck, shirt, goat. Answer with the words only, separated by commas.
> -> horse, duck, goat

An answer is right when it names exactly the words that belong. With an accuracy of p per word, n words are all right
with about p^n: the number of words sets the difficulty. Errors are local (one word missing, one too many), and checking
a word is no harder than finding it, so that a draft can be corrected rather than written anew.

Words are cut into known ones and held-out ones, categories as well: `words = 'held_out'` and `categories = 'held_out'`
are two further tests, of words and of categories that no training problem shows.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.core import Message, Problem, Verifier
from harness.registry import register
from harness.seeds import derive_seed, slice_pools

FILE = Path(__file__).parent / "words.tsv"
SPLIT_SEED = 2409_12917
SIZES = {"train": 20_000, "validation": 1_000, "test": 2_000}
KNOWN_WORDS, KNOWN_CATEGORIES = 30, 12  # of 40 words in each of 16 categories
ALIKE = (
    {"fruits", "vegetables"},
    {"trees", "flowers"},
    {"furniture", "buildings"},
    {"tools", "vehicles"},
    {"clothes", "body parts"},
    {"jobs", "sports"},
    {"musical instruments", "drinks"},
    {"animals", "countries"},
)
RETRY = "There might be an error in the answer above. Please correct the error, if any, and rewrite the answer."

Half = Literal["known", "held_out"]


@functools.cache
def read_words() -> dict[str, tuple[str, ...]]:
    """{category: its 40 words}, as the file has them."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    return {line.partition("\t")[0]: tuple(line.partition("\t")[2].split()) for line in lines if line[:1] != "#"}


@functools.cache
def choose_words(words: Half, categories: Half) -> dict[str, tuple[str, ...]]:
    """{category: words} of one half of the words and one half of the categories; the halves are disjoint."""
    every = read_words()
    kept = slice_pools(sorted(every), SPLIT_SEED, {"known": KNOWN_CATEGORIES}, categories)
    return {
        name: slice_pools(every[name], derive_seed(SPLIT_SEED, name), {"known": KNOWN_WORDS}, words)
        for name in every
        if name in kept
    }


@register("task", "word_filter")
@dataclass(frozen=True)
class WordFilter:
    """Which of n words belong to a category: exact set, plain English, for small pretrained models (no download).

    Attributes:
        verifier: Grades a response (`verifier.word_set`).
        count: Words shown in one problem; the difficulty.
        near: Whether the other words come from one category that is alike (fruits for vegetables) where there is one.
        words: `known` words, or the `held_out` ones that no training problem shows.
        categories: `known` categories, or the `held_out` ones.
        test_size: Test problems used, from the first; at most 2,000.
    """

    verifier: Verifier
    count: int = 6
    near: bool = False
    words: Half = "known"
    categories: Half = "known"
    test_size: int = 1_000

    def __post_init__(self) -> None:
        for name in ("words", "categories"):
            if getattr(self, name) not in ("known", "held_out"):
                raise ValueError(f"word_filter.{name} must be 'known' or 'held_out', not {getattr(self, name)!r}")
        if not 2 <= self.count <= 16:
            raise ValueError(f"word_filter.count must lie in 2..16, not {self.count}")
        if not 1 <= self.test_size <= SIZES["test"]:
            raise ValueError(f"word_filter.test_size must lie in 1..{SIZES['test']}, not {self.test_size}")

    @property
    def name(self) -> str:
        parts = ["word_filter", *(["new_words"] if self.words == "held_out" else [])]
        return "_".join([*parts, *(["new_categories"] if self.categories == "held_out" else [])])

    @property
    def version(self) -> str:
        return f"1-{self.count}{'-near' if self.near else ''}"

    @property
    def train(self) -> Sequence[Problem]:
        return () if self._held_out else make_problems("train", self.count, self.near, self.words, self.categories)

    @property
    def validation(self) -> Sequence[Problem]:
        return () if self._held_out else make_problems("validation", self.count, self.near, self.words, self.categories)

    @property
    def test(self) -> Sequence[Problem]:
        return make_problems("test", self.count, self.near, self.words, self.categories)[: self.test_size]

    @property
    def _held_out(self) -> bool:
        return "held_out" in (self.words, self.categories)

    def chat(self, problem: Problem, answers: Sequence[str]) -> list[Message]:
        messages = [{"role": "user", "content": problem.prompt}]
        for answer in answers:
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": RETRY}]
        return messages


@functools.cache
def make_problems(part: str, count: int, near: bool, words: Half, categories: Half) -> tuple[Problem, ...]:
    """The problems of one part, all different; no set of words and category is in two parts.

    `meta` has the category and which of the shown words belong, in the order shown.

    Args:
        part: `train`, `validation` or `test`.
        count: Words in a problem.
        near: Whether the other words come from a category that is alike.
        words, categories: Which half of them is used.
    """
    chosen = choose_words(words, categories)
    names, draw = sorted(chosen), random.Random(derive_seed(SPLIT_SEED, "problems", count, near, words, categories))
    seen: set[str] = set()
    made: dict[str, list[Problem]] = {}
    for name, size in SIZES.items():
        made[name] = []
        while len(made[name]) < size:
            problem = _draw_problem(draw, chosen, names, count, near)
            if problem.id not in seen:
                seen.add(problem.id)
                made[name].append(problem)
        if name == part:
            break
    return tuple(made[part])


def _draw_problem(
    draw: random.Random, chosen: dict[str, tuple[str, ...]], names: Sequence[str], count: int, near: bool
) -> Problem:
    category = draw.choice(names)
    belong = draw.sample(chosen[category], draw.randint(1, min(count - 1, len(chosen[category]))))
    alike = [name for pair in ALIKE if category in pair for name in pair - {category} if name in chosen]
    others = alike if near and alike else [name for name in names if name != category]
    rest = draw.sample([word for name in others for word in chosen[name]], count - len(belong))
    shown = [*belong, *rest]
    draw.shuffle(shown)
    right = [word for word in shown if word in set(belong)]
    listed = ", ".join(shown)
    return Problem(
        id=f"{category}: {' '.join(sorted(shown))}",
        prompt=f"Which of these are {category}? {listed}. Answer with the words only, separated by commas.",
        answer=", ".join(sorted(right)),
        solution=", ".join(right),
        meta={"category": category, "words": tuple(shown), "belongs": tuple(word in set(belong) for word in shown)},
    )
