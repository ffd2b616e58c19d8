"""A figure with the words that go with it, and how it is written to disk."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.figures.style import MOST_HEIGHT, MOST_WIDTH, styled

UNDATED: Mapping[str, Mapping[str, str | None]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
"""What matplotlib would write into a file besides the figure, and is not to."""


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
    figure = Figure(figsize=(min(width, MOST_WIDTH), min(height, MOST_HEIGHT)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def settle(figure: Figure) -> None:
    """Place the panels of a figure once and for all, so that writing it in two formats does so once."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)  # unlike "none" it spares every writing a second drawing


def save(drawing: Drawing, folder: Path, kinds: Sequence[str] = ("svg", "pdf")) -> list[Path]:
    """Write ``NAME.KIND`` for each kind, which may also be ``png``; equal figures give equal bytes."""
    paths = [folder / f"{drawing.name}.{kind}" for kind in kinds]
    with styled():
        settle(drawing.figure)
        for path, kind in zip(paths, kinds, strict=True):
            buffer = io.BytesIO()  # what cannot be written is then one error, not one of matplotlib's writers
            dpi = 150 if kind == "png" else "figure"
            drawing.figure.savefig(buffer, format=kind, dpi=dpi, metadata=dict(UNDATED[kind]))
            path.write_bytes(buffer.getvalue())
    return paths


def as_png(drawing: Drawing) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    with styled():
        settle(drawing.figure)
        drawing.figure.savefig(buffer, format="png", dpi=150, metadata=dict(UNDATED["png"]))
    return buffer.getvalue()
