"""Whether arms reach what others reach with the same settings, as soon as their confirm seeds are done."""

from __future__ import annotations

import math
from statistics import fmean

from sarx.search.engine import Engine
from sarx.search.state import FINISHED
from sarx.study.design import Arm

TOLERANCE = 0.01
"""A point: how far below others an arm may stay. ``analysis.orientation`` says the same in the report."""


def shortfalls(engine: Engine) -> dict[str, str]:
    """Return a warning by arm for those with ``report.orientation`` that stay too far below it.

    Arms whose confirm trials are not all over, or of which none finished, are left out.
    """
    found = {}
    sign = 1.0 if engine.study.objective.mode == "max" else -1.0
    for arm in engine.arms:
        wanted = engine.study.report.orientation.get(arm.name)
        if wanted is None:
            continue
        mean = _mean(engine, arm)
        if sign * (wanted - mean) > TOLERANCE:
            found[arm.key] = (
                f"warning: {arm.key} reaches {engine.study.report.primary} {mean:.4f}, more than a point "
                f"short of the {wanted:.4f} that others reach with these settings; look at the training "
                "before more is spent. Ctrl-C stops safely"
            )
    return found


def _mean(engine: Engine, arm: Arm) -> float:
    """Return the mean of the primary metric over an arm's confirm trials; NaN before all are over."""
    seats = engine.confirm[arm.key]
    searching = any(
        search.arm.key == arm.key and key not in engine.winners for key, search in engine.searches.items()
    )
    if searching or not seats or not all(seat.settled for seat in seats):
        return math.nan
    records = [engine.record(seat.claim) for seat in seats]
    values = [
        record.goals.metric(record.epoch, engine.study.report.primary)
        for record in records
        if record.status == FINISHED
    ]
    return fmean(values) if values else math.nan
