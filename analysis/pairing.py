"""What the ledger shows of pairing: equal proposals and seeds in all arms, seeds that search never saw."""

from __future__ import annotations

import polars as pl

from analysis.claims import PLACE, planned_proposals
from analysis.sources import Sources
from analysis.trials import BEFORE_CONFIRM
from sarx.study.ledger_schema import CONFIRM

Answer = bool | None
"""None: the ledger does not say."""


def common_proposals(events: pl.DataFrame) -> tuple[Answer, Answer]:
    """Return whether trial i of a search is the same in every arm: its parameters, as far as arms share them.

    The second answer is whether it has the same seed in every arm.
    """
    planned = planned_proposals(events).select(*PLACE, "trial_id", "parameters")
    points = (
        planned.select("repeat", "index", "parameters")
        .drop_nulls("parameters")
        .explode("parameters")
        .drop_nulls("parameters")
        .unnest("parameters")
    )
    seeds = (
        events.select("event", *PLACE, "trial_id", "seed")
        .filter(pl.col("event") == "proposed")
        .with_columns(pl.col("repeat").fill_null(0))
        .join(planned, on=[*PLACE, "trial_id"], how="semi")
    )
    return _one_each(points, ["repeat", "index", "name"], "value"), _one_each(
        seeds, ["repeat", "index"], "seed"
    )


def confirm_seeds_paired(sources: Sources) -> Answer:
    """Return whether confirm index k has the same seed in every row."""
    own = sources.trials.filter(pl.col("index") < sources.study.seeds)
    return _one_each(own, ["index"], "seed")


def confirm_seeds_fresh(sources: Sources) -> Answer:
    """Return whether no confirm trial of the plan has a seed that a search or finalist run was given."""
    events = sources.events
    columns = events.select("event", "phase", "seed")
    before = (pl.col("event") == "proposed") | (
        (pl.col("event") == "claimed") & pl.col("phase").is_in(BEFORE_CONFIRM)
    )
    used = set(columns.filter(before)["seed"].drop_nulls())
    own = set(sources.trials.filter(pl.col("index") < sources.study.seeds)["seed"].drop_nulls())
    return used.isdisjoint(own) if own and (used or not sources.study.tuned) else None


def from_scratch(events: pl.DataFrame) -> Answer:
    """Return whether every confirm trial that started had, at its first attempt, no epoch behind it."""
    columns = events.select("seq", "event", "phase", "trial_id", "epoch")
    started = columns.filter((pl.col("event") == "trial_started") & (pl.col("phase") == CONFIRM))
    first = started.sort("seq").unique("trial_id", keep="first")["epoch"]
    return None if first.is_empty() or first.null_count() else bool((first == 0).all())


def _one_each(found: pl.DataFrame, places: list[str], value: str) -> Answer:
    """Return whether each place has one value; None where no place has several rows, or a value is null."""
    counts = found.group_by(places).agg(pl.col(value).n_unique().alias("values"), pl.len().alias("rows"))
    if found[value].null_count() or counts.filter(pl.col("rows") > 1).is_empty():
        return None
    return bool((counts["values"] == 1).all())
