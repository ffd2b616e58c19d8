"""The report as Markdown."""

from __future__ import annotations

import functools
import re

from analysis.report import Report
from analysis.table import Table

# Underscores inside words, brackets that begin no link and a lone "<" are no markup: they stay readable.
_SPECIAL = re.compile(r"([\\`*|~]|\](?=[(\[:])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")


def to_markdown(report: Report) -> str:
    """Return the whole report as GitHub-flavoured Markdown."""
    study = report.study
    parts = [f"# {escape(study.name)}"]
    parts += [escape(study.question)] if study.question else []
    parts += [f"## {escape(study.budget)}"] if study.budget else []
    for table in report.tables:
        parts += [f"### {escape(table.title)}"] if table.title else []
        parts += with_notes(table)
    parts.append(_list(report.caption))
    parts += ["## Missing", _list(report.missing)] if report.missing else []
    for table in report.extras:
        parts += [f"### {escape(table.title)}", *with_notes(table)]
    if report.geometry:
        parts += [f"## {escape(report.geometry.title)}", _list(report.geometry.notes)]
        for table in report.geometry.tables:
            parts += [f"### {escape(table.title)}", table_text(table)]
    parts += ["## Methods", escape(report.methods), f"## {escape(report.checklist.title)}"]
    parts.append(table_text(report.checklist))
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Return text that Markdown prints as it is: no markup, no HTML, no table bar, one line."""
    inline = _inline(text)
    if re.match(r"[#+=>\-]", inline):
        return "\\" + inline
    return re.sub(r"^(\d+)([.)])", r"\1\\\2", inline)


@functools.cache
def _inline(text: str) -> str:
    """Escape what is markup anywhere in a line."""
    line = _TAG.sub("&lt;", " ".join(text.split()).replace("&", "&amp;"))
    return _SPECIAL.sub(r"\\\1", line)


def _list(sentences: list[str]) -> str:
    """Return a bullet list."""
    return "\n".join(f"- {escape(sentence)}" for sentence in sentences)


def with_notes(table: Table) -> list[str]:
    """Return a table and the sentences below it."""
    return [table_text(table), *([_list(list(table.notes))] if table.notes else [])]


def table_text(table: Table) -> str:
    """Return an aligned table: readable as it is and when rendered."""
    cells = [
        [_cell(text, (row, column) in table.bold) for column, text in enumerate(texts)]
        for row, texts in enumerate(table.rows)
    ]
    headings = [_cell(text, False) for text in table.columns]
    widths = [max(3, *(len(line[column]) for line in [headings, *cells])) for column in range(len(headings))]
    lines = [headings, ["-" * width for width in widths], *cells]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def _cell(text: str, bold: bool) -> str:
    """Return one cell; signs at its start need no escape inside a table."""
    escaped = _inline(text)
    return f"**{escaped}**" if bold else escaped
