"""What the events of a trial say: how it ended, what it gave at each epoch, how long it took.

Results before a trial's last ``forgotten`` event do not count; the time that they took does.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from sarx.study.ledger_schema import CONFIRM, FINALIST, SEARCH

BEFORE_CONFIRM = (SEARCH, FINALIST)
FREE_OF_CHARGE = "preempted"  # a failure that does not count against max_failures
_EPOCHS = ["epoch", "rung", "trial_finished"]
_STATUS = {
    "trial_started": "running",
    "epoch": "running",
    "rung": "waiting",
    "diverged": "diverged",
    "failed": "failed",
}


def live(events: pl.DataFrame) -> pl.DataFrame:
    """Return the events without those of a trial before it was forgotten for the last time."""
    gone = (
        events.filter(pl.col("event") == "forgotten")
        .group_by("trial_id")
        .agg(pl.col("seq").max().alias("at"))
    )
    if gone.is_empty():
        return events
    joined = events.join(gone, on="trial_id", how="left", maintain_order="left")
    return joined.filter((pl.col("seq") > pl.col("at")).fill_null(True)).drop("at")


def finished(events: pl.DataFrame, phases: Sequence[str] = (CONFIRM,)) -> pl.DataFrame:
    """Return the ``trial_finished`` event of each trial of some phases; of several attempts the highest."""
    return (
        live(events)
        .filter((pl.col("event") == "trial_finished") & pl.col("phase").is_in(phases))
        .sort(pl.col("attempt").fill_null(0), "seq")
        .unique("trial_id", keep="last", maintain_order=True)
    )


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
    of_phase = live(events).filter(pl.col("event").is_in([*_STATUS]) & pl.col("phase").is_in(phases))
    last = (
        of_phase.sort(pl.col("attempt").fill_null(0), "seq")
        .unique("trial_id", keep="last", maintain_order=True)
        .join(done, on="trial_id", how="anti")
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


def epochs(events: pl.DataFrame) -> pl.DataFrame:
    """Return every epoch that was trained, each of an attempt once.

    Columns: trial_id, attempt, epoch, hours, step, workers (null: as many as planned).
    """
    timed = events.filter(pl.col("event").is_in(_EPOCHS) & pl.col("duration_s").is_not_null())
    return timed.group_by("trial_id", "attempt", pl.col("epoch").fill_null(0)).agg(
        (pl.col("duration_s").max() / 3600).alias("hours"), pl.col("step", "workers").max()
    )


def values(events: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Return a metric of every epoch whose result counts: trial_id, epoch, value; the last attempt's."""
    return metric_values(_last_epochs(events)).filter(pl.col("metric") == metric).drop("metric")


def train_seconds(events: pl.DataFrame) -> pl.DataFrame:
    """Return trial_id and value: the seconds of a trial's epochs, each once, the last attempt counting."""
    return _last_epochs(events).group_by("trial_id").agg(pl.col("duration_s").sum().alias("value"))


def metric_values(found: pl.DataFrame) -> pl.DataFrame:
    """Return the metrics of events: trial_id, epoch, metric, value, which may be NaN, inf or -inf."""
    return (
        found.select("trial_id", "epoch", "metrics")
        .explode("metrics")
        .unnest("metrics")
        .select(
            "trial_id",
            "epoch",
            pl.col("name").alias("metric"),
            pl.coalesce("value", pl.col("nonfinite").cast(pl.Float64)).alias("value"),
        )
        .drop_nulls("metric")
    )


def other_workers(events: pl.DataFrame) -> pl.DataFrame:
    """Return trial_id and workers, the fewest, of the trials that trained an epoch on other than planned."""
    found = _last_epochs(events).filter(pl.col("workers").is_not_null())
    return found.group_by("trial_id").agg(pl.col("workers").min())


def _last_epochs(events: pl.DataFrame) -> pl.DataFrame:
    """Return one event per trial and epoch, that of the last attempt."""
    return (
        live(events)
        .filter(pl.col("event").is_in(_EPOCHS))
        .sort(pl.col("attempt").fill_null(0), "seq")
        .unique(["trial_id", "epoch"], keep="last", maintain_order=True)
    )


def _retried(events: pl.DataFrame) -> pl.DataFrame:
    """Return trial_id and retried: the seq of a trial's last ``retried`` event."""
    found = events.filter(pl.col("event") == "retried")
    return found.group_by("trial_id").agg(pl.col("seq").max().alias("retried"))


def _failures(events: pl.DataFrame) -> pl.DataFrame:
    """Return trial_id and failures: how often a trial failed since it was last retried, where that counts."""
    kind = pl.col("payload").str.json_path_match("$.kind")
    counted = live(events).filter((pl.col("event") == "failed") & (kind != FREE_OF_CHARGE).fill_null(True))
    since = counted.join(_retried(events), on="trial_id", how="left")
    fresh = since.filter((pl.col("seq") > pl.col("retried")).fill_null(True))
    return fresh.group_by("trial_id").agg(pl.len().alias("failures"))
