"""Intervals over images and seeds: influence by differences, variance by bootstrap, coverage simulated."""

import time

import numpy as np
import pytest
from scipy import stats

from analysis.images import Counts, influence, score, two_way_interval


def counts(rng: np.random.Generator, images: int = 40, classes: int = 5) -> Counts:
    whole = rng.integers(0, 60, (images, classes)).astype(float)
    return Counts(rng.binomial(whole.astype(int), 0.6).astype(float), whole)


def test_score_and_influence_equal_their_definition() -> None:
    found = counts(np.random.default_rng(0))
    ratios = [found.right[:, c].sum() / found.whole[:, c].sum() for c in range(5)]
    assert score(found) == pytest.approx(np.mean(ratios), abs=1e-15)
    step = 1e-6
    for image in range(5):
        weight = np.ones((40, 1))
        weight[image] += step
        moved = score(Counts(found.right * weight, found.whole * weight))
        assert influence(found)[image] == pytest.approx((moved - score(found)) / step, abs=1e-6)
    assert influence(found).sum() == pytest.approx(0, abs=1e-12)


def test_a_class_without_pixels_scores_0_and_has_no_influence() -> None:
    found = Counts(np.array([[3.0, 0], [1, 0]]), np.array([[4.0, 0], [4, 0]]))
    assert score(found) == 0.25
    assert np.isfinite(influence(found)).all()


def test_one_way_limits() -> None:
    values = np.array([0.1, 0.2, 0.3, 0.15])
    found = two_way_interval(values, np.zeros((50, 4)))
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.seed_share == 1
    # The same on every seed: only images vary.
    each = np.random.default_rng(0).normal(size=50)
    parts = np.repeat(((each - each.mean()) / 50)[:, None], 4, axis=1)
    found = two_way_interval(np.full(4, each.mean()), parts)
    low, high = stats.t.interval(0.95, 49, each.mean(), stats.sem(each))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.seed_share == 0


def test_one_seed_or_image_has_no_interval_and_equal_arms_have_one_without_width() -> None:
    assert np.isnan(two_way_interval(np.array([0.1]), np.zeros((5, 1))).low)
    assert np.isnan(two_way_interval(np.array([0.1, 0.2]), np.zeros((1, 2))).high)
    same = two_way_interval(np.zeros(4), np.zeros((9, 4)))
    assert (same.low, same.high) == (0, 0)


def simulated(
    rng: np.random.Generator, images: int, seeds: int, luck_sd: float = 0.02
) -> tuple[list[Counts], np.ndarray]:
    """Return one arm's counts on each seed: a two-way random layout around .5 in three classes."""
    whole = rng.integers(5, 40, (images, 3)).astype(float) * (rng.random((images, 3)) < 0.6)
    hard = 0.10 * rng.normal(size=(images, 1))
    luck = luck_sd * rng.normal(size=(seeds, 1, 1))
    ratio = 0.5 + hard[None] + luck + 0.15 * rng.normal(size=(seeds, images, 3))
    return [Counts(r * whole, whole) for r in ratio], ratio


def test_variance_equals_a_two_way_bootstrap() -> None:
    rng = np.random.default_rng(1)
    seeds, images = 60, 80
    arms = simulated(rng, images, seeds)[0]
    values = np.array([score(arm) for arm in arms])
    found = two_way_interval(values, np.column_stack([influence(arm) for arm in arms]))
    # 2000 resamples of images and seeds, all at once: sums are products of weights and counts.
    weight_BN = rng.multinomial(images, np.full(images, 1 / images), 2000).astype(float)
    weight_BK = rng.multinomial(seeds, np.full(seeds, 1 / seeds), 2000) / seeds
    resampled = np.zeros(2000)
    for k, arm in enumerate(arms):
        right, whole = weight_BN @ arm.right, weight_BN @ arm.whole
        resampled += weight_BK[:, k] * (right / whole).mean(axis=1)
    half = (found.high - found.low) / 2
    # The bootstrap counts what is neither seed nor image up to three times (Owen 2007), small here.
    assert half == pytest.approx(1.96 * resampled.std(), rel=0.08)


@pytest.mark.parametrize(
    ("images", "seeds", "luck_sd"), [(60, 3, 0.02), (60, 5, 0.02), (60, 5, 0.2), (200, 10, 0.02)]
)
def test_coverage(images: int, seeds: int, luck_sd: float) -> None:
    rng = np.random.default_rng(7)
    held, studies = 0, 500
    for _ in range(studies):
        arms = simulated(rng, images, seeds, luck_sd)[0]
        found = two_way_interval(
            np.array([score(arm) for arm in arms]), np.column_stack([influence(arm) for arm in arms])
        )
        held += found.low <= 0.5 <= found.high
    assert 0.92 <= held / studies <= 0.985


def test_an_interval_over_seeds_alone_does_not_cover_other_images() -> None:
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(200):
        values = np.array([score(arm) for arm in simulated(rng, 60, 5)[0]])
        low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
        held += low <= 0.5 <= high
    assert held / 200 < 0.9


def test_a_study_takes_no_time() -> None:
    rng = np.random.default_rng(0)
    trials = [counts(rng, 500, 19) for _ in range(20)]
    started = time.process_time()
    parts = np.column_stack(
        [influence(a) - influence(b) for a, b in zip(trials[:10], trials[10:], strict=True)]
    )
    two_way_interval(
        np.array([score(a) - score(b) for a, b in zip(trials[:10], trials[10:], strict=True)]), parts
    )
    assert time.process_time() - started < 0.5
