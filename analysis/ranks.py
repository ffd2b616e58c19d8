"""Average ranks over data sets, Friedman's test, Nemenyi's critical difference: arrays in, arrays out.

R arms, N data sets. Data sets are the sample: a score is the mean over the confirm seeds of an arm on one.
Source: Demsar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.statistics import Array

FEWEST_DATA_SETS = 5
FEWEST_ARMS = 3
ALPHA = 0.05


@dataclass(frozen=True)
class Ranking:
    """Arms by their average rank.

    Attributes:
        ranks: of every arm on every data set (R, N), 1 is the best, ties share the mean of their ranks.
        average: over data sets (R,).
        statistic: Friedman's chi-square, corrected for ties; 0 where all arms tie everywhere.
        p: its p value, from chi-square with R - 1 degrees of freedom.
        critical: Nemenyi's critical difference of two average ranks at .05.
    """

    ranks: Array
    average: Array
    statistic: float
    p: float
    critical: float


def rank_arms(scores_RN: Array, higher_is_better: bool) -> Ranking:
    """Rank arms on every data set and test whether they differ at all.

    Args:
        scores_RN: every score finite, R >= 3, N >= 2.
        higher_is_better: direction of the scores.
    """
    assert np.isfinite(scores_RN).all()
    assert min(scores_RN.shape) >= 2, scores_RN.shape
    arms, sets = scores_RN.shape
    ranks = column_ranks(-scores_RN if higher_is_better else scores_RN)
    average = ranks.mean(axis=1)
    between = sets * ((average - (arms + 1) / 2) ** 2).sum()
    within = ((ranks - (arms + 1) / 2) ** 2).sum() / (sets * (arms - 1))  # ties make it smaller
    statistic = float(between / within) if within > 0 else 0.0
    p = float(special.chdtrc(arms - 1, statistic))
    return Ranking(ranks, average, statistic, p, critical_difference(arms, sets))


def column_ranks(values_RN: Array) -> Array:
    """Return the rank of every value in its column (R, N): 1 is the smallest, ties share their mean rank."""
    smaller = (values_RN[None] < values_RN[:, None]).sum(axis=1)
    equal = (values_RN[None] == values_RN[:, None]).sum(axis=1)
    return np.asarray(smaller + (equal + 1) / 2, dtype=np.float64)


def critical_difference(arms: int, sets: int, alpha: float = ALPHA) -> float:
    """Return Nemenyi's critical difference of average ranks: q sqrt(R (R + 1) / (6 N)).

    q is the quantile of the studentized range of R normal values with known variance, over sqrt 2.
    """
    return range_quantile(arms, 1 - alpha) / math.sqrt(2) * math.sqrt(arms * (arms + 1) / (6 * sets))


def range_quantile(count: int, probability: float) -> float:
    """Return the quantile of the range of ``count`` independent standard normal values, by bisection."""
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if range_cdf(middle, count) < probability else (low, middle)
    return (low + high) / 2


def range_cdf(width: float, count: int) -> float:
    """Return the probability that the range of ``count`` standard normal values is at most ``width``.

    count times the integral over z of phi(z) (Phi(z) - Phi(z - width))^(count - 1): z is the largest value.
    """
    z = np.linspace(-9.0, 9.0 + width, 4001)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return float(
        count * np.trapezoid(density * (special.ndtr(z) - special.ndtr(z - width)) ** (count - 1), z)
    )


def cliques(average_R: Array, critical: float) -> list[NDArray[np.int64]]:
    """Return the largest groups of arms, neighbours in rank, whose ends differ by less than ``critical``.

    Each group holds row numbers in the order of their ranks; groups of one arm are left out, and so are those
    within another.
    """
    order = np.argsort(average_R, kind="stable")
    sorted_ranks = average_R[order]
    found: list[tuple[int, int]] = []
    for start in range(len(order)):
        end = int(np.searchsorted(sorted_ranks, sorted_ranks[start] + critical, side="left"))
        if end - start > 1 and (not found or end > found[-1][1]):
            found.append((start, end))
    return [order[start:end] for start, end in found]
