"""From events to tidy frames: what the confirm trials gave, and what the search did."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from analysis.opened import Study
from sarx.study.ledger_schema import CONFIRM, SEARCH

_ROW = ["level", "arm"]
_PARAMETERS = (  # of a claim or a winner, as one text
    pl.col("parameters")
    .list.eval(pl.format("{}={}", pl.element().struct.field("name"), pl.element().struct.field("value")))
    .list.sort()
    .list.join("\n")
)
_ENDS = {"diverged": "diverged", "failed": "failed", "trial_started": "running"}


def confirm_trials(events: pl.DataFrame) -> pl.DataFrame:
    """Return the claimed confirm trials, one row per level, arm and index (confirm seed number).

    Only claims of the last plan and its code count, made while the arm's last winner was the winner, and of
    those the last per index.
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

    Only the proposals of the last plan and its code count. Columns: level, arm, trials (finished), hours (of
    training and evaluation, confirm included), best (the objective at the end of a finished trial). A trial
    that serves several arms counts for each.
    """
    rows = pl.DataFrame(
        {
            "level": [arm.level for arm in study.arms],
            "arm": [arm.arm for arm in study.arms],
            "planned": [study.trials_of(arm) for arm in study.arms],
        }
    )
    within = _proposals(events).join(rows, on=_ROW).filter(pl.col("index") < pl.col("planned"))
    proposed = within.select(*_ROW, "trial_id").unique()
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
    return (
        rows.drop("planned")
        .join(trials, on=_ROW, how="left", maintain_order="left")
        .join(hours, on=_ROW, how="left", maintain_order="left")
        .with_columns(pl.col("trials").fill_null(0))
    )


def rows_with_winner(events: pl.DataFrame) -> set[tuple[str, str]]:
    """Return (level, arm) of the rows whose winner is one of the last plan, or which never had to choose."""
    chosen = set(_last_winners(events).filter(pl.col("is_proposed")).select(*_ROW).iter_rows())
    return chosen | set(_claims_of_winner(events).select(*_ROW).iter_rows())


def trials_left_out(events: pl.DataFrame, trials: pl.DataFrame, study: Study) -> int:
    """Return the number of finished confirm trials that no row of the last plan counts as its own.

    ``trials`` is the frame of ``confirm_trials``.
    """
    planned = {(arm.level, arm.arm) for arm in study.arms}
    used = {
        trial
        for level, arm, index, trial in trials.select(*_ROW, "index", "trial_id").iter_rows()
        if (level, arm) in planned and index < study.seeds
    }
    return len(set(_finished(events, CONFIRM)["trial_id"]) - used)


def code_versions(events: pl.DataFrame, trials: pl.DataFrame) -> list[str]:
    """Return the digests of the training code that was current when the trials of the table finished."""
    opened = events.filter(pl.col("event") == "study_opened").select("seq", "payload")
    digests = [(json.loads(text or "{}").get("code") or {}).get("digest") or "" for text in opened["payload"]]
    starts = opened.select("seq").with_columns(pl.Series("digest", digests, dtype=pl.String))
    finished = _finished(events, CONFIRM).join(trials.select("trial_id").unique(), on="trial_id").sort("seq")
    found = finished.join_asof(starts.sort("seq"), on="seq", strategy="backward")["digest"].drop_nulls()
    return [digest for digest in found.unique(maintain_order=True) if digest]


def _last_opening(events: pl.DataFrame) -> dict[str, Any]:
    """Return the payload of the last ``study_opened``; empty without any."""
    opened = events.filter(pl.col("event") == "study_opened")["payload"]
    return dict(json.loads(opened[-1] or "{}")) if len(opened) else {}


def _of_last_code(found: pl.DataFrame, opening: dict[str, Any]) -> pl.DataFrame:
    """Keep the proposals or claims of the last start's code; where one of the two is not known, all."""
    digest = (opening.get("code") or {}).get("digest")
    code = pl.col("payload").str.json_path_match("$.code")
    return found.filter((code == digest).fill_null(True) | (code == "")) if digest else found


def _of_last_seeds(claims: pl.DataFrame, opening: dict[str, Any]) -> pl.DataFrame:
    """Keep the claims on the seeds of the last start, so that pairs have equal seeds; all if not known."""
    seeds = opening.get("confirm_seeds") or []
    planned = pl.DataFrame(
        {"index": range(len(seeds)), "planned": seeds}, schema={"index": pl.Int64, "planned": pl.Int64}
    )
    joined = claims.join(planned, on="index", how="left", maintain_order="left")
    return joined.filter((pl.col("seed") == pl.col("planned")).fill_null(True)).drop("planned")


def _proposals(events: pl.DataFrame) -> pl.DataFrame:
    """Return the proposals that count: of the last code, the last one per level, arm and index."""
    proposed = _of_last_code(events.filter(pl.col("event") == "proposed"), _last_opening(events))
    return proposed.sort("seq").unique([*_ROW, "index"], keep="last").select(*_ROW, "index", "trial_id")


def _winners(events: pl.DataFrame) -> pl.DataFrame:
    """Return every choice of a winner: seq, level, arm, winner (its trial), winner_text (its parameters)."""
    selected = events.filter(pl.col("event") == "selected").sort("seq")
    return selected.select("seq", *_ROW, pl.col("trial_id").alias("winner"), _PARAMETERS.alias("winner_text"))


def _last_winners(events: pl.DataFrame) -> pl.DataFrame:
    """Return the last winner of each row: level, arm, last_winner, last_text, is_proposed.

    ``is_proposed``: it is among the proposals that count, or the row has no proposals at all. Otherwise the
    search runs anew, on another base or with other code, and the winner is of the plan before.
    """
    last = (
        _winners(events)
        .unique(_ROW, keep="last", maintain_order=True)
        .select(*_ROW, pl.col("winner").alias("last_winner"), pl.col("winner_text").alias("last_text"))
    )
    searched = set(events.filter(pl.col("event") == "proposed").select(*_ROW).iter_rows())
    counted = set(_proposals(events).select(*_ROW, "trial_id").iter_rows())
    is_proposed = [
        (level, arm) not in searched or (level, arm, winner) in counted
        for level, arm, winner in last.select(*_ROW, "last_winner").iter_rows()
    ]
    return last.with_columns(pl.Series("is_proposed", is_proposed, dtype=pl.Boolean))


def _claims_of_winner(events: pl.DataFrame) -> pl.DataFrame:
    """Return the claims that count: on the last plan's seeds and code, of the row's winner, last per index.

    A claim is the last winner's if it was made while that one was the winner, or has its parameters: a new
    winner with the parameters of the one before (the same proposal under other search settings) keeps the
    confirm trials, so the driver claims nothing again. Rows without any ``selected`` event keep all claims;
    rows whose winner is not of the last plan have none.
    """
    opening = _last_opening(events)
    claims = events.filter((pl.col("event") == "claimed") & (pl.col("phase") == CONFIRM))
    claims = _of_last_seeds(_of_last_code(claims, opening), opening)
    made_under = pl.col("winner").eq_missing(pl.col("last_winner"))
    same_parameters = (pl.col("text") == pl.col("last_text")).fill_null(False)
    return (
        claims.select("seq", *_ROW, "index", "trial_id", _PARAMETERS.alias("text"))
        .sort("seq")
        .join_asof(
            _winners(events).drop("winner_text"),
            on="seq",
            by=_ROW,
            strategy="backward",
            check_sortedness=False,
        )
        .join(_last_winners(events), on=_ROW, how="left", maintain_order="left")
        .filter((made_under | same_parameters) & pl.col("is_proposed").fill_null(True))
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
