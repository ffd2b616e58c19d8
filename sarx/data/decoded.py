"""Decoded images on disk, for data sets whose files take longer to decode than to read."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np

from sarx.data.cache import cache_root
from sarx.data.dataset import Bytes, FileSplit


def pair_of(split: FileSplit, fingerprint: str, index: int) -> tuple[Bytes, Bytes | int]:
    """Return an image, uint8 (3, H, W), and its label; with ``data.cache`` it is decoded once per machine.

    A cached image is a copy-on-write map of its file: only the parts that are looked at are read. Unlike
    arrays that sarx makes itself, these are never evicted: who asks for them has room (19 GB for Cityscapes).

    Args:
        split: Where the image is.
        fingerprint: Of the data set: another content is another entry.
        index: Of the image.

    Raises:
        UserError: Naming the file and what is wrong with it.
    """
    if not split.options.cache:
        return split.pair(index)
    folder = cache_root() / "images" / hashlib.sha256(fingerprint.encode()).hexdigest()[:32]
    path = str(split.root.absolute() / split.images[index])
    entry = folder / f"{hashlib.sha256(path.encode()).hexdigest()[:32]}.npy"
    try:
        return np.load(entry, mmap_mode="c"), split.label(index)
    except (FileNotFoundError, ValueError, EOFError):  # not there, or torn by a power loss
        image, label = split.pair(index)
        _write(entry, image)
        return image, label


def _write(entry: Path, image: Bytes) -> None:
    """Write an array, whole or not at all."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix="tmp-", dir=entry.parent)
    with os.fdopen(handle, "wb") as file:
        np.save(file, image)
    Path(name).replace(entry)
