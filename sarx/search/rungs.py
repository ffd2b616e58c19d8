"""Rungs: the epochs at which search trials are judged, and who goes on. Pure functions.

Values are such that higher is better; a trial without a value (failed, diverged) has ``-inf``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from sarx.study.search_options import Scheduler

LAST_SHARE = 0.9
"""No rung stands in the last tenth of training: stopping there saves nothing."""


def rung_epochs(scheduler: Scheduler, epochs: int) -> tuple[int, ...]:
    """Return the epochs at which a scheduler judges trials of a full length, ascending.

    The first is ``min_fraction`` of training, each further one ``reduction_factor`` times the one before.
    """
    if scheduler.name == "none":
        return ()
    found: list[int] = []
    epoch = max(1, math.ceil(scheduler.min_fraction * epochs - 1e-9))
    while epoch < epochs and (not found or epoch <= LAST_SHARE * epochs):
        found.append(epoch)
        epoch *= scheduler.reduction_factor
    return tuple(found)


def survivors(values: Sequence[float], factor: int) -> set[int]:
    """Return the positions of a batch that go on: the best ``max(1, floor(n / factor))``.

    Ties go to the earlier position. Trials that failed (``-inf``) count in n, but never go on.
    """
    kept = max(1, len(values) // factor)
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    return {i for i in order[:kept] if values[i] > -math.inf}


def in_top_share(value: float, others: Sequence[float], factor: int) -> bool:
    """Return whether a value is among the best ``1 / factor`` of those seen at its rung (ASHA).

    Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, in the form that
    stops instead of pausing. Of fewer values than ``factor`` the best so far goes on,
    the first one always.
    """
    seen = sorted([*others, value], reverse=True)
    kept = max(1, len(seen) // factor)
    return value > -math.inf and value >= seen[kept - 1]


def above_median(value: float, others: Sequence[float], min_trials: int) -> bool:
    """Return whether a value reaches the median of the others at its rung; true while these are few.

    Source: the median stopping rule of Golovin et al., "Google Vizier", KDD 2017, on the value at the rung
    instead of the running mean.
    """
    finite = [other for other in others if other > -math.inf]
    if value == -math.inf:
        return False
    return len(finite) < min_trials or value >= statistics.median(finite)
