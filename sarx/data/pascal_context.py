"""PASCAL-Context (Mottaghi et al., CVPR 2014): 59 classes, or 60 with background.

Two forms of the annotations are read: PNG files of 60 classes, as the common toolboxes convert them, and the
published MATLAB files of 459 categories (trainval/*.mat). The merged JSON file of the Detail API is not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sarx.config.errors import UserError
from sarx.data.class_list import ClassList, read_classes
from sarx.data.dataset import Bytes
from sarx.data.image_files import IGNORED, make_table
from sarx.data.layout import Layout, Pair, list_files, pair_up, pick, read_list
from sarx.data.segmentation_files import Listing, SegmentationFiles

CLASSES = 60

CATEGORIES = (
    *(2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144),
    *(158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354),
    *(355, 360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458),
)
"""Of the 459 published categories, the 59 classes in their order; the others are background."""

NUM_CATEGORIES = 459


def table(background: bool, categories: bool) -> Bytes:
    """Return the class of every stored value.

    Args:
        background: Whether background is class 0 (of 60), else it is ignored (59 classes).
        categories: Whether the 459 published categories are stored, else the 60 classes.
    """
    first = 0 if background else IGNORED
    shift = 0 if background else 1
    if not categories:
        return make_table({0: first} | {c: c - shift for c in range(1, CLASSES)})
    mapping = dict.fromkeys(range(NUM_CATEGORIES + 1), first)
    mapping |= {stored: c - shift for c, stored in enumerate(CATEGORIES, start=1)}
    return make_table(mapping, size=NUM_CATEGORIES + 1)


def find(root: Path, config: Any) -> Listing:
    """Find listed images and label maps."""
    converted = (root / "SegmentationClassContext").is_dir()
    folder, ending = ("SegmentationClassContext", ".png") if converted else ("trainval", ".mat")
    lists = "ImageSets/SegmentationContext" if converted else "ImageSets/Main"
    if not converted and not (root / folder).is_dir():
        raise UserError(
            f"{root} has neither SegmentationClassContext/ nor trainval/; data=pascal_context expects "
            f"{SOURCE.layout.expected}. To get the data: {SOURCE.layout.source}",
            key="data.root",
        )
    files = list_files(root, "JPEGImages", (".jpg",))
    masks = list_files(root, folder, (ending,))

    def pairs(split: str) -> tuple[Pair, ...]:
        names = read_list(root / lists / f"{split}.txt")
        images = pick(root, names, files, f"{lists}/{split}.txt", "JPEGImages")
        return pair_up(root, images, masks, f"{folder}/{{key}}{ending}")

    labels = table(config.background, not converted)
    return Listing(pairs("train"), pairs("val"), labels, variable="" if converted else "LabelMap")


def classes(config: Any) -> ClassList:
    """Return 60 classes with background, else 59."""
    full = read_classes("pascal_context")
    return full if config.background else ClassList(full.names[1:], full.colours[1:])


SOURCE = SegmentationFiles(
    layout=Layout(
        name="pascal_context",
        folders=("JPEGImages", "ImageSets"),
        expected="the folder VOCdevkit/VOC2010: JPEGImages/*.jpg with SegmentationClassContext/*.png and "
        "ImageSets/SegmentationContext/{train,val}.txt (as MMSegmentation converts them), or with "
        "trainval/*.mat and ImageSets/Main/{train,val}.txt (as published)",
        source="unpack VOCtrainval_03-May-2010.tar of the PASCAL VOC 2010 site, and into VOC2010 "
        "trainval.tar.gz of https://cs.stanford.edu/~roozbeh/pascal-context",
    ),
    find=find,
    classes=classes,
    rule="stems",
    shape=lambda config: f"pascal_context_{config.num_classes}",
    totals=lambda config: (4998, 5105),
)
