"""Tables of designs that change one component at a time: what each component takes away, or gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.comparison import Comparison
from analysis.numbers import decimals_for, interval, p_value
from analysis.opened import Arm, Study
from analysis.statistics import mean_interval
from analysis.table import Table, verdict_text

HOMES = {"leave_one_out": "full", "one_factor_at_a_time": "base"}
"""Designs with such a table, and the arm that all others of the design differ from in one component."""


@dataclass(frozen=True)
class _Change:
    """An arm of the design and the one component in which it differs from home."""

    row: int
    component: str
    level: str


def layout_tables(study: Study, comparison: Comparison, metrics: pl.DataFrame) -> list[Table]:
    """Return one table per factor level; none for other designs.

    Args:
        study: the plan.
        comparison: every row against the reference.
        metrics: the frame of ``results.confirm_metrics``.
    """
    name = HOMES.get(study.design)
    if name is None:
        return []
    tables = []
    for level in study.levels:
        home = next((n for n, arm in enumerate(study.arms) if _is(arm, name, level)), None)
        if home is not None:
            tables.append(_layout(study, comparison, metrics, home))
    return tables


def _layout(study: Study, comparison: Comparison, metrics: pl.DataFrame, home: int) -> Table:
    """Return the table of one level, components in the order of the study file."""
    base = study.arms[home]
    changes = [
        _Change(number, *moved[0])
        for number, arm in enumerate(study.arms)
        if arm.level == base.level and arm.components and len(moved := _moved(base, arm)) == 1
    ]
    changes.sort(key=lambda change: list(base.components).index(change.component))
    without = study.design == "leave_one_out"
    tested = study.reference == base.arm
    differences = _differences(study, metrics, base, [study.arms[change.row] for change in changes])
    columns = ["component", "instead" if without else "level", "arm"]
    columns += [f"{'without it' if without else 'alone'}: {study.primary}, difference to {base.arm}"]
    columns += ["p (Holm)", "verdict"] if tested else []
    holm = {
        (level, arm): p
        for level, arm, p in comparison.tidy.filter(pl.col("metric") == study.primary)
        .select("level", "arm", "p_holm")
        .iter_rows()
    }
    rows, bold = [], set()
    for number, (change, cell) in enumerate(zip(changes, differences, strict=True)):
        arm = study.arms[change.row]
        cells = [change.component, change.level, arm.arm, cell]
        if tested:
            verdict = verdict_text(comparison, change.row)
            cells += [p_value(holm[arm.level, arm.arm]), verdict]
            bold |= {(number, 3), (number, 5)} if verdict == "better" else set()
        rows.append(cells)
    return Table(_title(study, base), columns, rows, frozenset(bold), (_note(study, base, tested),))


def _title(study: Study, base: Arm) -> str:
    """Return the heading with its factor level."""
    what = {
        "leave_one_out": "Each component taken away from the whole",
        "one_factor_at_a_time": "Each component alone",
    }[study.design]
    return f"{what} ({base.level})" if base.level else what


def _note(study: Study, base: Arm, tested: bool) -> str:
    """Say what differs from what, and whether it is tested."""
    states = ", ".join(f"{name} {level}" for name, level in base.components.items())
    if tested:
        return f"{base.arm}: {states}. The tests are those of the main table: one family."
    return (
        f"{base.arm}: {states}. Differences are paired by seed with 95 % t intervals and are not tested: the "
        f"tests of this study compare with {study.reference}."
    )


def _differences(study: Study, metrics: pl.DataFrame, base: Arm, arms: list[Arm]) -> list[str]:
    """Return the paired difference of each arm to home with its interval, as text."""
    rows = {arm.arm: number for number, arm in enumerate([base, *arms])}
    values = np.full((len(rows), study.seeds), np.nan)
    of_level = metrics.filter(level=base.level, metric=study.primary)
    for arm, seed, value in of_level.select("arm", "index", "value").iter_rows():
        if arm in rows and 0 <= seed < study.seeds and value is not None and np.isfinite(value):
            values[rows[arm], seed] = value
    found = mean_interval(values[1:] - values[:1])
    decimals = decimals_for((found.high - found.low) / 2)
    bounds = zip(found.mean.tolist(), found.low.tolist(), found.high.tolist(), strict=True)
    return [interval(mean, low, high, decimals, signed=True) for mean, low, high in bounds]


def _moved(base: Arm, arm: Arm) -> list[tuple[str, str]]:
    """Return the components in which an arm differs from home, with the arm's levels."""
    return [(name, level) for name, level in arm.components.items() if base.components.get(name) != level]


def _is(arm: Arm, name: str, level: str) -> bool:
    """Return whether an arm of the design has a name at a level."""
    return arm.level == level and arm.arm == name and bool(arm.components)
