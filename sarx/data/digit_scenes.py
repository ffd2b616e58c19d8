"""Long-tailed segmentation of handwritten digits in 64x64 scenes: 0 is background, 1 + d is digit d.

A scene is a smooth background with stripes, 2 to 5 digits of random size, slant and contrast (one in the
middle overlaps the others), a small covering patch, and pixel noise. Training scenes come from the trial's
seed; the 500 val and 500 test scenes are the same for every seed and study. Pixels are made by integer and
elementwise float32 arithmetic alone, so every machine makes the same bytes.

Legend: N = scenes, K = 5 digit slots per scene, S = 64 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sarx.config.schema.data import DigitScenesConfig
from sarx.data.dataset import Array, Bytes, DataSet, LongTailConfig, Split
from sarx.data.digits import INK, NUM_DIGITS, Digits, load_digits
from sarx.data.embedded import content_fingerprint, load_cached, split_tail
from sarx.data.glyphs import Floats, Ints, resize, resize_each
from sarx.data.long_tail import class_ranks, draw_digits, rank_groups, stream

SIZE = 64
NUM_EVAL = 500
MAX_DIGITS = 5
BOX = 32
MARGIN = 8
CHUNK = 128
NAME = "digit_scenes"

CENTRES = np.array([[16, 16, 48, 48, 32], [16, 48, 16, 48, 32]])
"""Rows and columns of the five places around which digits stand; the middle one overlaps the others."""

FOREGROUND = 0.35
"""A pixel belongs to a digit where its scaled glyph has at least this share of full ink."""

SHA256 = {
    "val": "8a639cb52a6c601c2e3c30b451c501c8588e3e6b6cda2f73afdfc610b43648b1",
    "test": "4e72c8b7a7ace936beb69a457502ddd2c87ae1fb4746411049bcbd936e2f097a",
}
"""Of images then labels at ``eval_imbalance`` 1; a changed hash is a different data set."""

MEAN = (0.49,)
STD = (0.19,)


@dataclass(frozen=True)
class Layout:
    """Everything random about N scenes except texture and pixel noise.

    Attributes:
        digits: Index of the glyph in each slot, (N, K); -1 = empty slot.
        heights: Height in pixels, (N, K).
        widths: Width in pixels, (N, K).
        tops: Row of the upper edge, (N, K).
        lefts: Column of the left edge, (N, K).
        slants: Columns that one row is shifted against the next, float32 (N, K).
        levels: Grey value of full ink relative to the scene's mean, float32 (N, K).
    """

    digits: Ints
    heights: Ints
    widths: Ints
    tops: Ints
    lefts: Ints
    slants: Floats
    levels: Floats


def describe(config: LongTailConfig, seed: int) -> DataSet:
    """Describe the scenes; only ``groups`` depends on the seed."""
    return DataSet(
        name=NAME,
        task="segmentation",
        num_classes=1 + NUM_DIGITS,
        class_names=("background", *(f"digit_{d}" for d in range(NUM_DIGITS))),
        in_channels=1,
        image_size=(SIZE, SIZE),
        mean=MEAN,
        std=STD,
        score_classes=tuple(range(1, 1 + NUM_DIGITS)),
        groups=rank_groups(class_ranks(seed), offset=1),
        fingerprint=fingerprint(config),
    )


def fingerprint(config: LongTailConfig) -> str:
    """Identify the content from stated constants."""
    return content_fingerprint(SHA256, config)


def load_split(config: DigitScenesConfig, seed: int, split: str) -> Split:
    """Return one split and touch no other: train, val, test, or unlabelled, the rest of the training scenes.

    Scenes are independent draws, so the first of them, which have labels, are a fair sample.
    """
    if split not in ("train", "unlabelled"):
        return load_cached(SHA256, make_arrays, config, seed, split)
    whole = load_cached(SHA256, make_arrays, config, seed, "train")
    labelled = max(1, round(config.labelled_share * len(whole)))
    part = slice(labelled) if split == "train" else slice(labelled, None)
    return Split(whole.images[part], whole.labels[part])


def make_arrays(config: LongTailConfig, seed: int, split: str) -> dict[str, Array]:
    """Make one split, past the cache: images uint8 (N, 1, S, S), labels uint8 (N, S, S)."""
    train = split == "train"
    rng = stream(seed, f"{NAME}/train") if train else stream(0, f"{NAME}/{split}")
    count = config.num_train if train else NUM_EVAL
    ranks, imbalance = split_tail(config, seed, split)
    digits = load_digits(split)
    layout = draw_layout(rng, digits, ranks, imbalance, count)
    images = np.empty((count, 1, SIZE, SIZE), np.uint8)
    labels = np.empty((count, SIZE, SIZE), np.uint8)
    for start in range(0, count, CHUNK):
        rows = slice(start, min(start + CHUNK, count))
        images[rows, 0], labels[rows] = render(rng, digits, layout, rows)
    return {"images": images, "labels": labels}


def draw_layout(
    rng: np.random.Generator, digits: Digits, ranks: Ints, imbalance: float, count: int
) -> Layout:
    """Draw which digits stand where in ``count`` scenes."""
    shape = (count, MAX_DIGITS)
    filled = np.arange(MAX_DIGITS) < rng.integers(2, MAX_DIGITS + 1, size=(count, 1))
    heights = rng.integers(28, 31, size=shape)
    widths = heights * rng.integers(92, 101, size=shape) // 100
    places = np.argsort(rng.random(shape), axis=1, kind="stable")
    tops = CENTRES[0][places] + rng.integers(-3, 4, size=shape) - heights // 2
    lefts = CENTRES[1][places] + rng.integers(-3, 4, size=shape) - widths // 2
    slants = rng.integers(-6, 7, size=shape).astype(np.float32) / np.float32(100)
    levels = rng.integers(90, 131, size=shape).astype(np.float32)
    chosen = np.full(shape, -1, np.int64)
    chosen[filled] = draw_digits(rng, digits, ranks, imbalance, int(filled.sum()))
    return Layout(chosen, heights, widths, tops, lefts, slants, levels)


def render(rng: np.random.Generator, digits: Digits, layout: Layout, rows: slice) -> tuple[Bytes, Bytes]:
    """Render the scenes ``rows`` of a layout: images and labels, uint8 (n, S, S)."""
    count = rows.stop - rows.start
    base = rng.integers(70, 121, size=(count, 1, 1)).astype(np.float32)
    side = SIZE + 2 * MARGIN
    canvas = np.zeros((count, side, side), np.float32)
    inner = slice(MARGIN, MARGIN + SIZE)
    canvas[:, inner, inner] = base + draw_texture(rng, count)
    labels = np.zeros((count, side, side), np.uint8)
    for slot in range(MAX_DIGITS):
        paste(canvas, labels, digits, layout, rows, slot, base)
    image, label = canvas[:, inner, inner], labels[:, inner, inner]
    cover(rng, image, label)
    amplitude = rng.integers(5, 21, size=(count, 1, 1)).astype(np.float32) / np.float32(100)
    noise = rng.integers(0, 256, size=(2, count, SIZE, SIZE), dtype=np.uint8).astype(np.int16)
    image = image + amplitude * (noise[0] + noise[1] - 255).astype(np.float32)
    return np.clip(np.floor(image + np.float32(0.5)), 0, 255).astype(np.uint8), np.ascontiguousarray(label)


def draw_texture(rng: np.random.Generator, count: int) -> Floats:
    """Draw backgrounds around 0: two smooth fields and triangular stripes, float32 (n, S, S)."""
    texture = np.zeros((count, SIZE, SIZE), np.float32)
    for cells, reach in ((4, 12), (13, 10)):
        field = rng.integers(-reach, reach + 1, size=(count, cells, cells)).astype(np.float32)
        texture += resize(field, SIZE, SIZE)
    slope = rng.integers(-8, 9, size=(2, count, 1, 1))
    period = rng.integers(40, 161, size=(count, 1, 1))
    height = rng.integers(0, 13, size=(count, 1, 1)).astype(np.float32)
    steps = np.arange(SIZE)
    phase = (slope[0] * steps[:, None] + slope[1] * steps) % period
    wave = np.abs(2 * phase - period).astype(np.float32) / period.astype(np.float32) - np.float32(0.5)
    return np.asarray(texture + height * wave, dtype=np.float32)


def paste(
    canvas: Floats, labels: Bytes, digits: Digits, layout: Layout, rows: slice, slot: int, base: Floats
) -> None:
    """Write the digits of one slot over the canvas and labels (n, S + 2 MARGIN, S + 2 MARGIN), in place."""
    scenes = np.flatnonzero(layout.digits[rows, slot] >= 0)
    index = scenes + rows.start
    chosen = layout.digits[index, slot]
    glyphs = digits.glyphs[chosen].astype(np.float32) / np.float32(INK)
    heights = layout.heights[index, slot]
    ink = resize_each(glyphs, heights, layout.widths[index, slot], BOX)
    steps = np.arange(BOX)
    shift = layout.slants[index, slot][:, None] * (steps - heights[:, None] // 2).astype(np.float32)
    line = layout.tops[index, slot][:, None] + MARGIN + steps
    column = layout.lefts[index, slot][:, None] + MARGIN + np.floor(shift).astype(np.int64)
    side = canvas.shape[1]
    flat = ((scenes[:, None] * side + line) * side + column)[:, :, None] + steps
    level = base[scenes] + layout.levels[index, slot][:, None, None]
    opacity = np.minimum(ink * np.float32(1.5), np.float32(1))
    old = canvas.reshape(-1)[flat]
    canvas.reshape(-1)[flat] = old + opacity * (level - old)
    names = (1 + digits.labels[chosen])[:, None, None]
    labels.reshape(-1)[flat] = np.where(ink >= np.float32(FOREGROUND), names, labels.reshape(-1)[flat])


def cover(rng: np.random.Generator, image: Floats, label: Bytes) -> None:
    """Cover one small rectangle of every scene with a flat grey that is background, in place."""
    count = len(image)
    low = rng.integers(0, SIZE - 8, size=(2, count, 1))
    high = low + rng.integers(4, 13, size=(2, count, 1))
    steps = np.arange(SIZE)
    inside = (steps >= low) & (steps < high)
    mask = inside[0][:, :, None] & inside[1][:, None, :]
    grey = rng.integers(40, 216, size=(count, 1, 1)).astype(np.float32)
    np.copyto(image, grey, where=mask)
    label[mask] = 0
