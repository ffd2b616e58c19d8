"""Tables in a terminal: nothing cut, as rich would draw them."""

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from analysis.report import Report, make_report
from analysis.table import Table
from analysis.terminal import column_blocks, print_report, print_table

Begin = Callable[..., Any]


def printed(report: Report, width: int) -> str:
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=width))
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_terminal_cuts_no_cell(new_ledger: Begin, whole_study: Any, width: int) -> None:
    writer = new_ledger()
    whole_study(writer)
    report = make_report(writer.study)
    text = printed(report, width)
    assert max(map(len, text.splitlines())) <= width
    assert text.isascii()
    for table in (*report.tables, *report.extras):
        for cell in {cell for row in table.rows for cell in row}:
            assert cell in text


def test_column_blocks_repeat_the_first_column() -> None:
    table = Table("", ["arm", "x" * 10, "y" * 10, "z" * 50], [["a", "1", "2", "3"]])
    assert column_blocks(table, 40) == [[0, 1, 2], [0, 3]]
    assert column_blocks(table, 10) == [[0, 1], [0, 2], [0, 3]]


@pytest.mark.parametrize("width", [20, 40, 100])
@pytest.mark.parametrize("colours", [False, True])
def test_tables_look_as_rich_draws_them(monkeypatch: pytest.MonkeyPatch, width: int, colours: bool) -> None:
    """Most tables are drawn without it, which takes a small part of the time."""
    columns = ["arm", "test/miou", "verdict", "note"]
    rows = [
        ["a", "better .1", "better", ""],
        ["no_pull", "-", "worse (~12 seeds)", "x, [1] y"],
        ["", "", "", "z"],
    ]
    wide = [*rows, ["\u4e16\u754c", "1", "2", "two\nlines"]]
    long = [
        *rows,
        ["a b", "1", "2", "better words of a long-winded note " * 4],
        ["b", "", "", "w" * 120],
        ["c", "", "", " " * 120],
    ]
    shown = []
    for drawn_by_rich in (False, True):
        if drawn_by_rich:
            monkeypatch.setattr("analysis.terminal._drawn", lambda *_: None)
        stream = io.StringIO()
        colour = "standard" if colours else None
        console = Console(width=width, file=stream, force_terminal=colours, color_system=colour)
        for body in (rows, [], wide, long):
            print_table(Table("title", columns, body, frozenset({(0, 2)})), console)
        shown.append(stream.getvalue())
    plain = [re.sub("\x1b\\[[0-9;]*m", "", text) for text in shown]
    assert plain[0] == plain[1]
    assert ("\x1b[1;32mbetter" in shown[0]) == colours


def test_a_last_column_without_room() -> None:
    stream = io.StringIO()
    print_table(Table("t", ["first", ""], [["row", " "]]), Console(width=12, file=stream))
    assert "row" in stream.getvalue()
