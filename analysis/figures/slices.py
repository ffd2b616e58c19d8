"""Slices: the search score against every searched option, a row per arm and a column per option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from analysis.figures.drawing import Drawing, new_figure
from analysis.figures.panels import of_pages
from analysis.figures.scale import Scale, scales
from analysis.figures.search_points import Point, search_points, selection_label
from analysis.figures.style import (
    FAINT,
    GREY,
    SMALL,
    STATES,
    at_level,
    file_names,
    legend,
    listing,
    pages,
    short,
)
from analysis.numbers import significant
from analysis.opened import Study
from analysis.sources import Sources

ROW, COLUMN = 0.95, 1.4
"""Inches of an arm, and of an option."""
MOST_ROWS, MOST_COLUMNS = 12, 7
MARGIN = 0.14
"""Share of a column on either side of the range."""
STATES_SHOWN = ("finished", "stopped")
DEFAULT = Line2D([], [], color=GREY, linewidth=0.9, linestyle="--", label="all defaults")
EDGE = Line2D([], [], color=GREY, linewidth=0.6, label="end of the range")
NOT_SEARCHED = Rectangle((0, 0), 1, 1, facecolor="#efefef", label="not searched")


def slice_plot(sources: Sources) -> list[Drawing]:
    """Return a figure per level with a row per arm whose proposals have recorded values."""
    study, found = sources.study, search_points(sources)
    axes = scales(sources, (point for points in found.values() for point in points))
    names = file_names("slices", study.levels)
    drawings: list[Drawing] = []
    for level in study.levels:
        of_level = {
            arm: points
            for (at, arm), points in found.items()
            if at == level and any(point.parameters and point.value is not None for point in points)
        }
        if not of_level:
            continue
        used = [name for name in axes if any(name in _searched(points) for points in of_level.values())]
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


def _searched(points: Sequence[Point]) -> set[str]:
    """Return the options that some proposal has a value of."""
    return {name for point in points for name in point.parameters or {}}


def _drawing(
    study: Study,
    level: str,
    points: Mapping[str, list[Point]],
    axes: Mapping[str, Scale],
    name: str,
    part: str,
) -> Drawing:
    """Return one figure."""
    figure = new_figure(2.2 + COLUMN * len(axes), 1.5 + ROW * len(points))
    panels = figure.subplots(len(points), 1, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, (arm, found) in zip(panels, points.items(), strict=True):
        _row(panel, found, axes)
        panel.set_ylabel(short(arm, 24), rotation=0, ha="right", va="center")
        panel.locator_params(axis="y", nbins=4)
    _labels(panels[0], panels[-1], axes)
    figure.supylabel(f"search score:\n{short(selection_label(study), 40)}")
    legend(figure, _handles([point for found in points.values() for point in found]))
    return Drawing(
        name,
        at_level("Slices through the search: search scores, not results", level) + part,
        _alt(study, level, points),
        figure,
        f"Search scores, not results: {selection_label(study)} of every search trial at its last epoch, or "
        "at its rung if it was stopped, against each option that its arm searches, in logarithms where the "
        "search is. Values outside the range are drawn just beyond its end. Trials without a score are left "
        "out. A winner at the end of a range asks for a wider range.",
    )


def _row(panel: Axes, points: Sequence[Point], axes: Mapping[str, Scale]) -> None:
    """Draw one arm."""
    searched = _searched(points)
    down, across = panel.get_xaxis_transform(), panel.get_yaxis_transform()
    for point in points:
        if point.parameters == {} and point.value is not None:
            panel.axhline(point.value, color=GREY, linewidth=0.9, linestyle="--", zorder=1)
            if point.winner:
                STATES["winner"].draw(panel, [0.0], [point.value], 9, transform=across, clip_on=False)
    edges: list[float] = []
    for column, (name, scale) in enumerate(axes.items()):
        if name not in searched:
            panel.axvspan(column, column + 1, color="#efefef", linewidth=0, zorder=2)
        elif not scale.choices:
            edges += [_at(column, 0), _at(column, 1)]
    panel.vlines(edges, 0, 1, transform=down, color=GREY, linewidth=0.6)
    panel.vlines(range(1, len(axes)), 0, 1, transform=down, color=FAINT, linewidth=0.8, zorder=3)
    for state in STATES_SHOWN:
        _draw(panel, [point for point in points if point.state == state], axes, state, 4)
    _draw(panel, [point for point in points if point.winner], axes, "winner", 9)


def _draw(panel: Axes, points: Sequence[Point], axes: Mapping[str, Scale], state: str, size: float) -> None:
    """Draw proposals in the columns of all options that they have a value of."""
    found = [
        (_at(column, place), point.value)
        for column, (name, scale) in enumerate(axes.items())
        for point in points
        if (place := scale.place((point.parameters or {}).get(name))) is not None and point.value is not None
    ]
    if found:
        STATES[state].draw(panel, [x for x, _ in found], [y for _, y in found], size, zorder=4)


def _at(column: int, place: float) -> float:
    """Return where a place of a scale lies."""
    return column + MARGIN + (1 - 2 * MARGIN) * place


def _labels(first: Axes, last: Axes, axes: Mapping[str, Scale]) -> None:
    """Write the options above the first row, ends and choices below the last."""
    first.set_xlim(0, len(axes))
    last.set_xticks([])
    for column, (name, scale) in enumerate(axes.items()):
        group, dot, own = name.rpartition(".")
        first.annotate(
            f"{short(group + dot, 22)}\n{short(own, 22)}",
            (column + 0.5, 1),
            (0, 4),
            xycoords=first.get_xaxis_transform(),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=7,
        )
        for at, text, line, side in _tick_labels(scale):
            last.annotate(
                text,
                (_at(column, at), 0),
                (0, -4 - 8 * line),
                xycoords=last.get_xaxis_transform(),
                textcoords="offset points",
                ha=side,
                va="top",
                fontsize=SMALL,
            )


def _tick_labels(scale: Scale) -> list[tuple[float, str, int, str]]:
    """Return place, text, line and alignment of what stands below a column; choices take two lines."""
    ticks = scale.ticks()
    if not scale.choices:
        sides = ("left", "right") if len(ticks) == 2 else ("center",)
        return [(at, text, 0, side) for (at, text), side in zip(ticks, sides, strict=True)]
    if len(ticks) > 6:
        ticks = [ticks[0], ticks[-1]]
    lines = min(3, len(ticks))
    room = max(4, int(22 * lines / max(len(ticks), 2)))
    return [
        (at, short(text, min(room, 16)), place % lines, "center") for place, (at, text) in enumerate(ticks)
    ]


def _handles(points: Sequence[Point]) -> list[Artist]:
    """Return what the legend explains."""
    states = {point.state for point in points if point.value is not None}
    handles: list[Artist] = [STATES[state].handle() for state in STATES_SHOWN if state in states]
    if any(point.winner for point in points):
        handles.append(STATES["winner"].handle(9))
    if any(point.parameters == {} and point.value is not None for point in points):
        handles.append(DEFAULT)
    return [*handles, EDGE, NOT_SEARCHED]


def _alt(study: Study, level: str, points: Mapping[str, Sequence[Point]]) -> str:
    """Return the winner of every arm with its values."""
    parts = []
    for arm, found in points.items():
        for point in found:
            if point.winner and point.value is not None:
                values = ", ".join(
                    f"{name} {_text(value)}" for name, value in (point.parameters or {}).items()
                )
                parts.append(f"{arm} {significant(point.value)} with {values or 'all defaults'}")
    where = f" at {level}" if level else ""
    chosen = f"Winners and their search scores: {listing(parts)}." if parts else "No winner is chosen yet."
    return f"{selection_label(study)} of search trials against each searched option{where}. {chosen}"


def _text(value: object) -> str:
    """Return a searched value with at most 3 significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
