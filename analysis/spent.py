"""What a study cost in all."""

from __future__ import annotations

import polars as pl

from analysis.numbers import number
from analysis.provenance import utc
from analysis.sources import Sources
from analysis.trials import epochs


def cost_sentences(sources: Sources) -> list[str]:
    """Return the totals: hours of all attempts, and from when to when the ledger reaches."""
    events, gpus = sources.events, sources.study.search.gpus
    trained = epochs(events)
    hours = float(trained["hours"].sum())
    planned = sources.study.search.workers
    gpu_hours = float((trained["hours"] * trained["workers"].fill_null(planned)).sum()) * gpus / planned
    trials = events.filter(pl.col("event") == "trial_started")["trial_id"].n_unique()
    spent = f"{number(gpu_hours, 2)} GPU hours" if gpus else f"{number(hours, 2)} hours"
    first, last = events["time"].min(), events["time"].max()
    plural = "s" if trials != 1 else ""
    lines = [
        f"Training and evaluation of {trials} trial{plural} took {spent}, failed and forgotten attempts "
        "included; a trial that serves several rows counts once."
    ]
    if isinstance(first, float) and isinstance(last, float):
        spanned = number((last - first) / 3600, 2)
        lines.append(f"The ledger reaches from {utc(first)} to {utc(last)} UTC, {spanned} hours.")
    return lines
