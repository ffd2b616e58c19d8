"""Intervals and tests against scipy, statsmodels and cases worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import (
    holm,
    interquartile_mean,
    mean_interval,
    pair_correlation,
    paired_t_p,
    seeds_to_decide,
    t_statistic,
    upper_sd,
    without_spread,
)

NAN = np.nan


def rows(count: int = 5, seeds: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(0.3, 0.05, (count, seeds))


def test_mean_interval_equals_scipy() -> None:
    values = rows()
    values[1, 2:4] = NAN
    found = mean_interval(values)
    for row, known in enumerate(values):
        known = known[np.isfinite(known)]
        low, high = stats.t.interval(0.95, len(known) - 1, known.mean(), stats.sem(known))
        expected = (known.mean(), known.std(ddof=1), len(known), low, high)
        assert [column[row] for column in found] == pytest.approx(expected, rel=1e-12)


def test_mean_interval_by_hand() -> None:
    found = mean_interval(np.array([[1.0, 2.0, 3.0]]))
    assert found.mean[0] == 2.0
    assert found.sd[0] == 1.0
    assert found.high[0] == pytest.approx(2 + 4.302652729911275 / np.sqrt(3))


def test_one_value_has_a_mean_and_no_interval_and_none_has_nothing() -> None:
    found = mean_interval(np.array([[0.5, NAN], [NAN, NAN], [np.inf, 1.0]]))
    np.testing.assert_array_equal(found.mean, [0.5, NAN, 1.0])
    np.testing.assert_array_equal(found.n, [1, 0, 1])
    assert np.isnan([found.sd, found.low, found.high]).all()


def test_paired_t_equals_scipy() -> None:
    first, second = rows(), rows() + np.random.default_rng(1).normal(0, 0.02, (5, 8))
    second[2, 5] = NAN
    expected = [stats.ttest_rel(a, b, nan_policy="omit").pvalue for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(paired_t_p(first - second), expected, rtol=1e-10)


def test_constant_differences() -> None:
    np.testing.assert_array_equal(
        t_statistic(np.array([[0.0] * 4, [0.5] * 4, [-0.5] * 4])), [0, np.inf, -np.inf]
    )
    same = np.array([[0.0] * 4, [0.5] * 4, [0.5, NAN, NAN, NAN], [0.5, 0.5, 0.6, 0.6]])
    np.testing.assert_array_equal(paired_t_p(same)[:3], [1, 2 / 2**4, NAN])
    np.testing.assert_array_equal(without_spread(same), [True, True, False, False])


def test_equal_differences_with_rounding_noise_are_equal() -> None:
    noisy = np.array([[0.35 - 0.30, 0.30 - 0.25, 0.25 - 0.20, 0.2 - 0.15, 0.4 - 0.35]])
    assert np.unique(noisy).size > 1
    assert paired_t_p(noisy)[0] == 2 / 2**5


def test_coarse_scores_are_not_significant_by_their_ties() -> None:
    # Accuracy over 20 images: three seeds with one difference of equal arms are nothing rare.
    rng = np.random.default_rng(3)
    differences = (rng.binomial(20, 0.9, (4000, 3)) - rng.binomial(20, 0.9, (4000, 3))) / 20
    assert without_spread(differences).mean() > 0.02
    assert (paired_t_p(differences) <= 0.05).mean() <= 0.055


def test_holm_equals_statsmodels() -> None:
    multipletests = pytest.importorskip("statsmodels.stats.multitest").multipletests
    for p in np.random.default_rng(2).uniform(0, 0.2, (50, 7)):
        np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


def test_holm_by_hand_and_a_row_without_a_p_is_a_member_of_the_family() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.01, NAN, 0.03])), [0.03, NAN, 0.06])
    assert holm(np.array([])).shape == (0,)


def test_pair_correlation_equals_scipy() -> None:
    first, second = rows(), rows() + np.random.default_rng(1).normal(0, 0.05, (5, 8))
    first[0, 0] = second[0, 1] = NAN
    found = pair_correlation(first, second)
    assert found[0] == pytest.approx(stats.pearsonr(first[0, 2:], second[0, 2:]).statistic)
    assert found[4] == pytest.approx(stats.pearsonr(first[4], second[4]).statistic)
    assert np.isnan(pair_correlation(first[:, :2], second[:, :2])).all()


def test_interquartile_mean_equals_scipy_from_ten_values_on() -> None:
    values = rows(2, 11)
    values[1, :2] = NAN
    found = interquartile_mean(values)
    assert found[0] == pytest.approx(stats.trim_mean(values[0], 0.25))
    assert np.isnan(found[1])


@pytest.mark.parametrize(("sd", "effect", "alpha"), [(1.0, 1.0, 0.05), (1.0, 2.0, 0.01), (1.0, 0.2, 0.0125)])
def test_seeds_to_decide_equals_statsmodels(sd: float, effect: float, alpha: float) -> None:
    power = pytest.importorskip("statsmodels.stats.power").TTestPower()
    k = seeds_to_decide(sd, effect, alpha)
    assert k is not None
    assert power.power(effect / sd, k, alpha) >= 0.8 > power.power(effect / sd, k - 1, alpha)


def test_upper_limit_of_the_sd_equals_scipy_and_holds_in_four_of_five_samples() -> None:
    n = np.array([2.0, 5.0, 10.0, 1.0])
    found = upper_sd(np.full(4, 0.3), n)
    expected = 0.3 * np.sqrt((n[:3] - 1) / stats.chi2.ppf(0.2, n[:3] - 1))
    np.testing.assert_allclose(found[:3], expected, rtol=1e-10)
    assert np.isnan(found[3])
    samples = np.random.default_rng(0).normal(0, 1, (4000, 5))
    above = upper_sd(samples.std(axis=1, ddof=1), np.full(4000, 5.0)) >= 1
    assert above.mean() == pytest.approx(0.8, abs=0.03)


def test_seeds_to_decide_at_the_edges() -> None:
    assert seeds_to_decide(1.0, 1e-3, 0.05) is None  # more than can be run
    assert seeds_to_decide(0.0, 0.1, 0.05) is None
    assert seeds_to_decide(NAN, 0.1, 0.05) is None
    assert seeds_to_decide(1e-6, 1.0, 0.05) == 2
