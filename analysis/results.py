"""From events to tidy frames: what the confirm trials gave, and what the search did."""

from __future__ import annotations

import json
from collections.abc import Mapping

import polars as pl

from analysis.claims import (
    PLACE,
    ROW,
    SEARCH,
    Opening,
    counted_claims,
    finalist_claims,
    opened,
    parameters_json,
    planned_proposals,
    winner_counts,
    winners,
)
from analysis.costs import row_costs
from analysis.opened import Study
from analysis.remember import once_per_ledger
from analysis.trials import (
    BEFORE_CONFIRM,
    final_values,
    finished,
    metric_values,
    of_kind,
    other_workers,
    still_true,
    trial_status,
)

STATES = ("finished", "stopped", "diverged", "failed")
"""How a search proposal ends; one that is none of these is a duplicate or still to run."""
NO_WINNER = "without winner"
"""Status of a confirm seed that never runs, because its search gave no winner."""


def confirm_trials(events: pl.DataFrame) -> pl.DataFrame:
    """Return the claimed confirm trials, one row per level, arm and index (confirm seed number).

    Only the claims of ``claims.counted_claims``. Columns: level, arm, index, trial_id, status (finished,
    diverged, failed, running or waiting), repeat (the search whose winner it is of), seed, workers (the
    fewest that trained an epoch; null if always as many as planned).
    """
    status = trial_status(events, max_failures=opened(events).plan.max_failures)
    return (
        counted_claims(events)
        .join(status, on="trial_id", how="left")
        .join(other_workers(events), on="trial_id", how="left")
        .with_columns(pl.col("status").fill_null("waiting"))
        .select(*ROW, "index", "trial_id", "status", "repeat", "seed", "workers")
        .sort(*ROW, "index")
    )


def confirm_metrics(events: pl.DataFrame, trials: pl.DataFrame) -> pl.DataFrame:
    """Return the metrics of the finished confirm trials: level, arm, index, trial_id, metric, value.

    ``trials`` is the frame of ``confirm_trials``. Of several attempts the highest counts. The metrics of a
    trial are in the order in which they are recorded. A value may be NaN, inf or -inf, as recorded.
    """
    found = metric_values(finished(events)).drop("epoch")
    return trials.select(*ROW, "index", "trial_id").join(
        found, on="trial_id", how="inner", maintain_order="left_right"
    )


def confirm_table(study: Study, trials: pl.DataFrame, metrics: pl.DataFrame) -> pl.DataFrame:
    """Return every confirm trial of the plan with its identity: one row per trial and metric.

    Columns: level, arm, index, repeat, seed, trial_id, status, metric, value; trials without results have one
    row without metric. Rows are in plan order.
    """
    plan = pl.DataFrame(
        [(arm.level, arm.arm, place) for place, arm in enumerate(study.arms)],
        schema={"level": pl.String, "arm": pl.String, "place": pl.Int64},
        orient="row",
    )
    found = metrics.select(*ROW, "index", "metric", "value")
    return (
        trials.filter(pl.col("index") < study.seeds)
        .join(plan, on=ROW)
        .join(found, on=[*ROW, "index"], how="left", maintain_order="left_right")
        .sort("place", "index", maintain_order=True)
        .select(*ROW, "index", "repeat", "seed", "trial_id", "status", "metric", "value")
    )


@once_per_ledger
def search_trials(events: pl.DataFrame) -> pl.DataFrame:
    """Return the search proposals of the last plan and what became of them.

    Columns: level, arm, repeat, index, trial_id, parameters, same_as, state (finished, stopped, diverged,
    failed, running, waiting; duplicate for a point that its search has had before), rung (the epoch at which
    it was stopped; null if it was not). A trial that serves two arms may be stopped in one alone.
    """
    opening = opened(events)
    status = trial_status(events, BEFORE_CONFIRM, opening.plan.max_failures)
    duplicate, stopped = pl.col("same_as").is_not_null(), pl.col("rung").is_not_null()
    state = (
        pl.when(duplicate)
        .then(pl.lit("duplicate"))
        .when(stopped & (pl.col("status") != "diverged").fill_null(True))
        .then(pl.lit("stopped"))
        .otherwise(pl.col("status").fill_null("waiting"))
    )
    return (
        planned_proposals(events)
        .join(_stops(events, opening), on=[*PLACE, "trial_id"], how="left", maintain_order="left")
        .join(status, on="trial_id", how="left", maintain_order="left")
        .with_columns(state.alias("state"))
        .with_columns(pl.when(pl.col("state") == "stopped").then("rung").alias("rung"))
        .drop("status")
    )


