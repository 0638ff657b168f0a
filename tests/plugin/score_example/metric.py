"""A metric of its own: is the last attempt as long as the first?"""

from harness.metrics import Table, metric


@metric("same_length", "same length", interval="proportion", about="Same length: the texts have as many characters.")
def same_length(table: Table) -> list[bool]:
    """Share of all problems whose last text is as long as the first."""
    return [len(first) == len(last) for first, last in zip(table.texts[0], table.texts[-1], strict=True)]
