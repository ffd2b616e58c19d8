"""The report in a terminal or a job log: no cell is cut, tables too wide are continued below."""

from __future__ import annotations

from rich.box import MARKDOWN
from rich.console import Console
from rich.segment import Segment, Segments
from rich.table import Table as RichTable
from rich.text import Span, Text

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
        lines = _lines(table, block)
        if _fit(lines, len(table.rows), console.width):
            console.print(_segments(lines, console), soft_wrap=True)
        else:  # cells must be folded, or have wide characters or several lines
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


def _lines(table: Table, columns: list[int]) -> Text:
    """Return some columns as ``_rich_table`` shows them where nothing is folded, in a small part of its time.

    Blank lines above and below, heading, rule, rows: four lines more than rows.
    """
    texts = [[table.columns[column] for column in columns]]
    texts += [[row[column] for column in columns] for row in table.rows]
    widths = [max(len(row[place]) for row in texts) for place in range(len(columns))]
    blank = " " * (sum(widths) + 3 * len(widths) + 1)
    lines, spans, start = [blank], [], len(blank) + 1
    for number, row in enumerate(texts, start=-1):
        for place, (column, text) in enumerate(zip(columns, row, strict=True)):
            begin = start + 2 + sum(widths[:place]) + 3 * place
            style = "bold" if number < 0 else _style(text, (number, column) in table.bold)
            spans += [Span(begin, begin + len(text), style)] if style else []
        lines.append(f"| {' | '.join(map(str.ljust, row, widths))} |")
        if number < 0:
            lines.append("|" + "|".join("-" * (width + 2) for width in widths) + "|")
        start += (len(blank) + 1) * (2 if number < 0 else 1)
    return Text("\n".join([*lines, blank]), spans=spans)


def _segments(lines: Text, console: Console) -> Segments:
    """Return lines as rich would break them up, in a small part of its time: no two styles overlap."""
    text, place, found = lines.plain, 0, []
    for begin, end, style in lines.spans:
        found += [Segment(text[place:begin]), Segment(text[begin:end], console.get_style(style))]
        place = end
    return Segments([*found, Segment(f"{text[place:]}\n")])


def _fit(lines: Text, rows: int, width: int) -> bool:
    """Return whether the lines of a table with so many rows are shown as they are."""
    single = lines.plain.split("\n")
    plain = all(line.isascii() and line.isprintable() for line in single)
    return plain and len(single) == rows + 4 and len(single[0]) <= width


def _rich_table(table: Table, columns: list[int]) -> RichTable:
    """Return some columns of a table for rich, in aligned Markdown."""
    result = RichTable(box=MARKDOWN)
    for column in columns:
        result.add_column(Text(table.columns[column]), no_wrap=column == 0, overflow="fold")
    for number, row in enumerate(table.rows):
        cells = ((row[column], _style(row[column], (number, column) in table.bold)) for column in columns)
        result.add_row(*(Text(text, style=style) for text, style in cells))
    return result


def _style(text: str, bold: bool) -> str:
    """Return the style of a cell: the colour of its verdict."""
    style = next((style for word, style in _STYLES.items() if text.startswith(word)), "")
    return f"bold {style}".strip() if bold else style