def search_summary(events: pl.DataFrame, study: Study) -> pl.DataFrame:
    """Return per level and arm what its search did.

    Only the proposals of the last plan and its code count. Columns: level, arm, trials (that ran to the end),
    stopped, diverged, failed, duplicates, runs and lost (finalist runs that finished; that diverged or
    failed), claimed (finalist runs in all), best (the objective of a trial that ran to the end), and what
    ``costs.row_costs`` says: steps (trained before confirm), hours (of training and evaluation, of all
    attempts, confirm included) and their parts. A trial that serves several arms counts for each, in steps
    and hours as far as the arm wanted it.
    """
    rows = pl.DataFrame(
        [(arm.level, arm.arm) for arm in study.arms],
        schema={"level": pl.String, "arm": pl.String},
        orient="row",
    )
    searched = search_trials(events)
    counts = searched.group_by(ROW).agg(
        *((pl.col("state") == state).sum().alias(state) for state in (*STATES, "duplicate"))
    )
    scores = final_values(events, study.objective)
    better = pl.col("value").max() if study.mode == "max" else pl.col("value").min()
    best = (
        searched.filter(pl.col("state") == "finished")
        .join(scores.filter(pl.col("value").is_finite()), on="trial_id")
        .group_by(ROW)
        .agg(better.alias("best"))
    )
    found = rows
    for frame in (counts, best, _finalist_counts(events), row_costs(events, searched)):
        found = found.join(frame, on=ROW, how="left", maintain_order="left")
    counted = [*STATES, "duplicate", "claimed", "runs", "lost", "steps", "confirm_steps", "confirm_trials"]
    return found.with_columns(pl.col(counted).fill_null(0)).rename(
        {"finished": "trials", "duplicate": "duplicates"}
    )


