"""Does an arm's lead grow with imbalance? The slope of its paired difference on log imbalance.

The claim "robust to long tails" is this slope and its interval, over the levels of one factor, and not a
larger lead at one imbalance. R rows, L levels, K confirm seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.comparison import LOST, MOST_BAD_SHARE, Row, seed_values
from analysis.numbers import decimals_for, interval, number, p_value
from analysis.opened import Study
from analysis.statistics import Array, holm, mean_interval, paired_t_p
from analysis.table import Table

FACTOR = "data.imbalance"
FEWEST_LEVELS = 3
METRICS = ("tail_iou", "tail_accuracy", "few_accuracy")
"""Looked at beside the primary metric, as estimates: without a test."""


_HOW = (
    "Cells: mean differences over the seeds that have every level. Slope: least squares of a seed's "
    "differences on log10 imbalance; its mean over seeds with the 95 % t interval."
)


@dataclass(frozen=True)
class Line:
    """The rows of one arm, everything else being equal.

    Attributes:
        arm: Name of the arm.
        rest: The other factors' levels, '' without any.
        levels: Imbalance -> level of the study, ascending.
    """

    arm: str
    rest: str
    levels: dict[float, str]


def slope_tables(study: Study, metrics: pl.DataFrame, rows: Sequence[Row]) -> list[Table]:
    """Return a table for the primary metric and one for each of ``METRICS`` that has values at all levels.

    Few classes, for one, may be there at the largest imbalance only.

    Arms that are identical to another at every level have no line. Where more than one seed in five has no
    result at a level, there in the reference, or at some level, the slope is not tested (as in the tables by
    level).

    Args:
        study: The plan; without three levels of ``FACTOR`` there is no table.
        metrics: Frame of ``results.confirm_metrics``.
        rows: Of the comparison.
    """
    by_row = {(row.arm, row.level): row for row in rows}
    lines = [
        line
        for line in imbalance_lines(study)
        if line.arm != study.reference
        and not all(by_row[line.arm, level].identical_to for level in line.levels.values())
    ]
    behind = {
        (line.arm, line.rest): [
            by_row[arm, level]
            for level in line.levels.values()
            for arm in (line.arm, study.reference)
            if (arm, level) in by_row
        ]
        for line in lines
    }
    there = metrics.filter(pl.col("value").is_not_null()).group_by("metric").agg(pl.col("level").unique())
    levels_of = {name: set(levels) for name, levels in there.iter_rows()}
    names = [study.primary] if study.primary in set(metrics["metric"].unique()) else []
    for name in (f"test/{metric}" for metric in METRICS):
        if any(levels_of.get(name, set()).issuperset(line.levels.values()) for line in lines):
            names.append(name)
    return [_table(study, metrics, lines, name, behind) for name in names if lines]


def imbalance_lines(study: Study) -> list[Line]:
    """Return the arms that the plan has at three imbalances or more."""
    found: dict[tuple[str, str], dict[float, str]] = {}
    for arm in study.arms:
        parts = arm.level.split(",") if arm.level else []
        values = dict(part.split("=", 1) for part in parts if "=" in part)
        if FACTOR in values:
            rest = ",".join(part for part in parts if not part.startswith(f"{FACTOR}="))
            found.setdefault((arm.arm, rest), {})[float(values[FACTOR])] = arm.level
    return [
        Line(arm, rest, dict(sorted(levels.items())))
        for (arm, rest), levels in found.items()
        if len(levels) >= FEWEST_LEVELS
    ]


def slopes(differences_RLK: Array, imbalances_L: Array) -> Array:
    """Return the least squares slope of every row and seed on log10 imbalance (R, K).

    NaN where a seed lacks a level: its slope would be another estimate.

    Args:
        differences_RLK: Arm minus reference.
        imbalances_L: Above 0.
    """
    x = np.log10(imbalances_L)
    centred = x - x.mean()
    return np.asarray(np.einsum("rlk,l->rk", differences_RLK, centred) / (centred**2).sum(), dtype=np.float64)


def has_mark(rows: Sequence[Row], complete: int) -> bool:
    """Return whether a slope may be tested (protocol 12).

    Args:
        rows: Of the arm and its reference at every level.
        complete: Seeds with a difference at every level.
    """
    if any(row.unmarked for row in rows):
        return False
    if not any(row.counts[word] for row in rows for word in LOST):
        return True
    ended = min(sum(row.counts[word] for word in ("finished", *LOST)) for row in rows)
    return ended - complete <= MOST_BAD_SHARE * ended


def differences(study: Study, values_RK: Array, line: Line) -> Array:
    """Return arm minus reference at each level of a line (L, K), NaN where one of the two is missing.

    Args:
        study: The plan.
        values_RK: Of every row of the plan (``comparison.seed_values``).
        line: The arm and its levels.
    """
    row_of = {(arm.level, arm.arm): row for row, arm in enumerate(study.arms)}
    missing = np.full(study.seeds, np.nan)
    own, reference = (
        np.array(
            [
                values_RK[row_of[at]] if (at := (level, arm)) in row_of else missing
                for level in line.levels.values()
            ]
        )
        for arm in (line.arm, study.reference)
    )
    with np.errstate(invalid="ignore"):  # infinite in both
        difference = own - reference
    return np.where(np.isfinite(difference), difference, np.nan)


def complete(differences_LK: Array) -> Array:
    """Return differences (L, K) of the seeds that have every level; NaN elsewhere."""
    whole = np.all(np.isfinite(differences_LK), axis=0, keepdims=True)
    return np.where(whole, differences_LK, np.nan)


def _table(
    study: Study,
    metrics: pl.DataFrame,
    lines: list[Line],
    name: str,
    behind: Mapping[tuple[str, str], Sequence[Row]],
) -> Table:
    values = seed_values(study, metrics, [name])[name]
    rows_RLK = [complete(differences(study, values, line)) for line in lines]
    per_seed = np.concatenate(
        [slopes(row[None], np.array(list(line.levels))) for row, line in zip(rows_RLK, lines, strict=True)]
    )
    estimate = mean_interval(per_seed)
    primary = name == study.primary
    tested_lines = np.array(
        [
            not study.untested and has_mark(behind[line.arm, line.rest], int(n))
            for line, n in zip(lines, estimate.n, strict=True)
        ]
    )
    p = np.minimum(holm(np.where(tested_lines, paired_t_p(per_seed), np.nan)) * study.looks, 1.0)
    levels = list(dict.fromkeys(f"{value:g}" for line in lines for value in line.levels))
    decimals = decimals_for((estimate.high - estimate.low) / 2)
    cells = []
    mean, low, high = (values.tolist() for values in (estimate.mean, estimate.low, estimate.high))
    for position, (line, row) in enumerate(zip(lines, rows_RLK, strict=True)):
        means = dict(zip((f"{value:g}" for value in line.levels), mean_interval(row).mean, strict=True))
        cells.append(
            [
                line.arm if not line.rest else f"{line.arm} ({line.rest})",
                *(number(means.get(level), decimals, signed=True) for level in levels),
                interval(mean[position], low[position], high[position], decimals, signed=True),
                *([p_value(float(p[position]))] if primary else []),
                str(int(estimate.n[position])),
            ]
        )
    notes = [_HOW]
    if not primary:
        notes.append("An estimate beside the primary metric: not tested.")
    elif study.untested:
        notes.append("No look is due yet: nothing is tested.")
    else:
        family = int(np.isfinite(p).sum())
        looks = f", times {study.looks} looks" if study.looks > 1 else ""
        notes.append(
            f"p: paired t test of the slopes of all seeds, Holm over a family of its own, the {family} "
            f"slopes of this table{looks}."
        )
    title = f"{name}: difference to {study.reference} by imbalance, and its slope per factor of 10"
    columns = [
        "arm",
        *(f"x{level}" for level in levels),
        "slope",
        *(["p (Holm)"] if primary else []),
        "seeds",
    ]
    return Table(title, columns, cells, notes=tuple(notes))
