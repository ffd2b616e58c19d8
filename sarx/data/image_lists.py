"""Classification data whose splits are list files of ``path label`` lines: ImageNet-LT and iNaturalist 2018.

Splits: ``all`` = ``data.list_train``; ``val`` = ``data.list_val``, or without one the held-out part of
``all`` (sarx/data/held_out/stems.json); ``train`` = ``all`` less what is held out; ``test`` =
``data.list_test``.
Images are opened when they are asked for; whether they are there, ``python -m sarx.data.verify`` checks.
Legend: N = images, C = classes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sarx.config.errors import UserError
from sarx.data.class_list import Counts, shot_groups
from sarx.data.dataset import DataSet, FileSplit, class_counts
from sarx.data.holding_out import held_out, rule_digest
from sarx.data.image_files import read_image
from sarx.data.layout import Layout, find_root, read_list
from sarx.data.segmentation_files import MEAN, SPLITS, STD

NOTHING_IGNORED = -1
RULE = "stems"


@dataclass(frozen=True)
class Listed:
    """One list file: paths below the root, their classes (N,), and the digest of both."""

    images: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    digest: str


@dataclass(frozen=True)
class ImageLists:
    """A classification data set in list files; a ``DataSource``.

    Attributes:
        layout: What must lie below ``data.root``.
        totals: Known numbers of training and test images.
    """

    layout: Layout
    totals: tuple[int, int]

    def describe(self, config: Any, seed: int) -> DataSet:
        """Describe the data; the seed changes nothing. Groups are many-, medium- and few-shot classes."""
        classes = int(config.num_classes)
        width = len(str(classes - 1))
        return DataSet(
            name=self.layout.name,
            task="classification",
            num_classes=classes,
            class_names=tuple(f"class_{c:0{width}d}" for c in range(classes)),
            in_channels=3,
            image_size=(config.crop, config.crop),
            mean=MEAN,
            std=STD,
            score_classes=tuple(range(classes)),
            groups=shot_groups(self.label_counts(config, seed, "all")),
            fingerprint=self.fingerprint(config),
            ignore_index=NOTHING_IGNORED,
        )

    def fingerprint(self, config: Any) -> str:
        """Identify the content by that of the list files; sizes of images are not looked at."""
        digests = [self.read(config, key).digest for key in ("list_train", "list_test")]
        digests.append(self.read(config, "list_val").digest if config.list_val else rule_digest(RULE))
        return f"{self.layout.name}:{hashlib.sha256(' '.join(digests).encode()).hexdigest()[:32]}"

    def load_split(self, config: Any, seed: int, split: str) -> FileSplit:
        """Return one split; no image is read.

        Raises:
            ValueError: If there is no such split.
            UserError: If a list is missing or wrong, or the split empty.
        """
        images, labels = self.chosen(config, split)
        if not images:
            raise UserError(f"split {split!r} of data={self.layout.name} is empty", key="data.list_train")
        return FileSplit(find_root(config.root, self.layout), images, labels, read_image, config)

    def label_counts(self, config: Any, seed: int, split: str) -> Counts:
        """Return the number of images of each class, int64 (C,)."""
        return class_counts(self.chosen(config, split)[1], config.num_classes, NOTHING_IGNORED)

    def chosen(self, config: Any, split: str) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
        """Return the paths and classes of one split."""
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; found {split!r}")
        own = {"test": "list_test", "val": "list_val" if config.list_val else "list_train"}
        listed = self.read(config, own.get(split, "list_train"))
        if split in ("all", "test") or config.list_val:
            return listed.images, listed.labels
        apart = held_out(RULE, listed.images)
        rows = np.flatnonzero(apart if split == "val" else ~apart)
        return tuple(listed.images[row] for row in rows), listed.labels[rows]

    def read(self, config: Any, key: str) -> Listed:
        """Read one list, once per process while the file stays as it is.

        Raises:
            UserError: If it is missing or wrong.
        """
        name = getattr(config, key)
        if not name:
            raise UserError(f"not set; data={self.layout.name} needs a list file", key=f"data.{key}")
        path = find_root(config.root, self.layout) / Path(name).expanduser()
        if not path.is_file():
            raise UserError(
                f"there is no {path}; data={self.layout.name} expects {self.layout.expected}. To get the "
                f"data: {self.layout.source}",
                key=f"data.{key}",
            )
        stamp = path.stat()
        version = (str(path), stamp.st_mtime_ns, stamp.st_size, int(config.num_classes))
        if version not in _lists:
            _lists[version] = read_labels(path, config.num_classes)
        return _lists[version]


_lists: dict[tuple[str, int, int, int], Listed] = {}


def read_labels(path: Path, num_classes: int) -> Listed:
    """Read a list file of ``path label`` lines.

    Raises:
        UserError: Naming the line that is wrong.
    """
    images, labels = [], []
    for number, line in enumerate(read_list(path), start=1):
        image, _, label = line.rpartition(" ")
        if not image.strip() or not label.isascii() or not label.isdigit():
            raise UserError(f"{line!r} is not a path and a class (a/b.jpg 3)", where=f"{path}:{number}")
        if int(label) >= num_classes:
            raise UserError(f"the class {label} is not 0 to {num_classes - 1}", where=f"{path}:{number}")
        images.append(image.strip())
        labels.append(int(label))
    if not images:
        raise UserError("lists no image", where=str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Listed(tuple(images), np.array(labels, np.int64), digest)


IMAGENET_LT = ImageLists(
    layout=Layout(
        name="imagenet_lt",
        folders=(),
        expected="the ImageNet folder (train/nXXXXXXXX/*.JPEG, val/) and the lists data.list_train, "
        "data.list_val and data.list_test of 'path label' lines, in it or absolute",
        source="ILSVRC2012 of https://image-net.org and the ImageNet_LT_*.txt lists of "
        "https://github.com/zhmiao/OpenLongTailRecognition-OLTR",
    ),
    totals=(115_846, 50_000),
)

INATURALIST = ImageLists(
    layout=Layout(
        name="inaturalist",
        folders=(),
        expected="the folder that holds train_val2018/ and the lists data.list_train and data.list_test of "
        "'path label' lines, in it or absolute",
        source="train_val2018.tar.gz of https://github.com/visipedia/inat_comp (2018); the lists "
        "iNaturalist18_train.txt and iNaturalist18_val.txt of the usual long-tail repositories, or made from "
        "its JSON files",
    ),
    totals=(437_513, 24_426),
)