def winner_table(events: pl.DataFrame, study: Study) -> pl.DataFrame:
    """Return the winners that count, in plan order.

    Columns: level, arm, repeat, index, trial_id, value (the objective), parameters (JSON).
    """
    opening, found = opened(events), winners(events)
    rows = []
    for arm in study.arms:
        for repeat in range(opening.searches(arm.level, arm.arm) or 0):
            winner = found.get((arm.level, arm.arm, repeat))
            if winner is not None and winner.counts and opening.own_trials(arm.level, arm.arm):
                at = (arm.level, arm.arm, repeat, winner.index, winner.trial_id, winner.score)
                rows.append((*at, parameters_json(winner.parameters)))
    schema = {
        "level": pl.String,
        "arm": pl.String,
        "repeat": pl.Int64,
        "index": pl.Int64,
        "trial_id": pl.String,
        "value": pl.Float64,
        "parameters": pl.String,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def rows_with_winner(events: pl.DataFrame) -> set[tuple[str, str]]:
    """Return (level, arm) of the rows all of whose searches have a winner of the last plan."""
    return {row for row, (found, needed) in winner_counts(events).items() if found == needed}


def searches_without_winner(events: pl.DataFrame, study: Study) -> dict[tuple[str, str], dict[int, str]]:
    """Return for each row the searches that are over and gave no winner, with the reason."""
    opening, chosen = opened(events), winners(events)
    ended = {*STATES, "duplicate"} - ({"failed"} if opening.plan.max_failures is None else set())
    scores = _final_scores(events, study)
    states: dict[tuple[str, str, int], list[tuple[str, str]]] = {}
    for *at, trial, state in search_trials(events).select(*SEARCH, "trial_id", "state").iter_rows():
        states.setdefault((at[0], at[1], at[2]), []).append((trial, state))
    lost: dict[tuple[str, str], dict[int, str]] = {}
    for (level, arm, repeat), trials in states.items():
        winner = chosen.get((level, arm, repeat))
        over = len(trials) == opening.own_trials(level, arm) and all(state in ended for _, state in trials)
        if not over or (winner is not None and winner.counts):
            continue
        if not any(state == "finished" and trial in scores for trial, state in trials):
            lost.setdefault((level, arm), {})[repeat] = "no search trial ran to the end with a score"
        elif _all_finalists_lost(events, (level, arm, repeat), scores, ended):
            lost.setdefault((level, arm), {})[repeat] = "every finalist lost a run"
    return {row: lost[searcher] for row in opening.rows if (searcher := opening.searcher(*row)) in lost}


def seeds_without_winner(
    study: Study, lost: Mapping[tuple[str, str], Mapping[int, str]], trials: pl.DataFrame
) -> pl.DataFrame:
    """Return the frame of ``confirm_trials`` with the seeds that never run, their status ``NO_WINNER``."""
    if not lost:
        return trials
    known = set(trials.select(*ROW, "index").iter_rows())
    rows = [
        (arm.level, arm.arm, seed, None, NO_WINNER, seed % study.searches_of(arm), None, None)
        for arm in study.arms
        for seed in range(study.seeds)
        if seed % study.searches_of(arm) in lost.get((arm.level, arm.arm), ())
        and (arm.level, arm.arm, seed) not in known
    ]
    return pl.concat([trials, pl.DataFrame(rows, schema=trials.schema, orient="row")])


def trials_left_out(events: pl.DataFrame, trials: pl.DataFrame, study: Study) -> int:
    """Return the number of finished confirm trials that no row of the last plan counts as its own.

    ``trials`` is the frame of ``confirm_trials``.
    """
    planned = {(arm.level, arm.arm) for arm in study.arms}
    used = {
        trial
        for level, arm, index, trial in trials.select(*ROW, "index", "trial_id").iter_rows()
        if (level, arm) in planned and index < study.seeds
    }
    return len(set(finished(events)["trial_id"]) - used)


def code_versions(events: pl.DataFrame, trials: pl.DataFrame) -> list[str]:
    """Return the digests of the training code that was current when the trials of the table finished."""
    openings = of_kind(events, "study_opened").select("seq", "payload")
    digests = [
        (json.loads(text or "{}").get("code") or {}).get("digest") or "" for text in openings["payload"]
    ]
    starts = openings.select("seq").with_columns(pl.Series("digest", digests, dtype=pl.String))
    ended = finished(events).join(trials.select("trial_id").unique(), on="trial_id").sort("seq")
    found = ended.join_asof(starts.sort("seq"), on="seq", strategy="backward")["digest"].drop_nulls()
    return [digest for digest in found.unique(maintain_order=True) if digest]


def _stops(events: pl.DataFrame, opening: Opening) -> pl.DataFrame:
    """Return the proposals that were stopped early: columns of a place, trial_id, rung.

    A verdict of a scheduler or rung that the last plan no longer has does not count: the trial runs on.
    """
    plan = opening.plan
    verdicts = still_true(of_kind(events, "stopped"), events)
    if plan.rungs is not None:
        verdicts = verdicts.filter(pl.col("epoch").is_in(plan.rungs))
    elif plan.scheduler == "none" and "scheduler" in (opening.payload.get("plan") or {}):
        verdicts = verdicts.clear()
    return (
        verdicts.with_columns(pl.col("repeat").fill_null(0))
        .group_by(*PLACE, "trial_id")
        .agg(pl.col("epoch").min().alias("rung"))
    )


def _final_scores(events: pl.DataFrame, study: Study) -> set[str]:
    """Return the trials before confirm that ended with a finite objective."""
    found = final_values(events, study.objective)
    return set(found.filter(pl.col("value").is_finite())["trial_id"])


def _all_finalists_lost(
    events: pl.DataFrame, search: tuple[str, str, int], scores: set[str], ended: set[str]
) -> bool:
    """Return whether all finalist runs of a search have ended and each finalist lost one."""
    level, arm, repeat = search
    claims = finalist_claims(events).filter(level=level, arm=arm, repeat=repeat)
    status = trial_status(events, BEFORE_CONFIRM, opened(events).plan.max_failures)
    runs = claims.join(status, on="trial_id", how="left").select("proposal", "trial_id", "status")
    lost = {proposal for proposal, trial, _ in runs.iter_rows() if trial not in scores}
    return (
        claims.height > 0
        and all(state in ended for *_, state in runs.iter_rows())
        and lost == set(claims["proposal"])
    )


def _finalist_counts(events: pl.DataFrame) -> pl.DataFrame:
    """Return level, arm, claimed, runs (finished) and lost (diverged or failed) of the finalist runs."""
    status = trial_status(events, BEFORE_CONFIRM, opened(events).plan.max_failures)
    claims = finalist_claims(events).join(status, on="trial_id", how="left")
    return claims.group_by(ROW).agg(
        pl.len().alias("claimed"),
        (pl.col("status") == "finished").sum().alias("runs"),
        pl.col("status").is_in(["diverged", "failed"]).sum().alias("lost"),
    )
