"""Search with several goals: the trials that no other trial beats. N trials, G goals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.claims import parameters_json, unpacked
from analysis.opened import Study
from analysis.results import search_trials
from analysis.search_plan import COST
from analysis.statistics import Array
from analysis.trials import BEFORE_CONFIRM, finished, train_seconds, values


def pareto_front(values_NG: Array, modes: Sequence[str]) -> NDArray[np.bool_]:
    """Return which trials are on the front (N,): no other is as good in every goal and better in one.

    Equal trials are on it together. A trial with a value that is not finite is not on it and beats nobody.

    Args:
        values_NG: the goals of every trial, in the user's units.
        modes: ``max`` or ``min`` per goal.
    """
    signs = np.array([-1.0 if mode == "max" else 1.0 for mode in modes])
    losses = np.asarray(values_NG, dtype=np.float64) * signs
    front = np.isfinite(losses).all(axis=1)
    for trial in np.flatnonzero(front):
        others = losses[front]  # what is beaten by a trial off the front is beaten by one on it
        as_good = (others <= losses[trial]).all(axis=1)
        front[trial] = not (as_good & (others < losses[trial]).any(axis=1)).any()
    return np.asarray(front, dtype=np.bool_)


def trade_offs(events: pl.DataFrame, study: Study) -> pl.DataFrame:
    """Return the search trials that no other of their level beats: one row per arm and trial, in plan order.

    Candidates ran to the end and have all goals, at their last epoch. ``time/train_s`` is the summed duration
    of a trial's epochs. Columns: level, arm, trial_id, one per goal, parameters (JSON). Within an arm the
    best in the first goal comes first.
    """
    names = [goal.metric for goal in study.goals]
    plan = pl.DataFrame(
        [(arm.level, arm.arm, place) for place, arm in enumerate(study.arms)],
        schema={"level": pl.String, "arm": pl.String, "place": pl.Int64},
        orient="row",
    )
    found = search_trials(events).filter(pl.col("state") == "finished").join(plan, on=["level", "arm"])
    ends = finished(events, BEFORE_CONFIRM).select("trial_id", "epoch")
    for name in names:
        of_goal = train_seconds(events) if name == COST else values(events, name, ends).drop("epoch")
        found = found.join(of_goal.rename({"value": name}), on="trial_id", maintain_order="left")
    downwards = study.goals[0].mode == "max"
    found = found.sort("place", names[0], "repeat", "index", descending=[False, downwards, False, False])
    on_front = [
        of_level.filter(
            pl.Series(pareto_front(of_level.select(names).to_numpy(), [goal.mode for goal in study.goals]))
        )
        for of_level in found.partition_by("level", maintain_order=True)
    ]
    kept = pl.concat(on_front) if on_front else found
    parameters = [parameters_json(unpacked(stored)) for stored in kept["parameters"].to_list()]
    return kept.select("level", "arm", "trial_id", *names).with_columns(
        pl.Series("parameters", parameters, dtype=pl.String)
    )
