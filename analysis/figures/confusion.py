"""Confusion matrices: the reference's, and how those of the arms that differ most differ from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analysis.figures.class_arrays import PerClass, per_class
from analysis.figures.drawing import Drawing, new_figure
from analysis.figures.style import SMALL, at_level, file_names, listing, short
from analysis.numbers import number
from analysis.opened import Study
from analysis.sources import Sources
from analysis.statistics import Array

MOST_ARMS = 4
MOST_NUMBERS, MOST_NAMES, MOST_VECTOR = 11, 24, 40
"""Classes up to which cells hold numbers, axes hold names, and cells are shapes instead of one picture."""

LEAST = 0.03
"""Smaller shares of the reference have no number."""


class Difference(NamedTuple):
    """Of one arm: its confusion minus the reference's (C, C), the mean over so many pairs of seeds."""

    matrix: Array
    pairs: int


def confusion_plot(sources: Sources) -> list[Drawing]:
    """Return a figure per level; none where no trial of the reference left its confusion matrix."""
    study = sources.study
    names = file_names("confusion", study.levels)
    drawings = []
    for level in study.levels:
        found = per_class(sources, level)
        seeds = sorted(found.seeds(study.reference, "confusion")) if found is not None else []
        if found is None or not seeds:
            continue
        reference = _mean(shares(found.stack(study.reference, "confusion", seeds)))
        chosen = {arm: difference(found, arm, study.reference) for arm in _most_different(sources, level)}
        known = {arm: found for arm, found in chosen.items() if found is not None}
        drawings.append(
            _drawing(
                study, level, found, reference, len(seeds), dict([*known.items()][:MOST_ARMS]), names[level]
            )
        )
    return drawings


def shares(counts_KCC: Array) -> Array:
    """Return each row over its sum (K, C, C): where pixels of a class went; NaN for a class without any."""
    total = counts_KCC.sum(axis=2, keepdims=True)
    return np.where(total > 0, counts_KCC / np.where(total > 0, total, 1.0), np.nan)


def difference(found: PerClass, arm: str, reference: str) -> Difference | None:
    """Return the mean paired difference of the shares of an arm; None without a pair of seeds."""
    seeds = sorted(found.seeds(arm, "confusion") & found.seeds(reference, "confusion"))
    if not seeds:
        return None
    mine, theirs = (shares(found.stack(name, "confusion", seeds)) for name in (arm, reference))
    return Difference(_mean(mine - theirs), len(seeds))


def _mean(matrices_KCC: Array) -> Array:
    """Return the mean over seeds (C, C) of what is known; NaN where nothing is."""
    known = np.isfinite(matrices_KCC)
    n = known.sum(axis=0)
    total = np.where(known, matrices_KCC, 0.0).sum(axis=0)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def _most_different(sources: Sources, level: str) -> list[str]:
    """Return the arms of a level by the size of their difference in the primary metric, largest first."""
    same = {(row.level, row.arm) for row in sources.comparison.rows if row.identical_to or row.is_reference}
    rows = sources.comparison.tidy.filter(
        (pl.col("metric") == sources.study.primary)
        & (pl.col("level") == level)
        & pl.col("diff").is_not_null()
    )
    ranked = rows.sort(pl.col("diff").abs(), descending=True, maintain_order=True)["arm"]
    return [arm for arm in ranked if (level, arm) not in same]


