"""Long-tailed classification of the handwritten digits, one per 32x32 image: class d is digit d.

Legend: N = images, S = 32 pixels.
"""

from __future__ import annotations

import numpy as np

from sarx.data.class_list import shot_groups
from sarx.data.dataset import Array, DataSet, LongTailConfig, Split
from sarx.data.digits import INK, NUM_DIGITS, load_digits
from sarx.data.embedded import content_fingerprint, load_cached, split_tail
from sarx.data.glyphs import resize, resize_each
from sarx.data.long_tail import class_ranks, draw_digits, instance_counts, rank_groups, stream

SIZE = 32
NUM_EVAL = 1000
NAME = "digits_lt"

SHA256 = {
    "val": "a15b6c30ea9e197c0e127ad0ad915945a2e2a3c69b1fe50744c08a401e0f95fc",
    "test": "cd28b4620acae5697a786673edd3e7eedec431ca2c7ab724602dc535fa7f372b",
}
"""Of images then labels at ``eval_imbalance`` 1; a changed hash is a different data set."""

MEAN = (0.42,)
STD = (0.14,)


def describe(config: LongTailConfig, seed: int) -> DataSet:
    """Describe the images; only ``groups`` depends on the seed.

    They are head, body and tail by rank, and many, medium and few by the number of training images.
    """
    ranks = class_ranks(seed)
    return DataSet(
        name=NAME,
        task="classification",
        num_classes=NUM_DIGITS,
        class_names=tuple(f"digit_{d}" for d in range(NUM_DIGITS)),
        in_channels=1,
        image_size=(SIZE, SIZE),
        mean=MEAN,
        std=STD,
        score_classes=tuple(range(NUM_DIGITS)),
        groups=rank_groups(ranks) | shot_groups(instance_counts(ranks, config.imbalance, config.num_train)),
        fingerprint=fingerprint(config),
    )


def fingerprint(config: LongTailConfig) -> str:
    """Identify the content from stated constants."""
    return content_fingerprint(SHA256, config)


def load_split(config: LongTailConfig, seed: int, split: str) -> Split:
    """Return one split and touch no other."""
    return load_cached(SHA256, make_arrays, config, seed, split)


def make_arrays(config: LongTailConfig, seed: int, split: str) -> dict[str, Array]:
    """Make one split, past the cache: images uint8 (N, 1, S, S), labels uint8 (N,).

    Digits are drawn with replacement; size, place, contrast, background and noise differ in every image.
    """
    train = split == "train"
    rng = stream(seed, f"{NAME}/train") if train else stream(0, f"{NAME}/{split}")
    count = config.num_train if train else NUM_EVAL
    digits = load_digits(split)
    ranks, imbalance = split_tail(config, seed, split)
    chosen = draw_digits(rng, digits, ranks, imbalance, count)
    heights = rng.integers(18, 29, size=count)
    widths = np.clip(heights * rng.integers(80, 111, size=count) // 100, 14, 28)
    tops = (rng.random(count) * (SIZE - heights + 1)).astype(np.int64)
    lefts = (rng.random(count) * (SIZE - widths + 1)).astype(np.int64)
    glyphs = digits.glyphs[chosen].astype(np.float32) / np.float32(INK)
    ink = resize_each(glyphs, heights, widths, SIZE)
    steps = np.arange(SIZE)
    line = (steps - tops[:, None]) % SIZE
    column = (steps - lefts[:, None]) % SIZE
    ink = ink[np.arange(count)[:, None, None], line[:, :, None], column[:, None, :]]
    base = rng.integers(70, 121, size=(count, 1, 1)).astype(np.float32)
    contrast = rng.integers(60, 121, size=(count, 1, 1)).astype(np.float32)
    field = resize(rng.integers(-20, 21, size=(count, 6, 6)).astype(np.float32), SIZE, SIZE)
    noise = rng.integers(0, 256, size=(2, count, SIZE, SIZE), dtype=np.uint8).astype(np.int16)
    grain = (noise[0] + noise[1] - 255).astype(np.float32) * np.float32(0.15)
    images = np.clip(np.floor(base + field + contrast * ink + grain), 0, 255).astype(np.uint8)
    return {"images": images[:, None], "labels": digits.labels[chosen]}
