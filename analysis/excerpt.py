"""Part of a report inside a text of one's own: ``python -m analysis.excerpt STUDY TEXT.md``.

The text says where. What stands between ``<!-- sarx STUDY: COLUMN, COLUMN -->`` and ``<!-- sarx end -->`` is
replaced by the study's tables with these columns; ``<!-- sarx STUDY table: TITLE -->`` takes the other table
whose title begins so. Figures that the text shows by a name such as ``STUDY-forest.svg`` are written beside
it. So a README, or notes for a paper, can be made again from the ledger.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

from analysis.errors import UserError
from analysis.figures import draw, save
from analysis.markdown import escape, table_text, with_notes
from analysis.report import Report, make_report
from analysis.studies import find_study, storage_folder
from analysis.table import Table

_END = "<!-- sarx end -->"


def main(arguments: list[str] | None = None) -> int:
    """Bring a text up to date; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m analysis.excerpt", description=__doc__.partition(":")[0])
    parser.add_argument("study", help="name of the study")
    parser.add_argument("text", type=Path, help="Markdown file with a place for it")
    parser.add_argument("--storage", help="folder of the studies (default: $SARX_STORAGE, else results/)")
    options = parser.parse_args(arguments)
    try:
        report = make_report(find_study(storage_folder(options.storage), options.study))
        text = _read(options.text)
        filled = fill(text, report, str(options.text))
        written = figures(filled, report, options.text.parent)
    except (UserError, OSError) as problem:
        print(f"python -m analysis.excerpt: {problem}", file=sys.stderr)
        return 2
    options.text.write_text(filled, encoding="utf-8", newline="")
    for path in [options.text, *written]:
        print(path)
    return 0


def _read(path: Path) -> str:
    """Return a text with the line ends that it has."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as problem:
        raise UserError(f"{path}: not UTF-8 ({problem})") from None


def fill(text: str, report: Report, where: str) -> str:
    """Return the text with the study's tables between its marks.

    Args:
        text: Markdown.
        report: Of the study.
        where: What errors call the text.

    Raises:
        UserError: If the text has no place for the study, a place has no end, or it names a column or a table
            that there is not.
    """
    name = report.study.name
    opening = re.compile(rf"<!-- sarx {re.escape(name)}( table)?: ([^\n]*?) -->")
    if not opening.search(text):
        raise UserError(
            f"{where}: no place for {name}; one is between '<!-- sarx {name}: arm, {report.study.primary} "
            f"-->' and '{_END}'"
        )
    newline = "\r\n" if "\r\n" in text else "\n"
    filled, at = "", 0
    for found in opening.finditer(text):
        end = text.find(_END, found.end())
        if end < 0 or "<!-- sarx " in text[found.end() : end]:
            raise UserError(f"{where}: '{found[0]}' has no '{_END}' behind it")
        parts = _titled(report, found[2], where) if found[1] else _levels(report, found[2], where)
        filled += text[at : found.end()] + "\n\n".join(["", *parts, ""]).replace("\n", newline)
        at = end
    return filled + text[at:]


def _levels(report: Report, columns: str, where: str) -> list[str]:
    """Return the tables of the arms with some of their columns, level by level."""
    names = [name.strip() for name in columns.split(",")]
    parts = []
    for table in report.tables:
        parts += [f"**{escape(table.title)}**"] if table.title else []
        parts.append(table_text(_only(table, names, where)))
    if report.missing:
        parts.append(f"*Not whole yet: {escape(' '.join(report.missing))}*")
    return parts


def _titled(report: Report, title: str, where: str) -> list[str]:
    """Return another table and its notes."""
    for table in report.extras if title.strip() else ():
        if table.title.startswith(title.strip()):
            return with_notes(table)
    titles = "; ".join(table.title for table in report.extras)
    raise UserError(f"{where}: there is no table {title!r}; there is: {titles}")


def _only(table: Table, columns: list[str], where: str) -> Table:
    """Return a table with some of its columns."""
    for name in columns:
        if name not in table.columns:
            raise UserError(f"{where}: the table has no column {name!r}; it has {', '.join(table.columns)}")
    kept = [table.columns.index(name) for name in columns]
    rows = [[row[place] for place in kept] for row in table.rows]
    bold = {(row, kept.index(place)) for row, place in table.bold if place in kept}
    return replace(table, columns=columns, rows=rows, bold=frozenset(bold))


def figures(text: str, report: Report, folder: Path) -> list[Path]:
    """Write the figures that a text shows of a study.

    Args:
        text: Markdown; images are ``![...](PATH/STUDY-NAME.svg)``. Those of a study that has a place in the
            text as well, and a longer name, are not touched.
        report: Of the study.
        folder: What the paths in the text start from.

    Raises:
        UserError: If the study has no figure of that name.
    """
    name, marked = report.study.name, re.findall(r"<!-- sarx ([^\s:]+)(?: table)?: ", text)
    pattern = rf"\]\((?![a-z]+:)((?:[^()\s]*/)?({re.escape(name)}-([\w-]+))\.(?:svg|pdf|png))\)"
    others = tuple(f"{other}-" for other in marked if other.startswith(f"{name}-"))
    shown = [
        (path, figure) for path, stem, figure in re.findall(pattern, text) if not stem.startswith(others)
    ]
    drawings = {drawing.name: drawing for drawing in draw(report.sources)} if shown else {}
    written = []
    for path, figure in shown:
        if figure not in drawings:
            raise UserError(f"{path}: there is no figure {figure!r}; there is {', '.join(drawings)}")
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        [saved] = save(drawings[figure], place.parent, [place.suffix[1:]])
        saved.replace(place)
        written.append(place)
    return written


if __name__ == "__main__":
    sys.exit(main())
