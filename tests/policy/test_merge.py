"""Merging examples into rows and packing rows into batches loses no token, adds none and mixes none up."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from harness.core import Example, Turn, Verdict
from harness.policy.loss import merge_examples, pack_rows, split_microbatches
from harness.policy.tree import Cost, build_trees

PAD = 9
IDS = st.lists(st.integers(0, 2), max_size=4).map(tuple)  # few ids, so that sequences often extend each other


def example(context: tuple[int, ...], tokens: tuple[int, ...]) -> Example:
    return Example(Turn(context, tokens, "", Verdict(0.0, False)))


@st.composite
def examples_of(draw: st.DrawFn) -> list[Example]:
    """Turns of conversations, whose contexts extend the turn before, and turns of no conversation, shuffled."""
    found = []
    for _ in range(draw(st.integers(0, 4))):
        context = (2, *draw(IDS))
        for tokens in draw(st.lists(IDS, min_size=1, max_size=3)):
            found.append(example(context, tokens))
            context += (*tokens, *draw(IDS))
    found += [example((1, *context), tokens) for context, tokens in draw(st.lists(st.tuples(IDS, IDS), max_size=4))]
    return draw(st.permutations(found))


@given(examples_of())
def test_every_turn_with_tokens_is_in_one_row_after_its_own_context(examples: Sequence[Example]) -> None:
    rows = merge_examples(examples)
    spans = {i: (row, begin, end) for row in rows for i, begin, end in row.spans}
    assert sum(len(row.spans) for row in rows) == len(spans)
    assert sorted(spans) == [i for i, e in enumerate(examples) if e.turn.tokens]
    for i, (row, begin, end) in spans.items():
        assert (row.ids[:begin], row.ids[begin:end]) == (examples[i].turn.context, examples[i].turn.tokens)


@given(examples_of())
def test_there_are_as_few_rows_as_can_be(examples: Sequence[Example]) -> None:
    rows = merge_examples(examples)
    wanted = {e.turn.context + e.turn.tokens for e in examples if e.turn.tokens}
    assert {row.ids for row in rows} <= wanted
    longest = {ids for ids in wanted if not any(o != ids and o[: len(ids)] == ids for o in wanted)}
    assert sorted(row.ids for row in rows) == sorted(longest)


@given(examples_of(), st.integers(1, 40), st.booleans())
def test_packed_batches_give_back_every_turn_after_its_own_context(
    examples: Sequence[Example], limit: int, shared: bool
) -> None:
    rows = merge_examples(examples)
    trees = build_trees(rows, Cost(token=1.0, pair=0.0) if shared else None, limit)
    assert sorted(i for tree in trees for i, _, _ in tree.spans) == sorted(i for row in rows for i, _, _ in row.spans)
    batches = list(split_microbatches(trees, limit))
    assert sum(map(len, batches)) == len(trees)
    found: dict[int, tuple[int, ...]] = {}
    for batch in batches:
        packed = pack_rows(batch, PAD, "cpu")
        width = packed.ids_BT.shape[1]
        assert packed.ids_BT.numel() <= limit or len(batch) == 1
        assert int((packed.ids_BT != PAD).sum()) == sum(len(tree.ids) for tree in batch)
        ids, ends = packed.ids_BT.tolist(), [[width] * width] * len(batch)
        if packed.ends_BT is not None:
            ends = packed.ends_BT.tolist()
        picked = zip(packed.rows_N.tolist(), packed.sources_N.tolist(), packed.places_N.tolist(), strict=True)
        for i, count in packed.spans:
            for _ in range(count):
                row, source, place = next(picked)
                seen = [at for at in range(place + 1) if place < ends[row][at]]  # the token and those it sees
                assert seen[-2:] == [source, place]  # a token is scored by the one before it
                found[i] = tuple(ids[row][at] for at in seen)
        assert next(picked, None) is None
    assert found == {i: e.turn.context + e.turn.tokens for i, e in enumerate(examples) if e.turn.tokens}
