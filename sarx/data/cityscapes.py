"""Cityscapes, fine annotations (Cordts et al., CVPR 2016): 19 classes of urban streets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sarx.config.errors import UserError
from sarx.data.class_list import read_classes
from sarx.data.image_files import make_table
from sarx.data.layout import Layout, Pair, list_files, pair_up
from sarx.data.segmentation_files import Listing, SegmentationFiles

LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label id of every class; the others of 0 to 33 are void (cityscapesScripts, helpers/labels.py)."""

VOID = 255
IMAGE = "_leftImg8bit.png"
TABLES = {
    "_gtFine_labelIds.png": make_table(
        dict.fromkeys(range(34), VOID) | {stored: c for c, stored in enumerate(LABEL_IDS)}
    ),
    "_gtFine_labelTrainIds.png": make_table({c: c for c in range(len(LABEL_IDS))}),
}
"""Ending of the label maps -> class of every stored value; the first that is there is read."""


def find(root: Path, config: Any) -> Listing:
    """Find images and label maps of all cities."""
    masks = {
        ending: {split: list_files(root, f"gtFine/{split}", (ending,)) for split in ("train", "val")}
        for ending in TABLES
    }
    ending = next((end for end, found in masks.items() if any(found.values())), None)
    if ending is None:
        raise UserError(
            f"has no label maps; expected {' or '.join(f'CITY/*{end}' for end in TABLES)}",
            where=str(root / "gtFine/train"),
        )

    def pairs(split: str) -> tuple[Pair, ...]:
        images = list_files(root, f"leftImg8bit/{split}", (IMAGE,))
        return pair_up(root, images, masks[ending][split], f"gtFine/{split}/{{key}}{ending}")

    return Listing(pairs("train"), pairs("val"), TABLES[ending])


SOURCE = SegmentationFiles(
    layout=Layout(
        name="cityscapes",
        folders=("leftImg8bit/train", "leftImg8bit/val", "gtFine/train", "gtFine/val"),
        expected=f"leftImg8bit/{{train,val}}/CITY/*{IMAGE} and "
        "gtFine/{train,val}/CITY/*_gtFine_labelIds.png",
        source="register at https://www.cityscapes-dataset.com and unpack leftImg8bit_trainvaltest.zip and "
        "gtFine_trainvaltest.zip into one folder",
    ),
    find=find,
    classes=lambda config: read_classes("cityscapes"),
    rule="cityscapes",
    shape=lambda config: "cityscapes",
    totals=lambda config: (2975, 500),
)
