"""Pictures of images, labels and predictions as PNG bytes, for TensorBoard."""

from __future__ import annotations

import colorsys
import io

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sarx.config.schema import TrainConfig
from sarx.data import describe, load_split, split_names
from sarx.training.evaluation import predict

GAP = 2


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
    data = describe(config.data, config.seed)
    count = config.training.images_logged
    if data.task != "segmentation" or count == 0:
        return []
    split = load_split(config.data, config.seed, split_names(config.data)[0])
    images, labels = torch.tensor(split.images[:count]), torch.tensor(split.labels[:count])
    device = torch.device(config.training.device)
    training = model.training
    model.eval()
    with torch.inference_mode():
        predictions = predict(model, images, labels, data, device, adjustment).cpu().numpy()
    model.train(training)
    colors = palette(data.num_classes, data.ignore_index)
    rows = []
    for image, label, prediction in zip(split.images[:count], split.labels[:count], predictions, strict=True):
        plain = np.broadcast_to(np.moveaxis(image, 0, -1), (*image.shape[1:], 3))
        rows.append(beside([plain, colors[label], colors[prediction]]))
    picture = np.concatenate([pad(row) for row in rows])
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


def pad(row: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Add a white gap under a picture."""
    return np.concatenate([row, np.full((GAP, row.shape[1], 3), 255, np.uint8)])


def png(picture: npt.NDArray[np.uint8]) -> bytes:
    """Encode uint8 (H, W, 3) as PNG, twice enlarged so that small scenes can be seen."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture))
    buffer = io.BytesIO()
    image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST).save(buffer, format="PNG")
    return buffer.getvalue()
