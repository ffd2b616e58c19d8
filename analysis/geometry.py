"""The section on geometry: per arm what the features of the report images look like, and what seeds share.

R rows (arms of one level), K confirm seeds; NaN = missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from analysis.arrays import Arrays
from analysis.consistency import (
    Estimate,
    feature_pairs,
    jackknife,
    layout_pairs,
    read_geometry,
)
from analysis.consistency_claim import ANCHORS, claims, sentence
from analysis.numbers import decimals_for, interval
from analysis.opened import Study
from analysis.statistics import Array, mean_interval
from analysis.table import Table

PREFIX = "geometry/"
COLUMNS = {
    "geometry/features/nc1": "NC1, features",
    "geometry/features/within_share": "share within classes, features",
    "geometry/class_means/mean_cosine": "mean cosine, class means",
    "geometry/class_means/etf_distance": "distance to simplex ETF, class means",
    "geometry/slope/iou": "slope of IoU",
    "geometry/slope/accuracy": "slope of accuracy",
    "probe/miou": "probe/miou",
    "probe/mean_accuracy": "probe/mean_accuracy",
}
VECTORS = {
    "class_means": "class means",
    "classifier_rows": "classifier rows",
    "semantic_anchors": "semantic anchors",
    "prototypes": "prototypes",
    "centres": "centres",
}
NOTES = (
    "Features of the report images, at feature resolution in segmentation (all labelled pixels), the last "
    "step of each confirm trial; the same code for every arm. Brackets: 95 % t intervals over confirm seeds, "
    "without tests.",
    "NC1 = tr(S_W S_B^+) / C over class means (0: every class is a point). Share within: of the variance of "
    "all features. Mean cosine: between class means as they are. Distance to the simplex ETF: Gram matrix of "
    "centred class means, 0 is a perfect frame.",
    "Slope: least squares over the classes that are scored, per unit of natural log train frequency of the "
    "trial's own training set; positive favours frequent classes.",
    "Probe: a linear classifier refitted on frozen features of the training split with every class weighted "
    "alike; its level is comparable between arms, not with that of the trained classifier.",
)
CONSISTENCY_NOTES = (
    "Consistency over seeds: correlation of the off-diagonal cosines between classes of two seeds, for the "
    "vectors that the column names; last column: linear CKA of the features of the same report pixels (or "
    "images). Means over pairs of seeds; brackets: 95 % t intervals of the delete-one-seed jackknife.",
    "A column with 'minus' holds the paired difference in consistency of class means, a seed leaving both "
    "arms at once.",
)
CLAIM_NOTE = (
    "That semantic anchors make the layout of classes consistent over seeds is tested by this difference to "
    "plain cross-entropy, SAR's against it alone: t of its jackknife error on n - 1 degrees of freedom, Holm "
    "over the levels, outside the family of the other claims."
)


@dataclass(frozen=True)
class Section:
    """A part of the report with a heading of its own: sentences, then tables."""

    title: str
    notes: list[str]
    tables: list[Table]


def geometry_section(
    study: Study, folder: Path, trials: pl.DataFrame, metrics: pl.DataFrame, plain: str | None = None
) -> Section | None:
    """Return the section; None for a ledger without geometry metrics.

    Args:
        study: The plan.
        folder: Folder of the study, with the files of its trials.
        trials: Frame of ``results.confirm_trials``.
        metrics: Frame of ``results.confirm_metrics``.
        plain: The arm with plain cross-entropy, if there is one.
    """
    names = set(metrics["metric"].unique())
    if not any(name.startswith(PREFIX) for name in names):
        return None
    tables, missing = [], 0
    vectors: dict[str, dict[str, list[Arrays | None]]] = {}
    ended = _finished(study, trials)
    for level in study.levels:
        arms = [arm.arm for arm in study.arms if arm.level == level]
        tables.append(_metric_table(study, level, arms, metrics.filter(pl.col("level") == level)))
        files = [
            {seed: read_geometry(folder, trial) for seed, trial in ended.get((level, arm), {}).items()}
            for arm in arms
        ]
        missing += sum(name is None for of_arm in files for name in of_arm.values())
        seeds = [[of_arm.get(seed) for seed in range(study.seeds)] for of_arm in files]
        if any(found is not None for of_arm in seeds for found in of_arm):
            against = list(dict.fromkeys(arm for arm in (study.reference, plain) if arm in arms))
            tables.append(_consistency_table(level, arms, seeds, against))
            vectors[level] = {
                arm: list(map(_vectors, of_arm)) for arm, of_arm in zip(arms, seeds, strict=True)
            }
    notes = [*NOTES]
    notes += CONSISTENCY_NOTES if len(tables) > len(study.levels) else []
    made = claims(vectors, study.reference, plain)
    notes += [CLAIM_NOTE, *(sentence(one, level) for level, one in made.items())] if made else []
    if missing:
        notes.append(
            f"Without a geometry file, so with no part in the consistency: {missing} finished trials."
        )
    return Section("Geometry", notes, tables)


def _metric_table(study: Study, level: str, arms: list[str], metrics: pl.DataFrame) -> Table:
    """Return mean and 95 % t interval over confirm seeds of each metric that some arm of the level has."""
    row_of = {arm: row for row, arm in enumerate(arms)}
    values = {name: np.full((len(arms), study.seeds), np.nan) for name in COLUMNS}
    wanted = metrics.filter(pl.col("metric").is_in([*COLUMNS]))
    for arm, seed, name, value in wanted.select("arm", "index", "metric", "value").iter_rows():
        if arm in row_of and 0 <= seed < study.seeds and value is not None:
            values[name][row_of[arm], seed] = value
    known = set(metrics["metric"].unique())
    shown = {name: heading for name, heading in COLUMNS.items() if name in known}
    cells = []
    for name in shown:
        found = mean_interval(values[name])
        decimals = decimals_for((found.high - found.low) / 2)
        bounds = zip(found.mean.tolist(), found.low.tolist(), found.high.tolist(), strict=True)
        cells.append([interval(mean, low, high, decimals) for mean, low, high in bounds])
    rows = [[arm, *(column[row] for column in cells)] for row, arm in enumerate(arms)]
    return Table(_title("Report features", level), ["arm", *shown.values()], rows)


def _finished(study: Study, trials: pl.DataFrame) -> dict[tuple[str, str], dict[int, str]]:
    """Return the finished trials of each level and arm, by seed."""
    chosen = trials.filter((pl.col("status") == "finished") & (pl.col("index") < study.seeds))
    found: dict[tuple[str, str], dict[int, str]] = {}
    for level, arm, seed, trial in chosen.select("level", "arm", "index", "trial_id").iter_rows():
        found.setdefault((level, arm), {})[seed] = trial
    return found


def _vectors(arrays: Arrays | None) -> Arrays | None:
    """Return what the claim needs of a trial; its features, which are most of it, are let go."""
    return arrays and {name: arrays[name] for name in ("class_means", ANCHORS) if name in arrays}


def _consistency_table(
    level: str, arms: list[str], seeds: Sequence[Sequence[Arrays | None]], against: list[str]
) -> Table:
    """Return for each kind of vectors the mean agreement over pairs of seeds, with its jackknife."""
    columns: dict[str, list[str]] = {}
    for name, heading in VECTORS.items():
        pairs = [layout_pairs(of_arm, name) for of_arm in seeds]
        if any(np.isfinite(of_arm).any() for of_arm in pairs):
            columns[heading] = _estimates([jackknife(of_arm) for of_arm in pairs])
        for other in against if name == "class_means" else ():
            columns[f"class means, minus {other}"] = _differences(pairs, arms.index(other))
    columns["features (CKA)"] = _estimates([jackknife(feature_pairs(of_arm)) for of_arm in seeds])
    rows = [[arm, *(column[row] for column in columns.values())] for row, arm in enumerate(arms)]
    return Table(_title("Consistency over seeds", level), ["arm", *columns], rows)


def _differences(pairs: list[Array], reference: int) -> list[str]:
    """Return the paired differences to the reference's agreement; nothing for the reference itself."""
    cells = _estimates([jackknife(of_arm - pairs[reference]) for of_arm in pairs], signed=True)
    return ["-" if row == reference else cell for row, cell in enumerate(cells)]


def _estimates(estimates: list[Estimate], signed: bool = False) -> list[str]:
    """Return the estimates as text, with the decimals that their intervals justify."""
    decimals = decimals_for(np.array([(found.high - found.low) / 2 for found in estimates]))
    return [interval(found.value, found.low, found.high, decimals, signed) for found in estimates]


def _title(what: str, level: str) -> str:
    """Return a heading with its factor level."""
    return f"{what} ({level})" if level else what
