"""Rank correlations. N pairs; no value is missing, and neither side has equal values alone.

scipy.stats has both; to import it takes as long as the report of a small study.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.statistics import Array


def kendall_tau(first_N: Array, second_N: Array) -> float:
    """Return Kendall's tau-b.

    Source: Kendall 1945, Biometrika 33; discordant pairs counted as in Knight 1966, JASA 61.
    """
    n = len(first_N)
    first, second = _dense(first_N), _dense(second_N)
    order = np.lexsort((second, first))  # pairs tied in the first are then in order in the second
    discordant = _inversions(second[order])
    pairs = n * (n - 1) // 2
    tied, tied_first, tied_second = (_pairs_in(values) for values in (first * n + second, first, second))
    # pairs = concordant + discordant + tied_first + tied_second - tied
    difference = pairs - tied_first - tied_second + tied - 2 * discordant
    tau = difference / np.sqrt(pairs - tied_first) / np.sqrt(pairs - tied_second)
    return float(min(1.0, max(-1.0, tau)))


def spearman_rho(first_N: Array, second_N: Array) -> float:
    """Return Spearman's correlation: Pearson's of the ranks, equal values having their mean rank."""
    ranks_N2 = np.column_stack((_mean_ranks(first_N), _mean_ranks(second_N)))
    return float(np.atleast_2d(np.corrcoef(ranks_N2, rowvar=False))[1, 0])


def _dense(values_N: Array) -> NDArray[np.int64]:
    """Return the place of every value among the different values, from 0."""
    return np.unique(values_N, return_inverse=True)[1].astype(np.int64)


def _mean_ranks(values_N: Array) -> Array:
    """Return the rank of every value, from 1."""
    _, place, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place], dtype=np.float64)


def _pairs_in(values_N: NDArray[np.int64]) -> int:
    """Return the number of pairs with equal values."""
    counts = np.unique(values_N, return_counts=True)[1].astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())


def _inversions(values_N: NDArray[np.int64]) -> int:
    """Return the number of pairs whose first value is larger than the second.

    Bottom-up merge sort: where blocks are merged, a value of the right block passes those of the left block
    that are larger.
    """
    n = len(values_N)
    values, place, total = values_N.copy(), np.arange(n), 0
    width = 1
    while width < n:
        block = place // (2 * width)
        order = np.lexsort((values, block))  # stable: of equal values the left one stays before
        from_right = order // width % 2 == 1
        # Left values behind a right one in the merged block: all of the block's left ones less those before.
        lefts = np.cumsum(~from_right)
        upto = np.minimum((block + 1) * 2 * width, n) - 1  # the last place of the block
        total += int((lefts[upto] - lefts)[from_right].sum())
        values, width = values[order], 2 * width
    return total
