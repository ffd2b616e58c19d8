"""Figures of a study, by name."""

from __future__ import annotations

from collections.abc import Callable

from analysis.figures.class_dependency import class_dependency
from analysis.figures.class_gain import class_gain
from analysis.figures.confusion import confusion_plot
from analysis.figures.critical_difference import critical_difference_diagram
from analysis.figures.drawing import Drawing, save
from analysis.figures.embedding import embedding
from analysis.figures.forest import forest_plot
from analysis.figures.learning_curves import learning_curves
from analysis.figures.parallel_coordinates import parallel_coordinates
from analysis.figures.qualitative import qualitative
from analysis.figures.search_history import search_history
from analysis.figures.seeds import seed_plot
from analysis.figures.slices import slice_plot
from analysis.figures.style import styled
from analysis.sources import Sources

__all__ = ["FIGURES", "Drawing", "draw", "save"]

FIGURES: dict[str, Callable[[Sources], list[Drawing]]] = {
    "forest": forest_plot,
    "seeds": seed_plot,
    "class_gain": class_gain,
    "confusion": confusion_plot,
    "learning_curves": learning_curves,
    "embedding": embedding,
    "class_dependency": class_dependency,
    "qualitative": qualitative,
    "critical_difference": critical_difference_diagram,
    "search_history": search_history,
    "parallel_coordinates": parallel_coordinates,
    "slices": slice_plot,
}
"""What draws each kind of figure; an empty list where the study has nothing of the kind to show."""


def draw(sources: Sources) -> list[Drawing]:
    """Return every figure that the study has something to show for, in the order of ``FIGURES``."""
    with styled():
        return [drawing for make in FIGURES.values() for drawing in make(sources)]
