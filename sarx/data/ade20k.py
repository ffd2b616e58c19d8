"""ADE20K, scene parsing benchmark (Zhou et al., CVPR 2017): 150 classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sarx.data.class_list import read_classes
from sarx.data.image_files import IGNORED, make_table
from sarx.data.layout import Layout, Pair, list_files, pair_up
from sarx.data.segmentation_files import Listing, SegmentationFiles

TABLE = make_table({0: IGNORED} | {1 + c: c for c in range(150)})


def find(root: Path, config: Any) -> Listing:
    """Find images and label maps."""

    def pairs(folder: str) -> tuple[Pair, ...]:
        images = list_files(root, f"images/{folder}", (".jpg",))
        masks = list_files(root, f"annotations/{folder}", (".png",))
        return pair_up(root, images, masks, f"annotations/{folder}/{{key}}.png")

    return Listing(pairs("training"), pairs("validation"), TABLE)


SOURCE = SegmentationFiles(
    layout=Layout(
        name="ade20k",
        folders=("images/training", "images/validation", "annotations/training", "annotations/validation"),
        expected="the folder ADEChallengeData2016: images/{training,validation}/*.jpg and "
        "annotations/{training,validation}/*.png",
        source="unpack http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    ),
    find=find,
    classes=lambda config: read_classes("ade20k"),
    rule="stems",
    shape=lambda config: "ade20k",
    totals=lambda config: (20210, 2000),
    label_values=tuple(range(1, 151)),
)
