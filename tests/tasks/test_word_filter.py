"""task.word_filter and verifier.word_set: disjoint halves and parts, exact sets, lists read as a person reads them."""

import pytest

from harness.core import Problem
from harness.tasks.word_filter import WordFilter, choose_words, read_words
from verifiers.word_set import WordSet


def ids(problems):
    return {problem.id for problem in problems}


def test_every_word_stands_in_one_category_once():
    words = [word.lower() for group in read_words().values() for word in group]
    assert len(words) == len(set(words)) == 16 * 40


def test_halves_are_disjoint_and_whole():
    known, new = (choose_words(half, "known") for half in ("known", "held_out"))
    assert len(known) == len(new) == 12
    assert all(len(known[name]) == 30 and len(new[name]) == 10 for name in known)
    assert all(sorted([*known[name], *new[name]]) == sorted(read_words()[name]) for name in known)
    assert set(choose_words("known", "held_out")) == set(read_words()) - set(known)


@pytest.mark.slow
@pytest.mark.parametrize("near", [False, True])
def test_parts_share_no_problem_and_answers_are_the_words_that_belong(near):
    task = WordFilter(WordSet(), count=6, near=near)
    parts = [ids(task.train), ids(task.validation), ids(task.test)]
    assert [len(part) for part in parts] == [20_000, 1_000, 1_000]
    assert len(set.union(*parts)) == 22_000
    for problem in task.test[:200]:
        belonging = set(read_words()[problem.meta["category"]])
        assert problem.meta["belongs"] == tuple(word in belonging for word in problem.meta["words"])
        assert len(problem.meta["words"]) == 6
        assert 1 <= sum(problem.meta["belongs"]) <= 5
        assert WordSet()(problem, problem.solution or "").correct
        assert not WordSet()(problem, ", ".join(problem.meta["words"])).correct


def test_held_out_tasks_have_a_test_alone_and_names_of_their_own():
    new_words, new_categories = WordFilter(WordSet(), words="held_out"), WordFilter(WordSet(), categories="held_out")
    assert (new_words.name, new_categories.name) == ("word_filter_new_words", "word_filter_new_categories")
    assert not new_words.train
    shown = {word for problem in WordFilter(WordSet()).train[:2000] for word in problem.meta["words"]}
    assert not shown & {word for problem in new_words.test for word in problem.meta["words"]}
    assert not {p.meta["category"] for p in new_categories.test} & set(choose_words("known", "known"))


PROBLEM = Problem("x", "", "duck, goat, horse", meta={"words": ("apple", "horse", "chair", "duck", "shirt", "goat")})


@pytest.mark.parametrize(
    ("text", "correct", "status"),
    [
        ("horse, duck, goat", True, "ok"),
        ("Goat, Horse and duck.", True, "ok"),
        ("horse, duck, goat, horse", True, "ok"),
        ("**horse**, `duck`, goat", True, "ok"),
        ("horse yes, apple no, chair no.\nAnswer: horse, duck, goat", True, "ok"),
        ("horse, duck", False, "ok"),
        ("horse, duck, goat, shirt", False, "ok"),
        ("horse, duck, goat, cow", False, "ok"),
        ("horse duck goat", False, "no_answer"),
        ("I do not know.", False, "no_answer"),
        ("", False, "no_answer"),
    ],
)
def test_a_list_is_read_as_a_set(text, correct, status):
    verdict = WordSet()(PROBLEM, text)
    assert (verdict.correct, verdict.reward, verdict.status) == (correct, float(correct), status)


def test_two_orders_are_one_answer():
    assert WordSet()(PROBLEM, "goat, duck").answer == WordSet()(PROBLEM, "Duck and goat").answer == "duck, goat"


def test_settings_that_cannot_be_are_refused():
    for settings in ({"count": 1}, {"count": 17}, {"words": "old"}, {"test_size": 0}):
        with pytest.raises(ValueError, match="word_filter"):
            WordFilter(WordSet(), **settings)  # type: ignore[arg-type]
