"""From events to tidy frames: what the confirm trials gave, and what the search did."""

from __future__ import annotations

import json

import polars as pl

from analysis.opened import Study
from sarx.study.ledger_schema import CONFIRM, SEARCH

_ROW = ["level", "arm"]
_ENDS = {"diverged": "diverged", "failed": "failed", "trial_started": "running"}


def confirm_trials(events: pl.DataFrame) -> pl.DataFrame:
    """Return the claimed confirm trials, one row per level, arm and index (confirm seed number).

    Only claims made while the arm's last winner was the winner count, and of those the last per index.
    Columns: level, arm, index, trial_id, status (finished, diverged, failed, running or waiting).
    """
    claims = _claims_of_winner(events)
    status = _trial_status(events)
    return (
        claims.join(status, on="trial_id", how="left")
        .with_columns(pl.col("status").fill_null("waiting"))
        .select(*_ROW, "index", "trial_id", "status")
        .sort(*_ROW, "index")
    )


def confirm_metrics(events: pl.DataFrame, trials: pl.DataFrame) -> pl.DataFrame:
    """Return the metrics of the finished confirm trials: level, arm, index, trial_id, metric, value.

    ``trials`` is the frame of ``confirm_trials``. Of several attempts the highest counts. A value may be
    NaN, inf or -inf, as recorded.
    """
    nonfinite = pl.struct("value", "nonfinite")
    values = (
        _finished(events, CONFIRM)
        .select("trial_id", "metrics")
        .explode("metrics")
        .unnest("metrics")
        .select(
            "trial_id",
            pl.col("name").alias("metric"),
            pl.coalesce(
                nonfinite.struct.field("value"), nonfinite.struct.field("nonfinite").cast(pl.Float64)
            ).alias("value"),
        )
        .drop_nulls("metric")
    )
    return trials.select(*_ROW, "index", "trial_id").join(values, on="trial_id", how="inner")


def search_summary(events: pl.DataFrame, study: Study) -> pl.DataFrame:
    """Return per level and arm what its search did.

    Columns: level, arm, trials (finished), hours (of training and evaluation, confirm included), best (the
    objective at the end of a finished trial). A trial that serves several arms counts for each.
    """
    proposed = events.filter(pl.col("event") == "proposed").select(*_ROW, "trial_id").unique()
    best = pl.col("value").max() if study.mode == "max" else pl.col("value").min()
    finished = _finished(events, SEARCH).select("trial_id", "metrics").explode("metrics").unnest("metrics")
    objective = finished.filter(pl.col("name") == study.objective).select("trial_id", "value")
    trials = (
        proposed.join(_finished(events, SEARCH).select("trial_id"), on="trial_id")
        .join(objective, on="trial_id", how="left")
        .group_by(_ROW)
        .agg(pl.len().alias("trials"), best.alias("best"))
    )
    used = pl.concat([proposed, _claims_of_winner(events).select(*_ROW, "trial_id")]).unique()
    hours = used.join(_trial_hours(events), on="trial_id").group_by(_ROW).agg(pl.col("hours").sum())
    rows = pl.DataFrame({"level": [arm.level for arm in study.arms], "arm": [arm.arm for arm in study.arms]})
    return (
        rows.join(trials, on=_ROW, how="left", maintain_order="left")
        .join(hours, on=_ROW, how="left", maintain_order="left")
        .with_columns(pl.col("trials").fill_null(0))
    )


def rows_with_winner(events: pl.DataFrame) -> set[tuple[str, str]]:
    """Return (level, arm) of the rows whose winner has been selected, or which claimed trials without one."""
    chosen = (pl.col("event") == "selected") | ((pl.col("event") == "claimed") & (pl.col("phase") == CONFIRM))
    return set(events.filter(chosen).select(*_ROW).iter_rows())


