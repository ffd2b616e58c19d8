"""A study's report, free of any format: headings, tables and sentences."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from analysis.agreement import proxy_agreement, rung_agreement
from analysis.caption import Facts, caption
from analysis.checklist import checklist
from analysis.cited import cited_table
from analysis.claims import winner_counts
from analysis.comparison import Comparison, compare
from analysis.consistency_claim import plain_arm
from analysis.further import further_report
from analysis.geometry import Section, geometry_section
from analysis.history import said_before
from analysis.incidents import UNNAMED, failures_by_kind, forgotten, last_failure
from analysis.layouts import layout_tables
from analysis.ledger import Ledger, read_ledger
from analysis.looks import at_look, said_of_looks
from analysis.methods import methods
from analysis.missing import missing
from analysis.opened import Study, read_study
from analysis.orientation import shortfalls
from analysis.pareto import trade_offs
from analysis.per_class import class_counts, per_class_frame, per_class_tables
from analysis.results import (
    code_versions,
    confirm_metrics,
    confirm_table,
    confirm_trials,
    search_summary,
    searches_without_winner,
    seeds_without_winner,
    trials_left_out,
)
from analysis.search_report import search_report
from analysis.search_tables import cost_table, trade_off_table
from analysis.sources import Sources
from analysis.table import Table, diagnostics_table, level_table


@dataclass(frozen=True)
class Report:
    """Everything that the writers print.

    Attributes:
        sources: what it was made of.
        tables: one per level, in plan order.
        extras: the small tables below them (search, gate, winners, trade-offs).
        caption: statements under the tables.
        missing: what is not there yet; empty for a complete study.
        methods: a paragraph for a paper.
        checklist: what a reviewer asks, answered.
        geometry: the section on the geometry of features, for ledgers that have it.
        frames: what is written as CSV beside the table, by file name.
    """

    sources: Sources
    tables: list[Table]
    extras: list[Table]
    caption: list[str]
    missing: list[str]
    methods: str
    checklist: Table
    geometry: Section | None = None
    frames: dict[str, pl.DataFrame] = field(default_factory=dict)

    @property
    def study(self) -> Study:
        """Return the plan."""
        return self.sources.study

    @property
    def comparison(self) -> Comparison:
        """Return every row against the reference of its level."""
        return self.sources.comparison


def make_report(folder: Path) -> Report:
    """Read the ledger of the study in ``folder`` and compute its report.

    Raises:
        UserError: the ledger is empty, damaged, or lacks its opening.
    """
    ledger = read_ledger(folder)
    events = ledger.events
    plan = read_study(events)
    trials = confirm_trials(events)
    without_winner = searches_without_winner(events, plan)
    all_seeds = seeds_without_winner(plan, without_winner, trials)
    study = at_look(plan, all_seeds)
    metrics = confirm_metrics(events, trials)
    facts = _facts(study, ledger, trials, metrics, without_winner)
    comparison = compare(study, all_seeds, metrics)
    frames = {"trials.csv": confirm_table(study, trials, metrics)}
    further, remarks = further_report(study, folder, trials, metrics, comparison)
    extras = layout_tables(study, comparison, metrics) + further
    searched, statements, found = search_report(study, events, facts.searches)
    frames |= found | {"search.csv": facts.searches}
    below = [cited_table(study), *searched[:1], diagnostics_table(comparison)]
    extras += [table for table in below if table] + [cost_table(study, facts.searches), *searched[1:]]
    classes = per_class_frame(study, comparison, metrics, class_counts(study, folder, metrics))
    frames |= {} if classes.is_empty() else {"per_class.csv": classes}
    extras += per_class_tables(study, classes)
    if len(study.goals) > 1:
        frames["tradeoffs.csv"] = trade_offs(events, study)
        extras.append(trade_off_table(study, frames["tradeoffs.csv"]))
    sources = Sources(folder, study, events, trials, metrics, comparison, facts)
    return Report(
        sources=sources,
        tables=[level_table(study, comparison, facts.searches, level) for level in study.levels],
        extras=extras,
        caption=[
            *caption(study, comparison, facts),
            *said_of_looks(study, all_seeds),
            *remarks,
            *said_before(events, study),
            *statements,
        ],
        missing=shortfalls(study, comparison) + missing(study, comparison, facts),
        methods=methods(sources),
        checklist=checklist(sources),
        geometry=geometry_section(study, folder, trials, metrics, plain_arm(events)),
        frames=frames,
    )


def _facts(
    study: Study,
    ledger: Ledger,
    trials: pl.DataFrame,
    metrics: pl.DataFrame,
    without_winner: dict[tuple[str, str], dict[int, str]],
) -> Facts:
    """Return what the ledger says besides the numbers."""
    events, plan = ledger.events, study.search
    kinds = last_failure(events)
    failed = trials.filter((pl.col("status") == "failed") & (pl.col("index") < study.seeds))["trial_id"]
    return Facts(
        code_versions=code_versions(events, trials),
        torn=ledger.torn,
        winners=winner_counts(events),
        without_winner=without_winner,
        left_out=trials_left_out(events, trials, replace(study, seeds=study.planned_seeds)),
        metrics=_finite_metrics(metrics),
        searches=search_summary(events, study),
        rungs=rung_agreement(events, study) if plan.scheduler != "none" else None,
        proxy=proxy_agreement(events, study) if plan.overrides and plan.finalists else None,
        failures=failures_by_kind(events),
        lost=Counter(kinds.get(trial, UNNAMED) for trial in failed),
        forgotten=forgotten(events),
        resized=trials.filter(pl.col("workers").is_not_null() & (pl.col("index") < study.seeds)).height,
    )


def _finite_metrics(metrics: pl.DataFrame) -> dict[str, bool]:
    """Return the names of the metrics, in order; whether any value is finite."""
    finite = metrics.group_by("metric").agg(pl.col("value").is_finite().any()).sort("metric")
    return dict(finite.iter_rows())
