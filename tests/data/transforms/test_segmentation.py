"""The training transform of label maps against its literal version on whole images."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch

from sarx.config.schema.files import FilesConfig
from sarx.data.transforms import augmentation_seed, resized_for_test, train_transform
from sarx.data.transforms.draws import draw
from tests.data.transforms.literal import literal_distortion, literal_sample, literal_size

MEAN = (0.485, 0.456, 0.406)
PADDING = (124, 116, 104)
IGNORED = 255

CASES = {
    "cityscapes, small": ((64, 128), {"resize_height": 64, "resize_width": 128}, (32, 64)),
    "high": ((131, 60), {"resize_height": 40, "resize_width": 160}, (32, 32)),
    "padded": ((30, 47), {"resize_height": 24, "resize_width": 80}, (48, 48)),
    "wide": ((57, 83), {"resize_height": 520, "resize_width": 520, "ratio_high": 0.6}, (96, 80)),
    "shrunk": ((211, 307), {"resize_height": 64, "resize_width": 64}, (20, 24)),
    "one ratio": (
        (48, 64),
        {"resize_height": 48, "resize_width": 64, "ratio_low": 1.0, "ratio_high": 1.0},
        (16, 24),
    ),
}


def pixels(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
    rough = torch.randint(0, 4, (1, 1, 5, 7), generator=generator).float()
    label = torch.nn.functional.interpolate(rough, size=size)[0, 0].to(torch.uint8)
    label[:3] = IGNORED
    return image, label


def options(case, **others):
    size, sizes, (height, width) = CASES[case]
    return size, FilesConfig(crop_height=height, crop_width=width, **{**sizes, **others})


@pytest.mark.parametrize("case", CASES)
def test_geometry_is_that_of_resizing_the_whole_image(case):
    size, config = options(case, photometric=False)
    transform = train_transform(config, IGNORED, MEAN)
    image, label = pixels(size)
    differing = 0
    for seed in range(20):
        got_image, got_label = transform(image, label, seed)
        image_wanted, label_wanted = literal_sample(image, label, draw(seed), config, IGNORED, MEAN)
        assert torch.equal(got_label, label_wanted)
        assert got_image.shape == image_wanted.shape == (3, config.crop_height, config.crop_width)
        difference = (got_image.int() - image_wanted.int()).abs()
        assert difference.max() <= 1  # float32 against float64 at a half
        differing += int(difference.sum())
    assert differing <= 20 * got_image.numel() / 500


@pytest.mark.parametrize("case", ["cityscapes, small", "high"])
def test_colours_are_distorted_after_the_geometry(case):
    size, config = options(case)
    _, plain = options(case, photometric=False)
    image, label = pixels(size, seed=1)
    distorted = 0
    for seed in range(30):
        got_image, got_label = train_transform(config, IGNORED, MEAN)(image, label, seed)
        before, wanted_label = train_transform(plain, IGNORED, MEAN)(image, label, seed)
        assert torch.equal(got_label, wanted_label)
        height, width = literal_size(size, draw(seed), config)
        inside = (..., slice(height), slice(width))
        difference = (
            got_image[inside].int() - literal_distortion(before[inside], draw(seed).colour.tolist()).int()
        ).abs()
        assert difference.max() <= 2  # one level at a half, which a contrast of 1.5 may make two
        assert (difference > 0).float().mean() <= 0.05
        distorted += not torch.equal(got_image, before)
        assert torch.equal(got_image[..., height:, :], before[..., height:, :])
        assert torch.equal(got_image[..., width:], before[..., width:])
    assert distorted > 15


def test_padding_is_the_mean_colour_and_ignored():
    config = FilesConfig(resize_height=16, resize_width=16, ratio_high=1.0, crop_height=64, crop_width=64)
    image, label = pixels((32, 32))
    got_image, got_label = train_transform(config, IGNORED, MEAN)(image, label, 3)
    assert got_image[:, -1, -1].tolist() == got_image[:, 0, -1].tolist() == list(PADDING)
    assert (got_label[:, 16:] == IGNORED).all()
    assert (got_label[16:] == IGNORED).all()
    assert not (got_label[4:8, :8] == IGNORED).any()


def test_memory_layouts_and_arrays_give_the_same_sample():
    size, config = options("cityscapes, small")
    transform = train_transform(config, IGNORED, MEAN)
    image, label = pixels(size)
    interleaved = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert not interleaved.is_contiguous()
    frozen = image.numpy().copy()
    frozen.setflags(write=False)
    wanted = transform(image, label, 5)
    for other in (interleaved, interleaved.numpy(), frozen):
        for one, two in zip(transform(other, label, 5), wanted, strict=True):
            assert torch.equal(one, two)
            assert one.is_contiguous()


def test_a_seed_says_all_and_no_global_generator_is_touched():
    size, config = options("cityscapes, small")
    transform = pickle.loads(pickle.dumps(train_transform(config, IGNORED, MEAN)))
    image, label = pixels(size)
    before = (random.getstate(), str(np.random.get_state()), torch.get_rng_state())  # noqa: NPY002
    first = transform(image, label, augmentation_seed(7, 3, 1))
    again = transform(image, label, augmentation_seed(7, 3, 1))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    seeds = {augmentation_seed(*place) for place in [(7, 3, 1), (7, 3, 2), (7, 4, 1), (8, 3, 1), (7, 1, 3)]}
    assert len({transform(image, label, seed)[0].numpy().tobytes() for seed in seeds}) == len(seeds) == 5
    after = (random.getstate(), str(np.random.get_state()), torch.get_rng_state())  # noqa: NPY002
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_one_option_does_not_shift_the_numbers_of_another():
    size, config = options("cityscapes, small", photometric=False, flip=0.0)
    _, mirrored = options("cityscapes, small", photometric=False, flip=1.0)
    image, label = pixels(size)
    plain = train_transform(config, IGNORED, MEAN)(image, label, 11)
    flipped = train_transform(mirrored, IGNORED, MEAN)(image, label, 11)
    assert torch.equal(plain[0].flip(-1), flipped[0])
    assert torch.equal(plain[1].flip(-1), flipped[1])


def test_the_image_of_a_test_is_scaled_without_a_factor():
    config = FilesConfig(resize_height=64, resize_width=256)
    image, _ = pixels((50, 75))
    scaled = resized_for_test(image, config)
    assert scaled.shape == (3, 64, 96)
    wanted = torch.nn.functional.interpolate(image[None].double(), size=(64, 96), mode="bilinear")[0].round()
    assert (scaled - wanted).abs().max() <= 1
    same = FilesConfig(resize_height=50, resize_width=75)
    assert resized_for_test(image, same) is image
