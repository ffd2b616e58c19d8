from __future__ import annotations

import numpy as np
import pytest
import torch

from sarx.data.transforms.colour import Distortion, distort, draw_distortion, scale_saturation, turn_hue
from sarx.data.transforms.draws import draw
from tests.data.transforms.literal import literal_distortion, literal_hsv

CORNERS = [0, 1, 2, 100, 127, 128, 254, 255]


def colours():
    """Return corner and random colours, uint8 (3, 8, n), grey ones among them."""
    grid = np.stack(np.meshgrid(CORNERS, CORNERS, CORNERS), axis=0).reshape(3, -1)
    noise = np.random.default_rng(0).integers(0, 256, (3, 1024))
    both = np.concatenate([grid, noise], axis=1).astype(np.uint8)
    return torch.from_numpy(both.reshape(3, 8, -1))


def blocks(image):
    return image.permute(1, 0, 2).float().contiguous()


def difference(got, wanted):
    return (got - blocks(wanted)).abs().max()


@pytest.mark.parametrize("degrees", [-60, -36, -2, 0, 2, 34, 60])
@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.3, 3.0])
def test_hue_and_saturation_are_those_of_the_standard_library(degrees, factor):
    image = colours()
    wanted = literal_hsv(image, factor, degrees)
    assert difference(turn_hue(blocks(image), degrees, factor), wanted) <= 1
    got = turn_hue(blocks(image), degrees, factor)
    if factor != 0.5:  # which puts every other pixel at a half, where the two round as they please
        assert (got != blocks(wanted)).float().mean() < 0.03
    if degrees == 0:
        assert difference(scale_saturation(blocks(image), factor), wanted) <= 1


def test_distortions_are_those_of_the_literal_version():
    image = colours()
    for seed in range(60):
        numbers = draw(seed).colour
        got = distort(blocks(image), draw_distortion(numbers))
        wanted = literal_distortion(image, numbers.tolist())
        assert difference(got, wanted) <= 2  # one level at a half, which contrast may make two
        assert (got != blocks(wanted)).float().mean() < 0.07
        assert (got >= 0).all()
        assert (got <= 255).all()
        assert torch.equal(got, got.round())


def test_brightness_and_contrast_are_exact():
    image = colours()
    for seed in range(200):
        numbers = draw(seed).colour
        numbers[[5, 7]] = 0.9
        got = distort(blocks(image), draw_distortion(numbers))
        assert difference(got, literal_distortion(image, numbers.tolist())) == 0


def test_nothing_drawn_is_nothing_done():
    numbers = np.full(9, 0.7)
    assert draw_distortion(numbers) == Distortion(contrast_first=False)
    image = colours()
    assert torch.equal(distort(blocks(image), Distortion()), blocks(image))


def test_each_part_acts_on_every_other_image_in_its_range():
    drawn = [draw_distortion(draw(seed).colour) for seed in range(4000)]
    for part, neutral, low, high in (
        ("brightness", 0.0, -32, 32),
        ("contrast", 1.0, 0.5, 1.5),
        ("saturation", 1.0, 0.5, 1.5),
    ):
        acting = np.array([getattr(one, part) for one in drawn if getattr(one, part) != neutral])
        assert abs(len(acting) - 2000) < 160
        assert acting.min() >= low
        assert acting.max() <= high
        assert acting.min() < low + (high - low) / 50
        assert acting.max() > high - (high - low) / 50
    turns = [one.hue for one in drawn if one.hue]
    assert sorted(set(turns)) == [step for step in range(-36, 36, 2) if step]
    assert abs(len(turns) - 2000 * 35 / 36) < 160
    assert abs(sum(one.contrast_first for one in drawn) - 2000) < 160
