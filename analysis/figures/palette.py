"""Colours of classes: up to 20 that stay apart for colour-blind readers too.

First a quiet one, for class 0 is the background of most data sets, then the seven colours of Okabe and Ito
2008, "Color Universal Design". Each further one is the colour, of a grid of sRGB that is neither grey nor
near white or black, that is farthest from all before it: the smallest of its OKLab distances as seen by
protanopes, by deuteranopes (matrices of Machado, Oliveira and Fernandes 2009, severity 1), and, divided by
2.2, by everybody else. No two are nearer than .06 to anybody, about three just noticeable differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

COLOURS = (
    *("#3a4653", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"),
    *("#f0e442", "#9b00ff", "#0000bc", "#9b0016", "#2cde85", "#6f0085", "#c8009b"),
    *("#857aff", "#59002c", "#855964", "#5943d3", "#00f4ff", "#0b4e00"),
)
OTHER = "#000000"
"""Classes beyond the first 20 of a figure."""

IGNORED = ("#ffffff", "#bdbdbd")
"""The two greys of the stripes over pixels that do not count."""

STRIPE = 24
"""So many stripes fit into the longer side of a label map."""


def colours_of(shown: Sequence[int]) -> dict[int, str]:
    """Return a colour for each class that a figure shows, the same in every figure that shows the same.

    Args:
        shown: Class indices, those that matter most first: of more than 20 the first 20 have colours of their
            own. Where all are below 20, each class has the colour of its index.
    """
    classes = sorted(dict.fromkeys(shown[: len(COLOURS)]))
    if not classes or max(shown) < len(COLOURS):
        return {c: COLOURS[c] for c in sorted(set(shown))}
    return dict.fromkeys(shown, OTHER) | dict(zip(classes, COLOURS, strict=False))


def painted(labels: NDArray[Any], colours: dict[int, str], ignore_index: int) -> NDArray[np.float64]:
    """Return a label map (H, W) as an image (H, W, 3) in [0, 1]; ignored pixels are striped in grey.

    Raises:
        KeyError: If a label is neither ignored nor has a colour.
    """
    image = np.empty((*labels.shape, 3))
    for label in np.unique(labels).tolist():
        if label != ignore_index:
            image[labels == label] = to_rgb(colours[label])
    period = max(2, 2 * round(max(labels.shape) / (2 * STRIPE)))
    rows, columns = np.indices(labels.shape)
    light = (rows + columns) % period < period // 2
    for colour, part in zip(IGNORED, (light, ~light), strict=True):
        image[(labels == ignore_index) & part] = to_rgb(colour)
    return image
