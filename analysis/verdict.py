"""One verdict per row of the family: better, worse, equivalent or undecided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.sign_flips import least_attainable_p, sign_flip_p
from analysis.statistics import (
    MOST_SEEDS,
    Array,
    holm,
    mean_interval,
    paired_t_p,
    seeds_to_decide,
    upper_sd,
    without_spread,
)

ALPHA = 0.05
EQUIVALENCE_CONFIDENCE = 0.90


@dataclass(frozen=True)
class Verdicts:
    """The family's tests, one entry per row.

    Attributes:
        p: p value of the paired t test (M,).
        p_holm: the same, Holm-adjusted over the family and multiplied by the number of looks (M,).
        p_flip: joint sign flips, adjusted over the family and multiplied by the number of looks (M,).
        low: lower bound of the simultaneous 90 % interval (M,).
        high: its upper bound (M,).
        words: ``better``, ``worse``, ``equivalent``, ``undecided`` or ``''`` with fewer than 2 pairs.
        flat: all differences are equal, so that p is that of the sign flips.
        doubted: significant by t, while the sign flips could reject at this number of pairs and do not.
        within: better or worse, and yet inside ``smallest_effect`` as an equivalent row would be.
        seeds: the number of seeds that would decide an undecided row, ``MOST_SEEDS`` + 1 for more than those;
            None if unknown or not undecided. With
            them the paired t test finds ``smallest_effect`` with 80 % power, at Bonferroni's level of the
            whole family, which is safe wherever Holm puts the row, and if the SD of the differences is as
            large as its upper 80 % confidence limit.
    """

    p: Array
    p_holm: Array
    p_flip: Array
    low: Array
    high: Array
    words: list[str]
    flat: list[bool]
    doubted: list[bool]
    seeds: list[int | None]
    within: list[bool]


def judge(
    differences_MK: Array, smallest_effect: float | None, higher_is_better: bool, looks: int = 1
) -> Verdicts:
    """Judge every row of a family of paired differences to the reference.

    A row whose differences are all equal has no SD, so no t interval. Its bounds are then these differences:
    least and largest of n values hold the median with confidence 1 - 2 / 2**n, and the row is equivalent only
    where that is as strict as the t interval of the others.

    Args:
        differences_MK: arm minus reference (M, K), NaN where one of the two did not finish.
        smallest_effect: the smallest difference that matters; None declares nothing equivalent.
        higher_is_better: the direction of the metric.
        looks: how often results were looked at before the plan was changed; p values are multiplied by it.
    """
    rows = max(1, len(differences_MK))
    n = np.isfinite(differences_MK).sum(axis=1).astype(np.float64)
    p = paired_t_p(differences_MK)
    p_holm = np.minimum(1.0, holm(p) * looks)
    p_flip = np.minimum(1.0, sign_flip_p(differences_MK) * looks)
    tail = (1 - EQUIVALENCE_CONFIDENCE) / (rows * looks)
    mean, sd, _, low, high = mean_interval(differences_MK, 1 - tail)
    significant = p_holm <= ALPHA
    flat = without_spread(differences_MK)
    equivalent = np.zeros(len(p), dtype=bool)
    if smallest_effect:
        equivalent = (low > -smallest_effect) & (high < smallest_effect)
        equivalent &= ~flat | (least_attainable_p(n) <= tail)
    words = [
        _word(
            bool(is_significant), bool((difference > 0) == higher_is_better), bool(is_equivalent), pairs >= 2
        )
        for is_significant, difference, is_equivalent, pairs in zip(
            significant, mean, equivalent, n, strict=True
        )
    ]
    could_reject = least_attainable_p(n) * looks <= ALPHA
    seeds = [
        _more_seeds(float(spread), smallest_effect, rows * looks, int(pairs)) if word == "undecided" else None
        for word, spread, pairs in zip(words, upper_sd(sd, n), n, strict=True)
    ]
    doubted = [bool(flag) for flag in significant & could_reject & (p_flip > ALPHA)]
    within = [bool(flag) for flag in significant & equivalent]
    return Verdicts(p, p_holm, p_flip, low, high, words, flat.tolist(), doubted, seeds, within)


def clear_best(values_RK: Array, higher_is_better: bool, tests: int) -> int | None:
    """Return the row that is better than every other one; None if there is no such row.

    The row with the best mean must beat each of the others in a paired t test. Which row that is the data
    choose; with R rows a wrong one is chosen with a probability of at most R times the level of the tests.

    Args:
        values_RK: at least two rows to have one; NaN where a seed has no value.
        higher_is_better: direction of the metric.
        tests: by how much p values are multiplied: all rows of the study that could be the best, times looks.
    """
    finite = np.where(np.isfinite(values_RK), values_RK, np.nan) * (1.0 if higher_is_better else -1.0)
    mean = mean_interval(finite).mean
    if len(mean) < 2 or np.isnan(mean).any():
        return None
    best = int(mean.argmax())
    leads = finite[best] - np.delete(finite, best, axis=0)
    beaten = (mean_interval(leads).mean > 0) & (paired_t_p(leads) * tests <= ALPHA)
    return best if bool(beaten.all()) else None


def _word(significant: bool, is_better: bool, equivalent: bool, testable: bool) -> str:
    """Return the verdict of one row; the corrected test comes before equivalence."""
    if not testable:
        return ""
    if significant:
        return "better" if is_better else "worse"
    return "equivalent" if equivalent else "undecided"


def _more_seeds(sd: float, effect: float | None, tests: int, pairs: int) -> int | None:
    """Return the seeds for 80 % power at the smallest effect, at Bonferroni's level of so many tests."""
    if not effect or not (effect > 0 and sd > 0):
        return None
    seeds = seeds_to_decide(sd, effect, ALPHA / tests)
    if seeds is None:
        return MOST_SEEDS + 1
    return seeds if seeds > pairs else None
