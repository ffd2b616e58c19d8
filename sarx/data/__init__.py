"""Data sets as numpy arrays. ``DATASETS`` is the registry: name -> module that is a ``DataSource``."""

from __future__ import annotations

from typing import Any

import numpy as np

from sarx.data import digit_scenes, digits_lt
from sarx.data.dataset import (
    Array,
    DataSet,
    DataSource,
    FileSplit,
    Split,
    class_counts,
    selects,
    split_names,
    training_split,
)
from sarx.data.scores import score_names

DATASETS: dict[str, DataSource] = {"digit_scenes": digit_scenes, "digits_lt": digits_lt}


def describe(config: Any, seed: int) -> DataSet:
    """Describe the data that a trial with this seed trains on; reads no image."""
    return DATASETS[config.name].describe(config, seed)


def load_split(config: Any, seed: int, split: str) -> Split | FileSplit:
    """Return the split ``train``, ``val`` or ``test``; no other split is read or made."""
    return DATASETS[config.name].load_split(config, seed, split)


def training_counts(config: Any, split: Split | FileSplit) -> Array:
    """Count the training pixels, or images, of each class: int64 (C,).

    Args:
        config: Options of a training run: data, seed and role.
        split: What it trains on.
    """
    data = describe(config.data, config.seed)
    if isinstance(split, Split) or split.read_label is None:
        return class_counts(np.asarray(split.labels), data.num_classes, data.ignore_index)
    return pixel_counts(split, data)


def label_values(config: Any, classes: Array) -> Array:
    """Return predicted classes as the label images of the data set write them: uint8, or uint16 if it must.

    Args:
        config: Options of the data.
        classes: int64 (H, W).
    """
    table = getattr(DATASETS[config.name], "LABEL_VALUES", None)
    values = classes if table is None else np.asarray(table)[classes]
    return values.astype(np.uint8 if values.max(initial=0) < 256 else np.uint16)


def fingerprint(config: Any) -> str:
    """Identify the content of the data set in under 1 ms, from stated constants."""
    return DATASETS[config.name].fingerprint(config)


__all__ = [
    "DATASETS",
    "DataSet",
    "DataSource",
    "FileSplit",
    "Split",
    "class_counts",
    "describe",
    "fingerprint",
    "label_values",
    "load_split",
    "score_names",
    "selects",
    "split_names",
    "training_counts",
    "training_split",
]
