"""Parallel coordinates: every search trial as a line over the options that its arm searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_hex
from matplotlib.lines import Line2D

from analysis.figures.drawing import Drawing, new_figure
from analysis.figures.panels import of_pages
from analysis.figures.scale import Scale, scales
from analysis.figures.search_points import Point, best, scored, search_points, selection_label
from analysis.figures.style import (
    FAINT,
    GREY,
    INK,
    SMALL,
    VERMILLION,
    at_level,
    fading,
    file_names,
    listing,
    pages,
    short,
)
from analysis.numbers import significant
from analysis.opened import Study
from analysis.sources import Sources

ROW, COLUMN = 0.95, 1.4
"""Inches of an arm, and between two options."""
MOST_ROWS, MOST_COLUMNS = 12, 7
BAND = 0.74
"""Share of a row's height that the ranges fill."""
WITHOUT = Line2D([], [], color=GREY, linewidth=0.8, linestyle=":", label="stopped early, or without a score")
WINNER = Line2D([], [], color=VERMILLION, linewidth=1.8, marker="*", markersize=8, label="winner")


def parallel_coordinates(sources: Sources) -> list[Drawing]:
    """Return a figure per level with a row per arm whose proposals have recorded values."""
    study, found = sources.study, search_points(sources)
    known = {
        row: [point for point in points if point.state != "duplicate"]
        for row, points in found.items()
        if any(point.parameters for point in points)
    }
    axes = scales(sources, (point for points in known.values() for point in points))
    names = file_names("parallel_coordinates", study.levels)
    drawings: list[Drawing] = []
    for level in study.levels:
        of_level = {arm: points for (at, arm), points in known.items() if at == level}
        if not of_level:
            continue
        used = [
            name for name in axes if any(name in (p.parameters or {}) for ps in of_level.values() for p in ps)
        ]
        sheets = [
            (arms, options) for options in pages(used, MOST_COLUMNS) for arms in pages([*of_level], MOST_ROWS)
        ]
        for number, (arms, options) in enumerate(sheets):
            suffix, part = of_pages(number, len(sheets))
            chosen = {arm: of_level[arm] for arm in arms}
            drawings.append(
                _drawing(study, level, chosen, {o: axes[o] for o in options}, names[level] + suffix, part)
            )
    return drawings


def _drawing(
    study: Study,
    level: str,
    points: Mapping[str, Sequence[Point]],
    axes: Mapping[str, Scale],
    name: str,
    part: str,
) -> Drawing:
    """Return one figure."""
    figure = new_figure(2.4 + COLUMN * len(axes), 1.25 + ROW * len(points))
    panel = figure.subplots()
    values = [point.value for found in points.values() for point in scored(found) if point.value is not None]
    norm = Normalize(min(values, default=0.0), max(values, default=1.0))
    colours = ScalarMappable(norm, fading(reverse=study.mode == "min"))
    _frame(panel, [_arm(arm, found) for arm, found in points.items()], axes)
    _axes(panel, list(points.values()), axes)
    for row, found in enumerate(points.values()):
        _lines(panel, row, found, axes, colours)
    if values:
        bar = figure.colorbar(
            colours, ax=panel, aspect=25, fraction=0.06, pad=0.01, shrink=min(1.0, 3.0 / len(points))
        )
        bar.set_label(short(selection_label(study), 40))
        bar.ax.locator_params(nbins=5)
    figure.legend(handles=[WINNER, WITHOUT], loc="outside upper center", ncols=2)
    return Drawing(
        name,
        at_level("Parallel coordinates of the search: search scores, not results", level) + part,
        _alt(study, level, points),
        figure,
        "A line per search trial; colour: its search score at the last epoch, not a result. Every axis spans "
        "the range that is searched, in logarithms where the search is; values outside it, such as defaults, "
        "are drawn just beyond its end; the ends are named once, in the first row that has the axis. Options "
        "that an arm does not search have no axis in its row. "
        "Proposals that took all defaults record no values and are left out.",
    )


def _arm(arm: str, points: Sequence[Point]) -> str:
    """Return the name of an arm, and whether its winner took all defaults."""
    defaults = any(point.winner and not point.parameters for point in points)
    return short(arm, 24) + ("\nwinner: all defaults" if defaults else "")


def _frame(panel: Axes, arms: Sequence[str], axes: Mapping[str, Scale]) -> None:
    """Draw names of arms and options; the axes themselves come with the arms that have them."""
    panel.set_xlim(-0.15, len(axes) - 1 + 0.65)
    panel.set_ylim(len(arms), -0.05)
    panel.set_yticks([row + 0.5 for row in range(len(arms))], arms)
    panel.set_xticks(range(len(axes)), [_heading(name) for name in axes])
    panel.tick_params(length=0, labeltop=True, labelbottom=False)
    panel.spines[:].set_visible(False)
    panel.hlines(range(1, len(arms)), 0, 1, transform=panel.get_yaxis_transform(), color=FAINT, linewidth=0.6)


