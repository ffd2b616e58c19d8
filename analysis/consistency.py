"""What seeds agree on: the layout of class vectors and the features of the same report pixels.

Reads the ``geometry.npz`` of confirm trials. Legend: C classes, D and E feature channels, P report pixels,
K seeds; NaN = missing. Features of two seeds live in different bases, so only quantities that do not change
under rotation and scale are compared, pair by pair.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from analysis.arrays import Arrays, read_arrays
from analysis.statistics import Array, t_quantile

T = TypeVar("T")


class Estimate(NamedTuple):
    """A mean over pairs of seeds with its jackknife; bounds are NaN with fewer than 3 seeds."""

    value: float
    error: float
    low: float
    high: float
    seeds: int


def read_geometry(study: Path, trial_id: str, names: Collection[str] | None = None) -> Arrays | None:
    """Return the arrays that a confirm trial left, of its highest attempt; None if there are none.

    With ``names`` only those of these names, as far as the file has them.

    Raises:
        UserError: The file is damaged.
    """
    files = [*(study / "trials" / trial_id).glob("attempt-*/geometry.npz")]
    if not files:
        return None
    return read_arrays(max(files, key=_attempt), names)


def _attempt(file: Path) -> int:
    """Return the number of the attempt that wrote a file."""
    found = re.search(r"\d+$", file.parent.name)
    return int(found.group()) if found else 0


def off_diagonal_cosines(vectors_CD: Array) -> Array:
    """Return the cosines of all pairs of different classes (C (C - 1) / 2,).

    NaN where a class has no vector: its row is 0 or not finite.
    """
    vectors = np.asarray(vectors_CD, dtype=np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    usable = np.isfinite(norms) & (norms > 0)
    directions = np.where(usable, vectors, np.nan) / np.where(usable, norms, 1.0)
    return np.asarray((directions @ directions.T)[np.triu_indices(len(vectors), k=1)])


def layout_agreement(first_CD: Array, second_CD: Array) -> float:
    """Return Pearson's correlation between the cosines of two sets of class vectors.

    Of the pairs of classes that both have; NaN with fewer than 3, or where all are equal. Unchanged when
    either set is rotated or scaled, and the two may differ in D.
    """
    x, y = off_diagonal_cosines(first_CD), off_diagonal_cosines(second_CD)
    if len(x) != len(y):
        return float("nan")
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < 3:
        return float("nan")
    x, y = x[both] - x[both].mean(), y[both] - y[both].mean()
    spread = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / spread if spread > 0 else float("nan")


def linear_cka(first_PD: Array, second_PE: Array) -> float:
    """Return the linear centred kernel alignment of the features of the same P pixels.

    ||X^T Y||_F^2 / (||X^T X||_F ||Y^T Y||_F), X and Y centred over pixels. Source: Kornblith et al. 2019,
    "Similarity of Neural Network Representations Revisited". NaN for constant or non-finite features.
    """
    return _alignment(_unit(first_PD), _unit(second_PE))


def _unit(features_PD: Array) -> Array:
    """Return features centred over pixels and scaled to ||X^T X||_F = 1; all NaN where that cannot be."""
    features = np.asarray(features_PD, dtype=np.float64)
    if not np.isfinite(features).all() or (features == features[:1]).all():
        return np.full(features.shape, np.nan)
    centred = features - features.mean(axis=0)
    return np.asarray(centred / np.sqrt(np.linalg.norm(centred.T @ centred)))


def _alignment(first_PD: Array, second_PE: Array) -> float:
    """Return ||X^T Y||_F^2, the linear CKA of features that ``_unit`` has scaled."""
    return float(np.linalg.norm(first_PD.T @ second_PE) ** 2)


def layout_pairs(trials: Sequence[Arrays | None], name: str) -> Array:
    """Return ``layout_agreement`` of the vectors ``name`` of every pair of seeds (K, K)."""
    return over_pairs([None if found is None else found.get(name) for found in trials], layout_agreement)


def feature_pairs(trials: Sequence[Arrays | None]) -> Array:
    """Return ``linear_cka`` of every pair of seeds (K, K); NaN where two kept different pixels."""
    ready = [None if found is None else (found, _unit(found["features"])) for found in trials]

    def agreement(first: tuple[Arrays, Array], second: tuple[Arrays, Array]) -> float:
        same = all(np.array_equal(first[0][name], second[0][name]) for name in ("pixels", "labels"))
        return _alignment(first[1], second[1]) if same else float("nan")

    return over_pairs(ready, agreement)


def over_pairs(items: Sequence[T | None], agreement: Callable[[T, T], float]) -> Array:
    """Return the agreement of every pair of items (K, K), symmetric; NaN on the diagonal and for None."""
    pairs = np.full((len(items), len(items)), np.nan)
    for i, first in enumerate(items):
        for j, second in enumerate(items[:i]):
            if first is not None and second is not None:
                pairs[i, j] = pairs[j, i] = agreement(first, second)
    return pairs


def jackknife(pairs_KK: Array, confidence: float = 0.95) -> Estimate:
    """Return the mean over pairs of seeds with its delete-one-seed jackknife.

    Pairs share seeds and are not independent; seeds are. With theta_i the mean without the pairs of seed i,
    error^2 = (n - 1) / n sum (theta_i - mean theta)^2 over the n seeds that have a pair, and the interval is
    theta +- t(n - 1) error. Source: Efron and Tibshirani 1993, chapter 11. Of the difference of two arms'
    matrices it is the paired jackknife: a seed leaves both arms at once.

    Args:
        pairs_KK: (K, K), symmetric; NaN on the diagonal and where a pair has no value.
        confidence: Of the interval.
    """
    known = np.isfinite(pairs_KK)
    seeds = np.flatnonzero(known.any(axis=1))
    n = len(seeds)
    nan = float("nan")
    if n < 2:
        return Estimate(nan, nan, nan, nan, n)
    filled = np.where(known, pairs_KK, 0.0)
    total, count = filled.sum(), known.sum()
    left = count - 2 * known[seeds].sum(axis=1)
    if n < 3 or (left == 0).any():
        return Estimate(float(total / count), nan, nan, nan, n)
    without = (total - 2 * filled[seeds].sum(axis=1)) / left
    error = float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
    half = error * float(t_quantile(np.array([n - 1.0]), 0.5 + confidence / 2)[0])
    value = float(total / count)
    return Estimate(value, error, value - half, value + half, n)
