"""What others published, apart from what was measured here: no interval, no test."""

from __future__ import annotations

from analysis.numbers import significant
from analysis.opened import Study
from analysis.table import Table


def cited_table(study: Study) -> Table | None:
    """Return the cited rows of the study file; None without any."""
    if not study.cited:
        return None
    rows = [
        [row.name, significant(row.value, 6), row.setting or "not said", row.source] for row in study.cited
    ]
    note = (
        "Numbers of others, as they printed them: other code, other tuning, perhaps another split or length. "
        "They have no interval and take no part in any test, difference or verdict."
    )
    columns = ["cited", study.primary, "setting", "source"]
    return Table("Cited, not measured here", columns, rows, notes=(note,))
