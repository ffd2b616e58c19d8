"""The table of main effects and interactions, where a factorial or fractional design made the arms."""

from __future__ import annotations

import numpy as np
import polars as pl

from analysis.comparison import MOST_BAD_SHARE, Row, seed_values
from analysis.effects import Cells, Effect, factorial_effects, fractional_effects, involved, per_seed
from analysis.numbers import decimals_for, interval, p_value
from analysis.opened import Study
from analysis.statistics import Array, holm, mean_interval, paired_t_p
from analysis.table import Table
from analysis.verdict import ALPHA

MAKERS = {"factorial": factorial_effects, "fractional": fractional_effects}
NOTES = (
    "Effects are computed seed by seed: brackets are 95 % t intervals over confirm seeds, p is that of the "
    "paired t test, Holm over all {size} effects{looks}.",
    "Main effect: mean of the arms with the level named first minus mean of those with the other, all else "
    "equal. Interaction: half the difference of differences, ((AC - BC) - (AD - BD)) / 2.",
)
MATCHED = (
    "Cells were left out of the design: 'combinations' says over how many combinations of the other "
    "components an effect is a mean."
)
ALIASED = (
    "A fraction, estimated by least squares: an effect with aliases is the sum of them all, which these arms "
    "cannot tell apart. Interactions of three components or more are taken to be 0."
)


def effects_tables(study: Study, metrics: pl.DataFrame, trials: pl.DataFrame, rows: list[Row]) -> list[Table]:
    """Return a table of the effects on the primary metric for every level of the factors.

    An effect is not tested where one of its arms has no mark (too many seeds diverged), or where more than
    one in five of the seeds that ended in all its arms gave no value in one of them.

    Args:
        study: The plan; without a factorial or fractional design there is no table.
        metrics: Frame of ``results.confirm_metrics``.
        trials: Frame of ``results.confirm_trials``.
        rows: Of the comparison.
    """
    if study.design not in MAKERS or not study.components:
        return []
    values = seed_values(study, metrics, [study.primary])[study.primary]
    ended = _ended(study, trials)
    parts: list[tuple[str, list[Effect], Array, Array]] = []
    for level in study.levels:
        numbers = [i for i, arm in enumerate(study.arms) if arm.level == level and arm.components]
        cells: Cells = [study.arms[i].components for i in numbers]
        effects = MAKERS[study.design](cells, study.components)
        found = per_seed(effects, values[numbers])
        marked = [
            _has_mark(effect, found[e], ended[numbers], [rows[i] for i in numbers])
            for e, effect in enumerate(effects)
        ]
        parts.append((level, effects, found, np.where(marked, paired_t_p(found), np.nan)))
    estimable = np.concatenate([[not effect.refused for effect in effects] for _, effects, *_ in parts])
    p_holm = np.full(len(estimable), np.nan)
    p = np.concatenate([of_level for *_, of_level in parts])
    p_holm[estimable] = np.minimum(holm(p[estimable]) * study.looks, 1.0)
    notes = _notes(study, parts[0][1], int(estimable.sum()))
    tables, at = [], 0
    for level, effects, found, _ in parts:
        tables.append(_table(study, level, effects, found, p_holm[at : at + len(effects)], notes))
        at += len(effects)
    return tables


def _table(
    study: Study, level: str, effects: list[Effect], found: Array, p_holm: Array, notes: tuple[str, ...]
) -> Table:
    """Return the table of one level."""
    estimate = mean_interval(found)
    decimals = decimals_for((estimate.high - estimate.low) / 2)
    optional = {
        "combinations": [effect.used or "-" for effect in effects],
        "aliased with": [" ".join(effect.aliases) or "-" for effect in effects],
        "refused": [effect.refused or "-" for effect in effects],
    }
    shown = {name: column for name, column in optional.items() if set(column) != {"-"}}
    cells, bold = [], set()
    bounds = zip(estimate.mean.tolist(), estimate.low.tolist(), estimate.high.tolist(), strict=True)
    for place, (effect, (mean, low, high)) in enumerate(zip(effects, bounds, strict=True)):
        if p_holm[place] <= ALPHA:
            bold.add((place, 1))
        cells.append(
            [
                effect.name,
                interval(mean, low, high, decimals, signed=True),
                p_value(float(p_holm[place])),
                str(int(estimate.n[place])) if not effect.refused else "-",
                *(column[place] for column in shown.values()),
            ]
        )
    columns = ["effect", study.primary, "p (Holm)", "seeds", *shown]
    title = f"{study.primary}: main effects and interactions{f' ({level})' if level else ''}"
    return Table(title, columns, cells, frozenset(bold), notes)


def _notes(study: Study, effects: list[Effect], size: int) -> tuple[str, ...]:
    """Return how the effects were computed."""
    looks = f", times {study.looks} looks" if study.looks > 1 else ""
    notes = tuple(text.format(size=size, looks=looks) for text in NOTES)
    if study.design == "fractional":
        return (*notes, ALIASED)
    partial = any(effect.refused or len(set(effect.used.split(" of "))) > 1 for effect in effects)
    return (*notes, MATCHED) if partial else notes


def _ended(study: Study, trials: pl.DataFrame) -> Array:
    """Return 1 for each row and seed whose confirm trial has come to an end (R, K)."""
    row_of = {(arm.level, arm.arm): number for number, arm in enumerate(study.arms)}
    found = np.zeros((len(study.arms), study.seeds))
    over = trials.filter(pl.col("status").is_in(["finished", "diverged", "failed"]))
    for level, arm, seed in over.select("level", "arm", "index").iter_rows():
        row = row_of.get((level, arm))
        if row is not None and 0 <= seed < study.seeds:
            found[row, seed] = 1
    return found


def _has_mark(effect: Effect, found_K: Array, ended_RK: Array, rows: list[Row]) -> bool:
    """Return whether an effect may be tested: few enough of its seeds were lost (protocol 12)."""
    arms = involved(effect)
    if not len(arms) or any(rows[arm].unmarked for arm in arms):
        return False
    over = ended_RK[arms].all(axis=0)
    lost = over & ~np.isfinite(found_K)
    return bool(lost.sum() <= MOST_BAD_SHARE * max(1, over.sum()))