def _heading(name: str) -> str:
    """Return the name of an option in two lines: its group, then itself."""
    group, dot, own = name.rpartition(".")
    return f"{short(group + dot, 22)}\n{short(own, 22)}"


def _height(row: int, place: float) -> float:
    """Return where a place of a scale lies: its end 1 at the top of the row."""
    return row + 0.5 + BAND * (0.5 - place)


def _lines(
    panel: Axes, row: int, points: Sequence[Point], axes: Mapping[str, Scale], colours: ScalarMappable
) -> None:
    """Draw the trials of one arm, the winner below its own line and broader."""
    column = {name: place for place, name in enumerate(axes)}
    for group, style in ((_plain(points), ":"), (scored(points), "-")):
        ends, tints = [], []
        for point in group:
            line = _line(row, point, axes, column)
            if not line:
                continue
            if point.winner:
                x, y = [x for x, _ in line], [y for _, y in line]
                panel.plot(x, y, color=VERMILLION, linewidth=2.4, zorder=3)
                panel.plot(x[:1], y[:1], color=VERMILLION, marker="*", markersize=8, zorder=5)
            ends.append(line)
            tints.append(GREY if style == ":" else to_hex(colours.to_rgba(np.array([point.value]))[0]))
        if ends:
            lines = LineCollection(ends, colors=tints, linestyles=style, linewidths=1.0, zorder=4)
            panel.add_collection(lines)


def _line(
    row: int, point: Point, axes: Mapping[str, Scale], column: Mapping[str, int]
) -> list[tuple[float, float]]:
    """Return where the line of a proposal passes; a short dash for a single option."""
    places = {name: axes[name].place((point.parameters or {}).get(name)) for name in axes}
    line = [(float(column[name]), _height(row, at)) for name, at in places.items() if at is not None]
    if len(line) == 1:
        ((x, y),) = line
        return [(x - 0.06, y), (x + 0.06, y)]
    return line


def _plain(points: Sequence[Point]) -> list[Point]:
    """Return the proposals whose colour would say nothing: stopped ones and those without a score."""
    return [point for point in points if point.state != "finished" or point.value is None]


def _axes(panel: Axes, points: Sequence[Sequence[Point]], axes: Mapping[str, Scale]) -> None:
    """Draw in each row the axes of what its arm searches; the first of each says what its ends are."""
    bars: list[list[tuple[float, float]]] = []
    ticks: list[list[tuple[float, float]]] = []
    said: set[str] = set()
    for row, of_arm in enumerate(points):
        for column, (name, scale) in enumerate(axes.items()):
            if not any(name in (point.parameters or {}) for point in of_arm):
                continue
            bars.append([(column, _height(row, 0)), (column, _height(row, 1))])
            marks = [(_height(row, place), text) for place, text in scale.ticks()]
            ticks += [[(column - 0.02, at), (column + 0.02, at)] for at, _ in marks]
            if name not in said:
                said.add(name)
                _say(panel, column, marks if len(marks) <= 6 else [marks[0], marks[-1]])
    panel.add_collection(LineCollection(bars + ticks, colors=INK, linewidths=0.7, zorder=2))


def _say(panel: Axes, column: int, ticks: Sequence[tuple[float, str]]) -> None:
    """Write what the ticks of an axis mean, right of it."""
    for at, text in ticks:
        inside = panel.annotate(
            short(text, 14),
            (column, at),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            zorder=6,
            bbox={"facecolor": "white", "alpha": 0.7, "pad": 0.4, "linewidth": 0},
        )
        inside.set_in_layout(False)


def _alt(study: Study, level: str, points: Mapping[str, Sequence[Point]]) -> str:
    """Return the best trial of every arm."""
    parts = []
    for arm, found in points.items():
        top = best(study, found)
        if top is None:
            parts.append(f"{arm} none with a score")
            continue
        point = next(point for point in scored(found) if point.value == top)
        options = ", ".join(f"{name} {_text(value)}" for name, value in (point.parameters or {}).items())
        parts.append(f"{arm} {significant(top)} with {options or 'all defaults'}")
    where = f" at {level}" if level else ""
    return f"Searched values of every search trial{where}. Best search score of each arm: {listing(parts)}."


def _text(value: object) -> str:
    """Return a searched value with at most 3 significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
