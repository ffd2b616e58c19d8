"""What the events of a trial say: how it ended, what it gave at each epoch, how long it took.

Results before a trial's last ``forgotten`` event do not count; the time that they took does.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from analysis.packed import metric_values, values_of
from analysis.remember import once_per_ledger
from sarx.study.ledger_schema import CONFIRM, FINALIST, SEARCH

__all__ = [
    "BEFORE_CONFIRM",
    "epochs",
    "final_values",
    "finished",
    "live",
    "metric_values",
    "of_kind",
    "other_workers",
    "still_true",
    "train_seconds",
    "trial_status",
    "values",
]

BEFORE_CONFIRM = (SEARCH, FINALIST)
FREE_OF_CHARGE = "preempted"  # a failure that does not count against max_failures
_EPOCHS = ["epoch", "rung", "trial_finished"]
_MANY = {"epoch", "rung"}  # of these kinds are most of the events
_STATUS = {
    "trial_started": "running",
    "epoch": "running",
    "rung": "waiting",
    "diverged": "diverged",
    "failed": "failed",
}


@once_per_ledger
def of_kind(events: pl.DataFrame, *kinds: str) -> pl.DataFrame:
    """Return the events of some kinds, in order."""
    few = events if set(kinds) & _MANY else _without_epochs(events)
    return few.filter(pl.col("event").is_in(kinds))


def live(events: pl.DataFrame) -> pl.DataFrame:
    """Return the events without those of a trial before it was forgotten for the last time."""
    return still_true(events, events)


def still_true(found: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Return those of ``found``, some of the events, that were not declared void later."""
    gone = of_kind(events, "forgotten")
    if gone.is_empty():
        return found
    last = gone.group_by("trial_id").agg(pl.col("seq").max().alias("at"))
    joined = found.join(last, on="trial_id", how="left", maintain_order="left")
    return joined.filter((pl.col("seq") > pl.col("at")).fill_null(True)).drop("at")


@once_per_ledger
def finished(events: pl.DataFrame, phases: Sequence[str] = (CONFIRM,)) -> pl.DataFrame:
    """Return the ``trial_finished`` event of each trial of some phases; of several attempts the highest."""
    ended = of_kind(events, "trial_finished").filter(pl.col("phase").is_in(phases))
    return _last_of_each(still_true(ended, events), "trial_id")


@once_per_ledger
def trial_status(
    events: pl.DataFrame, phases: Sequence[str] = (CONFIRM,), max_failures: int | None = None
) -> pl.DataFrame:
    """Return trial_id and status of every trial of some phases that started.

    ``finished``; else as its highest attempt left it: ``diverged``, ``failed``, ``running``, or ``waiting``:
    at a rung, after a failure that does not count or may be tried again, or after ``retried``.

    Args:
        events: of the ledger.
        phases: the phases.
        max_failures: failed attempts that a trial may have; None: any failure counts as one for good.
    """
    done = finished(events, phases).select("trial_id", pl.lit("finished").alias("status"))
    of_phase = pl.col("event").is_in([*_STATUS]) & pl.col("phase").is_in(phases)
    still_open = of_phase & ~pl.col("trial_id").is_in(done["trial_id"].implode())
    columns = ("trial_id", "attempt", "seq", "event", "phase", "payload")
    open_ones = events.select(columns).filter(still_open).drop("phase")
    last = (
        _last_of_each(still_true(open_ones, events), "trial_id")
        .join(_retried(events), on="trial_id", how="left", maintain_order="left")
        .join(_failures(events), on="trial_id", how="left", maintain_order="left")
    )
    if max_failures is None:
        allowed = pl.col("payload").str.json_path_match("$.kind") == FREE_OF_CHARGE
    else:
        allowed = pl.col("failures").fill_null(0) <= max_failures
    free = allowed.fill_null(False) | (pl.col("seq") < pl.col("retried")).fill_null(False)
    status = pl.col("event").replace(_STATUS)
    waits = (pl.col("event") == "failed") & free
    others = last.select("trial_id", pl.when(waits).then(pl.lit("waiting")).otherwise(status).alias("status"))
    return pl.concat([done, others])


