"""`genbench leaderboard build`: a folder's README.md, table.csv, table.tex and index.html, all of them or none."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from genbench.errors import UsageError
from genbench.files import atomic_path
from genbench.leaderboard.board import Board
from genbench.leaderboard.folder import RECORDS, RULES, first_rules, read_folder
from genbench.leaderboard.literature import FILE as LITERATURE
from genbench.leaderboard.make import board_of
from genbench.leaderboard.markdown import to_markdown
from genbench.leaderboard.page import render
from genbench.leaderboard.sheets import to_csv, to_latex

HOME = Path("leaderboards")


def build(folder: Path) -> Board:
    """Write the generated files of a leaderboard, and its rules where there are none; those that are there stay until
    all new ones are whole.

    Raises:
        UsageError: not the folder of a leaderboard.
        DataError: something in it is damaged; the message names the file.
    """
    source = read_folder(folder)
    texts = {} if source.rules else {RULES: first_rules(source.suite)}
    source = replace(source, rules=source.rules or texts[RULES])
    board = board_of(source)
    texts |= {
        "README.md": to_markdown(board, [entry.record for entry in source.records]),
        "table.csv": to_csv(board),
        "table.tex": to_latex(board),
        "index.html": render(board.as_dict()),
    }
    with ExitStack() as stack:
        for name, text in texts.items():
            stack.enter_context(atomic_path(source.path / name)).write_text(text, encoding="utf-8")
    return board


def leaderboards(home: Path = HOME) -> list[Path]:
    """The leaderboards in a folder.

    Raises:
        UsageError: there are none.
    """
    found = sorted(path for path in home.glob("*") if (path / RECORDS).is_dir() or (path / LITERATURE).is_file())
    if not found:
        raise UsageError(
            f"No leaderboards in {home.resolve()}. Give the folder of one, or begin one with "
            "`genbench leaderboard add RECORD --to leaderboards/SUITE`."
        )
    return found
