"""Files like those of Cityscapes, for ``data.py``: photographs of nothing, with label maps of 34 classes.

Images are sums of smooth random fields over all scales, each with an amplitude in proportion to its scale, as
in natural images, in regions of a colour of their own with sharp edges between them, plus sensor noise.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 1024, 2048
NUM_IDS = 34
IGNORED = 255
TRAINED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The ids that Cityscapes' own scripts train on, in the order of their training ids."""

CELLS = (2, 4, 8, 16, 32, 64, 128, 256)
NOISE = 1.5


def train_ids() -> np.ndarray:
    """Return the training id of every label id, uint8 (256,)."""
    table = np.full(256, IGNORED, np.uint8)
    table[list(TRAINED)] = np.arange(len(TRAINED))
    return table


def smooth(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Return a random field with about ``cells`` bumps from top to bottom: float32 (H, W), SD near 1."""
    grid = rng.normal(size=(cells, 2 * cells)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def scene(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one image uint8 (H, W, 3) and its label ids uint8 (H, W)."""
    rng = np.random.default_rng(number)
    height = np.linspace(-1.5, 1.5, HEIGHT, dtype=np.float32)[:, None]
    place = 2 * height + smooth(rng, 3) + 0.5 * smooth(rng, 12) + 0.2 * smooth(rng, 48)
    edges = np.quantile(place[::8, ::8], np.linspace(0, 1, NUM_IDS + 1)[1:-1] ** 1.5)
    names = rng.permutation(NUM_IDS).astype(np.uint8)
    region = np.digitize(place, edges)
    colours = rng.uniform(30, 160, (NUM_IDS, 3)).astype(np.float32)
    image = colours[region]
    light = sum(smooth(rng, cells) * (30 / cells**0.75) for cells in CELLS)
    tint = rng.uniform(0.8, 1.2, 3).astype(np.float32)
    image += light[:, :, None] * tint + rng.normal(scale=NOISE, size=(HEIGHT, WIDTH, 1)).astype(np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), names[region]


def write(number: int, folder: Path) -> tuple[Path, Path]:
    """Write one image and its label map as PNG, compressed as Pillow does by default."""
    image, ids = scene(number)
    paths = folder / f"{number:03d}_leftImg8bit.png", folder / f"{number:03d}_gtFine_labelIds.png"
    for path, pixels in zip(paths, (image, ids), strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def write_all(folder: Path, count: int, processes: int = 2) -> list[tuple[Path, Path]]:
    """Write ``count`` images and label maps."""
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(partial(write, folder=folder), range(count)))
