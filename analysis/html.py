"""The report as one HTML file that needs nothing else: no request leaves it, no name in it is markup."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.failures import failure_table, void_table
from analysis.html_views import FigureView, TableView, figure_view, table_view
from analysis.provenance import Starts, last_start, machines_table, starts_table, utc
from analysis.report import Report
from analysis.spent import cost_sentences
from analysis.table import Table

if TYPE_CHECKING:
    from analysis.figures.drawing import Drawing

PAGE = Path(__file__).with_name("page")
"""Template, style and script."""
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")  # in no HTML file
_OF_SEARCH = re.compile(r"\bsearch\b|\bwinners?\b|trade-offs|\bno results\b|\bnot results\b", re.IGNORECASE)


def to_html(report: Report, drawings: Sequence[Drawing], figures: Path) -> str:
    """Return the whole report as HTML; equal ledgers give equal text.

    Args:
        report: what to show.
        drawings: its figures.
        figures: the folder where ``figures.save`` has written them.
    """
    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = breakable
    style, script = (_read(name) for name in ("style.css", "script.js"))
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    text = environment.get_template("report.html").render(
        page=_page(report, drawings, figures), style=Markup(style), script=Markup(script), policy=policy
    )
    return _UNPRINTABLE.sub("\ufffd", text.lstrip())


def of_search(title: str) -> bool:
    """Return whether a table or figure shows scores of the search, by its title."""
    return _OF_SEARCH.search(title) is not None


@functools.cache
def breakable(text: str) -> Markup:
    """Return a name, escaped, that may be broken after the marks which join its words."""
    return Markup(re.sub(r"(?<=[_/.])(?=\w)", "<wbr>", str(escape(text))))


class _Numbered:
    """Numbers the tables and figures of a page in the order in which they are asked for."""

    def __init__(self, figures: Path) -> None:
        """Begin at 1."""
        self.folder, self.tables, self.figures = figures, 0, 0

    def table(self, table: Table, title: str = "") -> TableView:
        """Return the next table."""
        self.tables += 1
        return table_view(table, self.tables, title)

    def figure(self, drawing: Drawing) -> FigureView:
        """Return the next figure."""
        self.figures += 1
        return figure_view(drawing, self.folder, self.figures)


def _page(report: Report, drawings: Sequence[Drawing], figures: Path) -> dict[str, Any]:
    """Return what the template shows, numbered in its order."""
    study, sources = report.study, report.sources
    events, starts, next_ = sources.events, Starts(sources.events), _Numbered(figures)
    extras = [table for table in report.extras if not of_search(table.title) and not _is_cost(table)]
    searched = [table for table in report.extras if of_search(table.title)]
    what = f"{study.primary} of every arm against {study.reference}"
    wrong = [table for table in (failure_table(events), void_table(events)) if table]
    places = [table for table in (starts_table(starts), machines_table(sources)) if table]
    page: dict[str, Any] = {
        "name": study.name,
        "question": study.question,
        "budget": study.budget,
        "missing": report.missing,
        "results": [
            next_.table(table, f"{what}, {table.title}" if table.title else what) for table in report.tables
        ],
        "caption": report.caption,
        "figures": [next_.figure(drawing) for drawing in drawings if not of_search(drawing.title)],
        "methods": report.methods,
        "further": [next_.table(table) for table in extras],
        "geometry": _geometry(report, next_),
        "search": [next_.table(table) for table in searched],
        "search_figures": [next_.figure(drawing) for drawing in drawings if of_search(drawing.title)],
        "cost": cost_sentences(sources),
        "costs": [next_.table(table) for table in report.extras if _is_cost(table)],
        "failures": [next_.table(table) for table in wrong],
        "places": [next_.table(table) for table in places],
        "last_start": last_start(starts),
        "checklist": next_.table(report.checklist, "What a careful reviewer asks, answered from the ledger"),
        "file": str(starts.last.get("file") or ""),
        "events": events.height,
        "last_event": utc(events["time"][-1]),
    }
    return page | {"sections": _sections(page)}


def _geometry(report: Report, next_: _Numbered) -> dict[str, Any] | None:
    """Return the section on geometry; None for studies without."""
    found = report.geometry
    if found is None:
        return None
    return {
        "title": found.title,
        "notes": found.notes,
        "tables": [next_.table(table) for table in found.tables],
    }


def _sections(page: dict[str, Any]) -> list[tuple[str, str]]:
    """Return anchor and title of the sections that the page has, in its order."""
    titles = {
        "missing": "Missing",
        "results": "Results",
        "figures": "Figures",
        "methods": "Methods",
        "further": "Further tables",
        "geometry": "Geometry",
        "search": "Search",
        "cost": "Cost",
        "failures": "Failures",
        "provenance": "Provenance",
        "checklist": "Checklist",
        "file": "Study file",
    }
    there = {
        "figures": page["figures"],
        "further": page["further"],
        "geometry": page["geometry"],
        "search": page["search"] or page["search_figures"],
    }
    return [(key, title) for key, title in titles.items() if there.get(key, True)]


def _is_cost(table: Table) -> bool:
    """Return whether a table says what rows cost."""
    return table.title.startswith("Cost") and not of_search(table.title)


def _read(name: str) -> str:
    """Return a file of the page."""
    return (PAGE / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Return the source expression by which a Content-Security-Policy allows an inline text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
