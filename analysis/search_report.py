"""All that the report says of the search: its tables, sentences, and files."""

from __future__ import annotations

import polars as pl

from analysis.importance import importance_table
from analysis.opened import Study
from analysis.results import search_trials, winner_table
from analysis.scored import best_ranges, course_table, edge_statement, edge_table, edges, scored_trials
from analysis.search_tables import search_table, winners_table
from analysis.table import Table


def search_report(
    study: Study, events: pl.DataFrame, searches: pl.DataFrame
) -> tuple[list[Table], list[str], dict[str, pl.DataFrame]]:
    """Return tables, statements for the caption, and frames by file name; nothing where nothing was tuned.

    Args:
        study: the plan.
        events: of the ledger.
        searches: the frame of ``results.search_summary``.
    """
    if not study.tuned:
        return [], [], {}
    winners = winner_table(events, study)
    scored = scored_trials(events, study)
    important, statements = importance_table(study, scored)
    tables = [
        search_table(study, searches),
        winners_table(study, winners, best_ranges(study, scored)),
        edge_table(study, edges(study, winners)),
        course_table(study, search_trials(events), scored),
        important,
    ]
    statements = edge_statement(study, winners) + statements
    return (
        [table for table in tables if table],
        statements,
        {} if winners.is_empty() else {"winners.csv": winners},
    )
