"""What the report says beyond one row against the reference: slopes, effects, ranks, other images."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from analysis.comparison import Comparison
from analysis.data_sets import ranks_table, refusal
from analysis.effects_table import effects_tables
from analysis.image_tables import image_tables
from analysis.opened import Study
from analysis.slope import slope_tables
from analysis.table import Table


def further_report(
    study: Study, folder: Path, trials: pl.DataFrame, metrics: pl.DataFrame, comparison: Comparison
) -> tuple[list[Table], list[str]]:
    """Return the tables that the study has something to show for, and sentences on what is not there.

    Args:
        study: The plan.
        folder: Folder of the study.
        trials: Frame of ``results.confirm_trials``.
        metrics: Frame of ``results.confirm_metrics``.
        comparison: Of the arms.
    """
    slopes = slope_tables(study, metrics, comparison.rows)
    effects = effects_tables(study, metrics, trials, comparison.rows)
    over_images, without_images = image_tables(study, folder, trials, metrics, comparison)
    tables = [*slopes, *effects, *ranks_table(study, comparison), *over_images]
    return tables, [*without_images, *refusal(study, comparison)]
