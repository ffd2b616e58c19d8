"""Which of many scramblings of a Halton sequence is used: the one that mixes parameters best."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from sarx.study.seeds import derive

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SCRAMBLINGS = 64


@lru_cache(maxsize=256)
def scrambling(dimensions: int, seed: int) -> int:
    """Return the scrambling, among ``SCRAMBLINGS`` drawn from the seed, that mixes parameters best.

    Few points in many dimensions confound parameters: over 7 points in 6 dimensions the largest correlation
    between two of them is about .8 for a random scrambling, Sobol or Halton, and about .5 for
    the best of these. The choice looks at the first 7 and 15 points, whatever number is used.
    """
    from scipy.stats import qmc as sequences

    def confounding_of(candidate: int) -> float:
        points = sequences.Halton(dimensions, scramble=True, seed=candidate).random(15)
        return max(largest_correlation(points[:7]), largest_correlation(points))

    candidates = [derive(seed, "qmc", i) % 2**32 for i in range(SCRAMBLINGS)]
    return min(candidates, key=confounding_of) if dimensions > 1 else candidates[0]


def largest_correlation(points: npt.NDArray[np.float64]) -> float:
    """Return the largest absolute correlation between two columns of (n, d) points; 0 for one column."""
    import numpy as np

    if points.shape[1] < 2:
        return 0.0
    correlation = np.atleast_2d(np.corrcoef(points.T))
    np.fill_diagonal(correlation, 0.0)
    return float(np.abs(correlation).max())