@once_per_ledger
def epochs(events: pl.DataFrame) -> pl.DataFrame:
    """Return every epoch that was trained, each of an attempt once.

    Columns: trial_id, attempt, epoch, hours, step, workers (null: as many as planned).
    """
    timed = _epoch_events(events).filter(pl.col("duration_s").is_not_null())
    told = timed.select(
        "trial_id",
        "attempt",
        pl.col("epoch").fill_null(0),
        (pl.col("duration_s") / 3600).alias("hours"),
        "step",
        "workers",
    )
    key = ["trial_id", "attempt", "epoch"]
    once = told.unique(key, keep="first", maintain_order=True)
    if once.height == told.height:  # nearly always, and quicker to find out than to group
        return once
    return told.group_by(key, maintain_order=True).agg(pl.col("hours", "step", "workers").max())


def values(events: pl.DataFrame, metric: str, at: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return a metric of every epoch whose result counts: trial_id, epoch, value; the last attempt's.

    Args:
        events: of the ledger.
        metric: its name.
        at: trial_id and epoch of those that are wanted; None: all.
    """
    return values_of(_last_epochs(events, "metrics", at), metric)


@once_per_ledger
def final_values(events: pl.DataFrame, metric: str, phases: Sequence[str] = BEFORE_CONFIRM) -> pl.DataFrame:
    """Return trial_id, epoch, value: a metric at the end of every finished trial of some phases."""
    return values(events, metric, finished(events, phases).select("trial_id", "epoch"))


def train_seconds(events: pl.DataFrame) -> pl.DataFrame:
    """Return trial_id and value: the seconds of a trial's epochs, each once, the last attempt counting."""
    seconds = _last_epochs(events, "duration_s")
    return seconds.group_by("trial_id", maintain_order=True).agg(pl.col("duration_s").sum().alias("value"))


def other_workers(events: pl.DataFrame) -> pl.DataFrame:
    """Return trial_id and workers, the fewest, of the trials that trained an epoch on other than planned."""
    told = events.select("trial_id", "epoch", "workers").drop_nulls("workers").drop("workers").unique()
    if told.is_empty():
        return told.select("trial_id", pl.lit(None, pl.Int64).alias("workers"))
    found = _last_epochs(events, "workers", told)
    return found.drop_nulls("workers").group_by("trial_id").agg(pl.col("workers").min())


def _last_epochs(events: pl.DataFrame, column: str, at: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return trial_id, epoch and a column of one event per trial and epoch, that of the last attempt.

    ``at``: trial_id and epoch of those that are wanted; None: all.
    """
    found = _epoch_events(events).select("trial_id", "epoch", "attempt", "seq", column)
    if at is not None:
        found = found.filter(pl.col("epoch").is_in(at["epoch"].unique().implode()))  # leaves little to join
        found = found.join(at, on=["trial_id", "epoch"], how="semi", maintain_order="left")
    return _last_of_each(still_true(found, events), "trial_id", "epoch").drop("attempt", "seq")


@once_per_ledger
def _epoch_events(events: pl.DataFrame) -> pl.DataFrame:
    """Return what the events with results say of epochs."""
    columns = ("event", "trial_id", "attempt", "seq", "epoch", "step", "duration_s", "workers", "metrics")
    return events.select(columns).filter(pl.col("event").is_in(_EPOCHS)).drop("event")


@once_per_ledger
def _without_epochs(events: pl.DataFrame) -> pl.DataFrame:
    """Return the events that no trial writes at each epoch: few of them, and looked at often."""
    return events.filter(~pl.col("event").is_in(_MANY))


def _last_of_each(found: pl.DataFrame, *key: str) -> pl.DataFrame:
    """Return the event of the highest attempt for each key, of equal ones the last; in this order."""
    ordered = found.sort(pl.col("attempt").fill_null(0), "seq")
    return ordered.unique(key, keep="last", maintain_order=True)


def _retried(events: pl.DataFrame) -> pl.DataFrame:
    """Return trial_id and retried: the seq of a trial's last ``retried`` event."""
    found = of_kind(events, "retried")
    return found.group_by("trial_id").agg(pl.col("seq").max().alias("retried"))


def _failures(events: pl.DataFrame) -> pl.DataFrame:
    """Return trial_id and failures: how often a trial failed since it was last retried, where that counts."""
    kind = pl.col("payload").str.json_path_match("$.kind")
    counted = of_kind(events, "failed").filter((kind != FREE_OF_CHARGE).fill_null(True))
    since = still_true(counted, events).join(_retried(events), on="trial_id", how="left")
    fresh = since.filter((pl.col("seq") > pl.col("retried")).fill_null(True))
    return fresh.group_by("trial_id").agg(pl.len().alias("failures"))
