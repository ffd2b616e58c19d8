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
    DataSet,
    DataSource,
    FileSplit,
    NamedConfig,
    Split,
    class_counts,
    split_names,
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


def load_split(config: NamedConfig, seed: int, split: str) -> Any:
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
    "load_split",
    "score_names",
    "split_names",
]
