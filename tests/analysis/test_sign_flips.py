"""Joint sign flips against a slow, literal version."""

import itertools

import numpy as np
import pytest
from scipy import stats

from analysis.sign_flips import EXACT_FLIPS, least_attainable_p, sign_flip_p, sign_matrix


def literal_step_down(differences: np.ndarray) -> np.ndarray:
    """Westfall-Young step-down min-p with loops, complete rows."""
    rows, seeds = differences.shape

    def p_values(data: np.ndarray) -> np.ndarray:
        return np.array([stats.ttest_1samp(row, 0).pvalue for row in data])

    observed = p_values(differences)
    flipped = [p_values(differences * signs) for signs in itertools.product([1, -1], repeat=seeds)]
    order = np.argsort(observed)
    adjusted, running = np.empty(rows), 0.0
    for rank, row in enumerate(order):
        rest = order[rank:]
        hits = [p[rest].min() <= observed[row] * (1 + 1e-9) for p in flipped]
        running = max(running, float(np.mean(hits)))
        adjusted[row] = running
    return adjusted


def test_equals_the_literal_version() -> None:
    differences = np.random.default_rng(3).normal([[0.9], [0.0], [0.4]], 0.6, (3, 7))
    np.testing.assert_allclose(sign_flip_p(differences), literal_step_down(differences))


def test_rows_of_different_n_equal_the_literal_version() -> None:
    differences = np.random.default_rng(3).normal([[1.4], [0.1], [0.8]], 0.6, (3, 7))
    differences[0, :2] = differences[2, 6] = np.nan
    found = sign_flip_p(differences)
    rows = [row[np.isfinite(row)] for row in differences]
    observed = np.array([stats.ttest_1samp(row, 0).pvalue for row in rows])
    flipped = []
    for signs in itertools.product([1, -1], repeat=7):
        moved = [(row * np.array(signs)) for row in differences]
        flipped.append([stats.ttest_1samp(row[np.isfinite(row)], 0).pvalue for row in moved])
    order, running = np.argsort(observed), 0.0
    for rank, row in enumerate(order):
        least = np.array(flipped)[:, order[rank:]].min(axis=1)
        running = max(running, float((least <= observed[row] * (1 + 1e-9)).mean()))
        assert found[row] == pytest.approx(running)


def test_a_sum_of_0_is_reached_by_every_flip_in_any_order_of_summation() -> None:
    differences = np.array([[1.3, -0.7, 1.0, 0.5, -1.5, -0.6]])
    for rows in (differences, differences[:, ::-1], -differences, np.sort(differences)):
        assert sign_flip_p(rows)[0] == 1.0


def test_a_row_without_spread_among_rows_of_other_n() -> None:
    differences = np.random.default_rng(1).normal(0.3, 1.0, (4, 8))
    differences[0] = 0.1
    differences[1, 0] = differences[2, :3] = np.nan
    found = sign_flip_p(differences)
    assert found[0] == 2 / 2**8
    np.testing.assert_array_less(found[1:], 1.0 + 1e-12)
    np.testing.assert_allclose(found[1:], sign_flip_p(differences[1:]))


def test_one_row_equals_scipy_permutation_test() -> None:
    sample = np.random.default_rng(4).normal(0.5, 1, 9)
    expected = stats.permutation_test(
        (sample,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert sign_flip_p(sample[None])[0] == pytest.approx(expected.pvalue)


def test_all_differences_of_one_sign_reach_the_least_attainable_p() -> None:
    differences = np.random.default_rng(0).uniform(1.0, 1.1, (3, 8))
    np.testing.assert_allclose(sign_flip_p(differences), 2 / 2**8)
    np.testing.assert_allclose(sign_flip_p(np.full((2, 8), 0.1)), 2 / 2**8)
    np.testing.assert_allclose(least_attainable_p(np.array([1, 6, 8])), [1, 1 / 32, 2 / 2**8])


def test_rows_with_missing_seeds_and_rows_without_pairs() -> None:
    differences = np.random.default_rng(0).uniform(1.0, 1.1, (3, 8))
    differences[1, :2] = np.nan
    differences[2, 1:] = np.nan
    found = sign_flip_p(differences)
    assert found[1] == pytest.approx(2 / 2**6)
    assert np.isnan(found[2])
    assert np.isnan(sign_flip_p(differences[2:])).all()


def test_beyond_the_exact_range_flips_are_drawn_with_a_fixed_seed() -> None:
    assert sign_matrix(14).shape == (EXACT_FLIPS, 14)
    assert len(np.unique(sign_matrix(10), axis=0)) == 2**10
    drawn = sign_matrix(20)
    assert drawn.shape == (EXACT_FLIPS, 20)
    assert (drawn[0] == 1).all()
    np.testing.assert_array_equal(drawn, sign_matrix(20))
    assert sign_flip_p(np.random.default_rng(0).normal(0, 1, (2, 20))).min() > 0.05
