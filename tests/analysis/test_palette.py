"""Colours of classes: which, how label maps are painted, and that they stay apart for everybody."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from analysis.figures.palette import COLOURS, IGNORED, OTHER, colours_of, painted
from analysis.statistics import Array


def test_painting_by_hand() -> None:
    image = painted(np.array([[0, 1], [7, 255]]), {0: "#ff0000", 1: "#00ff00", 7: "#0000ff"}, 255)
    assert image[0].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert image[1, 0].tolist() == [0, 0, 1]
    assert tuple(image[1, 1]) in {to_rgb(colour) for colour in IGNORED}
    with pytest.raises(KeyError):
        painted(np.array([[3]]), {0: "#ff0000"}, 255)
    striped = painted(np.full((48, 48), 255), {}, 255)
    assert 0.4 < (striped == 1).mean() < 0.6


def test_colours_follow_the_index_while_they_can() -> None:
    assert colours_of([19, 0, 3]) == {0: COLOURS[0], 3: COLOURS[3], 19: COLOURS[19]}
    assert colours_of([149, 20, 20]) == {20: COLOURS[0], 149: COLOURS[1]}
    many = colours_of([*range(29, -1, -1)])
    assert [many[c] for c in range(10, 30)] == [*COLOURS]
    assert {many[c] for c in range(10)} == {OTHER}
    assert colours_of([]) == {}


def oklab(linear: Array) -> Array:
    """Bjorn Ottosson 2020, "A perceptual color space for image processing"; (N, 3) linear sRGB."""
    lms = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(lms.clip(0)) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )


@pytest.mark.parametrize(
    "sight",
    [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ],
    ids=["normal", "protanopia", "deuteranopia"],
)
def test_colours_stay_apart(sight: Any) -> None:
    colours = np.array([to_rgb(colour) for colour in (*COLOURS, OTHER, *IGNORED)])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = oklab((linear @ np.asarray(sight).T).clip(0, 1))
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 9 * np.eye(len(seen))
    assert distances[:20, :20].min() > 0.06
    assert distances.min() > 0.05
