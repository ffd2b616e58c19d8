"""The report in a terminal or a job log: no cell is cut, tables too wide are continued below."""

from __future__ import annotations

import textwrap

from rich.box import MARKDOWN
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style
from rich.table import Table as RichTable
from rich.text import Text

from analysis.report import Report
from analysis.table import Table

_STYLES = {"better": "green", "worse": "red", "equivalent": "blue", "no mark": "yellow"}
LOG_WIDTH = 100  # where the output is not a terminal and COLUMNS does not say


def print_report(report: Report, console: Console) -> None:
    """Print headings, tables and sentences at the width of the console."""
    study = report.study
    console.print(Text(study.name, style="bold"))
    for line in (study.question, study.budget):
        if line:
            console.print(Text(line))
    for table in report.tables:
        print_table(table, console)
    console.print()
    for sentence in report.caption:
        console.print(Text(f"- {sentence}"))
    if report.missing:
        console.print(Text("\nMissing", style="bold"))
        for sentence in report.missing:
            console.print(Text(f"- {sentence}"))
    for table in report.extras:
        print_table(table, console)


def print_table(table: Table, console: Console) -> None:
    """Print a table in as many blocks of columns as the width asks for; each repeats the first column."""
    console.print(Text(f"\n{table.title}".rstrip(), style="bold"))
    for block in column_blocks(table, console.width):
        console.print(_drawn(table, block, console) or _rich_table(table, block))
    for note in table.notes:
        console.print(Text(f"- {note}"))


def column_blocks(table: Table, width: int) -> list[list[int]]:
    """Return the columns of each block: as many as fit into ``width`` characters, after the first column."""
    widths = [
        max(len(text) for text in (heading, *(row[column] for row in table.rows))) + 3
        for column, heading in enumerate(table.columns)
    ]
    blocks: list[list[int]] = [[0]]
    used = widths[0] + 1
    for column in range(1, len(widths)):
        if used + widths[column] > width and len(blocks[-1]) > 1:
            blocks.append([0])
            used = widths[0] + 1
        blocks[-1].append(column)
        used += widths[column]
    return blocks


def _drawn(table: Table, columns: list[int], console: Console) -> Segments | None:
    """Return some columns as ``_rich_table`` shows them, in a small part of its time.

    None for what is left to rich: wide characters, cells of several lines, too little room for a word.
    """
    names = [table.columns[column] for column in columns]
    rows = [[row[column] for column in columns] for row in table.rows]
    widths = [max(map(len, cells)) for cells in zip(names, *rows, strict=True)]
    room = console.width - sum(widths[:-1]) - 3 * len(widths) - 1
    words = (word for row in rows for word in row[-1].split())
    if not all(_plain(text) for row in [names, *rows] for text in row):
        return None
    if room < 1 or (widths[-1] > room and (len(columns) < 2 or max(map(len, [names[-1], *words])) > room)):
        return None
    widths[-1] = min(widths[-1], room)
    blank = Segment(" " * (sum(widths) + 3 * len(widths) + 1) + "\n")
    found = [blank, *_line(names, [console.get_style("bold")] * len(names), widths)]
    found.append(Segment("|" + "|".join("-" * (width + 2) for width in widths) + "|\n"))
    for number, row in enumerate(rows):
        styles = [
            console.get_style(_style(text, (number, column) in table.bold))
            for text, column in zip(row, columns, strict=True)
        ]
        folded = [row[-1]] if len(row[-1]) <= room else textwrap.wrap(row[-1], room, break_on_hyphens=False)
        for number_of_line, part in enumerate(folded or [""]):
            before = [""] * (len(row) - 1) if number_of_line else row[:-1]
            found += _line([*before, part], styles, widths)
    return Segments([*found, blank])


def _line(cells: list[str], styles: list[Style], widths: list[int]) -> list[Segment]:
    """Return one line of a table."""
    found, between = [], "| "
    for text, style, width in zip(cells, styles, widths, strict=True):
        found += [Segment(between), Segment(text, style)]
        between = " " * (width - len(text)) + " | "
    return [*found, Segment(f"{between[:-1]}\n")]


def _plain(text: str) -> bool:
    """Return whether every character is one cell wide."""
    return text.isascii() and text.isprintable()


def _rich_table(table: Table, columns: list[int]) -> RichTable:
    """Return some columns of a table for rich, in aligned Markdown."""
    result = RichTable(box=MARKDOWN)
    for column in columns:
        result.add_column(Text(table.columns[column]), no_wrap=column == 0, overflow="fold")
    for number, row in enumerate(table.rows):
        styles = [_style(row[column], (number, column) in table.bold) for column in columns]
        result.add_row(*(Text(row[column], style) for column, style in zip(columns, styles, strict=True)))
    return result


def _style(text: str, bold: bool) -> str:
    """Return the style of a cell: the colour of its verdict."""
    style = next((style for word, style in _STYLES.items() if text.startswith(word)), "")
    return f"bold {style}".strip() if bold else style