def _drawing(
    study: Study,
    level: str,
    found: PerClass,
    reference: Array,
    seeds: int,
    differences: dict[str, Difference],
    name: str,
) -> Drawing:
    """Return one figure: the reference's matrix, then the differences."""
    count = 1 + len(differences)
    columns = min(3, count)
    lines = -(-count // columns)
    figure = new_figure(0.4 + 3.8 * columns, 0.5 + 3.9 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel in panels[count:]:
        panel.remove()
    title = f"{short(study.reference, 30)} ({seeds} seeds)"
    _matrix(panels[0], reference, found.names, Normalize(0, 1), "Blues", title)
    _bar(figure, [panels[0]], Normalize(0, 1), "Blues")
    largest = max(
        (float(np.nanmax(np.abs(d.matrix), initial=0.0)) for d in differences.values()), default=0.0
    )
    norm = Normalize(-max(largest, 0.01), max(largest, 0.01))
    for panel, (arm, one) in zip(panels[1:], differences.items(), strict=False):
        title = f"{short(arm, 22)} minus {short(study.reference, 16)} ({one.pairs} pairs)"
        _matrix(panel, one.matrix, found.names, norm, "PuOr_r", title)
    if differences:
        _bar(figure, [panels[count - 1]], norm, "PuOr_r")
    figure.supxlabel("predicted class")
    figure.supylabel("labelled class")
    return Drawing(
        name,
        at_level("Confusion on the report split", level),
        _alt(study, level, found.names, reference, differences),
        figure,
        "Where the pixels or images of each labelled class went: rows sum to 1, mean over confirm seeds. "
        f"First {study.reference}; then, for the at most {MOST_ARMS} arms that differ most from it in "
        f"{study.primary}, the mean difference over the seeds that both have, orange for more and purple for "
        "less, all on one scale. Numbers, if any: percent. Grey rows: classes without labels."
        + (
            "" if _named(found.names) else " Classes have numbers where the ledger does not tell their order."
        ),
    )


def _matrix(
    panel: Axes, matrix: Array, names: Sequence[str], norm: Normalize, colours: str, title: str
) -> None:
    """Draw one matrix, labels downwards and predictions to the right."""
    classes = len(matrix)
    panel.set_facecolor("#c8c8c8")
    masked = np.ma.masked_invalid(matrix)
    if classes <= MOST_VECTOR:
        edges = np.arange(classes + 1) - 0.5
        panel.pcolormesh(edges, edges, masked, norm=norm, cmap=colours, edgecolors="face", linewidth=0.2)
    else:
        panel.imshow(masked, norm=norm, cmap=colours, interpolation="nearest", aspect="auto")
    panel.set_xlim(-0.5, classes - 0.5)
    panel.set_ylim(classes - 0.5, -0.5)
    panel.set_aspect("equal")
    panel.set_title(title)
    if classes <= MOST_NAMES:
        labels = [short(name, 14) for name in names]
        panel.set_xticks(range(classes), labels, rotation=90)
        panel.set_yticks(range(classes), labels)
    panel.tick_params(length=1.5, labelsize=SMALL if classes <= 16 else 5.5)
    if classes <= MOST_NUMBERS:
        _numbers(panel, matrix, norm)


def _numbers(panel: Axes, matrix: Array, norm: Normalize) -> None:
    """Write the shares in percent: of the reference from ``LEAST``, of differences from half a percent."""
    shade = np.asarray(norm(np.nan_to_num(matrix)))
    dark = shade > 0.6 if norm.vmin == 0 else np.abs(shade - 0.5) > 0.36
    least = LEAST if norm.vmin == 0 else 0.005
    for row, column in np.argwhere(np.abs(matrix) > least).tolist():
        colour = "white" if dark[row, column] else "#222222"
        text = f"{100 * matrix[row, column]:.0f}"
        cell = panel.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)
        cell.set_in_layout(False)  # it lies within its panel, and layout takes its time over each


def _bar(figure: Figure, panels: list[Axes], norm: Normalize, colours: str) -> None:
    """Draw the scale of colours beside panels."""
    bar = figure.colorbar(
        ScalarMappable(norm, colours), ax=panels, aspect=25, fraction=0.05, pad=0.02, shrink=0.8
    )
    bar.ax.tick_params(labelsize=SMALL)
    bar.ax.locator_params(nbins=5)


def _named(names: Sequence[str]) -> bool:
    """Return whether the names are those of the ledger."""
    return list(names) != [f"class {c}" for c in range(len(names))]


def _alt(
    study: Study, level: str, names: Sequence[str], reference: Array, differences: dict[str, Difference]
) -> str:
    """Return the mean of the diagonal and the largest confusion of the reference, then of the others."""
    where = f" at {level}" if level else ""
    parts = []
    for arm, one in differences.items():
        if np.isfinite(one.matrix).any():
            row, column = divmod(int(np.nanargmax(np.abs(one.matrix))), len(one.matrix))
            change = number(float(one.matrix[row, column]), 3, signed=True)
            parts.append(f"{arm} {change} of {names[row]} predicted as {names[column]}")
    diagonal = np.diagonal(reference)
    right = float(diagonal[np.isfinite(diagonal)].mean()) if np.isfinite(diagonal).any() else float("nan")
    changes = f" Largest change of each arm: {listing(parts)}." if parts else ""
    share = f"mean share predicted right {number(right, 3)}"
    return f"Confusion matrix of {study.reference}{where}: {share}.{changes}"
