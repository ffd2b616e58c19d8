"""COCO-Stuff (Caesar et al., CVPR 2018): 80 things and 91 stuff classes; all 164k images or the first 10k.

Read are the published label maps (164k: PNG of category id - 1; 10k: MATLAB files of category ids) and the
``*_labelTrainIds.png`` that the common toolboxes convert them to.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sarx.config.errors import UserError
from sarx.data.class_list import read_classes
from sarx.data.dataset import Bytes
from sarx.data.image_files import IGNORED, make_table
from sarx.data.layout import File, Layout, Pair, list_files, pair_up, pick, read_list
from sarx.data.segmentation_files import Listing, SegmentationFiles

UNUSED = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91})
"""Category ids of COCO that no image has."""

CATEGORIES = tuple(category for category in range(1, 183) if category not in UNUSED)
"""Category id of every class."""

CONVERTED = "_labelTrainIds.png"
NUM_CLASSES = 171


def find(root: Path, config: Any) -> Listing:
    """Find images and label maps of the variant."""
    return find_10k(root) if config.variant == "10k" else find_164k(root)


def find_164k(root: Path) -> Listing:
    """Find images/{train,val}2017 and annotations/{train,val}2017."""
    for folder in ("images/train2017", "images/val2017", "annotations/train2017", "annotations/val2017"):
        if not (root / folder).is_dir():
            raise UserError(
                f"{root} has no {folder}; data=coco_stuff expects {SOURCE.layout.expected}. To get the data: "
                f"{SOURCE.layout.source}",
                key="data.root",
            )
    converted = bool(list_files(root, "annotations/val2017", (CONVERTED,)))
    ending = CONVERTED if converted else ".png"
    stored = range(NUM_CLASSES) if converted else (category - 1 for category in CATEGORIES)

    def pairs(split: str) -> tuple[Pair, ...]:
        images = list_files(root, f"images/{split}", (".jpg",))
        masks = list_files(root, f"annotations/{split}", (ending,))
        return pair_up(root, images, masks, f"annotations/{split}/{{key}}{ending}")

    table = make_table({value: c for c, value in enumerate(stored)})
    return Listing(pairs("train2017"), pairs("val2017"), table)


def find_10k(root: Path) -> Listing:
    """Find the images that imageLists/{train,test}.txt name, and their label maps."""
    files = _without_folders(list_files(root, "images", (".jpg",)))
    masks = _without_folders(list_files(root, "annotations", (CONVERTED,)))
    variable, ending = "", CONVERTED
    if not masks:
        masks, variable, ending = list_files(root, "annotations", (".mat",)), "S", ".mat"

    def pairs(split: str) -> tuple[Pair, ...]:
        names = read_list(root / f"imageLists/{split}.txt")
        images = pick(root, names, files, f"imageLists/{split}.txt", "images")
        return pair_up(root, images, masks, f"annotations/{{key}}{ending}")

    return Listing(pairs("train"), pairs("test"), _table_10k(bool(variable)), variable)


def _table_10k(published: bool) -> Bytes:
    if published:
        mapping = {0: IGNORED} | {category: c for c, category in enumerate(CATEGORIES)}
        return make_table(mapping, size=CATEGORIES[-1] + 1)
    return make_table({0: IGNORED} | {1 + c: c for c in range(NUM_CLASSES)})


def _without_folders(files: Mapping[str, File]) -> dict[str, File]:
    """Key files by their name alone: conversion copies them into sub-folders, whose copies come first."""
    order = sorted(files.items(), key=lambda pair: pair[0].count("/"))
    return {key.rpartition("/")[2]: file for key, file in order}


SOURCE = SegmentationFiles(
    layout=Layout(
        name="coco_stuff",
        folders=("images", "annotations"),
        expected="images/{train,val}2017/*.jpg and annotations/{train,val}2017/*.png (published, or "
        "*_labelTrainIds.png); with data.variant=10k imageLists/{train,test}.txt, images/ and annotations/",
        source="train2017.zip and val2017.zip of https://cocodataset.org and stuffthingmaps_trainval2017.zip "
        "of https://github.com/nightrome/cocostuff (164k), or cocostuff-10k-v1.1.zip from there",
    ),
    find=find,
    classes=lambda config: read_classes("coco_stuff"),
    rule="stems",
    shape=lambda config: f"coco_stuff_{config.variant}",
    totals=lambda config: (9000, 1000) if config.variant == "10k" else (118_287, 5000),
)
