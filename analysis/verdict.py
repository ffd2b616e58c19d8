"""One verdict per row of the family: better, worse, equivalent or undecided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.sign_flips import least_attainable_p, sign_flip_p
from analysis.statistics import Array, holm, mean_interval, paired_t_p, seeds_to_decide

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
        doubted: significant by t, while the sign flips could reject at this number of pairs and do not.
        seeds: the number of seeds that would decide an undecided row; None if unknown or not undecided.
    """

    p: Array
    p_holm: Array
    p_flip: Array
    low: Array
    high: Array
    words: list[str]
    doubted: list[bool]
    seeds: list[int | None]


def judge(
    differences_MK: Array, smallest_effect: float | None, higher_is_better: bool, looks: int = 1
) -> Verdicts:
    """Judge every row of a family of paired differences to the reference.

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
    equivalent = np.zeros(len(p), dtype=bool)
    if smallest_effect:
        equivalent = (low > -smallest_effect) & (high < smallest_effect)
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
        for word, spread, pairs in zip(words, sd, n, strict=True)
    ]
    doubted = [bool(flag) for flag in significant & could_reject & (p_flip > ALPHA)]
    return Verdicts(p, p_holm, p_flip, low, high, words, doubted, seeds)


def _word(significant: bool, is_better: bool, equivalent: bool, testable: bool) -> str:
    """Return the verdict of one row; the corrected test comes before equivalence."""
    if not testable:
        return ""
    if significant:
        return "better" if is_better else "worse"
    return "equivalent" if equivalent else "undecided"


def _more_seeds(sd: float, effect: float | None, tests: int, pairs: int) -> int | None:
    """Return the seeds for 80 % power at the smallest effect, at the strictest level of the family."""
    seeds = seeds_to_decide(sd, effect, ALPHA / tests) if effect else None
    return seeds if seeds is not None and seeds > pairs else None
