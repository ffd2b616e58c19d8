"""Whether arms reach what others reach with the same settings: if not, nothing may be compared yet."""

from __future__ import annotations

import math

import polars as pl

from analysis.comparison import Comparison
from analysis.numbers import number
from analysis.opened import Study
from analysis.table import full_name

TOLERANCE = 0.01
"""A point: how far below others an arm may stay."""


def shortfalls(study: Study, comparison: Comparison) -> list[str]:
    """Return a warning for every arm with an orientation whose mean stays too far below it."""
    found = []
    primary = comparison.tidy.filter(pl.col("metric") == study.primary)
    sign = 1.0 if study.higher_is_better else -1.0
    for record in primary.iter_rows(named=True):
        wanted, mean = study.orientation.get(record["arm"]), record["mean"]
        if wanted is None or mean is None or not math.isfinite(mean):
            continue
        if sign * (wanted - mean) > TOLERANCE:
            name = full_name(record["arm"], record["level"])
            found.append(
                f"{name} has {study.primary} {number(mean, 4)}, more than a point short of the "
                f"{number(wanted, 4)} that others reach with these settings: look at the training before "
                "anything is compared."
            )
    return found
