"""Bilinear resizing, by elementwise float32 operations only, so that every machine gets the same bits.

(A matrix product may fuse or reorder its sums, differently on each processor.)
Legend: N = images, H, W = height and width in pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def resize_axis(images: Floats, size: int, axis: int) -> Floats:
    """Resize one axis to ``size`` by linear interpolation at pixel centres."""
    old = images.shape[axis]
    position = np.clip((np.arange(size) + 0.5) * (old / size) - 0.5, 0, old - 1)
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, old - 1)
    shape = [1] * images.ndim
    shape[axis] = size
    weight = (position - below).astype(np.float32).reshape(shape)
    low = np.take(images, below, axis=axis)
    resized = low + weight * (np.take(images, above, axis=axis) - low)
    return np.asarray(resized, dtype=np.float32)


def resize(images_NHW: Floats, height: int, width: int) -> Floats:
    """Resize all images to (N, height, width)."""
    return resize_axis(resize_axis(images_NHW, height, 1), width, 2)


def resize_each(images_NHW: Floats, heights_N: Ints, widths_N: Ints, box: int) -> Floats:
    """Resize image i to heights[i] x widths[i], in the upper left corner of a zero box: (N, box, box)."""
    count, _, old_width = images_NHW.shape
    tall = np.zeros((count, box, old_width), np.float32)
    for height in np.unique(heights_N):
        rows = np.flatnonzero(heights_N == height)
        tall[rows, :height] = resize_axis(images_NHW[rows], int(height), 1)
    full = np.zeros((count, box, box), np.float32)
    for width in np.unique(widths_N):
        rows = np.flatnonzero(widths_N == width)
        full[rows, :, :width] = resize_axis(tall[rows], int(width), 2)
    return full
