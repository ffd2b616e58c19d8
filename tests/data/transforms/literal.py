"""The training transform step by step on whole images, in float64, with torchvision and the standard library.

It shares the random numbers (``Draws``) with the product and no arithmetic.
"""

from __future__ import annotations

import colorsys
import math
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from sarx.config.schema.files import FilesConfig
from sarx.data.transforms.draws import Draws


def literal_sample(
    image: Tensor,
    label: Tensor,
    draws: Draws,
    config: FilesConfig,
    ignore_index: int,
    mean: tuple[float, ...],
) -> tuple[Tensor, Tensor]:
    """Return image and labels of one sample."""
    image, label = literal_resize(image, label, draws, config)
    top, left = literal_corner(label, draws, config, ignore_index)
    image = image[:, top : top + config.crop_height, left : left + config.crop_width]
    label = label[top : top + config.crop_height, left : left + config.crop_width]
    if draws.flip < config.flip:
        image, label = F.horizontal_flip(image), F.horizontal_flip(label)
    if config.photometric:
        image = literal_distortion(image, draws.colour.tolist())
    right, bottom = config.crop_width - image.shape[2], config.crop_height - image.shape[1]
    colour = [round(value * 255) for value in mean]
    image = torch.stack(
        [
            F.pad(plane[None], [0, 0, right, bottom], fill=level)[0]
            for plane, level in zip(image, colour, strict=True)
        ]
    )
    return image, F.pad(label[None], [0, 0, right, bottom], fill=ignore_index)[0]


def literal_size(size: tuple[int, int], draws: Draws, config: FilesConfig) -> list[int]:
    """Return (height, width) of the resized image."""
    ratio = draws.ratio * (config.ratio_high - config.ratio_low) + config.ratio_low
    scale = int(config.resize_width * ratio), int(config.resize_height * ratio)
    factor = min(max(scale) / max(size), min(scale) / min(size))
    return [int(size[0] * factor + 0.5), int(size[1] * factor + 0.5)]


def literal_resize(image: Tensor, label: Tensor, draws: Draws, config: FilesConfig) -> tuple[Tensor, Tensor]:
    """Resize all of both: bilinear without antialiasing in float64, and nearest in fractions."""
    height, width = label.shape
    size = literal_size((height, width), draws, config)
    whole = F.resize(image.double(), size, InterpolationMode.BILINEAR, antialias=False)
    rows = [math.floor(Fraction(place * height, size[0])) for place in range(size[0])]
    columns = [math.floor(Fraction(place * width, size[1])) for place in range(size[1])]
    return whole.round().to(torch.uint8), label[rows][:, columns]


def literal_corner(label: Tensor, draws: Draws, config: FilesConfig, ignore_index: int) -> tuple[int, int]:
    """Try corners until the classes mix; the eleventh is taken as it is."""
    tries = []
    for row, column in draws.corners.tolist():
        top = int(row * (max(label.shape[0] - config.crop_height, 0) + 1))
        left = int(column * (max(label.shape[1] - config.crop_width, 0) + 1))
        tries.append((top, left))
    if config.max_class_share == 1:
        return tries[0]
    for top, left in tries[:10]:
        crop = label[top : top + config.crop_height, left : left + config.crop_width]
        counts = [int((crop == name).sum()) for name in crop.unique().tolist() if name != ignore_index]
        if len(counts) > 1 and max(counts) / sum(counts) < config.max_class_share:
            return top, left
    return tries[10]


def literal_distortion(image: Tensor, numbers: list[float]) -> Tensor:
    """Distort (3, h, w) uint8 pixel by pixel in HSV."""
    if numbers[0] < 0.5:
        image = _convert(image, 1.0, -32 + 64 * numbers[1])
    contrast = 0.5 + numbers[4] if numbers[3] < 0.5 else None
    if contrast is not None and numbers[2] < 0.5:
        image = _convert(image, contrast, 0.0)
    saturation = 0.5 + numbers[6] if numbers[5] < 0.5 else None
    steps = math.floor(36 * numbers[8]) - 18 if numbers[7] < 0.5 else None
    if saturation is not None or steps is not None:
        image = literal_hsv(image, saturation or 1.0, 2 * (steps or 0))
    if contrast is not None and numbers[2] >= 0.5:
        image = _convert(image, contrast, 0.0)
    return image


def literal_hsv(image: Tensor, saturation: float, degrees: float) -> Tensor:
    """Scale S, which ends at 1, and turn H of (3, h, w) uint8."""
    pixels = image.permute(1, 2, 0).reshape(-1, 3).tolist()
    changed = []
    for red, green, blue in pixels:
        hue, strength, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
        colour = colorsys.hsv_to_rgb((hue + degrees / 360) % 1.0, min(1.0, strength * saturation), value)
        changed.append([255 * channel for channel in colour])
    flat = torch.tensor(changed, dtype=torch.float64).round().to(torch.uint8)
    return flat.reshape(image.shape[1], image.shape[2], 3).permute(2, 0, 1)


def _convert(image: Tensor, alpha: float, beta: float) -> Tensor:
    """Multiply, add, clip and cut to whole numbers, in float32 as published."""
    pixels = image.numpy().astype(np.float32) * np.float32(alpha) + np.float32(beta)
    return torch.from_numpy(np.clip(pixels, 0, 255).astype(np.uint8))
