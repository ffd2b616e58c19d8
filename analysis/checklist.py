"""The checklist at the end of a report: what a careful reviewer asks, answered from the ledger.

Every answer is computed. ``yes`` is what the reviewer hopes for in every line.
"""

from __future__ import annotations

from collections.abc import Callable

from analysis.checks_arms import aux_only, pull_only, rebalancing
from analysis.checks_plan import budgets, last_step, looks, one_code, proxies, seeds, splits, tuned
from analysis.checks_results import cited, distinct_rows, failures, tail
from analysis.line import Line
from analysis.sources import Sources
from analysis.table import Table

CHECKS: tuple[Callable[[Sources], Line], ...] = (
    tuned,
    splits,
    last_step,
    seeds,
    looks,
    aux_only,
    pull_only,
    rebalancing,
    tail,
    distinct_rows,
    budgets,
    proxies,
    failures,
    cited,
    one_code,
)
"""In the order of the table."""


def checklist(sources: Sources) -> Table:
    """Return the checklist as a table: question, answer, evidence."""
    lines = [check(sources) for check in CHECKS]
    rows = [[line.question, line.answer, line.evidence] for line in lines]
    return Table("Checklist", ["question", "answer", "evidence"], rows)
