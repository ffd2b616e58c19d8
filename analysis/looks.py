"""Looks at the results that were planned: what may be shown now (protocol 11)."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from analysis.comparison import LOST
from analysis.opened import Study

ENDED = ("finished", *LOST)


def at_look(study: Study, trials: pl.DataFrame) -> Study:
    """Return the study with the seeds of the planned look that all arms have reached, or are on their way to.

    Seeds beyond it exist already where arms are not equally far; they do not count before the next look, so
    that results are seen as often as was said.

    Args:
        study: the plan.
        trials: frame of ``results.confirm_trials``, with the seeds that never run.
    """
    if not study.planned_looks:
        return study
    reached = _reached(study, trials)
    seeds = max(reached, default=study.planned_looks[0])
    return replace(study, seeds=min(study.seeds, seeds), untested=not reached)


def _reached(study: Study, trials: pl.DataFrame) -> list[int]:
    """Return the planned looks whose seeds have ended in all arms."""
    ended = trials.filter(pl.col("status").is_in(ENDED))
    places = set(ended.select("level", "arm", "index").iter_rows())
    rows = [(arm.level, arm.arm) for arm in study.arms]
    return [
        look
        for look in study.planned_looks
        if all((*row, index) in places for row in rows for index in range(look))
    ]


def said_of_looks(study: Study, trials: pl.DataFrame) -> list[str]:
    """Return a sentence for the caption where looks were planned.

    Args:
        study: what ``at_look`` returned.
        trials: as there.
    """
    if not study.planned_looks:
        return []
    count, steps = len(study.planned_looks), ", ".join(map(str, study.planned_looks))
    if study.seeds not in _reached(study, trials):
        return [
            f"No look is due yet: {count} were planned (after {steps} seeds), and the seeds of the first are "
            "not done in all arms. Nothing is tested before."
        ]
    number, later = study.planned_looks.index(study.seeds) + 1, study.planned_seeds - study.seeds
    waiting = trials.filter(
        (pl.col("index") >= study.seeds)
        & (pl.col("index") < study.planned_seeds)
        & (pl.col("status") == "finished")
    ).height
    held = f", {waiting} of their trials are finished and held back until then" if waiting else ""
    more = f"; {later} more are planned{held}" if later > 0 else ""
    return [f"Look {number} of {count} that were planned (after {steps} seeds): {study.seeds} seeds{more}."]
