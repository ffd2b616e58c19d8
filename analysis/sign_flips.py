"""Joint sign flips: the distribution-free check of the paired t tests.

R rows (arm x level), K confirm seeds. Under the null hypothesis the differences of a seed may change sign, in
all rows together; flipping them jointly keeps the dependence that the shared reference brings.
Source: Westfall and Young 1993, step-down.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
EXACT_FLIPS = 4096 * 4
NO_SPREAD = 1e-12
"""Differences whose variance is a smaller part of their mean square than this differ by rounding alone, and a
mean that is a smaller part of their root mean square is 0."""


def sign_matrix(seeds: int, most: int = EXACT_FLIPS, random_seed: int = 0) -> Array:
    """Return the flips (F, K) of +-1, the first all +1: all 2**K, or ``most`` at random."""
    if 2**seeds <= most:
        bits = np.arange(2**seeds)[:, None] >> np.arange(seeds) & 1
    else:
        bits = np.random.default_rng(random_seed).integers(0, 2, (most, seeds))
        bits[0] = 0
    return np.asarray(1.0 - 2.0 * bits, dtype=np.float64)


def sign_flip_p(differences_RK: Array) -> Array:
    """Return p values of ``differences_RK`` (R, K; NaN = missing), adjusted over all rows (R,).

    Step-down: the row of rank r is compared with the strongest evidence of the rows from rank r on. max-t
    where all rows have the same n; rows of different n are made comparable by the p value of their own t
    (min-p), for which it is turned into the t that is as rare at another n. NaN where a row has fewer than 2
    pairs.
    """
    n = np.isfinite(differences_RK).sum(axis=1)
    rows = np.flatnonzero(n >= 2)
    adjusted = np.full(len(differences_RK), np.nan)
    if len(rows) == 0:
        return adjusted
    differences = differences_RK[rows][:, np.isfinite(differences_RK).any(axis=0)]
    signs = sign_matrix(differences.shape[1])
    if len(signs) == 2 ** differences.shape[1]:
        signs = signs[: len(signs) // 2]  # the other half are their opposites, with the same |t|
    n, t = n[rows], _t_values(differences, signs[:1])[:, 0]
    order = _strongest_first(t, n)
    rows, n, t, differences = rows[order], n[order], t[order], differences[order]
    least = {pairs: _as_rare(t, n, pairs) * (1 - 1e-9) for pairs in np.unique(n)}
    most = {pairs: np.full(len(signs), -np.inf) for pairs in least}
    share = np.empty(len(rows))
    for rank in reversed(range(len(rows))):
        alike = most[n[rank]]
        np.maximum(alike, _t_values(differences[rank : rank + 1], signs)[0], out=alike)
        share[rank] = np.any([most[pairs] >= least[pairs][rank] for pairs in least], axis=0).mean()
    adjusted[rows] = np.maximum.accumulate(share)
    return adjusted


def least_attainable_p(n_R: Array) -> Array:
    """Return the smallest p value that flipping the signs of n pairs can give (R,): both tails of 2**n."""
    return np.minimum(1.0, 2.0 ** (1 - n_R))


def _t_values(differences_RK: Array, signs_FK: Array) -> Array:
    """Return |t| of each row after every flip (R, F)."""
    known = np.isfinite(differences_RK)
    n = known.sum(axis=1, keepdims=True).astype(np.float64)
    filled = np.where(known, differences_RK, 0.0)
    mean = filled @ signs_FK.T / n
    squares = (filled**2).sum(axis=1, keepdims=True)
    # Sums that cancel out, and spread of equal differences, must not depend on the order of summation.
    mean = np.where(np.abs(mean) <= NO_SPREAD * np.sqrt(squares / n), 0.0, mean)
    variance = np.maximum(squares - n * mean**2, 0.0) / (n - 1)
    variance = np.where(variance <= NO_SPREAD * squares / n, 0.0, variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(mean == 0, 0.0, np.abs(mean) / np.sqrt(variance / n)), dtype=np.float64)


def _strongest_first(t_R: Array, n_R: Counts) -> Counts:
    """Return the rows by their evidence: |t|, or where rows differ in n its p value."""
    evidence = t_R
    if len(np.unique(n_R)) > 1:
        with np.errstate(divide="ignore"):
            evidence = -np.log(special.stdtr(n_R - 1, -t_R))
    return np.argsort(-evidence, kind="stable")


def _as_rare(t_R: Array, n_R: Counts, n: int) -> Array:
    """Return the |t| of n pairs (R,) with the p values that ``t_R`` have at their own numbers of pairs."""
    with np.errstate(divide="ignore"):
        same = np.abs(special.stdtrit(n - 1, special.stdtr(n_R - 1, -t_R)))  # of p = 0 it is +inf
    return np.where(n_R == n, t_R, same)
