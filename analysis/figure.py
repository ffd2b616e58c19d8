"""Forest plot: paired differences to the reference with 95 % intervals, one panel per level."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.opened import Study

_COLOURS = {"better": "#1b7837", "worse": "#b2182b", "equivalent": "#2166ac"}
_OTHER = "#555555"


def forest_plot(study: Study, tidy: pl.DataFrame) -> Figure:
    """Return the figure from the tidy frame of the comparison."""
    rows = tidy.filter((pl.col("metric") == study.primary) & (pl.col("verdict") != "reference"))
    levels = study.levels
    most = max(1, *(rows.filter(pl.col("level") == level).height for level in levels))
    columns = min(3, len(levels))
    lines = math.ceil(len(levels) / columns)
    size = (1.6 + 3.6 * columns, (1.2 + 0.32 * most) * lines)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, sharex=True, squeeze=False).ravel()
    for panel, level in zip(panels, levels, strict=False):
        _panel(panel, study, level, rows.filter(pl.col("level") == level))
    for panel in panels[len(levels) :]:
        panel.set_visible(False)
    return figure


def save(figure: Figure, folder: Path) -> list[Path]:
    """Write ``figure.svg`` and ``figure.png``; equal figures give equal SVG bytes."""
    paths = [folder / "figure.svg", folder / "figure.png"]
    with mpl.rc_context({"svg.hashsalt": "sarx"}):
        figure.savefig(paths[0], metadata={"Date": None})
    figure.savefig(paths[1], dpi=150)
    return paths


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
