"""Which parameters decide whether a trial is among the best, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from analysis.claims import ROW
from analysis.numbers import number
from analysis.opened import Study
from analysis.ped_anova import best_share, divergence
from analysis.scored import Values, decoded
from analysis.space import Range
from analysis.table import Table, full_name

TARGET = 0.25
"""PED-ANOVA asks what brings a trial into this best share."""
FEWEST = 20
"""Trials of an arm below which nothing is computed: optuna's documentation asks for 5 in the best share."""

TITLE = "Importance of parameters (PED-ANOVA; no results)"
NOTE = (
    f"PED-ANOVA: how differently a parameter is distributed among the best {TARGET * 100:.0f} % of an arm's "
    "finished search trials and among all of them, as a share of the sum over its parameters. The shares sum "
    "to 1 also where no parameter matters, and of few trials chance may favour one. Computed from "
    f"{FEWEST} trials on. No part have trials that were stopped early, which have no final score, and the "
    "default, whose values are not on record."
)


def importance(
    points: Sequence[Mapping[str, Any]], losses: Sequence[float], space: Mapping[str, Range]
) -> dict[str, float]:
    """Return the share of each parameter in what brings a trial into the best ``TARGET``; they sum to 1.

    All equal where no parameter tells the best from the others.

    Args:
        points: parameters of each trial, all of the same names.
        losses: of each trial, lower is better.
        space: ranges of the parameters.
    """
    best_N = best_share(np.asarray(losses, dtype=np.float64), TARGET)
    found = {name: divergence([point[name] for point in points], best_N, space[name]) for name in points[0]}
    total = sum(found.values())
    return {name: value / total if total else 1 / len(found) for name, value in found.items()}


def importance_table(study: Study, scored: pl.DataFrame) -> tuple[Table | None, list[str]]:
    """Return the importance of the parameters of each arm, or in a sentence why there is none.

    Args:
        study: the plan.
        scored: the frame of ``scored.scored_trials``; all searches of an arm count together.
    """
    rows, most = [], 0
    of_row: dict[tuple[str, str], list[tuple[Values, float]]] = {}
    trials = zip(scored.select(*ROW, "value").iter_rows(), decoded(scored["parameters"]), strict=True)
    for (level, name, value), point in trials:
        of_row.setdefault((level, name), []).append((point or {}, value))
    for arm in study.arms:
        if not arm.parameters or study.is_follower(arm):
            continue
        space = {name: study.space[name] for name in arm.parameters if name in study.space}
        points, losses = _usable(study, of_row.get((arm.level, arm.arm), ()), space)
        most = max(most, len(points))
        rows.append([full_name(arm.arm, arm.level), str(len(points)), f"too few trials ({len(points)})"])
        if len(points) >= FEWEST and not space:
            rows[-1][2] = "ranges are not recorded"
        elif len(points) >= FEWEST:
            found = importance(points, losses, space)
            ordered = sorted(found, key=lambda name: (-found[name], name))
            rows[-1][2] = ", ".join(f"{name} {number(found[name], 2)}" for name in ordered)
    if most < FEWEST:
        few = f"{FEWEST} finished search trials of an arm besides its default; the most here are {most}"
        return None, [f"Importance of parameters (PED-ANOVA): not computed, it takes {few}."] if rows else []
    return Table(TITLE, ["arm", "trials", "importance"], rows, notes=(NOTE,)), []


def _usable(
    study: Study, trials: Sequence[tuple[Values, float]], space: Mapping[str, Range]
) -> tuple[list[dict[str, Any]], list[float]]:
    """Return points and losses of the trials whose values are on record and lie in the space."""
    signs = -1.0 if study.mode == "max" else 1.0
    points, losses = [], []
    for point, value in trials:
        if all(name in point and searched.holds(point[name]) for name, searched in space.items()):
            points.append({name: point[name] for name in space})
            losses.append(signs * value)
    return points, losses