def code_versions(events: pl.DataFrame, trials: pl.DataFrame) -> list[str]:
    """Return the digests of the training code that was current when the trials of the table finished."""
    opened = events.filter(pl.col("event") == "study_opened").select("seq", "payload")
    digests = [(json.loads(text or "{}").get("code") or {}).get("digest") or "" for text in opened["payload"]]
    starts = opened.select("seq").with_columns(pl.Series("digest", digests, dtype=pl.String))
    finished = _finished(events, CONFIRM).join(trials.select("trial_id").unique(), on="trial_id").sort("seq")
    found = finished.join_asof(starts.sort("seq"), on="seq", strategy="backward")["digest"].drop_nulls()
    return [digest for digest in found.unique(maintain_order=True) if digest]


def _claims_of_winner(events: pl.DataFrame) -> pl.DataFrame:
    """Return the claims that count: those of the row's last winner, the last one per index.

    A claim is the last winner's if it was made while that one was the winner, or has its parameters: a new
    winner with the parameters of the one before (the same proposal under other search settings) keeps the
    confirm trials, so the driver claims nothing again. Rows without any ``selected`` event keep all claims.
    """
    parameters = pl.col("parameters").list.eval(
        pl.format("{}={}", pl.element().struct.field("name"), pl.element().struct.field("value"))
    )
    text = parameters.list.sort().list.join("\n")
    selected = events.filter(pl.col("event") == "selected").select(
        "seq", *_ROW, pl.col("trial_id").alias("winner"), text.alias("winner_text")
    )
    claims = events.filter((pl.col("event") == "claimed") & (pl.col("phase") == CONFIRM))
    last = (
        selected.sort("seq")
        .unique(_ROW, keep="last")
        .select(*_ROW, pl.col("winner").alias("last_winner"), pl.col("winner_text").alias("last_text"))
    )
    made_under = pl.col("winner").eq_missing(pl.col("last_winner"))
    same_parameters = (pl.col("text") == pl.col("last_text")).fill_null(False)
    return (
        claims.select("seq", *_ROW, "index", "trial_id", text.alias("text"))
        .sort("seq")
        .join_asof(
            selected.drop("winner_text").sort("seq"),
            on="seq",
            by=_ROW,
            strategy="backward",
            check_sortedness=False,
        )
        .join(last, on=_ROW, how="left", maintain_order="left")
        .filter(made_under | same_parameters)
        .sort("seq")
        .unique([*_ROW, "index"], keep="last")
    )


def _finished(events: pl.DataFrame, phase: str) -> pl.DataFrame:
    """Return the ``trial_finished`` event of each trial of a phase; of several attempts the highest."""
    return (
        events.filter((pl.col("event") == "trial_finished") & (pl.col("phase") == phase))
        .sort(pl.col("attempt").fill_null(0), "seq")
        .unique("trial_id", keep="last", maintain_order=True)
    )


def _trial_status(events: pl.DataFrame) -> pl.DataFrame:
    """Return trial_id and status of every confirm trial that started: finished, else its latest."""
    done = _finished(events, CONFIRM).select("trial_id", pl.lit("finished").alias("status"))
    others = (
        events.filter(pl.col("event").is_in(list(_ENDS)) & (pl.col("phase") == CONFIRM))
        .sort(pl.col("attempt").fill_null(0), "seq")
        .unique("trial_id", keep="last", maintain_order=True)
        .select("trial_id", pl.col("event").replace(_ENDS).alias("status"))
        .join(done, on="trial_id", how="anti")
    )
    return pl.concat([done, others])


def _trial_hours(events: pl.DataFrame) -> pl.DataFrame:
    """Return trial_id and hours: the epochs of all attempts, each epoch of an attempt once."""
    timed = events.filter(
        pl.col("event").is_in(["epoch", "trial_finished"]) & pl.col("duration_s").is_not_null()
    )
    once = timed.group_by("trial_id", "attempt", "epoch").agg(pl.col("duration_s").max())
    return once.group_by("trial_id").agg((pl.col("duration_s").sum() / 3600).alias("hours"))
