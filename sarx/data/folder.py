"""A segmentation data set of one's own: images, masks of class indices, and classes.txt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sarx.config.errors import UserError
from sarx.config.schema.class_file import read_class_file
from sarx.data.class_list import ClassList
from sarx.data.image_files import make_table
from sarx.data.layout import IMAGE_ENDINGS, Layout, Pair, list_files, pair_up, pick, read_list
from sarx.data.segmentation_files import Listing, SegmentationFiles


def find(root: Path, config: Any) -> Listing:
    """Find images and masks: in a folder per split, or by a list per split."""
    pairs = _listed if (root / "train.txt").is_file() else _in_folders
    table = make_table({c: c for c in range(config.num_classes)})
    train, val = pairs(root, "train"), pairs(root, "val")
    if twice := sorted({pair.image.path for pair in train} & {pair.image.path for pair in val}):
        raise UserError(
            f"{twice[0]} is in train.txt as well ({len(twice)} of {len(val)} images are)",
            where=str(root / "val.txt"),
        )
    return Listing(train, val, table)


def _in_folders(root: Path, split: str) -> tuple[Pair, ...]:
    images = list_files(root, f"{split}/images", IMAGE_ENDINGS)
    masks = list_files(root, f"{split}/masks", (".png",))
    pairs = pair_up(root, images, masks, f"{split}/masks/{{key}}.png")
    without = [masks[key].path for key in masks if key not in images]
    if images and without:
        raise UserError(
            f"{without[0]} has no image here ({len(without)} of {len(masks)} masks have none); "
            f"{', '.join(IMAGE_ENDINGS)} are read",
            where=str(root / split / "images"),
        )
    return pairs


def _listed(root: Path, split: str) -> tuple[Pair, ...]:
    files = list_files(root, "images", IMAGE_ENDINGS)
    names = [_bare(name) for name in read_list(root / f"{split}.txt")]
    images = pick(root, names, files, f"{split}.txt", "images")
    return pair_up(root, images, list_files(root, "masks", (".png",)), "masks/{key}.png")


def _bare(name: str) -> str:
    """Return a listed name without the ending of an image, if it has one."""
    return next((name[: -len(end)] for end in IMAGE_ENDINGS if name.lower().endswith(end)), name)


def classes(config: Any) -> ClassList:
    """Return the classes of classes.txt."""
    pairs = read_class_file(config.root)
    return ClassList(tuple(name for name, _ in pairs), tuple(colour for _, colour in pairs))


SOURCE = SegmentationFiles(
    layout=Layout(
        name="folder",
        folders=("classes.txt",),
        expected="classes.txt (a class name per line) and {train,val}/{images,masks}/, or images/, masks/, "
        "train.txt and val.txt; masks are grey or palette PNG files of class indices, 255 ignored",
        source="it is a data set of your own",
    ),
    find=find,
    classes=classes,
    rule="stems",
    shape=lambda config: "folder",
    totals=lambda config: None,
)
