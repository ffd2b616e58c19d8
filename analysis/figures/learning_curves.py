"""Learning curves of confirm trials: training loss and selection score, mean and band over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from analysis.figures.drawing import Drawing, new_figure
from analysis.figures.panels import of_pages
from analysis.figures.strips import Cell, rule
from analysis.figures.style import BLUE, GREY, at_level, file_names, legend, listing, pages, short
from analysis.numbers import significant
from analysis.opened import Study
from analysis.sources import Sources
from analysis.statistics import Array, mean_interval
from analysis.trials import values

LOSS = "train/loss"
CELL = (2.1, 1.2)
"""Inches of a cell."""
MOST_COLUMNS = 5
ARM = Line2D([], [], color=BLUE, linewidth=1.2, label="mean over the finished confirm seeds")
BAND = Rectangle((0, 0), 1, 1, facecolor=BLUE, alpha=0.25, label="its 95 % t interval")
REFERENCE = Line2D([], [], color=GREY, linewidth=1.0, linestyle="--", label="mean of the reference")


class Curve(NamedTuple):
    """Steps (S,), and mean with 95 % t interval over seeds at each; bounds NaN with fewer than 2 seeds."""

    steps: Array
    mean: Array
    low: Array
    high: Array
    seeds: int


def learning_curves(sources: Sources) -> list[Drawing]:
    """Return a figure per level; none where the ledger holds nothing between start and end of a trial."""
    study = sources.study
    curves = {metric: curves_of(sources, metric) for metric in dict.fromkeys((LOSS, study.objective))}
    curves = {metric: found for metric, found in curves.items() if found}
    names = file_names("learning_curves", study.levels)
    drawings: list[Drawing] = []
    for level in study.levels:
        arms = [
            arm.arm
            for arm in study.arms
            if arm.level == level and any((level, arm.arm) in found for found in curves.values())
        ]
        sheets = pages(arms, 3 * MOST_COLUMNS)
        for number, chosen in enumerate(sheets):
            suffix, part = of_pages(number, len(sheets))
            drawings.append(_drawing(study, level, chosen, curves, names[level] + suffix, part))
    return drawings


def curves_of(sources: Sources, metric: str) -> dict[tuple[str, str], Curve]:
    """Return the curve of a metric by level and arm, of the arms that have more than one step of it.

    Of the planned confirm trials that finished; of several attempts at an epoch the last counts.
    """
    study, events = sources.study, sources.events
    done = sources.trials.filter((pl.col("status") == "finished") & (pl.col("index") < study.seeds))
    steps = events.group_by("trial_id", "epoch").agg(pl.col("step").max())
    found = (
        done.select("level", "arm", "index", "trial_id")
        .join(values(events, metric), on="trial_id")
        .join(steps, on=["trial_id", "epoch"], how="left")
        .with_columns(pl.coalesce("step", "epoch").alias("at"))
    )
    curves = {}
    for arm in study.arms:
        rows = found.filter(level=arm.level, arm=arm.arm).select("at", "index", "value").drop_nulls()
        at, seeds = rows["at"].unique().sort().to_numpy(), rows["index"].unique()
        if len(at) < 2:
            continue
        table = np.full((len(at), study.seeds), np.nan)
        table[np.searchsorted(at, rows["at"].to_numpy()), rows["index"].to_numpy()] = rows["value"].to_numpy()
        mean, _, _, low, high = mean_interval(table)
        curves[arm.level, arm.arm] = Curve(at.astype(np.float64), mean, low, high, len(seeds))
    return curves


def _drawing(
    study: Study,
    level: str,
    arms: Sequence[str],
    curves: Mapping[str, Mapping[tuple[str, str], Curve]],
    name: str,
    part: str,
) -> Drawing:
    """Return one figure: blocks of arms side by side, a strip per metric within each."""
    blocks = pages(arms, MOST_COLUMNS)
    width, lines = max(map(len, blocks)), len(blocks) * len(curves)
    figure = new_figure(1.0 + CELL[0] * width, 0.9 + CELL[1] * lines + 0.2 * len(blocks))
    axes = figure.subplots(lines, 1, sharex=True, squeeze=False).ravel()
    steps = [curve.steps for found in curves.values() for (at, arm), curve in found.items() if at == level]
    first, last = float(min(s[0] for s in steps)), float(max(s[-1] for s in steps))
    for block, members in enumerate(blocks):
        for row, (metric, found) in enumerate(curves.items()):
            strip = axes[block * len(curves) + row]
            rule(strip, len(members), width)
            strip.set_ylabel(short(metric, 22))
            strip.locator_params(axis="y", nbins=4)
            if block:
                strip.sharey(axes[row])
            for column, arm in enumerate(members):
                cell = Cell(strip, column, row == len(curves) - 1)
                for curve, look in (
                    (found.get((level, study.reference)), REFERENCE),
                    (found.get((level, arm)), ARM),
                ):
                    if curve is not None:
                        shares = (curve.steps - first) / (last - first)
                        _curve(cell, curve, shares, look, band=look is ARM)
                if row == 0:
                    cell.title(short(arm, 30))
                if cell.lowest:
                    cell.labels([(0.0, f"{first:g}"), (1.0, f"{last:g}")])
    figure.supxlabel("training step")
    legend(figure, [ARM, BAND, REFERENCE])
    return Drawing(
        name,
        at_level("Learning curves of the confirm trials", level) + part,
        _alt(level, arms, curves),
        figure,
        "Mean over the confirm seeds that finished, at each epoch, with its 95 % t interval; values that are "
        f"not finite are left out. {LOSS} holds the terms of an arm's own regularizer, so its level does not "
        f"compare arms.{_selection(study, curves)}",
    )


def _selection(study: Study, curves: Mapping[str, object]) -> str:
    """Return what the selection score is here, if confirm trials have one."""
    if study.objective not in curves:
        return ""
    return f" {study.objective} is the score on the selection split: nothing is chosen by it here."


def _curve(cell: Cell, curve: Curve, shares: Array, look: Line2D, band: bool) -> None:
    """Draw one curve, with its interval if ``band``."""
    x = cell.place(shares)
    if band and np.isfinite(curve.low).any():
        cell.axes.fill_between(x, curve.low, curve.high, color=BLUE, alpha=0.25, linewidth=0)
    style = {"color": look.get_color(), "linestyle": look.get_linestyle(), "linewidth": look.get_linewidth()}
    cell.axes.plot(x, curve.mean, **style)  # type: ignore[arg-type]


def _alt(level: str, arms: Sequence[str], curves: Mapping[str, Mapping[tuple[str, str], Curve]]) -> str:
    """Return the last value of every curve."""
    parts = []
    for arm in arms:
        ends = []
        for metric, found in curves.items():
            curve = found.get((level, arm))
            if curve is not None and np.isfinite(curve.mean).any():
                ends.append(f"{metric} {significant(float(curve.mean[np.isfinite(curve.mean)][-1]), 3)}")
        if ends:
            parts.append(f"{arm} {', '.join(ends)}")
    where = f" at {level}" if level else ""
    return f"{' and '.join(curves)} over training steps{where}. Means at the end: {listing(parts)}."
