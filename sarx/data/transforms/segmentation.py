"""Images and label maps for training, and images for prediction, as published for semantic segmentation.

Resize by a random ratio, crop so that no class fills the crop, mirror, distort colours, pad: the pipeline of
mmsegmentation's configs for Cityscapes, ADE20K and Pascal-Context. The crop is chosen before any pixel is
computed and only its pixels are. Padding is the data set's mean colour, because the published pipeline pads
with 0 after normalisation; rounded to whole levels, it is within 0.01 of 0 once normalised.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sarx.config.schema.files import FilesConfig
from sarx.data.dataset import Bytes
from sarx.data.transforms.colour import distort, draw_distortion
from sarx.data.transforms.crop import choose_crop
from sarx.data.transforms.draws import draw
from sarx.data.transforms.resample import Box, bilinear_box
from sarx.data.transforms.sizes import scaled_size

Pixels = Tensor | Bytes
TrainTransform = Callable[[Pixels, Pixels, int], tuple[Tensor, Tensor]]


def train_transform(config: FilesConfig, ignore_index: int, mean: tuple[float, ...]) -> TrainTransform:
    """Return the training transform of a data set; it can be sent to worker processes.

    It is called with an image uint8 (3, H, W) of any memory layout, its label map uint8 (H, W), tensors or
    arrays, and the sample's seed (``augmentation_seed``), and returns new tensors of the size of the crop.
    It reads no other source of random numbers.

    Args:
        config: Options of the data set.
        ignore_index: Label of the pixels that do not count, and of padding.
        mean: Per-channel mean of pixel / 255, with which the image is padded.
    """
    padding = tuple(round(255 * value) for value in mean)
    return partial(_augment, config=config, ignore_index=ignore_index, padding=padding)


def _augment(
    image: Pixels,
    label: Pixels,
    seed: int,
    *,
    config: FilesConfig,
    ignore_index: int,
    padding: tuple[int, ...],
) -> tuple[Tensor, Tensor]:
    draws = draw(seed)
    ratio = config.ratio_low + (config.ratio_high - config.ratio_low) * draws.ratio
    target = (config.resize_height, config.resize_width)
    size = scaled_size((label.shape[0], label.shape[1]), target, ratio)
    crop = (config.crop_height, config.crop_width)
    box, labels = choose_crop(
        np.asarray(label), size, crop, draws.corners, config.max_class_share, ignore_index
    )
    flip = draws.flip < config.flip
    change = partial(distort, distortion=draw_distortion(draws.colour)) if config.photometric else None
    pixels = bilinear_box(np.asarray(image), size, box, flip, change)
    labels = np.ascontiguousarray(labels[:, ::-1]) if flip else labels
    return (
        torch.from_numpy(_pad(pixels, crop, padding)),
        torch.from_numpy(_pad(labels[None], crop, (ignore_index,))[0]),
    )


def _pad(pixels: Bytes, size: tuple[int, int], colour: tuple[int, ...]) -> Bytes:
    """Pad (C, h, w) at the bottom and right to a size."""
    if pixels.shape[1:] == size:
        return pixels
    result = np.empty((len(pixels), *size), np.uint8)
    result[:] = np.array(colour, np.uint8)[:, None, None]
    result[:, : pixels.shape[1], : pixels.shape[2]] = pixels
    return result


def resized_for_test(image: Tensor, config: FilesConfig) -> Tensor:
    """Return an image uint8 (3, H, W) scaled as in training but without a factor; scores are scaled back."""
    size = scaled_size((image.shape[1], image.shape[2]), (config.resize_height, config.resize_width))
    if size == tuple(image.shape[1:]):
        return image
    return torch.from_numpy(bilinear_box(image.numpy(), size, Box(0, 0, *size)))
