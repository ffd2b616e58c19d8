"""Tables and figures as the page shows them: cells with what they sort by, marks, pictures as data."""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from analysis.line import NO, NOT_APPLICABLE, NOT_KNOWN, YES
from analysis.table import Table

if TYPE_CHECKING:
    from analysis.figures.drawing import Drawing

LARGEST_SVG = 700_000
"""Bytes; a larger drawing (thousands of points) is shown as its PNG."""
SHORT, WIDE, WIDE_NAME = 24, 40, 60
"""Characters up to which a cell stays on one line, and from which a column (the first) is made wide."""
_MISSING = ("", "-")
_NUMBER = re.compile(
    r"[<>~]?(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?inf)"
    r"(?:(?: \[[^\]]*\])?(?: \([+-]?[.\d]+\))?(?: \*)?| of \d+.*| %)"
)
_MARKS = {
    "verdict": {
        "better": ("good", "\u25b2"),
        "worse": ("bad", "\u25bc"),
        "equivalent": ("same", "="),
        "no mark": ("warn", "!"),
    },
    "answer": {
        YES: ("good", "\u2713"),
        NOT_APPLICABLE: ("quiet", "\u2013"),
        NOT_KNOWN: ("warn", "?"),
        NO: ("bad", "\u2717"),
    },
}
"""Heading -> how a cell begins -> class and sign, so that nothing is said by colour alone."""


class Cell(NamedTuple):
    """One cell: text, an interval after, classes, what it sorts by ('' for its text), a sign before."""

    text: str
    rest: str = ""
    css: str = ""
    value: str = ""
    sign: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Column:
    """One heading; ``numeric``: its cells sort by their value."""

    text: str
    css: str
    numeric: bool


@dataclass(frozen=True)
class TableView:
    """A table with its number in the page."""

    number: int
    title: str
    columns: list[Column]
    rows: list[list[Cell]]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class FigureView:
    """A figure with its number in the page; width and height in CSS pixels, '' where not known."""

    number: int
    title: str
    alt: str
    caption: str
    source: str
    width: str
    height: str


@functools.cache
def sort_value(text: str) -> str:
    """Return the number that a cell begins with, for ``.256 [.25, .26]``, ``+.012``, ``8 of 10``; else ''."""
    found = _NUMBER.fullmatch(text.strip())
    if found is None:
        return ""
    number = float(found["number"])
    return repr(number).replace("inf", "Infinity")


def table_view(table: Table, number: int, title: str = "") -> TableView:
    """Return a table as the page shows it.

    Args:
        table: cells as plain text.
        number: in the page, from 1.
        title: instead of its own.
    """
    texts = [[row[column] for row in table.rows] for column in range(len(table.columns))]
    columns = [
        _column(heading, cells, place == 0)
        for place, (heading, cells) in enumerate(zip(table.columns, texts, strict=True))
    ]
    rows = [
        [
            _cell(text, column, (line, place) in table.bold)
            for place, (text, column) in enumerate(zip(row, columns, strict=True))
        ]
        for line, row in enumerate(table.rows)
    ]
    return TableView(number, title or table.title, columns, rows, table.notes)


def _column(heading: str, cells: Sequence[str], first: bool) -> Column:
    """Return a heading: numeric where every cell that says anything begins with a number."""
    said = [cell for cell in cells if cell.strip() not in _MISSING]
    numeric = bool(said) and all(sort_value(cell) for cell in said)
    longest = max((len(cell) for cell in cells), default=0)
    if heading in _MARKS:
        css = "mark"
    elif numeric:
        css = "count" if any(" of " in cell for cell in said) else "number"
    elif longest > (WIDE_NAME if first else WIDE):
        css = "wide"
    else:
        css = "short" if longest <= SHORT else ""
    return Column(heading, css, numeric)


def _cell(text: str, column: Column, bold: bool) -> Cell:
    """Return a cell of a column."""
    marks = _MARKS.get(column.text, {})
    css, sign = next((mark for word, mark in marks.items() if text.startswith(word)), ("", ""))
    if not column.numeric:
        return Cell(text, "", f"{column.css} {css}".strip(), "", sign, bold)
    value, bracket, rest = text.partition(" [")
    css = "interval" if bracket else ""
    return Cell(value, bracket.strip() + rest, f"{column.css} {css}".strip(), sort_value(text), "", bold)


def figure_view(drawing: Drawing, folder: Path, number: int) -> FigureView:
    """Return a figure with its picture inside: SVG as data cannot run scripts, nor clash in its ids.

    Args:
        drawing: words of the figure.
        folder: where ``figures.save`` has written it.
        number: in the page, from 1.
    """
    svg = (folder / f"{drawing.name}.svg").read_bytes()
    width, height = svg_size(svg)
    kind, data = "svg+xml", svg
    if len(svg) > LARGEST_SVG:
        from analysis.figures.drawing import as_png  # matplotlib: only where figures are shown

        png = as_png(drawing)
        kind, data = ("png", png) if len(png) < len(svg) else (kind, data)
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return FigureView(number, drawing.title, drawing.alt, drawing.caption, source, width, height)


def svg_size(svg: bytes) -> tuple[str, str]:
    """Return width and height of an SVG in CSS pixels (3/4 pt each); '' where it does not say."""
    head = re.search(rb"<svg\b[^>]*>", svg)
    found = dict(
        re.findall(r'\b(width|height)="([\d.]+)pt"', head[0].decode("utf-8", "replace") if head else "")
    )
    if len(found) < 2:
        return "", ""
    width, height = (str(round(float(found[name]) * 4 / 3)) for name in ("width", "height"))
    return width, height
