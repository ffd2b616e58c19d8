"""A figure with the words that go with it, and how it is written to disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawing:
    """One figure.

    Attributes:
        name: stem of its files, ``[a-z0-9_]+``.
        title: heading above it, plain text.
        alt: what it shows, in a sentence or two, for a reader who does not see it; plain text.
        figure: drawn, not yet written.
        caption: how to read it and how it was computed, plain text; '' for none.
    """

    name: str
    title: str
    alt: str
    figure: Figure
    caption: str = ""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches, which no window and no pyplot state knows of."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(drawing: Drawing, folder: Path) -> list[Path]:
    """Write ``NAME.svg``, ``NAME.pdf`` and ``NAME.png``; equal figures give equal bytes of SVG and PDF."""
    paths = [folder / f"{drawing.name}.{kind}" for kind in ("svg", "pdf", "png")]
    with mpl.rc_context({"svg.hashsalt": "sarx"}):
        drawing.figure.savefig(paths[0], metadata={"Date": None})
    drawing.figure.savefig(paths[1], metadata={"CreationDate": None, "Creator": None, "Producer": None})
    drawing.figure.savefig(paths[2], dpi=150)
    return paths
