"""What the trials of every row cost: steps, hours, and hours of all workers.

The steps of a trial count once, however often an epoch was repeated; its hours are those of all attempts.
Everything is added up in one order, so that equal ledgers give equal files to the last digit.
"""

from __future__ import annotations

import polars as pl

from analysis.claims import ROW, counted_claims, finalist_claims, opened
from analysis.trials import epochs

_SUMS = (pl.col("step").max(), pl.col("hours", "worker_hours").sum())  # of the epochs of one trial


def row_costs(events: pl.DataFrame, searched: pl.DataFrame) -> pl.DataFrame:
    """Return per row what its trials cost, before confirm (finalist runs included) and in confirm.

    Of a trial that an arm stopped early, and another did not, the arm has the epochs up to its rung. A trial
    that serves several arms counts for each.

    Args:
        events: of the ledger.
        searched: the frame of ``results.search_trials``.

    Returns:
        Columns level, arm, steps, search_hours, confirm_steps, confirm_hours, hours (both), worker_hours
        (both, each hour times the workers that trained), confirm_trials (that trained at all).
    """
    forever = pl.lit(None, pl.Int64).alias("rung")
    own = searched.filter(pl.col("same_as").is_null()).select(*ROW, "trial_id", "rung")
    again = finalist_claims(events).select(*ROW, "trial_id", forever)
    confirm = counted_claims(events).select(*ROW, "trial_id", forever)
    trained = epochs(events).with_columns(
        (pl.col("hours") * pl.col("workers").fill_null(opened(events).plan.workers)).alias("worker_hours")
    )
    totals = trained.group_by("trial_id", maintain_order=True).agg(*_SUMS)
    before = _sums([own, again], trained, totals).select(*ROW, "steps", "hours", "worker_hours")
    after = _sums([confirm], trained, totals).rename(
        {"steps": "confirm_steps", "hours": "confirm_hours", "trials": "confirm_trials"}
    )
    both = before.join(after, on=ROW, how="full", coalesce=True, suffix="_confirm")
    spent = ("steps", "hours", "worker_hours", "confirm_steps", "confirm_hours", "confirm_trials")
    zeros = both.with_columns(pl.col(*spent, "worker_hours_confirm").fill_null(0))
    return zeros.select(
        *ROW,
        "steps",
        pl.col("hours").alias("search_hours"),
        "confirm_steps",
        "confirm_hours",
        (pl.col("hours") + pl.col("confirm_hours")).alias("hours"),
        (pl.col("worker_hours") + pl.col("worker_hours_confirm")).alias("worker_hours"),
        "confirm_trials",
    )


def _sums(used: list[pl.DataFrame], trained: pl.DataFrame, totals: pl.DataFrame) -> pl.DataFrame:
    """Return steps, hours, worker_hours and trials of each row, a trial up to where the row stopped it."""
    last = pl.when(pl.col("rung").is_not_null().all()).then(pl.col("rung").max())
    trials = pl.concat(used).group_by(*ROW, "trial_id", maintain_order=True).agg(last.alias("last"))
    whole = trials.filter(pl.col("last").is_null()).drop("last")
    cut = trials.drop_nulls("last").join(trained, on="trial_id", maintain_order="left_right")
    stopped = cut.filter(pl.col("epoch") <= pl.col("last"))
    of_trial = pl.concat(
        [
            whole.join(totals, on="trial_id", maintain_order="left"),
            stopped.group_by(*ROW, "trial_id", maintain_order=True).agg(*_SUMS),
        ]
    )
    return of_trial.group_by(ROW, maintain_order=True).agg(
        pl.col("step").sum().alias("steps"), pl.col("hours", "worker_hours").sum(), pl.len().alias("trials")
    )
