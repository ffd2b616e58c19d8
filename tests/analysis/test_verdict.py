"""Verdicts of single rows, and simulated studies under the null hypothesis."""

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import mean_interval
from analysis.verdict import clear_best, judge

NOISE = np.random.default_rng(0).normal(0, 1, (4, 8))
NOISE -= NOISE.mean(axis=1, keepdims=True)


def shifted(*means: float, sd: float = 0.01) -> np.ndarray:
    return NOISE[: len(means)] * sd + np.array(means)[:, None]


def test_the_four_words() -> None:
    found = judge(np.vstack([shifted(0.1, -0.1), shifted(0.001, 0.01, sd=0.005)]), 0.02, True)
    assert found.words[:3] == ["better", "worse", "equivalent"]
    assert judge(shifted(0.001, sd=0.1), 0.02, True).words == ["undecided"]


def test_direction_of_a_loss() -> None:
    assert judge(shifted(0.1, -0.1), None, False).words == ["worse", "better"]


def test_nothing_is_equivalent_without_a_smallest_effect() -> None:
    found = judge(shifted(0.0, sd=1e-6), None, True)
    assert found.words == ["undecided"]
    assert found.seeds == [None]


def test_undecided_names_more_seeds_than_there_are() -> None:
    (seeds,) = judge(shifted(0.001, sd=0.05), 0.02, True).seeds
    assert seeds is not None
    assert seeds > 8


def test_seeds_are_planned_from_the_upper_limit_of_the_sd_at_bonferronis_level() -> None:
    power = pytest.importorskip("statsmodels.stats.power").TTestPower()
    data = shifted(0.001, 0.002, -0.001, sd=0.04)
    seeds = judge(data, 0.02, True, looks=2).seeds
    for row, k in zip(data, seeds, strict=True):
        sd = row.std(ddof=1) * np.sqrt(7 / stats.chi2.ppf(0.2, 7))
        assert k is not None
        assert power.power(0.02 / sd, k, 0.05 / 6) >= 0.8 > power.power(0.02 / sd, k - 1, 0.05 / 6)


def test_equal_differences_are_no_proof() -> None:
    flat = np.full((1, 5), 0.1)
    found = judge(flat, None, True)
    assert (found.words, found.flat) == (["undecided"], [True])
    assert found.p[0] == 2 / 2**5
    assert judge(np.full((1, 2), 0.1), None, True).words == ["undecided"]
    assert judge(np.full((1, 6), 0.1), None, True).words == ["better"]
    assert judge(np.zeros((1, 2)), 0.2, True).words == ["undecided"]
    assert judge(np.zeros((1, 5)), 0.2, True).words == ["equivalent"]  # 2 / 2**5 <= .1
    assert judge(np.zeros((5, 5)), 0.2, True).words == ["undecided"] * 5  # .0625 > .1 / 5
    assert judge(shifted(0.1), 0.2, True).flat == [False]


def test_fewer_than_two_pairs_give_no_verdict_and_an_empty_family_is_empty() -> None:
    assert judge(np.array([[0.1, np.nan]]), 0.02, True).words == [""]
    assert judge(np.empty((0, 8)), 0.02, True).words == []


def test_looks_multiply_p() -> None:
    once, twice = judge(shifted(0.006), 0.02, True), judge(shifted(0.006), 0.02, True, looks=2)
    assert twice.p_holm[0] == pytest.approx(2 * once.p_holm[0])
    assert twice.p_flip[0] == pytest.approx(2 * once.p_flip[0])
    assert twice.low[0] < once.low[0]


def test_simultaneous_interval_is_bonferroni() -> None:
    data = shifted(0.1, 0.2)
    found = judge(data, 0.02, True)
    low, high = stats.t.interval(1 - 0.1 / 2, 7, data[0].mean(), stats.sem(data[0]))
    assert (found.low[0], found.high[0]) == pytest.approx((low, high))


def test_a_row_that_only_t_rejects_is_doubted() -> None:
    # Search for a row near the border where t rejects at k = 8 and the sign flips do not.
    row = None
    rng = np.random.default_rng(0)
    while row is None:
        candidate = rng.normal(0.8, 1, (1, 8))
        found = judge(candidate, None, True)
        row = candidate if found.p_holm[0] <= 0.05 < found.p_flip[0] else None
    assert judge(row, None, True).doubted == [True]
    assert judge(shifted(0.1), None, True).doubted == [False]
    assert judge(shifted(0.1)[:, :5], None, True).doubted == [False]  # the check cannot reject at 5


def test_the_best_must_beat_the_second() -> None:
    clear, close = shifted(0.0, 0.1, 0.2), shifted(0.0, 0.2, 0.201)
    assert clear_best(clear, True, 3) == 2
    assert clear_best(clear, False, 3) == 0
    assert clear_best(close, True, 3) is None
    assert clear_best(close, False, 3) == 0
    assert clear_best(clear, True, 10**9) is None
    assert clear_best(clear[:1], True, 1) is None
    assert clear_best(np.vstack([clear, np.full((1, 8), np.nan)]), True, 4) is None


def test_the_best_of_equal_arms_is_rarely_bold() -> None:
    rng = np.random.default_rng(5)
    bold = [clear_best(rng.normal(size=(6, 5)) + rng.normal(size=5), True, 6) is not None for _ in range(500)]
    assert np.mean(bold) <= 0.05
    truth = [clear_best(rng.normal(size=(6, 8)) + 4 * np.eye(6)[:, :1], True, 6) for _ in range(50)]
    assert np.mean([found == 0 for found in truth]) > 0.8


@pytest.mark.parametrize("noise", ["normal", "skewed"])
def test_simulated_null_studies(noise: str) -> None:
    rng = np.random.default_rng(11)
    studies, arms, seeds = 600, 6, 8
    rejected, covered = 0, []
    for _ in range(studies):
        draw = rng.normal(size=(arms, seeds)) if noise == "normal" else rng.gamma(2.0, size=(arms, seeds)) - 2
        scores = draw + rng.normal(size=seeds)
        differences = scores[1:] - scores[0]
        rejected += any(word != "undecided" for word in judge(differences, None, True).words)
        interval = mean_interval(differences)
        covered.append((interval.low <= 0) & (interval.high >= 0))
    assert rejected / studies <= 0.08
    assert 0.91 <= np.mean(covered) <= 0.98
