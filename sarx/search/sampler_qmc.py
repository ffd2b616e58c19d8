"""Scrambled Halton points by index: the sequence of Optuna's QMC sampler without its cost per point."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from sarx.search.axes import unit_point
from sarx.search.scrambling import scrambling
from sarx.search.told import Point
from sarx.study.space import Parameter

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

BLOCK = 256


def point(space: Sequence[Parameter], seed: int, index: int) -> Point:
    """Return point ``index``, from 0, of the sequence of a seed.

    Choices are positions on an axis like whole numbers.
    """
    length = BLOCK
    while length <= index:  # doubling: all points up to n together cost as much as 2 n
        length *= 2
    units = _sequence(len(space), scrambling(len(space), seed), length)
    return unit_point(space, units[index].tolist())


@lru_cache(maxsize=64)
def _sequence(dimensions: int, scramble_seed: int, length: int) -> npt.NDArray[np.float64]:
    """Return the first ``length`` points, (length, dimensions) in [0, 1)."""
    from scipy.stats import qmc as sequences

    # seed=, as in Optuna; rng= with the same number gives another sequence.
    points: npt.NDArray[np.float64] = sequences.Halton(dimensions, scramble=True, seed=scramble_seed).random(
        length
    )
    points.flags.writeable = False
    return points
