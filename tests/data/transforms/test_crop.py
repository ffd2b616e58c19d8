from __future__ import annotations

import numpy as np
import pytest

from sarx.data.transforms.crop import choose_crop, is_mixed
from sarx.data.transforms.draws import REDRAWS, draw
from sarx.data.transforms.resample import bilinear_taps, nearest_box, nearest_places
from sarx.data.transforms.sizes import scaled_size


@pytest.mark.parametrize(
    ("counts", "mixed"),
    [
        ({0: 3, 1: 1}, False),  # exactly the share is too much
        ({0: 29, 1: 10}, True),
        ({4: 5}, False),
        ({255: 90, 2: 3, 3: 2}, True),  # ignored pixels are in neither number
        ({255: 4}, False),
        ({255: 50, 7: 50}, False),
    ],
)
def test_when_classes_mix(counts, mixed):
    labels = np.repeat(np.array(list(counts), np.uint8), list(counts.values()))
    assert is_mixed(labels.reshape(1, -1), 0.75, 255) is mixed


def test_the_first_good_corner_wins_and_the_last_is_kept():
    label = np.zeros((8, 40), np.uint8)
    label[:, 36:] = 1
    corners = np.zeros((11, 2))
    corners[:, 1] = np.linspace(0, 0.999, 11)
    for share, column in ((0.75, 32), (0.45, 32), (1.0, 0)):
        box, labels = choose_crop(label, (8, 40), (8, 8), corners, share, 255)
        assert (box.top, box.left, box.height, box.width) == (0, column, 8, 8)
        np.testing.assert_array_equal(labels, label[:, column : column + 8])
    corners[4, 1] = 0.999
    seen = []
    corners[10, 1] = 0.5
    box, _ = choose_crop(label, (8, 40), (8, 8), corners, 0.75, 255)
    seen.append(box.left)
    box, _ = choose_crop(np.zeros_like(label), (8, 40), (8, 8), corners, 0.75, 255)
    seen.append(box.left)
    assert seen == [32, 16]


def test_corners_reach_both_ends_and_are_uniform():
    label = np.zeros((4, 9), np.uint8)
    counts = np.zeros(6, int)
    for seed in range(3000):
        box, _ = choose_crop(label, (4, 9), (4, 4), draw(seed).corners, 1.0, 255)
        counts[box.left] += 1
    assert counts.sum() == 3000
    assert (abs(counts - 500) < 5 * np.sqrt(500)).all()


def test_draws_are_independent_numbers():
    draws = [draw(seed) for seed in range(4000)]
    table = np.array([[one.ratio, one.flip, *one.colour, *one.corners.ravel()] for one in draws])
    assert table.shape == (4000, 11 + 2 * (REDRAWS + 1))
    assert (table >= 0).all()
    assert (table < 1).all()
    assert abs(table.mean(axis=0) - 0.5).max() < 0.025
    correlation = np.corrcoef(table.T) - np.eye(table.shape[1])
    assert abs(correlation).max() < 0.08


def test_nearest_is_the_floor_and_stays_inside():
    assert nearest_places(3, 7, 0, 7).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert nearest_places(7, 3, 0, 3).tolist() == [0, 2, 4]
    label = np.arange(12, dtype=np.uint8).reshape(3, 4)
    from sarx.data.transforms.resample import Box

    np.testing.assert_array_equal(nearest_box(label, (3, 4), Box(1, 1, 2, 3)), label[1:, 1:])


def test_bilinear_taps_lie_between_pixel_centres():
    taps = bilinear_taps(2, 4, 0, 4)
    assert taps.low.tolist() == [0, 0, 0, 1]
    assert taps.high.tolist() == [1, 1, 1, 1]
    assert taps.weight.tolist() == [0.0, 0.25, 0.75, 0.0]


@pytest.mark.parametrize(
    ("size", "target", "ratio", "wanted"),
    [
        ((1024, 2048), (1024, 2048), 1.0, (1024, 2048)),
        ((1024, 2048), (1024, 2048), 0.5, (512, 1024)),
        ((512, 683), (512, 2048), 1.0, (512, 683)),
        ((375, 500), (520, 520), 1.0, (390, 520)),
        ((500, 375), (520, 520), 1.0, (520, 390)),
        ((300, 1500), (512, 2048), 1.0, (410, 2048)),
        ((1, 4000), (8, 8), 1.0, (1, 8)),
    ],
)
def test_scaled_size_fits_both_sides(size, target, ratio, wanted):
    assert scaled_size(size, target, ratio) == wanted
    assert scaled_size(size[::-1], target, ratio) == wanted[::-1]
