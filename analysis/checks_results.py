"""Lines of the checklist on results: the tail, identical rows, failures, cited rows."""

from __future__ import annotations

import polars as pl

from analysis.incidents import counted
from analysis.line import NOT_APPLICABLE, NOT_KNOWN, Line, answered, shortened
from analysis.missing import confirm_progress
from analysis.numbers import number
from analysis.results import NO_WINNER
from analysis.sources import Sources
from analysis.table import full_name

_TAIL = ("tail", "few")


def tail(sources: Sources) -> Line:
    """Do the scores of rare classes lie above zero?"""
    question = "Is the tail score of every row above the floor?"
    study, tidy = sources.study, sources.comparison.tidy
    prefix = study.primary.partition("/")[0] + "/"
    starts = tuple(f"{prefix}{kind}{mark}" for kind in _TAIL for mark in "_/")
    names = [name for name in tidy["metric"].unique().sort() if name.startswith(starts)]
    scored = tidy.filter(pl.col("metric").is_in(names) & pl.col("mean").is_not_null())
    if scored.is_empty():
        if sources.metrics.is_empty():
            return Line(question, NOT_KNOWN, "No confirm trial has finished.")
        return Line(
            question, NOT_APPLICABLE, f"No finished trial reports a score of tail classes ({prefix}tail_)."
        )
    bound = pl.coalesce("lo", "mean").alias("bound")
    lowest = scored.with_columns(bound).sort("bound", "level", "arm", "metric")
    bad = [
        f"{full_name(arm, level)} ({metric})"
        for level, arm, metric in lowest.filter(pl.col("bound") <= 0)
        .select("level", "arm", "metric")
        .iter_rows()
    ]
    low = lowest.row(0, named=True)
    evidence = (
        f"Lowest 95 % bound of {', '.join(names)} over {scored.height} values: {number(low['bound'], 3)} "
        f"({full_name(low['arm'], low['level'])}); the floor is taken as 0, the ledger knows no chance level"
    )
    missing = len(sources.comparison.rows) - scored.select("level", "arm").n_unique()
    evidence += f"; not above it: {shortened(bad)}" if bad else ""
    evidence += f"; {missing} rows have no score yet" if missing else ""
    return answered(question, False if bad else None if missing else True, evidence + ".")


def distinct_rows(sources: Sources) -> Line:
    """Are all rows different from each other?"""
    question = "Do all rows differ from each other?"
    rows = sources.comparison.rows
    compared = [row for row in rows if row.counts["finished"]]
    if not compared:
        return Line(question, NOT_KNOWN, "No confirm trial has finished.")
    same = [f"{full_name(row.arm, row.level)} is {row.identical_to}" for row in rows if row.identical_to]
    if same:
        return answered(
            question, False, f"{len(same)} of {len(rows)} rows are identical, not tested: {shortened(same)}."
        )
    missing = len(rows) - len(compared)
    part = f"; {missing} have no result yet" if missing else ""
    return answered(
        question, None if missing else True, f"No two of {len(compared)} rows agree bit for bit{part}."
    )


def failures(sources: Sources) -> Line:
    """Did every confirm trial end with a result?"""
    question = "Did every confirm seed of every row give a result?"
    study, comparison = sources.study, sources.comparison
    planned = study.seeds * len(comparison.rows)
    words = ("diverged", "failed", "not finite", NO_WINNER)
    lost = {word: sum(row.counts[word] for row in comparison.rows) for word in words}
    finished = sum(row.counts["finished"] for row in comparison.rows)
    ended, able = (sum(counts) for counts in confirm_progress(study, comparison))
    parts = [
        f"{finished} of {planned} finished",
        *(f"{count} {word}" for word, count in lost.items() if count),
    ]
    parts += [f"{able - ended} to come"] if able > ended else []
    attempts = sources.facts.failures
    parts += [f"failed attempts over all starts: {counted(attempts)}"] if attempts else ["no attempt failed"]
    more = study.planned_seeds - study.seeds
    parts += [f"{more} more seeds per row planned"] if more > 0 else []
    good = False if any(lost.values()) else True if ended == able and more <= 0 else None
    return answered(question, good, "; ".join(parts) + ".")


def cited(sources: Sources) -> Line:
    """Have cited rows a source and a setting?"""
    question = "Do cited rows name source and setting, and stay out of intervals and tests?"
    rows = sources.study.cited
    if not rows:
        return Line(question, NOT_APPLICABLE, "No row is cited: every number was trained here.")
    bare = [row.name for row in rows if not (row.source and row.setting)]
    own = {row.arm for row in sources.comparison.rows}
    tested = [row.name for row in rows if row.name in own]
    texts = [f"{row.name} ({row.source or 'no source'}; {row.setting or 'no setting'})" for row in rows]
    evidence = f"{len(rows)} cited: {shortened(texts)}"
    evidence += f"; without source or setting: {shortened(bare)}" if bare else ""
    evidence += f"; with the name of an arm of the study: {shortened(tested)}" if tested else ""
    return answered(question, not (bare or tested), evidence + ".")
