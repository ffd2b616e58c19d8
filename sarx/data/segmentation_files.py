"""Segmentation data in files: what all layouts share once images and label maps are found.

Splits: ``train`` = training images less the held-out ones, ``all`` = all training images, ``val`` = the
held-out ones (selection), ``test`` = the official validation images (report).
Legend: N = images, C = classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sarx.config.errors import UserError
from sarx.data.cache import cached
from sarx.data.class_list import ClassList, Counts, frequency_thirds, published_images
from sarx.data.dataset import Bytes, DataSet, FileSplit
from sarx.data.holding_out import held_out, rule_digest
from sarx.data.image_files import read_image, read_mask
from sarx.data.layout import Layout, Pair, find_root
from sarx.data.mask_counts import count_masks
from sarx.data.unlabelled import KEY, folder_digest, unlabelled_split
from sarx.data.unlabelled import NAME as UNLABELLED

SPLITS = ("train", "all", "val", "test")

MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)
"""Of ImageNet, as in the published settings."""

COUNTING = 1
"""Version of what is counted in label maps."""


@dataclass(frozen=True)
class Listing:
    """The files of a data set.

    Attributes:
        train: Training images with their label maps.
        test: Official validation images with theirs.
        table: Class of every value that the label maps store; see ``read_mask``.
        variable: Name of the matrix, if label maps are MATLAB files.
    """

    train: tuple[Pair, ...]
    test: tuple[Pair, ...]
    table: Bytes
    variable: str = ""

    def read_mask(self) -> Callable[[Path], Bytes]:
        """Return the function that reads a label map."""
        return partial(read_mask, table=self.table, variable=self.variable)


@dataclass(frozen=True)
class Index:
    """A listing, which of its training images are held out (N,), and the digest of it all."""

    root: Path
    listing: Listing
    held_out: npt.NDArray[np.bool_]
    digest: str


@dataclass(frozen=True)
class SegmentationFiles:
    """A segmentation data set in files; a ``DataSource``.

    Attributes:
        layout: What must lie below ``data.root``.
        find: From root and options to the files.
        classes: From options to names and colours.
        rule: Name of the rule that holds training images out (``sarx/data/held_out``).
        shape: From options to a text that names what of them shapes the labels; also the name of the
            published image counts in ``sarx/data/groups``.
        totals: From options to the known numbers of training and validation images.
        label_values: What label images are to store for each class, where label maps of several forms are
            read and one of them is official; None: what the label maps that are there store.
    """

    layout: Layout
    find: Callable[[Path, Any], Listing]
    classes: Callable[[Any], ClassList]
    rule: str
    shape: Callable[[Any], str]
    totals: Callable[[Any], tuple[int, int] | None]
    label_values: tuple[int, ...] | None = None

    def describe(self, config: Any, seed: int) -> DataSet:
        """Describe the data; the seed changes nothing.

        Groups are thirds of the classes by the number of training images with them. Where no counts are
        published (sarx/data/groups), the first call reads all training label maps, once per machine.

        Raises:
            UserError: If the files are not there.
        """
        classes = self.classes(config)
        return DataSet(
            name=self.layout.name,
            task="segmentation",
            num_classes=len(classes.names),
            class_names=classes.names,
            in_channels=3,
            image_size=(config.crop_height, config.crop_width),
            mean=MEAN,
            std=STD,
            score_classes=tuple(range(len(classes.names))),
            groups=frequency_thirds(self.group_counts(config)),
            fingerprint=self.fingerprint(config),
        )

    def fingerprint(self, config: Any) -> str:
        """Identify the content by paths and sizes of all files; listed once per process and root."""
        extra = folder_digest(config)
        return f"{self.shape(config)}:{self.index(config).digest}" + (f":{extra}" if extra else "")

    def load_split(self, config: Any, seed: int, split: str) -> FileSplit:
        """Return one split; no image is read.

        Raises:
            UserError: If the split has no image.
        """
        index = self.index(config)
        if split == UNLABELLED:
            return check_apart(unlabelled_split(config), index)
        pairs = index.listing.test
        if split != "test":
            pairs = tuple(index.listing.train[row] for row in _rows(index, split))
        if not pairs:
            raise UserError(describe_empty(self, index, split), key="data.root")
        return FileSplit(
            root=index.root,
            images=tuple(pair.image.path for pair in pairs),
            labels=tuple(pair.mask.path for pair in pairs),
            read_image=read_image,
            options=config,
            read_label=index.listing.read_mask(),
        )

    def stored_values(self, config: Any) -> npt.NDArray[np.int64]:
        """Return what a label image stores for each class, (C,): of several values the smallest."""
        if self.label_values is not None:
            return np.asarray(self.label_values)
        classes, first = np.unique(self.index(config).listing.table, return_index=True)
        return np.asarray(first[classes < len(self.classes(config).names)])

    def class_pixels(self, config: Any) -> npt.NDArray[np.int32]:
        """Return the pixels of every class in every training image, (N, C), in the order of split ``all``.

        Read from all training label maps, once per machine.
        """
        index = self.index(config)

        def count() -> dict[str, npt.NDArray[Any]]:
            paths = [index.root / pair.mask.path for pair in index.listing.train]
            classes = len(self.classes(config).names)
            title = f"counting labels of data={self.layout.name}"
            return {"pixels": count_masks(paths, index.listing.read_mask(), classes, title)}

        return cached(self.counting_key(config), count, shelf="counts")["pixels"]

    def counting_key(self, config: Any) -> str:
        """Name what ``class_pixels`` depends on."""
        return f"class_pixels:{COUNTING}:{self.fingerprint(config)}"

    def pixel_counts(self, config: Any, split: str = "all") -> Counts:
        """Return the number of pixels of each class in the training split, int64 (C,)."""
        rows = _rows(self.index(config), split)
        return np.asarray(self.class_pixels(config)[rows].sum(0, dtype=np.int64))

    def image_counts(self, config: Any, split: str = "all") -> Counts:
        """Return the number of images of the training split that contain each class, int64 (C,)."""
        rows = _rows(self.index(config), split)
        return np.asarray((self.class_pixels(config)[rows] > 0).sum(0, dtype=np.int64))

    def label_counts(self, config: Any, seed: int, split: str) -> Counts:
        """Return the labels (pixels) of each class in the training split, int64 (C,)."""
        return self.pixel_counts(config, split)

    def group_counts(self, config: Any) -> Counts:
        """Return the number of all training images with each class, (C,): published, or else counted."""
        key = self.counting_key(config)
        if key not in _group_counts:
            published = published_images(self.shape(config))
            _group_counts[key] = self.image_counts(config) if published is None else published
        return _group_counts[key]

    def index(self, config: Any) -> Index:
        """Return the files of the data set, listed once per process and root.

        Raises:
            UserError: Naming what is missing where.
        """
        root = find_root(config.root, self.layout)
        key = (self.layout.name, str(root.absolute()), self.shape(config))
        if key not in _indices:
            _indices[key] = _make_index(self, root, config)
        return _indices[key]


_indices: dict[tuple[str, str, str], Index] = {}
_group_counts: dict[str, Counts] = {}


def forget_indices() -> None:
    """List files anew when they are next asked for."""
    _indices.clear()
    _group_counts.clear()


def _make_index(source: SegmentationFiles, root: Path, config: Any) -> Index:
    listing = source.find(root, config)
    digest = hashlib.sha256(f"{rule_digest(source.rule)}\n{source.classes(config).names}\n".encode())
    published = published_images(source.shape(config))
    digest.update(f"{None if published is None else published.tolist()}\n".encode())
    for name, pairs in (("train", listing.train), ("test", listing.test)):
        digest.update(f"{name} {len(pairs)}\n".encode())
        for pair in pairs:
            image, mask = pair.image, pair.mask
            digest.update(f"{image.path}\t{image.size}\t{mask.path}\t{mask.size}\n".encode())
    apart = held_out(source.rule, [pair.image.path for pair in listing.train])
    return Index(root, listing, apart, digest.hexdigest()[:32])


def check_apart(split: FileSplit, index: Index) -> FileSplit:
    """Return a split of images without labels once none of its files is scored, or is a label map.

    Raises:
        UserError: Naming the first that is.
    """
    listing = index.listing
    held = [pair for pair, out in zip(listing.train, index.held_out, strict=True) if out]
    what = {pair.mask.path: "is a label map" for pair in (*listing.train, *listing.test)}
    what |= {pair.image.path: "is an image of the selection split" for pair in held}
    what |= {pair.image.path: "is an image of the report split" for pair in listing.test}
    below = {f"{index.root.resolve()}/{path}": why for path, why in what.items()}
    root = split.root.resolve()
    for path in split.images:
        if why := below.get(f"{root}/{path}"):
            raise UserError(f"{split.root / path} {why}; nothing is learnt from it", key=KEY)
    return split


def _rows(index: Index, split: str) -> npt.NDArray[np.int64]:
    """Return which training images belong to a split.

    Raises:
        ValueError: If there is no such split of the training images.
    """
    wanted = {
        "all": np.ones_like(index.held_out),
        "train": ~index.held_out,
        "val": index.held_out,
    }
    if split not in wanted:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; found {split!r}")
    return np.flatnonzero(wanted[split])


def describe_empty(source: SegmentationFiles, index: Index, split: str) -> str:
    """Say that a split has no image, and what there is."""
    found = f"{len(index.listing.train)} training and {len(index.listing.test)} validation images"
    why = ""
    if split in ("train", "val") and index.listing.train:
        why = f"; sarx/data/held_out/{source.rule}.json says which training images are held out"
    return f"split {split!r} of data={source.layout.name} is empty: {index.root} has {found}{why}"
