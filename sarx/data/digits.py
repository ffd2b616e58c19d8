"""The 1,797 handwritten 8x8 digits that ship with scikit-learn, split by position in the file."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np

from sarx.data.dataset import Bytes

BOUNDS: dict[str, tuple[int, int]] = {"train": (0, 1100), "val": (1100, 1450), "test": (1450, 1797)}
"""Writers come in blocks of the file, so a split by position keeps most writers within one split."""

NUM_DIGITS = 10
GLYPH = 8
INK = 16
"""Largest glyph value: glyphs hold 0 (paper) to 16 (ink)."""

SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
"""Of glyphs then labels, uint8, C order."""


@dataclass(frozen=True)
class Digits:
    """Glyphs uint8 (N, 8, 8) with values 0..16, and labels uint8 (N,)."""

    glyphs: Bytes
    labels: Bytes


def sha256(*arrays: Bytes) -> str:
    """Return the hex SHA-256 of the arrays' bytes, one after the other."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@functools.cache
def load_digits(split: str) -> Digits:
    """Return one split: 1,100 train, 350 val or 347 test digits."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    first, last = BOUNDS[split]
    glyphs = bunch.images[first:last].astype(np.uint8)
    labels = bunch.target[first:last].astype(np.uint8)
    glyphs.setflags(write=False)
    labels.setflags(write=False)
    return Digits(glyphs, labels)
