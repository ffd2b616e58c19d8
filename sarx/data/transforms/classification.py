"""Images for classification, as published for CIFAR (pad, crop, mirror) and ImageNet (resized crops)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from sarx.data.transforms.draws import uniforms

PADDING = 4
AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
TRIES = 10


def crop_flip(images: Tensor, seeds: Sequence[int], padding: int = PADDING, flip: float = 0.5) -> Tensor:
    """Pad images with black, cut each back to its size at random and mirror every other one.

    Args:
        images: (B, C, H, W) uint8.
        seeds: One for each image (``augmentation_seed``).
        padding: On every side.
        flip: Probability of mirroring.
    """
    count, channels, height, width = images.shape
    draws = torch.from_numpy(np.stack([uniforms(seed, 3) for seed in seeds]))
    corners = (draws[:, :2] * (2 * padding + 1)).long()
    rows = corners[:, :1] + torch.arange(height)
    columns = corners[:, 1:] + torch.arange(width)
    columns = torch.where(draws[:, 2:] < flip, columns.flip(1), columns)
    number, channel = torch.arange(count).view(-1, 1, 1, 1), torch.arange(channels).view(-1, 1, 1)
    return pad(images, [padding] * 4)[number, channel, rows[:, None, :, None], columns[:, None, None, :]]


def random_resized_crop(image: Tensor, seed: int, crop: int, flip: float = 0.5) -> Tensor:
    """Cut a random box out of an image, resize it with antialiasing and mirror every other one.

    The box has 8 to 100 % of the image and an aspect ratio of 3/4 to 4/3; of ten tries the first that fits
    is taken, else the largest central box of an allowed ratio (Szegedy et al. 2015, as torchvision has it).

    Args:
        image: (C, H, W) uint8.
        seed: Of the sample (``augmentation_seed``).
        crop: Side of the result.
        flip: Probability of mirroring.
    """
    from torchvision.transforms.v2 import functional as F

    draws = uniforms(seed, 1 + 4 * TRIES)
    top, left, height, width = _box(image.shape[1], image.shape[2], draws[1:].reshape(TRIES, 4).tolist())
    result: Tensor = F.resized_crop(image, top, left, height, width, [crop, crop], antialias=True)
    return result.flip(-1) if draws[0] < flip else result


def _box(height: int, width: int, draws: list[list[float]]) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of the first box that fits; draws are area, aspect, row, column."""
    low, high = math.log(ASPECT[0]), math.log(ASPECT[1])
    for area, aspect, row, column in draws:
        pixels = height * width * (AREA[0] + (AREA[1] - AREA[0]) * area)
        ratio = math.exp(low + (high - low) * aspect)
        h, w = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if 0 < h <= height and 0 < w <= width:
            return int(row * (height - h + 1)), int(column * (width - w + 1)), h, w
    h = min(height, round(width / ASPECT[0]))
    w = min(width, round(height * ASPECT[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def resize_centre_crop(image: Tensor, resize: int, crop: int) -> Tensor:
    """Resize the shorter side of an image (C, H, W) with antialiasing and cut the centre out for a test."""
    from torchvision.transforms.v2 import functional as F

    result: Tensor = F.center_crop(F.resize(image, [resize], antialias=True), [crop, crop])
    return result
