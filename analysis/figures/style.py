"""How all figures look: colours, marks, letters and sizes, in this one place.

Colours are those of Okabe and Ito 2008, which colour-blind readers tell apart; every colour that means
something comes with a shape or a dash of its own, so that it also reads in grey print.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

T = TypeVar("T")

BLUE, VERMILLION, GREEN, ORANGE, PURPLE = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7"
INK, GREY, FAINT = "#222222", "#6f6f6f", "#d4d4d4"
SMALL = 6.5
"""Points of the smallest letters; all others have 7 or 8."""
MOST_WIDTH, MOST_HEIGHT = 12.0, 14.0
"""Inches that no figure exceeds."""

RC: dict[Any, Any] = {
    "axes.formatter.limits": (-4, 5),
    "axes.formatter.useoffset": False,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8,
    "figure.labelsize": 8,
    "font.family": ["DejaVu Sans"],
    "font.size": 8,
    "hatch.linewidth": 0.4,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "path.simplify": True,
    "pdf.fonttype": 42,  # no Type 3 fonts, which journals refuse
    "svg.hashsalt": "sarx",
    "text.hinting": "no_hinting",  # letters are as wide in every format
    "text.parse_math": False,  # a name is a name, whatever is in it
    "xtick.labelsize": 7,
    "xtick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.labelsize": 7,
    "ytick.major.size": 2.5,
    "ytick.major.width": 0.6,
}


@dataclass(frozen=True)
class Mark:
    """How one kind of point is drawn.

    Attributes:
        label: what the legend says.
        colour: of edge and face.
        marker: matplotlib's letter of the shape.
        filled: whether the face has the colour too; else it is white.
    """

    label: str
    colour: str
    marker: str
    filled: bool = True

    def draw(
        self, axes: Axes, x: Sequence[float], y: Sequence[float], size: float = 5, **options: object
    ) -> None:
        """Draw points."""
        axes.plot(x, y, **{**self._look(size), "zorder": 3, **options})  # type: ignore[arg-type]

    def handle(self, size: float = 5) -> Line2D:
        """Return what stands in a legend."""
        return Line2D([], [], label=self.label, **self._look(size))  # type: ignore[arg-type]

    def _look(self, size: float) -> dict[str, object]:
        return {
            "linestyle": "",
            "marker": self.marker,
            "markersize": size,
            "markeredgecolor": self.colour,
            "markerfacecolor": self.colour if self.filled else "white",
            "markeredgewidth": 0.9,
        }


VERDICTS = {
    "better": Mark("better", BLUE, "^"),
    "worse": Mark("worse", VERMILLION, "v"),
    "equivalent": Mark("equivalent", GREEN, "s"),
    "undecided": Mark("undecided", GREY, "o", filled=False),
    "unmarked": Mark("no mark: too many seeds lost", GREY, "X"),
    "identical": Mark("identical to another arm", GREY, "D", filled=False),
    "": Mark("not tested yet", GREY, "|"),
}
"""The verdicts of ``analysis.verdict`` and what ``comparison`` says in their place."""

STATES = {
    "finished": Mark("ran to the end", BLUE, "o"),
    "stopped": Mark("stopped early, score at its rung", ORANGE, "v", filled=False),
    "diverged": Mark("diverged", VERMILLION, "X"),
    "failed": Mark("failed", INK, "x"),
    "duplicate": Mark("duplicate of an earlier proposal", GREY, "D", filled=False),
    "winner": Mark("winner", INK, "*"),
}
"""The states of ``results.search_trials`` that have something to show."""


def styled() -> AbstractContextManager[None]:
    """Return the context in which figures are drawn and written, whatever a user's matplotlibrc says."""
    own = {key: value for key, value in mpl.rcParamsDefault.items() if key.partition(".")[0] in _GROUPS}
    return mpl.rc_context({**own, **RC})


_GROUPS = {
    *("axes", "contour", "figure", "font", "hatch", "image", "legend", "lines", "markers", "patch", "path"),
    *("pcolor", "pcolormesh", "pdf", "ps", "savefig", "svg", "text", "xaxis", "xtick", "yaxis", "ytick"),
}


def fading(reverse: bool) -> Colormap:
    """Return a scale of colours from faint to dark, dark for high values, or for low ones if ``reverse``."""
    found = mpl.colormaps["viridis_r"](range(20, 256))
    return LinearSegmentedColormap.from_list("fading", found[::-1] if reverse else found)


def short(text: str, most: int = 24) -> str:
    """Return a text in one line of at most ``most`` letters that the font has."""
    known = _letters()
    line = "".join(letter if ord(letter) in known else "?" for letter in " ".join(text.split()))
    return line if len(line) <= most else line[: most - 3] + "..."


@cache
def _letters() -> frozenset[int]:
    """Return the code points of the letters that the font has."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return frozenset(code for code in font.get_charmap() if code >= 32)


def file_names(kind: str, levels: Sequence[str]) -> dict[str, str]:
    """Return a file stem ``[a-z0-9_]+`` for each level: the kind alone for a single level."""
    if len(levels) == 1:
        return {levels[0]: kind}
    stems: dict[str, str] = {}
    for place, level in enumerate(levels):
        slug = re.sub(r"[^a-z0-9]+", "_", level.lower()).strip("_")[:48] or str(place + 1)
        stem = f"{kind}_{slug}"
        stems[level] = stem if stem not in stems.values() else f"{stem}_{place + 1}"
    return stems


def at_level(title: str, level: str) -> str:
    """Return a title with its factor level."""
    return f"{title} ({level})" if level else title


def pages(items: Sequence[T], most: int) -> list[Sequence[T]]:
    """Return the items in as few runs of at most ``most`` as hold them, of about equal length."""
    count = max(1, math.ceil(len(items) / most))
    size = math.ceil(len(items) / count) if items else 0
    return [items[start : start + size] for start in range(0, len(items), max(1, size))]


def listing(parts: Sequence[str], most: int = 16) -> str:
    """Return parts as one sentence without its full stop, cut after ``most``."""
    more = len(parts) - most
    return "; ".join(parts[:most]) + (f"; and {more} more" if more > 0 else "")


def legend(figure: Figure, handles: Iterable[Artist], columns: int | None = None) -> None:
    """Put one legend above all panels."""
    found = list(handles)
    if found:
        width = figure.get_size_inches()[0]
        most = max(1, int(width / 2.3))
        figure.legend(handles=found, loc="outside upper center", ncols=min(len(found), columns or most))
