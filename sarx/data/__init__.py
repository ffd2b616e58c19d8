"""Data sets as arrays or files. ``DATASETS`` is the registry: name -> ``DataSource``, a module or an object.

A plug-in adds its own with ``DATASETS["name"] = source``, and its options to ``GROUPS["data"]`` of
``sarx.config.schema``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sarx.data import ade20k, cityscapes, coco_stuff, digit_scenes, digits_lt, folder, pascal_context
from sarx.data.cifar_lt import CIFAR10_LT, CIFAR100_LT
from sarx.data.class_list import Counts
from sarx.data.dataset import (
    Array,
    DataSet,
    DataSource,
    FileSplit,
    NamedConfig,
    Split,
    class_counts,
    selects,
    split_names,
    training_split,
)
from sarx.data.image_lists import IMAGENET_LT, INATURALIST
from sarx.data.scores import score_names

DATASETS: dict[str, DataSource] = {
    "digit_scenes": digit_scenes,
    "digits_lt": digits_lt,
    "cityscapes": cityscapes.SOURCE,
    "ade20k": ade20k.SOURCE,
    "pascal_context": pascal_context.SOURCE,
    "coco_stuff": coco_stuff.SOURCE,
    "folder": folder.SOURCE,
    "cifar10_lt": CIFAR10_LT,
    "cifar100_lt": CIFAR100_LT,
    "imagenet_lt": IMAGENET_LT,
    "inaturalist": INATURALIST,
}


def describe(config: NamedConfig, seed: int) -> DataSet:
    """Describe the data that a trial with this seed trains on; reads no image."""
    return DATASETS[config.name].describe(config, seed)


def load_split(config: NamedConfig, seed: int, split: str) -> Split | FileSplit:
    """Return the split ``train``, ``val`` or ``test``: ``Split`` or ``FileSplit``; no other is made or read.

    Data sets whose selection is held out of the training images (``config.held_out``) also have ``all``.
    """
    return DATASETS[config.name].load_split(config, seed, split)


def fingerprint(config: NamedConfig) -> str:
    """Identify the content of the data set, from stated constants or from names and sizes of files."""
    return DATASETS[config.name].fingerprint(config)


def label_counts(config: NamedConfig, seed: int, split: str) -> Counts:
    """Return the labels (pixels or images) of each class in a training split, int64 (C,).

    Of segmentation data in files the first call reads all training label maps, once per machine.
    """
    source = DATASETS[config.name]
    if (count := getattr(source, "label_counts", None)) is not None:
        found: Counts = count(config, seed, split)
        return found
    data, part = source.describe(config, seed), source.load_split(config, seed, split)
    return class_counts(np.asarray(part.labels), data.num_classes, data.ignore_index)


def training_counts(config: Any, split: Split | FileSplit) -> Counts:
    """Return the training labels (pixels or images) of each class: int64 (C,).

    Args:
        config: Options of a training run: data, seed and role.
        split: What it trains on.
    """
    data = describe(config.data, config.seed)
    if isinstance(split, Split) or split.read_label is None:
        return class_counts(np.asarray(split.labels), data.num_classes, data.ignore_index)
    return label_counts(config.data, config.seed, training_split(config.data, config.role))


def label_values(config: NamedConfig, classes: Array) -> Array:
    """Return predicted classes as the label maps of the data set store them: uint8, or uint16 if it must.

    Of Cityscapes that is the label id, also where only trainIds are on disk.

    Args:
        config: Options of the data.
        classes: int64 (H, W).
    """
    stored = getattr(DATASETS[config.name], "stored_values", None)
    values = classes if stored is None else stored(config)[classes]
    return values.astype(np.uint8 if values.max(initial=0) < 256 else np.uint16)


__all__ = [
    "DATASETS",
    "DataSet",
    "DataSource",
    "FileSplit",
    "Split",
    "class_counts",
    "describe",
    "fingerprint",
    "label_counts",
    "label_values",
    "load_split",
    "score_names",
    "selects",
    "split_names",
    "training_counts",
    "training_split",
]
