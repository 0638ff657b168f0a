"""The leaderboard on a terminal: the tables of the Markdown, whole, at every width; Markdown where it is piped."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from harness.analysis import leaderboard
from harness.analysis.screen import fit_columns, print_board
from harness.analysis.tables import Block, Cell, build_blocks
from tests.synthetic import write_suite

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_suite(tmp_path_factory.mktemp("suite"), seeds=(1, 2), problems=20)


@pytest.mark.parametrize("width", [40, 80, 120, 400])
def test_no_cell_is_lost_and_no_line_is_wider_than_the_terminal(suite: Path, width: int) -> None:
    board = leaderboard.build_board(suite)
    out = io.StringIO()
    print_board(board, Console(file=out, width=width, highlight=False))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    squeezed = "".join(out.getvalue().split())
    for block in build_blocks(board):
        if len(block.header) > 1 and width >= 80:  # narrower ones fold cells, line by line
            for row in block.rows:
                for cell in row:
                    if len(cell.text) + len(cell.bracket) < 20:
                        assert "".join(f"{cell.text}{cell.bracket}".split()) in squeezed, cell


def test_columns_are_cut_where_the_width_ends() -> None:
    row = (Cell("row"), *(Cell("12.3", "[1.0, 2.0]") for _ in range(5)))  # 15 columns each
    block = Block("t", 1, header=("name", *"abcde"), rows=(row,))
    assert list(fit_columns(block, 1000)) == [[0, 1, 2, 3, 4, 5]]
    assert list(fit_columns(block, 4 + 2 * 17)) == [[0, 1, 2], [0, 3, 4], [0, 5]]
    assert list(fit_columns(block, 10)) == [[0, 1], [0, 2], [0, 3], [0, 4], [0, 5]]


def test_a_pipe_gets_markdown_and_a_terminal_tables(suite: Path) -> None:
    command = [sys.executable, "-m", "harness.leaderboard", str(suite)]
    piped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert piped.startswith("# Leaderboard\n")
    mine, theirs = pty.openpty()
    with subprocess.Popen(
        command, cwd=ROOT, stdout=theirs, env=os.environ | {"COLUMNS": "100", "TERM": "xterm"}
    ) as child:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(mine, 65536):
                shown += part
        except OSError:  # the other end is closed
            pass
    os.close(mine)
    assert child.returncode == 0
    text = shown.decode()
    assert "Acc@t2" in text
    assert "| ---" not in text
