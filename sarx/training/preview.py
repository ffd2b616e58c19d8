"""Pictures of images, labels and predictions as PNG bytes, for TensorBoard."""

from __future__ import annotations

import colorsys
import io

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sarx.config.schema import TrainConfig
from sarx.data import load_split, split_names
from sarx.regularizers.functional import downsample_labels
from sarx.training.batches import batches
from sarx.training.described import data_of
from sarx.training.evaluation import evaluating, predict

GAP = 2
WIDEST = 1600
"""Pixels of a picture's width at most."""


def preview(
    config: TrainConfig, model: nn.Module, adjustment: Tensor | None = None
) -> list[tuple[str, bytes]]:
    """Return one picture: the first selection images beside their labels and the model's predictions.

    Classification has no label maps and gives no picture.

    Args:
        config: Options of the run.
        model: Returns a ``ModelOutput``.
        adjustment: (C,) added to the logits before the largest is taken, or None.
    """
    data = data_of(config)
    count = config.training.images_logged
    if data.task != "segmentation" or count == 0:
        return []
    split = load_split(config.data, config.seed, split_names(config.data)[0]).first(count)
    device = torch.device(config.training.device)
    colors = palette(data.num_classes, data.ignore_index)
    rows = []
    with evaluating(model):
        for batch in batches(split):
            size = (batch.images.shape[2], batch.images.shape[3])
            labels = downsample_labels(batch.labels, size)
            predictions = predict(model, batch.images, labels, data, device, adjustment).cpu().numpy()
            for image, label, prediction in zip(batch.images.numpy(), labels, predictions, strict=True):
                plain = np.broadcast_to(np.moveaxis(image, 0, -1), (*size, 3))
                rows.append(beside([plain, colors[label], colors[prediction]]))
    widest = max(row.shape[1] for row in rows)
    picture = np.concatenate([pad(widen(row, widest)) for row in rows])
    return [("predictions/image_label_prediction", png(picture))]


def palette(num_classes: int, ignore_index: int) -> npt.NDArray[np.uint8]:
    """Return one color per label value: uint8 (256, 3); class 0 black, ignored pixels white."""
    colors = np.zeros((256, 3), np.uint8)
    for c in range(1, num_classes):
        hue = (c - 1) / max(1, num_classes - 1)
        colors[c] = [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, 1.0 if c % 2 else 0.7)]
    colors[ignore_index] = 255
    return colors


def beside(tiles: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Put pictures (H, W, 3) side by side with a white gap."""
    gap = np.full((tiles[0].shape[0], GAP, 3), 255, np.uint8)
    parts = [part for tile in tiles for part in (tile, gap)]
    return np.concatenate(parts[:-1], axis=1)


def widen(row: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.uint8]:
    """Add white at the right of a picture up to a width."""
    return np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)


def pad(row: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Add a white gap under a picture."""
    return np.concatenate([row, np.full((GAP, row.shape[1], 3), 255, np.uint8)])


def png(picture: npt.NDArray[np.uint8]) -> bytes:
    """Encode uint8 (H, W, 3) as PNG, twice enlarged if small, and shrunk if wider than ``WIDEST``."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture))
    buffer = io.BytesIO()
    scale = min(2.0, WIDEST / image.width)
    size = (round(image.width * scale), max(1, round(image.height * scale)))
    image.resize(size, Image.Resampling.NEAREST).save(buffer, format="PNG")
    return buffer.getvalue()
