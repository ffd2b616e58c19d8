"""Rank correlations, against scipy."""

import numpy as np
import pytest
from scipy import stats

from analysis.rank_correlation import kendall_tau, spearman_rho


@pytest.mark.parametrize("size", [2, 3, 7, 64, 65, 500])
@pytest.mark.parametrize("different", [2, 5, 10**9])
def test_equal_to_scipy(size: int, different: int) -> None:
    random = np.random.default_rng(size)
    for _ in range(20):
        first, second = random.integers(0, different, (2, size)).astype(np.float64)
        if len(set(first)) == 1 or len(set(second)) == 1:
            continue
        assert kendall_tau(first, second) == stats.kendalltau(first, second).statistic
        assert spearman_rho(first, second) == pytest.approx(
            stats.spearmanr(first, second).statistic, abs=1e-14
        )


def test_perfect_agreement_and_its_opposite() -> None:
    scores = np.array([0.1, 0.4, 0.2, 0.9])
    assert kendall_tau(scores, scores) == 1.0
    assert kendall_tau(scores, -scores) == -1.0
    assert spearman_rho(scores, scores**3) == pytest.approx(1.0)
