from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from sarx.data.transforms import crop_flip, random_resized_crop, resize_centre_crop
from sarx.data.transforms.classification import _box
from sarx.data.transforms.draws import uniforms


def image_of(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def test_crop_flip_is_pad_crop_flip_one_image_at_a_time():
    images = torch.stack([image_of(32, 32, seed) for seed in range(40)])
    got = crop_flip(images, range(40))
    mirrored = 0
    for seed in range(40):
        row, column, flip = uniforms(seed, 3).tolist()
        wanted = F.crop(F.pad(images[seed], [4, 4, 4, 4]), int(row * 9), int(column * 9), 32, 32)
        mirrored += flip < 0.5
        assert torch.equal(got[seed], F.horizontal_flip(wanted) if flip < 0.5 else wanted)
    assert 5 < mirrored < 35
    assert got.shape == images.shape
    assert got.dtype == torch.uint8


def test_crop_flip_depends_on_an_image_s_own_seed_alone():
    images = torch.stack([image_of(16, 12, seed) for seed in range(4)])
    together = crop_flip(images, [9, 8, 7, 6])
    for place, seed in enumerate([9, 8, 7, 6]):
        assert torch.equal(crop_flip(images[place : place + 1], [seed])[0], together[place])
    assert torch.equal(crop_flip(images, [1, 2, 3, 4], padding=0, flip=0.0), images)


@pytest.mark.parametrize("size", [(60, 80), (500, 20), (20, 500), (9, 9)])
def test_boxes_have_the_area_and_ratio_that_is_published(size):
    shares, ratios = [], []
    for seed in range(400):
        draws = uniforms(seed, 41)[1:].reshape(10, 4).tolist()
        top, left, height, width = _box(*size, draws)
        assert 0 <= top <= size[0] - height
        assert 0 <= left <= size[1] - width
        shares.append(height * width / (size[0] * size[1]))
        ratios.append(width / height)
    assert max(shares) <= 1.0
    if size == (60, 80):
        assert 0.07 < min(shares) < 0.1
        assert max(shares) > 0.9
        assert 0.7 < min(ratios) < 0.78
        assert 1.28 < max(ratios) < 1.45


def test_a_box_that_never_fits_is_the_largest_central_one():
    large = [[1.0, 0.5, 0.3, 0.3]] * 10
    assert _box(300, 20, large) == (136, 0, 27, 20)
    assert _box(20, 300, large) == (0, 136, 20, 27)


def test_random_resized_crop_is_crop_resize_flip():
    image = image_of(50, 70)
    for seed in range(10):
        draws = uniforms(seed, 41)
        top, left, height, width = _box(50, 70, draws[1:].reshape(10, 4).tolist())
        cut = image[:, top : top + height, left : left + width].float()
        wanted = torch.nn.functional.interpolate(cut[None], size=(24, 24), mode="bilinear", antialias=True)[0]
        got = random_resized_crop(image, seed, 24)
        got = got.flip(-1) if draws[0] < 0.5 else got
        assert got.shape == (3, 24, 24)
        assert (got - wanted).abs().max() <= 2
    assert torch.equal(random_resized_crop(image, 3, 24), random_resized_crop(image, 3, 24))


def test_resize_centre_crop():
    image = image_of(64, 96)
    scaled = torch.nn.functional.interpolate(
        image[None].float(), size=(32, 48), mode="bilinear", antialias=True
    )[0]
    got = resize_centre_crop(image, 32, 28)
    assert got.shape == (3, 28, 28)
    assert (got - scaled[:, 2:30, 10:38]).abs().max() <= 2
