"""Critical-difference diagram: arms on a line by their average rank over data sets.

Source: Demsar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, figure 1.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.data_sets import Ranked, ranked
from analysis.figures.drawing import Drawing, new_figure
from analysis.numbers import number, p_value
from analysis.ranks import ALPHA, cliques
from analysis.sources import Sources

_LINE = "#333333"
_BAR = "#2166ac"


def critical_difference_diagram(sources: Sources) -> list[Drawing]:
    """Return the diagram of the primary metric; none where arms are not ranked (``data_sets.refusal``)."""
    found = ranked(sources.study, sources.comparison)
    if found is None:
        return []
    ranking = found.ranking
    bars = groups(found)
    panel = _panel(found, len(bars))
    _axis(panel, len(found.arms), ranking.critical)
    for depth, bar in enumerate(bars):
        ends = ranking.average[bar]
        height = -0.35 - 0.3 * depth
        panel.plot([ends.min() - 0.04, ends.max() + 0.04], [height, height], color=_BAR, linewidth=4)
    _arms(panel, found, -0.35 - 0.3 * len(bars))
    order = np.argsort(ranking.average, kind="stable")
    listed = ", ".join(f"{found.arms[row]} {number(float(ranking.average[row]), 2)}" for row in order)
    verdict = "rejects" if ranking.p <= ALPHA else "does not reject"
    joined = [" and ".join(found.arms[row] for row in bar) for bar in bars]
    return [
        Drawing(
            "critical_difference",
            "Average ranks over data sets",
            f"Average ranks of {len(found.arms)} arms over {len(found.sets)} data sets, the best first: "
            f"{listed}. Not told apart: {'; '.join(joined) or 'none'}.",
            cast(Figure, panel.figure),
            f"Ranks by mean {sources.study.primary}, 1 is the best. Arms under one bar are not told apart. "
            f"Friedman {verdict} at .05 (p {p_value(ranking.p)}); Nemenyi's critical difference (CD) is "
            f"{number(ranking.critical, 2)}.",
        )
    ]


def groups(found: Ranked) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return the arms under each bar: all of them where Friedman's test does not reject."""
    if found.ranking.p > ALPHA:
        return [np.argsort(found.ranking.average, kind="stable")]
    return cliques(found.ranking.average, found.ranking.critical)


def _panel(found: Ranked, bars: int) -> Axes:
    """Return empty axes with room for the names, which stand beside the line of ranks."""
    arms = len(found.arms)
    names = 0.35 + 0.075 * max(len(name) for name in found.arms) + 0.3  # inches; the last for the rank
    unit = (max(arms, 1 + found.ranking.critical) - 0.4) / 3.6  # ranks per inch
    bottom = -1.0 - 0.3 * bars - 0.55 * ((arms + 1) // 2)
    figure = new_figure(3.6 + 2 * names, 0.4 * (2.3 - bottom))
    figure.set_layout_engine("none")
    panel = figure.add_axes((0, 0, 1, 1))
    panel.set_xlim(0.7 - names * unit, 0.7 + (3.6 + names) * unit)
    panel.set_ylim(bottom, 2.3)
    panel.set_axis_off()
    return panel


def _axis(panel: Axes, arms: int, critical: float) -> None:
    """Draw the line of ranks, 1 at the left, and the length of the critical difference above it."""
    panel.plot([1, arms], [0, 0], color=_LINE, linewidth=1)
    for rank in range(1, arms + 1):
        panel.plot([rank, rank], [0, 0.15], color=_LINE, linewidth=1)
        panel.text(rank, 0.3, str(rank), ha="center", va="bottom", fontsize=9)
    panel.plot([1, 1 + critical], [1.35, 1.35], color=_LINE, linewidth=1.6)
    for end in (1, 1 + critical):
        panel.plot([end, end], [1.22, 1.48], color=_LINE, linewidth=1.6)
    panel.text(1 + critical / 2, 1.5, f"CD = {number(critical, 2)}", ha="center", va="bottom", fontsize=9)


def _arms(panel: Axes, found: Ranked, top: float) -> None:
    """Write the better half of the arms at the left, the others at the right, with lines to their ranks."""
    arms = len(found.arms)
    order = np.argsort(found.ranking.average, kind="stable")
    half = (arms + 1) // 2
    for place, row in enumerate(order):
        left = place < half
        rank = float(found.ranking.average[row])
        height = top - 0.55 * (1 + (place if left else arms - 1 - place))
        edge = 0.7 if left else arms + 0.3
        panel.plot([rank, rank, edge], [0, height, height], color=_LINE, linewidth=0.8)
        text = f"{found.arms[row]}  {number(rank, 2)}" if left else f"{number(rank, 2)}  {found.arms[row]}"
        panel.text(
            edge + (-0.08 if left else 0.08),
            height,
            text,
            ha="right" if left else "left",
            va="center",
            fontsize=9,
            parse_math=False,
        )
