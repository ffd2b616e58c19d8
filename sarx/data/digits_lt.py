"""Long-tailed classification of the handwritten digits, one per 32x32 image: class d is digit d.

Legend: N = images, S = 32 pixels.
"""

from __future__ import annotations

import numpy as np

from sarx.data.cache import cached
from sarx.data.dataset import SPLITS, Array, DataSet, LongTailConfig, Split
from sarx.data.digits import INK, NUM_DIGITS, load_digits
from sarx.data.glyphs import resize, resize_each
from sarx.data.long_tail import class_ranks, draw_digits, rank_groups, stream

SIZE = 32
NUM_EVAL = 1000
NAME = "digits_lt"

SHA256 = {"val": "", "test": ""}
"""Of images then labels at ``eval_imbalance`` 1; a changed hash is a different data set."""

MEAN = (0.5,)
STD = (0.2,)


def describe(config: LongTailConfig, seed: int) -> DataSet:
    """Describe the images; only ``groups`` depends on the seed."""
    return DataSet(
        name=NAME,
        task="classification",
        num_classes=NUM_DIGITS,
        class_names=tuple(f"digit {d}" for d in range(NUM_DIGITS)),
        in_channels=1,
        image_size=(SIZE, SIZE),
        mean=MEAN,
        std=STD,
        score_classes=tuple(range(NUM_DIGITS)),
        groups=rank_groups(class_ranks(seed)),
        fingerprint=fingerprint(config),
    )


def fingerprint(config: LongTailConfig) -> str:
    """Identify the content: the hashes of the fixed splits and the options that shape the others."""
    return (
        f"{NAME}:{SHA256['val'][:16]}:{SHA256['test'][:16]}"
        f":imbalance={config.imbalance!r}:eval_imbalance={config.eval_imbalance!r}:num_train={config.num_train}"
    )


def load_split(config: LongTailConfig, seed: int, split: str) -> Split:
    """Return one split as shared read-only maps, made on first use.

    ``val`` and ``test`` depend on the seed only if ``eval_imbalance`` > 1: through the training ranks.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, found {split!r}")
    if split == "train":
        key = f"{fingerprint(config)}:train:{seed}"
    elif config.eval_imbalance == 1:
        key = f"{NAME}:{split}:{SHA256[split]}"
    else:
        key = f"{NAME}:{split}:{SHA256[split]}:eval_imbalance={config.eval_imbalance!r}:{seed}"
    arrays = cached(key, lambda: make_arrays(config, seed, split))
    return Split(arrays["images"], arrays["labels"])


def make_arrays(config: LongTailConfig, seed: int, split: str) -> dict[str, Array]:
    """Make one split, past the cache: images uint8 (N, 1, S, S), labels uint8 (N,).

    Digits are drawn with replacement; size, place, contrast, background and noise differ in every image.
    """
    train = split == "train"
    rng = stream(seed, f"{NAME}/train") if train else stream(0, f"{NAME}/{split}")
    count = config.num_train if train else NUM_EVAL
    digits = load_digits(split)
    imbalance = config.imbalance if train else config.eval_imbalance
    chosen = draw_digits(rng, digits, class_ranks(seed), imbalance, count)
    heights = rng.integers(16, 29, size=count)
    widths = np.clip(heights * rng.integers(70, 116, size=count) // 100, 12, 28)
    tops = (rng.random(count) * (SIZE - heights + 1)).astype(np.int64)
    lefts = (rng.random(count) * (SIZE - widths + 1)).astype(np.int64)
    glyphs = digits.glyphs[chosen].astype(np.float32) / np.float32(INK)
    ink = resize_each(glyphs, heights, widths, SIZE)
    steps = np.arange(SIZE)
    line = (steps - tops[:, None]) % SIZE
    column = (steps - lefts[:, None]) % SIZE
    ink = ink[np.arange(count)[:, None, None], line[:, :, None], column[:, None, :]]
    base = rng.integers(90, 166, size=(count, 1, 1)).astype(np.float32)
    polarity = 2 * rng.integers(0, 2, size=(count, 1, 1)) - 1
    contrast = (polarity * rng.integers(30, 90, size=(count, 1, 1))).astype(np.float32)
    field = resize(rng.integers(-40, 41, size=(count, 6, 6)).astype(np.float32), SIZE, SIZE)
    noise = rng.integers(0, 256, size=(2, count, SIZE, SIZE), dtype=np.uint8).astype(np.int16)
    grain = (noise[0] + noise[1] - 255).astype(np.float32) * np.float32(0.25)
    images = np.clip(np.floor(base + field + contrast * ink + grain), 0, 255).astype(np.uint8)
    return {"images": images[:, None], "labels": digits.labels[chosen]}
