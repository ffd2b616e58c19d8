r"""The report's tables as LaTeX: ``table.tex`` for a paper, and ``preview.tex``, a document that shows them.

``table.tex`` needs booktabs, array and graphicx. Every table is a float with caption and label; one that is
wider than ``WIDTH`` characters is continued below in further columns, each part with its first column again,
as in the terminal; cells longer than ``CELL`` are set as paragraphs; what is then still wider than the line
is scaled down to it. Tables longer than a page become several floats. In a paper of two columns
``\newcommand{\sarxfloat}{table*}`` before the ``\input`` makes them as wide as the page.

great-tables writes LaTeX too and escapes it well, but leaves out all styles (its own warning), so that the
cells that the tests single out would not be bold, and has no label, no notes and no way to split columns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from analysis.latex_text import latex
from analysis.report import Report
from analysis.table import Table
from analysis.terminal import column_blocks

WIDTH = 100
CELL = 36
"""Characters of a cell up to which it is one line."""
PAGE = 48
"""Lines of rows and notes that fit on a page with a heading."""
LINE = 110
"""Characters of a line of notes."""

_HEAD = r"""% Tables of one study; \input this file. The preamble needs \usepackage{booktabs,array,graphicx}.
\providecommand{\sarxfloat}{table}
\providecommand{\sarxfit}[1]{\setbox2\hbox{#1}%
  \ifdim\wd2>\linewidth\resizebox{\linewidth}{!}{\box2}\else\leavevmode\box2\fi}
"""
_PREVIEW = r"""\documentclass[10pt]{article}
\usepackage[a4paper,margin=2cm]{geometry}
\usepackage{booktabs,array,graphicx}
\extrafloats{500}
\maxdeadcycles=1000
\sloppy
\begin{document}
%s
\input{table.tex}
\end{document}
"""


@dataclass(frozen=True)
class _Part:
    """Some rows and columns of a table, and the lines that they take."""

    rows: range
    columns: list[int]
    lines: int


def to_latex(report: Report) -> str:
    """Return the tables of a report as floats, the statements of its caption with the first one."""
    name = _slug(report.study.name)
    statements = [*report.caption, *(f"Missing: {sentence}" for sentence in report.missing)]
    labels = _Labels(name)
    parts = [_HEAD]
    first = ""
    for table in report.tables:
        title = f"{report.study.name}: {table.title}" if table.title else report.study.name
        label = labels.new(table.title or "main")
        shown = replace(table, title=title, notes=(*table.notes, *([] if first else statements)))
        reference = rf"Statements as below Table~\ref{{{first}}}." if first else ""
        parts += _floats(shown, label, reference)
        first = first or label
    for table in report.extras:
        parts += _floats(table, labels.new(table.title), "")
    if report.geometry:
        for number, table in enumerate(report.geometry.tables):
            notes = tuple(report.geometry.notes) if number == 0 else ()
            parts += _floats(replace(table, notes=(*table.notes, *notes)), labels.new(table.title), "")
    return "\n".join(parts)


def preview(report: Report) -> str:
    """Return a document that shows ``table.tex``, which lies beside it."""
    study = report.study
    lines = [rf"\section*{{{latex(study.name, breakable=True)}}}"]
    lines += [f"{latex(text, breakable=True)}\n" for text in (study.question, study.budget) if text]
    return _PREVIEW.replace("%s", "\n".join(lines))


class _Labels:
    """Labels of one file, no two alike: ``tab:STUDY-WORDS``."""

    def __init__(self, study: str) -> None:
        self.study = study
        self.used: set[str] = set()

    def new(self, title: str) -> str:
        """Return a label for a table of this title."""
        words = "-".join(_slug(re.sub(r"\(.*?\)", "", title) or title).split("-")[:4])
        level = re.search(r"\(([^()]*=[^()]*)\)", title)
        stem = f"tab:{self.study}-{words}" + (f"-{_slug(level.group(1))}" if level else "")
        label, number = stem, 2
        while label in self.used:
            label, number = f"{stem}-{number}", number + 1
        self.used.add(label)
        return label


def _slug(text: str) -> str:
    """Return text as lower-case words joined by hyphens, safe in a label."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "table"


def _floats(table: Table, label: str, remark: str) -> list[str]:
    """Return a table as one float or several; notes stand below the last, beside it if they do not fit.

    Args:
        table: what to show.
        label: of the first float.
        remark: LaTeX below the table.
    """
    notes = [latex(note, breakable=True) for note in table.notes]
    height = sum(math.ceil(len(note) / LINE) for note in table.notes)
    pages = list(_pages(_parts(table)))
    inside = height + sum(part.lines for part in pages[-1]) <= PAGE
    title = latex(table.title, breakable=True)
    floats = []
    for number, page in enumerate(pages):
        last = number == len(pages) - 1
        lines = [r"\begin{\sarxfloat}[htbp]", r"\centering\footnotesize"]
        continued = f" (part {number + 1} of {len(pages)})" if len(pages) > 1 else ""
        lines.append(
            rf"\caption{{{title}{continued}}}\label{{{label}{f'-part{number + 1}' if number else ''}}}"
        )
        lines.append(r"\par\smallskip")
        lines.append("\n\\par\\medskip\n".join(_tabular(table, part) for part in page))
        below = [remark] if remark and last else []
        below += notes if inside and last else []
        if below:
            lines.append("\\par\\smallskip\\raggedright\n" + "\n".join(below))
        lines.append(r"\end{\sarxfloat}")
        floats.append("\n".join(lines) + "\n")
    if notes and not inside:
        text = "\n".join(notes)
        floats.append(f"\\noindent{{\\footnotesize Notes on Table~\\ref{{{label}}}. {text}\\par}}\n")
    return floats


def _parts(table: Table) -> list[_Part]:
    """Return the blocks of columns of a table, each cut into pages of rows."""
    short = Table(
        "", [text[:CELL] for text in table.columns], [[text[:CELL] for text in row] for row in table.rows]
    )
    parts = []
    for columns in column_blocks(short, WIDTH):
        heights = [max(math.ceil(len(row[column]) / CELL) or 1 for column in columns) for row in table.rows]
        start, lines = 0, 0
        for row, height in enumerate(heights):
            if lines + height > PAGE - 6 and row > start:
                parts.append(_Part(range(start, row), columns, lines + 3))
                start, lines = row, 0
            lines += height
        parts.append(_Part(range(start, len(heights)), columns, lines + 3))
    return parts


def _pages(parts: Sequence[_Part]) -> Iterator[list[_Part]]:
    """Yield the parts that share a float."""
    page: list[_Part] = []
    for part in parts:
        if page and sum(other.lines for other in page) + part.lines > PAGE - 3:
            yield page
            page = []
        page.append(part)
    yield page


def _tabular(table: Table, part: _Part) -> str:
    """Return some rows and columns of a table as a ``tabular`` that is no wider than the line."""
    long = [
        any(len(text) > CELL for text in (table.columns[column], *(row[column] for row in table.rows)))
        for column in part.columns
    ]
    kinds = [rf">{{\raggedright\arraybackslash}}p{{{CELL / 2:g}em}}" if wide else "l" for wide in long]
    cells = [[_cell(table.columns[column], wide) for column, wide in zip(part.columns, long, strict=True)]]
    cells += [
        [
            _cell(table.rows[row][column], wide, bold=(row, column) in table.bold)
            for column, wide in zip(part.columns, long, strict=True)
        ]
        for row in part.rows
    ]
    lines = [" & ".join(row) + r" \\" for row in cells]
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    return f"\\sarxfit{{\\begin{{tabular}}{{{''.join(kinds)}}}\n{body}\n\\end{{tabular}}}}"


def _cell(text: str, wide: bool, bold: bool = False) -> str:
    """Return one cell; a hyphen alone, which stands for nothing, is a dash."""
    if text == "-":
        return "--"
    written = latex(text, breakable=wide)
    return rf"\textbf{{{written}}}" if bold else written
