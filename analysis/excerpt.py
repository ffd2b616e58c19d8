"""Part of a report inside a text of one's own: ``python -m analysis.excerpt STUDY TEXT.md``.

The text says where: what stands between ``<!-- sarx STUDY: COLUMN, COLUMN -->`` and ``<!-- sarx end -->`` is
replaced by the study's tables with these columns. Figures that the text shows by a name such as
``STUDY-forest.svg`` are written beside it. So a README, or notes for a paper, can be made again from the
ledger.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

from analysis.errors import UserError
from analysis.figures import draw, save
from analysis.markdown import escape, table_text
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
        text = options.text.read_text(encoding="utf-8")
        filled = fill(text, report, str(options.text))
        written = figures(filled, report, options.text.parent)
    except (UserError, OSError) as problem:
        print(f"python -m analysis.excerpt: {problem}", file=sys.stderr)
        return 2
    options.text.write_text(filled, encoding="utf-8")
    for path in [options.text, *written]:
        print(path)
    return 0


def fill(text: str, report: Report, where: str) -> str:
    """Return the text with the study's tables between its marks.

    Args:
        text: Markdown.
        report: Of the study.
        where: What errors call the text.

    Raises:
        UserError: If the text has no place for the study, or names a column that its tables do not have.
    """
    opening = re.compile(rf"<!-- sarx {re.escape(report.study.name)}: ([^\n]*?) -->")
    found = opening.search(text)
    end = text.find(_END, found.end()) if found else -1
    if found is None or end < 0:
        raise UserError(
            f"{where}: no place for {report.study.name}; it is between '<!-- sarx {report.study.name}: arm, "
            f"{report.study.primary} -->' and '{_END}'"
        )
    columns = [name.strip() for name in found[1].split(",")]
    parts = []
    for table in report.tables:
        parts += [f"**{escape(table.title)}**"] if table.title else []
        parts.append(table_text(_only(table, columns, where)))
    return text[: found.end()] + "\n\n" + "\n\n".join(parts) + "\n\n" + text[end:]


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
        text: Markdown; images are ``![...](PATH/STUDY-NAME.svg)``.
        report: Of the study.
        folder: What the paths in the text start from.

    Raises:
        UserError: If the study has no figure of that name.
    """
    study = re.escape(report.study.name)
    shown = re.findall(rf"\]\(((?:[^()\s]*/)?{study}-([\w-]+)\.(?:svg|pdf|png))\)", text)
    drawings = {drawing.name: drawing for drawing in draw(report.sources)} if shown else {}
    written = []
    for path, name in shown:
        if name not in drawings:
            raise UserError(f"{path}: there is no figure {name!r}; there is {', '.join(drawings)}")
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        [saved] = save(drawings[name], place.parent, [place.suffix[1:]])
        saved.replace(place)
        written.append(place)
    return written


if __name__ == "__main__":
    sys.exit(main())
