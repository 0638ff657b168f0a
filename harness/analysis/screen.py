"""The leaderboard on a terminal: the same tables as `harness.analysis.tables`, cut into pieces that fit its width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.leaderboard import Board
from harness.analysis.tables import Block, Cell, build_blocks
from harness.terminal import escape_controls

GAP = 2  # columns between two columns of a table
FIRST = 30  # most columns of a row's name
OTHER = 24  # most columns of any other cell; longer ones are folded


def print_board(board: Board, console: Console, *, reference: bool = True) -> None:
    """Prints a board's tables.

    Args:
        board: What `leaderboard.build_board` gave.
        console: Where to; its width decides how a table is cut. The first column is repeated in every piece.
        reference: Whether the paper's own numbers are printed as well.
    """
    for block in build_blocks(board):
        if block.name == "paper" and not reference:
            continue
        console.print(Text(escape_controls(block.title), style="bold"), soft_wrap=False)
        if block.lead:
            console.print(Text(escape_controls(block.lead), style="dim"))
        for piece in fit_columns(block, console.width):
            console.print(_table(block, piece))
        for note in block.notes:
            console.print(Text(escape_controls(note), style="dim"))
        console.print()


def fit_columns(block: Block, width: int) -> Iterator[list[int]]:
    """Numbers of the columns of each piece: together as wide as `width` allows, the first column in all of them."""
    widths = [_width(block, i) for i in range(len(block.header))]
    piece: list[int] = []
    for i in range(1, len(widths)):
        if piece and widths[0] + sum(GAP + widths[j] for j in (*piece, i)) > width:
            yield [0, *piece]
            piece = []
        piece.append(i)
    if block.header:
        yield [0, *piece]


def _width(block: Block, column: int) -> int:
    texts = [block.header[column], *(_shown(row[column]) for row in block.rows)]
    return min(max(cell_len(text) for text in texts), OTHER if column else FIRST)


def _table(block: Block, columns: Sequence[int]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for i in columns:
        texts = [row[i].text for row in block.rows]
        numbers = i > 0 and not any(text[:1].isalpha() for text in texts)
        table.add_column(
            Text(escape_controls(block.header[i])), justify="right" if numbers else "left",
            max_width=OTHER if i else FIRST,
            overflow="fold",
        )  # fmt: skip
    for row in block.rows:
        table.add_row(*(_cell(row[i]) for i in columns))
    return table


def _shown(cell: Cell) -> str:
    return escape_controls(f"{cell.text} {cell.bracket}".strip())


def _cell(cell: Cell) -> Text:
    return Text.assemble(
        escape_controls(cell.text), (f" {escape_controls(cell.bracket)}" if cell.bracket else "", "dim")
    )
