"""The random numbers of one training sample, all drawn at once so that no option shifts another's numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sarx.study.seeds import derive

REDRAWS = 10
"""How often a crop is drawn again at most."""

Doubles = npt.NDArray[np.float64]


def augmentation_seed(seed: int, step: int, position: int) -> int:
    """Return the seed of one training sample.

    Args:
        seed: Of the trial.
        step: Optimizer step.
        position: Of the sample in the step's global batch.
    """
    return derive(seed, "augmentation", step, position)


def uniforms(seed: int, count: int) -> Doubles:
    """Return numbers in [0, 1), float64 (count,); a shorter call gives the start of a longer one."""
    return np.random.Generator(np.random.PCG64(seed)).random(count)


@dataclass(frozen=True)
class Draws:
    """Uniform numbers in [0, 1) behind one segmentation sample.

    Attributes:
        ratio: Place of the factor between ``ratio_low`` and ``ratio_high``.
        flip: Below ``flip``: mirrored.
        colour: (9,) what ``draw_distortion`` reads.
        corners: (REDRAWS + 1, 2) upper left corners of the crop to try, (row, column).
    """

    ratio: float
    flip: float
    colour: Doubles
    corners: Doubles


def draw(seed: int) -> Draws:
    """Draw everything that one segmentation sample needs."""
    numbers = uniforms(seed, 11 + 2 * (REDRAWS + 1))
    return Draws(float(numbers[0]), float(numbers[1]), numbers[2:11], numbers[11:].reshape(-1, 2))
