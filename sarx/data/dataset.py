"""What the rest of sarx knows about a data set: its description and its splits, as numpy arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sarx.config.errors import UserError

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DataSet:
    """What a data set looks like; knowing it reads no image.

    Attributes:
        image_size: (height, width) in pixels.
        mean: Per-channel mean of pixel / 255; a model sees ``(x / 255 - mean) / std``.
        std: Per-channel standard deviation of pixel / 255.
        score_classes: The class indices that a mean score (mIoU, accuracy) averages over.
        groups: ``head``, ``body`` and ``tail`` -> class indices by *training* frequency, most frequent first.
        fingerprint: Changes whenever any image or label of the data set changes (the trial's seed apart).
    """

    name: str
    task: str
    num_classes: int
    class_names: tuple[str, ...]
    in_channels: int
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    score_classes: tuple[int, ...]
    groups: dict[str, tuple[int, ...]]
    fingerprint: str
    ignore_index: int = 255


@dataclass(frozen=True)
class Split:
    """Images uint8 (N, C, H, W) and labels uint8, (N, H, W) for segmentation or (N,) for classification.

    The arrays may be read-only maps of a file that other processes share.
    """

    images: Bytes
    labels: Bytes

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)

    def first(self, count: int) -> Split:
        """Return the first samples, at most ``count``."""
        return Split(self.images[:count], self.labels[:count])


class SelectableConfig(Protocol):
    """Any data config: it says on which split configurations are compared."""

    selection: str


HELD_OUT = "held_out"
"""True in a data config whose selection split is a part of its training images."""


class NamedConfig(SelectableConfig, Protocol):
    """Any data config: it names its data set."""

    name: str


class LongTailConfig(SelectableConfig, Protocol):
    """The options that both embedded data sets have."""

    name: str
    imbalance: float
    eval_imbalance: float
    num_train: int
    num_eval: int


class DataSource(Protocol):
    """A module or object of one data set, as listed in ``sarx.data.DATASETS``.

    ``label_counts(config, seed, split)`` besides spares counting the labels of a split that has been loaded.
    """

    def describe(self, config: Any, seed: int) -> DataSet:
        """Describe the data that a trial with this seed trains on."""

    def load_split(self, config: Any, seed: int, split: str) -> Split | FileSplit:
        """Read or make one split and no other."""

    def fingerprint(self, config: Any) -> str:
        """Identify the content without reading it; of files in folders, list them once per process."""


def split_names(config: SelectableConfig) -> tuple[str, str]:
    """Return the names of the (selection, report) splits.

    Search and the choice of a winner see the first alone; the table is computed on the second.
    """
    return ("test" if config.selection == "report" else "val"), "test"


def training_split(config: SelectableConfig, role: str) -> str:
    """Return the name of the split that a trial trains on.

    Where the selection split is held out of the training images, confirm trials train on all of these, as
    does everything that is selected on the report split.
    """
    held_out = getattr(config, HELD_OUT, False)
    return "all" if held_out and (role == "confirm" or config.selection == "report") else "train"


def selects(config: SelectableConfig, role: str) -> bool:
    """Return whether a trial of this role is scored on the selection split: not where it trains on it."""
    return not (getattr(config, HELD_OUT, False) and role == "confirm" and config.selection == "val")


def class_counts(labels: Array, num_classes: int, ignore_index: int = 255) -> npt.NDArray[np.int64]:
    """Count labels (pixels or images) per class: int64 (num_classes,), ``ignore_index`` left out.

    Raises:
        ValueError: If a label is neither a class nor ``ignore_index``.
    """
    flat = labels.reshape(-1)
    if flat.dtype.kind == "i":
        flat = flat[flat != ignore_index]
        if flat.size and flat.min() < 0:
            raise ValueError(_strange(int(flat.min()), num_classes, ignore_index))
    counts = np.bincount(flat, minlength=max(256, num_classes)).astype(np.int64)
    if 0 <= ignore_index < len(counts):
        counts[ignore_index] = 0
    if counts[num_classes:].any():
        strange = int(np.flatnonzero(counts[num_classes:])[0]) + num_classes
        raise ValueError(_strange(strange, num_classes, ignore_index))
    return counts[:num_classes]


def _strange(label: int, num_classes: int, ignore_index: int) -> str:
    return f"label {label} is neither below num_classes={num_classes} nor ignore_index={ignore_index}"


@dataclass(frozen=True)
class FileSplit:
    """Images in files, read when they are asked for; nothing is kept.

    Attributes:
        root: Folder of the data set.
        images: Paths below ``root``.
        labels: Paths of the label maps below ``root``, or the class of each image, (N,).
        read_image: From a path to uint8 (3, H, W).
        options: How images are changed and predicted.
        read_label: From a path to a uint8 label map (H, W); None in classification.
    """

    root: Path
    images: tuple[str, ...]
    labels: tuple[str, ...] | npt.NDArray[np.int64]
    read_image: Callable[[Path], Bytes]
    options: Any
    read_label: Callable[[Path], Bytes] | None = None

    def __len__(self) -> int:
        """Return N."""
        return len(self.images)

    def first(self, count: int) -> FileSplit:
        """Return the first samples, at most ``count``."""
        return self.subset(range(min(count, len(self))))

    def subset(self, indices: Sequence[int]) -> FileSplit:
        """Return some of the samples, in this order."""
        kept = [self.labels[index] for index in indices]
        labels = tuple(str(path) for path in kept) if self.read_label else np.asarray(kept, np.int64)
        return dataclasses.replace(self, images=tuple(self.images[i] for i in indices), labels=labels)

    def size(self, index: int) -> tuple[int, int]:
        """Return (H, W) of an image, from the head of its file.

        Raises:
            UserError: Naming the file, if it is no image.
        """
        from sarx.data.image_files import read_size  # which imports this module

        return read_size(self.root / self.images[index])

    def image(self, index: int) -> Bytes:
        """Read one image: uint8 (3, H, W).

        Raises:
            UserError: Naming the file and what is wrong with it.
        """
        return self.read_image(self.root / self.images[index])

    def label(self, index: int) -> Bytes | int:
        """Read one label map, uint8 (H, W), or return one class.

        Raises:
            UserError: Naming the file and what is wrong with it.
        """
        if self.read_label is None:
            return int(self.labels[index])
        return self.read_label(self.root / str(self.labels[index]))

    def pair(self, index: int) -> tuple[Bytes, Bytes | int]:
        """Read one image and its label map, or class.

        Raises:
            UserError: Naming the file and what is wrong with it; also if image and label map differ in size.
        """
        image, label = self.image(index), self.label(index)
        if not isinstance(label, int) and image.shape[1:] != label.shape:
            height, width = image.shape[1:]
            raise UserError(
                f"is {label.shape[1]}x{label.shape[0]} pixels, its image {self.images[index]} is "
                f"{width}x{height}",
                where=str(self.root / str(self.labels[index])),
            )
        return image, label
