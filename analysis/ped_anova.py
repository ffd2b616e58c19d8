"""PED-ANOVA: which parameters decide whether a trial is among the best. N trials, G cells of a grid.

Source: Watanabe, Bansal and Hutter 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
Arbitrary Subspaces", IJCAI; grid, bandwidth and prior are those of optuna's evaluator, with which the tests
compare it. optuna takes as long to import as the rest of a report to make.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.space import Range
from analysis.statistics import Array

CELLS = 50
"""Cells of the grid that a range is divided into, at most."""
_NARROWEST = 0.5 / 1.64  # SD of a kernel in cells: 90 % of it lie in its cell
_FLOOR = 1e-12
Counts = NDArray[np.int64]


def best_share(losses_N: Array, share: float) -> NDArray[np.bool_]:
    """Return which trials are among the best ``share`` (N,); those equal to the last of them are too."""
    last = math.ceil(share * len(losses_N)) - 1
    return np.asarray(losses_N <= np.partition(losses_N, last)[last])


def divergence(values: Sequence[Any], best_N: NDArray[np.bool_], searched: Range) -> float:
    """Return Pearson's divergence of a parameter's density among the best trials from that among all.

    Args:
        values: of each trial, inside the range.
        best_N: which trials are among the best.
        searched: the range.
    """
    cells_N, size = _choices(values, searched) if searched.kind == "choice" else _grid(values, searched)
    if size < 2:
        return 0.0
    density = _choice_density if searched.kind == "choice" else _density
    best, every = (
        density(np.bincount(cells, minlength=size)) + _FLOOR for cells in (cells_N[best_N], cells_N)
    )
    return float(every @ (best / every - 1) ** 2)


def _choices(values: Sequence[Any], searched: Range) -> tuple[Counts, int]:
    """Return the place of each value among the choices, and their number."""
    places = {str(choice): place for place, choice in enumerate(searched.choices)}
    return np.array([places[str(value)] for value in values], dtype=np.int64), len(places)


def _grid(values: Sequence[float], searched: Range) -> tuple[Counts, int]:
    """Return the cell of each value, on the scale that is searched, and the number of cells."""
    low, high, size = searched.low, searched.high, CELLS
    step = searched.step or (1.0 if searched.kind == "int" else None)
    if searched.kind == "int" and searched.log:
        size = min(math.ceil(math.log2(high - low + 1)) + 1, size)
    elif step is not None:
        size = min(round((high - low) / step) + 1, size)
    if size < 2 or low == high:
        return np.zeros(len(values), dtype=np.int64), 1
    found = np.asarray(values, dtype=np.float64)
    if searched.log:
        low, high, found = math.log(low), math.log(high), np.log(found)
    cells = np.ceil((found - low) / ((high - low) / (size - 1)) - 0.5)  # ties go to the lower cell
    return np.clip(cells.astype(np.int64), 0, size - 1), size


def _density(counts_G: Counts) -> Array:
    """Return the density of cells (G,): a Gaussian around every occupied cell, and a wide one as prior."""
    size = len(counts_G)
    occupied = np.flatnonzero(counts_G)
    weights = counts_G[occupied]
    total, upto = int(weights.sum()), np.cumsum(weights)
    mean = occupied @ weights / total
    spread = math.sqrt((occupied - mean) ** 2 @ weights / max(1, total - 1))
    first = np.searchsorted(upto, total // 4, side="left")
    third = min(len(occupied) - 1, int(np.searchsorted(upto, total * 3 // 4, side="right")))
    between = float(occupied[third] - occupied[first])
    width = 1.059 * min(between / 1.34, spread) * total**-0.2  # Scott's rule
    centres, widths, shares = np.empty((3, len(occupied) + 1))
    centres[:-1], centres[-1] = occupied, (size - 1) / 2
    widths[:-1], widths[-1] = max(width, _NARROWEST), size
    shares[:-1], shares[-1] = weights, 1.0
    edges = np.arange(size + 1)[:, None] - 0.5
    below = special.ndtr((edges - centres) / widths)
    parts = (below[1:] - below[:-1]) / (below[-1] - below[0])
    return np.asarray(parts @ (shares / (total + 1)), dtype=np.float64)


def _choice_density(counts_G: Counts) -> Array:
    """Return the density of choices (G,): each that occurs, smoothed by the prior, and the prior."""
    occupied = np.flatnonzero(counts_G)
    kernels = np.full((len(occupied) + 1, len(counts_G)), 1 / (len(occupied) + 1))
    kernels[np.arange(len(occupied)), occupied] += 1
    kernels /= kernels.sum(axis=1, keepdims=True)
    weights = np.append(counts_G[occupied], 1.0)
    return np.asarray(weights / weights.sum() @ kernels, dtype=np.float64)
