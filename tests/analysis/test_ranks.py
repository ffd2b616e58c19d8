"""Ranks over data sets against scipy, scikit-posthocs and Demsar's table."""

import numpy as np
import pytest
from scipy import stats

from analysis.ranks import cliques, column_ranks, critical_difference, range_cdf, range_quantile, rank_arms


def scores(arms: int = 5, sets: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(np.linspace(0, 1.5, arms)[:, None], 0.5, (arms, sets))


def test_ranks_equal_scipy_with_ties() -> None:
    values = np.round(scores(), 1)
    assert any(len(np.unique(column)) < 5 for column in values.T)
    np.testing.assert_array_equal(column_ranks(values), stats.rankdata(values, axis=0))


@pytest.mark.parametrize("decimals", [6, 0])
def test_friedman_equals_scipy_with_ties(decimals: int) -> None:
    values = np.round(scores(), decimals)
    found = rank_arms(values, higher_is_better=True)
    expected = stats.friedmanchisquare(*values)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.average.sum() == pytest.approx(5 * 6 / 2)


def test_the_best_has_the_least_rank_in_either_direction() -> None:
    values = np.array([[3.0, 3.0, 3.0], [2.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
    np.testing.assert_array_equal(rank_arms(values, True).average, [1, 2, 3])
    np.testing.assert_array_equal(rank_arms(values, False).average, [3, 2, 1])


def test_arms_that_tie_everywhere_do_not_differ() -> None:
    found = rank_arms(np.ones((4, 6)), True)
    assert (found.statistic, found.p) == (0.0, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_nemenyi_equals_scikit_posthocs(seed: int) -> None:
    posthocs = pytest.importorskip("scikit_posthocs")
    values = scores(seed=seed)
    p = posthocs.posthoc_nemenyi_friedman(values.T).to_numpy()
    found = rank_arms(values, True)
    apart = np.abs(found.average[:, None] - found.average[None])
    off = ~np.eye(5, dtype=bool)
    np.testing.assert_array_equal((apart >= found.critical)[off], (p <= 0.05)[off])
    deviation = apart / np.sqrt(5 * 6 / (6 * 8)) * np.sqrt(2)
    own = np.array([[1 - range_cdf(width, 5) for width in row] for row in deviation])
    np.testing.assert_allclose(own[off], p[off], atol=1e-6)


@pytest.mark.parametrize(("arms", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_quantiles_equal_demsars_table(arms: int, q: float) -> None:
    assert range_quantile(arms, 0.95) / np.sqrt(2) == pytest.approx(q, abs=1e-3)


def test_critical_difference_of_demsars_example() -> None:
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


def test_cliques_by_hand() -> None:
    average = np.array([3.0, 1.0, 1.5, 4.5])
    assert [group.tolist() for group in cliques(average, 1.0)] == [[1, 2]]
    assert [group.tolist() for group in cliques(average, 1.6)] == [[1, 2], [2, 0], [0, 3]]
    assert [group.tolist() for group in cliques(average, 9.0)] == [[1, 2, 0, 3]]
    assert cliques(average, 0.4) == []
    assert cliques(np.array([1.0, 2.0]), 1.0) == []  # a difference of CD is significant
