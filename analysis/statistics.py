"""Intervals, paired tests and their correction: arrays in, arrays out.

R rows (arm x level), K confirm seeds; a value that is missing is NaN, so that every row may have its own n.
"""

from __future__ import annotations

import bisect
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.sign_flips import NO_SPREAD, least_attainable_p

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """Mean, SD and t interval per row, each (R,); SD and bounds are NaN with fewer than 2 values."""

    mean: Array
    sd: Array
    n: Array
    low: Array
    high: Array


def mean_interval(values_RK: Array, confidence: float = 0.95) -> Interval:
    """Return mean, SD, n and the two-sided t interval of every row of ``values_RK`` (R, K), NaN = missing."""
    n = np.isfinite(values_RK).sum(axis=1).astype(np.float64)
    total = np.where(np.isfinite(values_RK), values_RK, 0.0).sum(axis=1)
    mean = _divide(total, n)
    squares = np.where(np.isfinite(values_RK), values_RK - mean[:, None], 0.0) ** 2
    sd = np.sqrt(_divide(squares.sum(axis=1), n - 1))
    half = t_quantile(n - 1, 0.5 + confidence / 2) * _divide(sd, np.sqrt(n))
    return Interval(mean, sd, n, mean - half, mean + half)


def t_quantile(df: Array, probability: float) -> Array:
    """Return the quantile of Student's t (R,); NaN where df < 1."""
    return np.where(df >= 1, special.stdtrit(np.maximum(df, 1.0), probability), np.nan)


def two_sided_p(t_R: Array, df_R: Array) -> Array:
    """Return the two-sided p value of t with df degrees of freedom; NaN where df < 1."""
    return np.where(df_R >= 1, 2 * special.stdtr(np.maximum(df_R, 1.0), -np.abs(t_R)), np.nan)


def without_spread(values_RK: Array) -> NDArray[np.bool_]:
    """Return which rows hold two values or more that are all equal but for rounding (R,)."""
    mean, sd, n, *_ = mean_interval(values_RK)
    with np.errstate(invalid="ignore"):
        return np.asarray((n >= 2) & (sd**2 <= NO_SPREAD * (mean**2 + sd**2)), dtype=np.bool_)


def t_statistic(values_RK: Array) -> Array:
    """Return mean / (SD / sqrt(n)) of every row (R,): +-inf for equal nonzero values, 0 for zeros."""
    mean, sd, n, *_ = mean_interval(values_RK)
    sd = np.where(without_spread(values_RK), 0.0, sd)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = mean / (sd / np.sqrt(n))
    return np.where((mean == 0) & (sd == 0), 0.0, t)


def paired_t_p(differences_RK: Array) -> Array:
    """Return the p value of the paired t test of every row (R,); NaN with fewer than 2 pairs.

    Differences that are all equal have no SD to test with: t would be infinite and p 0, from two seeds on, as
    happens by chance where scores are coarse (few test images). Such a row has the p value of its sign flips,
    2 / 2**n, or 1 where all are 0.
    """
    n = np.isfinite(differences_RK).sum(axis=1)
    t = t_statistic(differences_RK)
    return np.where(np.isinf(t), least_attainable_p(n), two_sided_p(t, n - 1.0))


def holm(p_M: Array) -> Array:
    """Return Holm-adjusted p values (M,), step-down over the whole family.

    A NaN (a row that cannot be tested yet) counts as a member of the family and stays NaN.
    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    filled = np.where(np.isnan(p_M), 1.0, p_M)
    order = np.argsort(filled, kind="stable")
    factors = np.arange(len(p_M), 0, -1)
    stepped = np.minimum(np.maximum.accumulate(filled[order] * factors), 1.0)
    adjusted = np.empty(len(p_M))
    adjusted[order] = stepped
    return np.where(np.isnan(p_M), np.nan, adjusted)


def pair_correlation(first_RK: Array, second_RK: Array) -> Array:
    """Return Pearson's correlation over the seeds that both rows have (R,); NaN with fewer than 3 pairs."""
    both = np.isfinite(first_RK) & np.isfinite(second_RK)
    x = np.where(both, first_RK, np.nan)
    y = np.where(both, second_RK, np.nan)
    x_centred = x - mean_interval(x).mean[:, None]
    y_centred = y - mean_interval(y).mean[:, None]
    product, x_square, y_square = (
        np.nansum(term, axis=1) for term in (x_centred * y_centred, x_centred**2, y_centred**2)
    )
    correlation = _divide(product, np.sqrt(x_square * y_square))
    return np.where(both.sum(axis=1) >= 3, np.clip(correlation, -1, 1), np.nan)


def interquartile_mean(values_RK: Array, fewest: int = 10) -> Array:
    """Return the mean of the middle half of every row (R,); NaN with fewer than ``fewest`` values.

    As scipy's ``trim_mean(values, 0.25)``, the IQM of rliable (Agarwal et al. 2021).
    """
    result = np.full(len(values_RK), np.nan)
    known_RK = np.isfinite(values_RK)
    ordered_RK = np.sort(np.where(known_RK, values_RK, np.inf), axis=1)
    n_R = known_RK.sum(axis=1)
    for n in np.unique(n_R[n_R >= fewest]):
        cut = int(0.25 * n)
        result[n_R == n] = ordered_RK[n_R == n, cut : n - cut].mean(axis=1)
    return result


def upper_sd(sd_R: Array, n_R: Array, confidence: float = 0.8) -> Array:
    """Return the one-sided upper confidence limit of an SD that n values gave (R,); NaN where n < 2.

    sqrt((n - 1) / q) * SD with q the (1 - confidence) quantile of chi-square with n - 1 degrees of freedom.
    Planned from the SD itself, half of all studies turn out too small.
    Source: Browne 1995, Statistics in Medicine 14, on pilot samples (he takes 80 %).
    """
    df = np.maximum(n_R - 1.0, 1.0)
    return np.where(n_R >= 2, sd_R * np.sqrt(df / special.chdtri(df, confidence)), np.nan)


MOST_SEEDS = 1000
"""Of more seeds the calculator gives no number."""


def seeds_to_decide(
    sd: float, effect: float, alpha: float, power: float = 0.8, most: int = MOST_SEEDS
) -> int | None:
    """Return the fewest seeds for a paired t test at level ``alpha`` to find ``effect`` with ``power``.

    Args:
        sd: SD of the paired differences.
        effect: the difference to find, in the units of ``sd``.
        alpha: two-sided level of one test, correction included.
        power: the wanted power, from the noncentral t distribution.
        most: the largest number that is tried; beyond it the answer is None.
    """
    if not (effect > 0 and sd > 0):
        return None

    def reached(k: int) -> bool:
        critical = special.stdtrit(k - 1, 1 - alpha / 2)
        shift = effect * math.sqrt(k) / sd
        # Far from 0 (shift > 30, beyond every critical value) nctdtr loses accuracy; the power there is 1.
        far = shift > critical + 30
        return bool(far or 1 - special.nctdtr(k - 1, min(shift, 30.0), critical) >= power)

    found = bisect.bisect_left(range(2, most + 1), True, key=reached) + 2  # the power grows with k
    return found if found <= most else None


def _divide(numerator: Array, denominator: Array) -> Array:
    """Return the quotient, NaN where the denominator is not positive."""
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1.0), np.nan)
