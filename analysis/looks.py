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
        trials: frame of ``results.confirm_trials``.
    """
    if not study.planned_looks:
        return study
    ended = trials.filter(pl.col("status").is_in(ENDED))
    places = set(ended.select("level", "arm", "index").iter_rows())
    rows = [(arm.level, arm.arm) for arm in study.arms]
    reached = [
        look
        for look in study.planned_looks
        if all((*row, index) in places for row in rows for index in range(look))
    ]
    return replace(study, seeds=min(study.seeds, max(reached, default=study.planned_looks[0])))


def said_of_looks(study: Study, planned: int) -> list[str]:
    """Return a sentence for the caption where looks were planned.

    Args:
        study: what ``at_look`` returned.
        planned: seeds of the plan.
    """
    if not study.planned_looks:
        return []
    count, number = len(study.planned_looks), study.planned_looks.index(study.seeds) + 1
    steps = ", ".join(map(str, study.planned_looks))
    more = f"; {planned - study.seeds} more are planned" if planned > study.seeds else ""
    return [f"Look {number} of {count} that were planned (after {steps} seeds): {study.seeds} seeds{more}."]
