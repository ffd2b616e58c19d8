"""Forest plot: paired differences to the reference with 95 % intervals, one panel per level."""

from __future__ import annotations

import math

import polars as pl
from matplotlib.axes import Axes

from analysis.figures.drawing import Drawing, new_figure
from analysis.opened import Study
from analysis.sources import Sources

_COLOURS = {"better": "#1b7837", "worse": "#b2182b", "equivalent": "#2166ac"}
_OTHER = "#555555"


def forest_plot(sources: Sources) -> list[Drawing]:
    """Return the figure of the primary metric; none while there is no difference yet."""
    study = sources.study
    tidy = sources.comparison.tidy
    rows = tidy.filter((pl.col("metric") == study.primary) & (pl.col("verdict") != "reference"))
    known = rows.filter(pl.col("diff").is_not_null())
    if known.is_empty():
        return []
    levels = study.levels
    most = max(1, *(rows.filter(pl.col("level") == level).height for level in levels))
    columns = min(3, len(levels))
    lines = math.ceil(len(levels) / columns)
    figure = new_figure(1.6 + 3.6 * columns, (1.2 + 0.32 * most) * lines)
    panels = figure.subplots(lines, columns, sharex=True, squeeze=False).ravel()
    for panel, level in zip(panels, levels, strict=False):
        _panel(panel, study, level, rows.filter(pl.col("level") == level))
    for panel in panels[len(levels) :]:
        panel.set_visible(False)
    return [
        Drawing(
            "forest",
            f"Differences to {study.reference}",
            f"{known.height} paired differences of {study.primary} to {study.reference} with 95 % intervals; "
            "the same numbers stand in the table.",
            figure,
            "Mean paired difference over confirm seeds, 95 % t interval; shaded: differences without effect.",
        )
    ]


def _panel(panel: Axes, study: Study, level: str, rows: pl.DataFrame) -> None:
    """Draw one level: a line per arm, the reference at 0, the range of no effect shaded."""
    if study.smallest_effect:
        panel.axvspan(-study.smallest_effect, study.smallest_effect, color="#2166ac", alpha=0.10, linewidth=0)
    panel.axvline(0, color="black", linewidth=0.8)
    for place, record in enumerate(rows.iter_rows(named=True)):
        if record["diff"] is None:
            continue
        colour = _COLOURS.get(record["verdict"], _OTHER)
        if record["diff_lo"] is not None:
            panel.plot([record["diff_lo"], record["diff_hi"]], [place, place], color=colour, linewidth=1.6)
        panel.plot(record["diff"], place, "o", color=colour, markersize=5)
    panel.set_yticks(range(rows.height), rows["arm"].to_list(), parse_math=False)
    panel.set_ylim(rows.height - 0.5, -0.5)
    panel.set_title(level, fontsize=10, parse_math=False)
    panel.set_xlabel(f"{study.primary}: arm minus {study.reference}", parse_math=False)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
