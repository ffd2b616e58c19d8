"""Search history: the objective of every proposal of an arm in order, and the best one so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.figures.drawing import Drawing
from analysis.figures.search_points import SHOWN, Point, best, scored, search_points, selection_label
from analysis.figures.strips import Cell, strips
from analysis.figures.style import GREY, INK, STATES, at_level, file_names, legend, listing, short
from analysis.numbers import significant
from analysis.opened import Study
from analysis.sources import Sources

BEST = Line2D([], [], color=INK, linewidth=1.0, label="best so far of those that ran to the end")


def search_history(sources: Sources) -> list[Drawing]:
    """Return a figure per level with a panel per arm that searched."""
    study, found = sources.study, search_points(sources)
    searched = {row: points for row, points in found.items() if len(points) > 1}
    names = file_names("search_history", study.levels)
    drawings: list[Drawing] = []
    for level in study.levels:
        of_level = {arm: points for (at, arm), points in searched.items() if at == level}
        if of_level:
            drawings += _level(study, level, of_level, names[level])
    return drawings


def _level(study: Study, level: str, points: Mapping[str, list[Point]], name: str) -> list[Drawing]:
    """Return the figures of one level."""
    found = []
    for page in strips(list(points), (2.5, 1.5)):
        for cell, arm in zip(page.cells, page.items, strict=True):
            _cell(cell, study, points[arm])
            cell.title(short(arm, 34))
        page.axes[0].locator_params(axis="y", nbins=5)
        page.figure.supxlabel("proposal of the search, in order")
        page.figure.supylabel(short(selection_label(study), 60))
        legend(page.figure, _handles([point for arm in page.items for point in points[arm]]))
        found.append(
            Drawing(
                name + page.suffix,
                at_level("Search history: search scores, not results", level) + page.part,
                _alt(study, level, points),
                page.figure,
                f"Search scores, not results: {selection_label(study)} of every search trial at its last "
                "epoch, in the order of the proposals. The line is the best so far of those that ran to the "
                "end. Crosses at the lower edge have no score. Independent searches of one arm stand side "
                "by side, parted by a dotted line."
                + (" Winners were chosen by their finalist runs." if study.search.finalists else ""),
            )
        )
    return found


def _cell(cell: Cell, study: Study, points: Sequence[Point]) -> None:
    """Draw the searches of one arm, one after another."""
    most = 1 + max(point.index for point in points)
    count = most * (1 + points[-1].repeat)

    def place(at: float) -> float:
        return float(cell.place((at + 0.5) / count))

    for repeat, search in groupby(points, lambda point: point.repeat):
        of_search = [(place(repeat * most + point.index), point) for point in search]
        if repeat:
            cell.axes.axvline(place(repeat * most - 0.5), color=GREY, linewidth=0.6, linestyle=":")
        _best_so_far(cell.axes, study, of_search)
        for state in SHOWN:
            _draw_state(cell.axes, [(x, point) for x, point in of_search if point.state == state], state)
        for x, point in of_search:
            if point.winner and point.value is not None:
                STATES["winner"].draw(cell.axes, [x], [point.value], 10, zorder=4)
    if cell.lowest or count != most:
        cell.labels([(0.5 / count, "0"), (1 - 0.5 / count, str(most - 1))])


def _draw_state(axes: Axes, points: Sequence[tuple[float, Point]], state: str) -> None:
    """Draw the proposals of one state: at their score, or at the lower edge if they have none."""
    mark = STATES[state]
    known = [(x, point.value) for x, point in points if point.value is not None]
    if known:
        mark.draw(axes, [x for x, _ in known], [value for _, value in known], 4.5)
    without = [x for x, point in points if point.value is None]
    if without:
        edge = axes.get_xaxis_transform()
        mark.draw(axes, without, [0.05] * len(without), 4.5, transform=edge, clip_on=False)


def _best_so_far(axes: Axes, study: Study, points: Sequence[tuple[float, Point]]) -> None:
    """Draw the line of the best score of one search."""
    line, places, heights = -math.inf, [], []
    sign = 1.0 if study.mode == "max" else -1.0
    for x, point in points:
        if point.state == "finished" and point.value is not None:
            line = max(line, sign * point.value)
            places.append(x)
            heights.append(sign * line)
    if places:
        ends = [*places, points[-1][0]], [*heights, heights[-1]]
        axes.step(*ends, where="post", color=INK, linewidth=1.0, zorder=2)


def _handles(points: Sequence[Point]) -> list[Artist]:
    """Return what the legend explains."""
    states = {point.state for point in points}
    handles: list[Artist] = [STATES[state].handle() for state in SHOWN if state in states]
    if any(point.winner for point in points):
        handles.append(STATES["winner"].handle(9))
    return [*handles, BEST]


def _alt(study: Study, level: str, points: Mapping[str, Sequence[Point]]) -> str:
    """Return how far the search of every arm came."""
    parts = []
    for arm, found in points.items():
        top = best(study, found)
        if top is None:
            parts.append(f"{arm} none of {len(found)} with a score")
            continue
        at = next(point for point in scored(found) if point.value == top)
        parts.append(f"{arm} {significant(top)} at proposal {at.index}, of {len(found)}")
    where = f" at {level}" if level else ""
    scores = f"Best {selection_label(study)} of each arm: {listing(parts)}"
    return f"Search scores in proposal order{where}. {scores}."
