"""Small multiples: a panel per arm or per level, in as many figures as keep each of them legible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.drawing import new_figure
from analysis.figures.style import MOST_HEIGHT, MOST_WIDTH, pages


@dataclass(frozen=True)
class Page:
    """One figure of several panels.

    Attributes:
        items: what each panel shows.
        panels: one per item, row by row.
        suffix: of its name: '' for a single page, else ``_2`` from the second on.
        part: of its title: '' for a single page, else `` (2 of 3)``.
    """

    figure: Figure
    items: Sequence[str]
    panels: list[Axes]
    suffix: str
    part: str


def small_multiples(
    items: Sequence[str],
    size: tuple[float, float],
    columns: int = 4,
    margins: tuple[float, float] = (0.6, 0.9),
    sharex: bool = True,
    sharey: bool = True,
) -> list[Page]:
    """Return pages with a panel for each item.

    Args:
        items: what the panels show.
        size: width and height of a panel in inches, its title included.
        columns: panels side by side, fewer if the figure would get too wide.
        margins: inches beside and below the panels, for labels and a legend.
        sharex: whether all panels of a page have one x axis, whose numbers stand at the lowest alone.
        sharey: the same of the y axis.
    """
    most = max(1, min(columns, int((MOST_WIDTH - margins[0]) / size[0])))
    lines = max(1, int((MOST_HEIGHT - margins[1]) / size[1]))
    runs = pages(items, most * lines)
    found = []
    for number, run in enumerate(runs):
        width = min(most, len(run))
        width = math.ceil(len(run) / math.ceil(len(run) / width))  # 3 and 3 rather than 4 and 2
        height = math.ceil(len(run) / width)
        figure = new_figure(margins[0] + size[0] * width, margins[1] + size[1] * height)
        grid = figure.subplots(height, width, sharex=sharex, sharey=sharey, squeeze=False)
        panels = list(grid.ravel())
        _number_outer([list(row) for row in grid], len(run), sharex)
        for panel in panels[len(run) :]:
            panel.remove()
        found.append(Page(figure, run, panels[: len(run)], *of_pages(number, len(runs))))
    return found


def of_pages(number: int, count: int) -> tuple[str, str]:
    """Return the suffix and the part of ``Page`` for page ``number`` (from 0) of ``count``."""
    if count == 1:
        return "", ""
    return f"_{number + 1}" if number else "", f" ({number + 1} of {count})"


def _number_outer(grid: Sequence[Sequence[Axes]], count: int, sharex: bool) -> None:
    """Show x numbers below the lowest panel of every column, though the last row may be shorter."""
    if not sharex:
        return
    width = len(grid[0])
    for place in range(count):
        if place + width >= count:
            grid[place // width][place % width].tick_params(labelbottom=True)
