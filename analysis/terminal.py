"""The report in a terminal or a job log: no cell is cut, tables too wide are continued below."""

from __future__ import annotations

from rich.box import MARKDOWN
from rich.console import Console
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
        console.print(_rich_table(table, block))
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


def _rich_table(table: Table, columns: list[int]) -> RichTable:
    """Return some columns of a table for rich, in aligned Markdown."""
    result = RichTable(box=MARKDOWN)
    for column in columns:
        result.add_column(Text(table.columns[column]), no_wrap=column == 0, overflow="fold")
    for number, row in enumerate(table.rows):
        result.add_row(*(_styled(row[column], (number, column) in table.bold) for column in columns))
    return result


def _styled(text: str, bold: bool) -> Text:
    """Return a cell in the colour of its verdict."""
    style = next((style for word, style in _STYLES.items() if text.startswith(word)), "")
    return Text(text, style=f"bold {style}".strip() if bold else style)
