"""Where a training crop is cut out, so that no class fills it."""

from __future__ import annotations

import numpy as np

from sarx.data.dataset import Bytes
from sarx.data.transforms.draws import Doubles
from sarx.data.transforms.resample import Box, nearest_box


def choose_crop(
    label: Bytes,
    size: tuple[int, int],
    crop: tuple[int, int],
    corners: Doubles,
    max_class_share: float,
    ignore_index: int,
) -> tuple[Box, Bytes]:
    """Return the first crop in which classes mix well enough, else the last one, and its labels (h, w).

    A crop is good if more than one class is in it and the largest has less than ``max_class_share`` of the
    labelled pixels; at 1 the first crop is taken unseen, and the last one is never looked at. The labels
    are those of the resized label map.

    Args:
        label: (H, W) before resizing.
        size: (height, width) of the resized label map.
        crop: (height, width) of the crop; a smaller image is taken whole along that side.
        corners: Uniform numbers in [0, 1), (draws, 2).
        max_class_share: See above.
        ignore_index: Label of the pixels that are not counted.
    """
    height, width = min(crop[0], size[0]), min(crop[1], size[1])
    free = np.array([size[0] - height + 1, size[1] - width + 1])
    places = np.floor(corners * free).astype(int)
    for top, left in places:
        box = Box(int(top), int(left), height, width)
        labels = nearest_box(label, size, box)
        if max_class_share >= 1.0 or is_mixed(labels, max_class_share, ignore_index):
            break
    return box, labels


def is_mixed(labels: Bytes, max_class_share: float, ignore_index: int) -> bool:
    """Say whether labels hold more than one class and none has ``max_class_share`` of them or more."""
    counts = np.bincount(labels.reshape(-1), minlength=ignore_index + 1)
    counts[ignore_index] = 0
    return bool(np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < max_class_share)
