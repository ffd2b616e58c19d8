"""Figures of a study, by name."""

from __future__ import annotations

from collections.abc import Callable

from analysis.figures.class_dependency import class_dependency
from analysis.figures.critical_difference import critical_difference_diagram
from analysis.figures.drawing import Drawing, save
from analysis.figures.embedding import embedding
from analysis.figures.forest import forest_plot
from analysis.figures.qualitative import qualitative
from analysis.sources import Sources

__all__ = ["FIGURES", "Drawing", "draw", "save"]

FIGURES: dict[str, Callable[[Sources], list[Drawing]]] = {
    "forest": forest_plot,
    "embedding": embedding,
    "class_dependency": class_dependency,
    "qualitative": qualitative,
    "critical_difference": critical_difference_diagram,
}
"""What draws each kind of figure; an empty list where the study has nothing of the kind to show."""


def draw(sources: Sources) -> list[Drawing]:
    """Return every figure that the study has something to show for, in the order of ``FIGURES``."""
    return [drawing for make in FIGURES.values() for drawing in make(sources)]
