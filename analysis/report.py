"""A study's report, free of any format: headings, tables and sentences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from analysis.caption import Facts, caption, missing
from analysis.comparison import Comparison, compare
from analysis.geometry import Section, geometry_section
from analysis.ledger import read_ledger
from analysis.opened import Study, read_study
from analysis.results import (
    code_versions,
    confirm_metrics,
    confirm_trials,
    rows_with_winner,
    search_summary,
    trials_left_out,
)
from analysis.table import Table, diagnostics_table, level_table, search_table


@dataclass(frozen=True)
class Report:
    """Everything that the writers print.

    Attributes:
        tables: one per level, in plan order.
        extras: the small tables below them (search, gate).
        caption: statements under the tables.
        missing: what is not there yet; empty for a complete study.
        geometry: the section on the geometry of features, for ledgers that have it.
    """

    study: Study
    comparison: Comparison
    tables: list[Table]
    extras: list[Table]
    caption: list[str]
    missing: list[str]
    geometry: Section | None = None


def make_report(folder: Path) -> Report:
    """Read the ledger of the study in ``folder`` and compute its report.

    Raises:
        UserError: the ledger is empty, damaged, or lacks its opening.
    """
    ledger = read_ledger(folder)
    events = ledger.events
    study = read_study(events)
    trials = confirm_trials(events)
    metrics = confirm_metrics(events, trials)
    comparison = compare(study, trials, metrics)
    searches = search_summary(events, study)
    facts = Facts(
        code_versions=code_versions(events, trials),
        torn=ledger.torn,
        winners=rows_with_winner(events),
        left_out=trials_left_out(events, trials, study),
        metrics=_finite_metrics(metrics),
        searched=_searched(study, searches),
    )
    extras = [search_table(study, searches)] if study.tuned else []
    gate = diagnostics_table(comparison)
    return Report(
        study=study,
        comparison=comparison,
        tables=[level_table(study, comparison, searches, level) for level in study.levels],
        extras=extras + ([gate] if gate else []),
        caption=caption(study, comparison, facts),
        missing=missing(study, comparison, facts),
        geometry=geometry_section(study, folder, trials, metrics),
    )


def _searched(study: Study, searches: pl.DataFrame) -> tuple[tuple[str, int, int], ...]:
    """Return (arm with its level, finished search trials, planned ones) of each row."""
    done = {
        (level, arm): count for level, arm, count in searches.select("level", "arm", "trials").iter_rows()
    }
    return tuple(
        (
            f"{arm.arm} ({arm.level})" if arm.level else arm.arm,
            done.get((arm.level, arm.arm), 0),
            study.trials_of(arm),
        )
        for arm in study.arms
    )


def _finite_metrics(metrics: pl.DataFrame) -> dict[str, bool]:
    """Return the names of the metrics, in order; whether any value is finite."""
    finite = metrics.group_by("metric").agg(pl.col("value").is_finite().any()).sort("metric")
    return dict(finite.iter_rows())
