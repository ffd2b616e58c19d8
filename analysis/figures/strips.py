"""Small multiples in strips: cells side by side that share one pair of axes, a strip below the other.

A cell is one unit of the x axis wide. Axes are what takes matplotlib time, so that a figure of 14 cells in
3 strips is drawn in a third of the time of 14 panels; the y axis is one for all cells of a figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.drawing import new_figure
from analysis.figures.panels import of_pages
from analysis.figures.style import FAINT, MOST_HEIGHT, MOST_WIDTH, SMALL, pages
from analysis.statistics import Array

PAD = 0.07
"""Share of a cell on either side of what it shows."""


@dataclass(frozen=True)
class Cell:
    """Where one item is drawn.

    Attributes:
        axes: of the strip.
        column: the cell is column to column + 1 on the x axis.
        lowest: no cell stands below it.
    """

    axes: Axes
    column: int
    lowest: bool

    def place(self, shares: Array | float) -> Array:
        """Return the x coordinate of shares of the cell: 0 its left end, 1 its right end."""
        return np.asarray(self.column + PAD + (1 - 2 * PAD) * np.asarray(shares, dtype=np.float64))

    def title(self, text: str) -> None:
        """Write above the cell."""
        self._write(text, self.column + 0.5, (0, 3), "center", "bottom", 7.5, 1)

    def labels(self, ticks: Sequence[tuple[float, str]]) -> None:
        """Write below the cell: ticks as shares of it, from left to right; those at its ends grow inwards."""
        for share, text in ticks:
            side = "left" if share < 0.12 else "right" if share > 0.88 else "center"
            self._write(text, float(self.place(share)), (0, -4), side, "top", SMALL, 0)

    def _write(
        self, text: str, x: float, offset: tuple[float, float], ha: str, va: str, size: float, y: float
    ) -> None:
        self.axes.annotate(
            text,
            (x, y),
            offset,
            xycoords=self.axes.get_xaxis_transform(),
            textcoords="offset points",
            ha=ha,
            va=va,
            fontsize=size,
            annotation_clip=False,
        )


@dataclass(frozen=True)
class Strips:
    """One figure.

    Attributes:
        items: what each cell shows.
        cells: one per item.
        axes: of the strips, from above.
        suffix: of its name, see ``panels.of_pages``.
        part: of its title.
    """

    figure: Figure
    items: Sequence[str]
    cells: list[Cell]
    axes: list[Axes]
    suffix: str
    part: str


def strips(
    items: Sequence[str],
    size: tuple[float, float],
    columns: int = 4,
    margins: tuple[float, float] = (0.8, 0.9),
) -> list[Strips]:
    """Return figures with a cell for each item.

    Args:
        items: what the cells show.
        size: width and height of a cell in inches, its title included.
        columns: cells side by side, fewer if the figure would get too wide.
        margins: inches beside and around the cells, for labels and a legend.
    """
    most = max(1, min(columns, int((MOST_WIDTH - margins[0]) / size[0])))
    lines = max(1, int((MOST_HEIGHT - margins[1]) / size[1]))
    runs = pages(items, most * lines)
    found = []
    for number, run in enumerate(runs):
        height = math.ceil(len(run) / most)
        width = math.ceil(len(run) / height)  # 3 and 3 rather than 4 and 2
        figure = new_figure(margins[0] + size[0] * width, margins[1] + size[1] * height)
        axes = list(figure.subplots(height, 1, sharex=True, sharey=True, squeeze=False).ravel())
        for line, strip in enumerate(axes):
            rule(strip, min(width, len(run) - line * width), width)
        cells = [Cell(axes[at // width], at % width, lowest=at + width >= len(run)) for at in range(len(run))]
        found.append(Strips(figure, run, cells, axes, *of_pages(number, len(runs))))
    return found


def rule(strip: Axes, cells: int, width: int) -> None:
    """Prepare axes for so many cells of a strip that has room for ``width``."""
    strip.set_xlim(0, width)
    strip.set_xticks([])
    strip.spines.bottom.set_bounds(0, cells)
    strip.vlines(range(1, cells), 0, 1, transform=strip.get_xaxis_transform(), color=FAINT, linewidth=0.8)
