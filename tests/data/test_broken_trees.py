"""Broken trees are refused with the file and the reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sarx.config.errors import UserError
from sarx.config.schema.segmentation_data import (
    ADE20KConfig,
    CityscapesConfig,
    CocoStuffConfig,
    FolderConfig,
    PascalContextConfig,
)
from sarx.data import DATASETS, fingerprint, load_split
from sarx.data.segmentation_files import forget_indices
from tests.data import trees

LAYOUTS: dict[str, tuple[Callable[[Path], Path], Callable[[str], Any]]] = {
    "cityscapes": (trees.make_cityscapes, lambda root: CityscapesConfig(root=root)),
    "ade20k": (trees.make_ade20k, lambda root: ADE20KConfig(root=root)),
    "pascal_context": (trees.make_pascal_context, lambda root: PascalContextConfig(root=root)),
    "coco_stuff": (trees.make_coco_stuff, lambda root: CocoStuffConfig(root=root)),
    "coco_stuff_10k": (
        trees.make_coco_stuff_10k,
        lambda root: CocoStuffConfig(root=root, variant="10k"),
    ),
    "folder": (trees.make_folder, lambda root: FolderConfig(root=root)),
    "folder_lists": (
        lambda root: trees.make_folder(root, kind="lists"),
        lambda root: FolderConfig(root=root),
    ),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SARX_CACHE", str(tmp_path / "cache"))
    forget_indices()


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> tuple[Callable[[Path], Path], Callable[[str], Any]]:
    return LAYOUTS[request.param]


@pytest.fixture
def config(layout: Any, tmp_path: Path) -> Any:
    make, configure = layout
    return configure(str(make(tmp_path / "root")))


def refused(run: Callable[[], Any], *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        run()
    for part in parts:
        assert part in str(caught.value)


def test_no_root(layout: Any) -> None:
    refused(lambda: fingerprint(layout[1]("")), "data.root: not set", "data=")


def test_a_missing_root_says_what_is_expected_and_where_to_get_it(layout: Any, tmp_path: Path) -> None:
    config = layout[1](str(tmp_path / "gone"))
    source = DATASETS[config.name].layout
    refused(
        lambda: fingerprint(config),
        f"data.root: there is no folder {tmp_path / 'gone'}; data={config.name} expects {source.expected}",
        source.source,
    )


def test_an_empty_root(layout: Any, tmp_path: Path) -> None:
    refused(lambda: fingerprint(layout[1](str(tmp_path))), f"data.root: {tmp_path} has no ")


def test_one_level_too_high(layout: Any, tmp_path: Path) -> None:
    make, configure = layout
    make(tmp_path / "all" / "root")
    wanted = f"; {tmp_path / 'all' / 'root'} looks right"
    refused(lambda: fingerprint(configure(str(tmp_path / "all"))), "data.root: ", wanted)


def test_one_level_too_deep(layout: Any, tmp_path: Path) -> None:
    make, configure = layout
    root = make(tmp_path / "root")
    for inner in sorted(path for path in root.iterdir() if path.is_dir()):
        refused(
            lambda inner=inner: fingerprint(configure(str(inner))),
            f"{inner} has no ",
            f"; {root} looks right",
        )


def first(config: Any, split: str = "all") -> tuple[Path, Path]:
    """Return the paths of the first image of a split and of its label map; listed anew afterwards."""
    part = load_split(config, 0, split)
    forget_indices()
    return part.root / part.images[0], part.root / part.labels[0]


@pytest.mark.parametrize("split", ["all", "test"])
def test_a_missing_label_map(config: Any, split: str) -> None:
    image, mask = first(config, split)
    mask.unlink()
    shown = str(mask).replace("train2014/", "").replace("test2014/", "")
    refused(lambda: load_split(config, 0, split), f"{shown}: there is no such label map for ", image.name)


def test_how_many_label_maps_are_missing(tmp_path: Path) -> None:
    root = trees.make_ade20k(tmp_path / "root", train=5)
    for i in (2, 4):
        (root / f"annotations/training/ADE_train_{i:08d}.png").unlink()
    refused(
        lambda: fingerprint(ADE20KConfig(root=str(root))), "ADE_train_00000002.png", "2 of 5 images have none"
    )


def test_a_missing_image_that_a_list_names(tmp_path: Path) -> None:
    root = trees.make_pascal_context(tmp_path / "root")
    (root / "JPEGImages/2008_000002.jpg").unlink()
    refused(
        lambda: fingerprint(PascalContextConfig(root=str(root))),
        f"{root}/ImageSets/SegmentationContext/train.txt: 2008_000002 is not in {root}/JPEGImages",
    )


def test_an_image_listed_twice_and_a_missing_list(tmp_path: Path) -> None:
    root = trees.make_folder(tmp_path / "root", kind="lists")
    config = FolderConfig(root=str(root))
    trees.write_lines(root / "train.txt", ["train_000.jpg", "", "train_000"])
    refused(lambda: fingerprint(config), f"{root}/train.txt: train_000 is listed twice")
    trees.write_lines(root / "train.txt", ["train_000.jpg", "train_001"])
    assert load_split(config, 0, "all").images == ("images/train_000.jpg", "images/train_001.jpg")
    (root / "val.txt").unlink()
    forget_indices()
    refused(lambda: fingerprint(config), f"{root}/val.txt: there is no such list")


def test_masks_of_a_folder_without_an_image_are_named(tmp_path: Path) -> None:
    root = trees.make_folder(tmp_path / "root")
    (root / "train/images/train_004.jpg").rename(root / "train/images/train_004.tif")
    refused(
        lambda: fingerprint(FolderConfig(root=str(root))),
        f"{root}/train/images: train/masks/train_004.png has no image here (1 of 24 masks have none); .jpg, ",
    )


def test_an_image_in_both_lists(tmp_path: Path) -> None:
    root = trees.make_folder(tmp_path / "root", kind="lists")
    (root / "val.txt").write_text((root / "train.txt").read_text())
    refused(
        lambda: fingerprint(FolderConfig(root=str(root))),
        f"{root}/val.txt: images/train_000.jpg is in train.txt as well (24 of 24 images are)",
    )


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    root = trees.make_folder(tmp_path / "root")
    link = root / "train/images/train_000.jpg"
    link.unlink()
    link.symlink_to(tmp_path / "gone.jpg")
    refused(lambda: fingerprint(FolderConfig(root=str(root))), f"{link}: cannot be read: No such file")


def test_byte_order_marks_are_no_part_of_a_name(tmp_path: Path) -> None:
    root = trees.make_folder(tmp_path / "root", kind="lists")
    for name in ("classes.txt", "train.txt"):
        (root / name).write_text("\ufeff" + (root / name).read_text(), encoding="utf-8")
    config = FolderConfig(root=str(root))
    assert DATASETS["folder"].describe(config, 0).class_names[0] == "road"
    assert len(load_split(config, 0, "all")) == 24


def test_an_empty_split(layout: Any, tmp_path: Path) -> None:
    root = tmp_path / "root"
    config = layout[1](str(layout[0](root)))
    part = load_split(config, 0, "test")
    for image in part.images:
        (root / image).unlink()
    for lists in root.rglob("*.txt"):
        if lists.name in ("val.txt", "test.txt"):
            lists.write_text("")
    forget_indices()
    refused(
        lambda: load_split(config, 0, "test"), "split 'test' of data=", "is empty", " and 0 validation images"
    )
    assert len(load_split(config, 0, "train")) > 0


def test_an_empty_held_out_part_names_its_rule(tmp_path: Path) -> None:
    root = trees.make_cityscapes(tmp_path / "root", train={"aachen": 2})
    config = CityscapesConfig(root=str(root))
    refused(
        lambda: load_split(config, 0, "val"),
        "split 'val' of data=cityscapes is empty",
        "2 training and 3 validation images; sarx/data/held_out/cityscapes.json says",
    )
    assert len(load_split(config, 0, "all")) == 2


def test_a_label_map_of_another_size(config: Any) -> None:
    image, _ = first(config)
    with Image.open(image) as opened:
        larger = opened.resize((opened.width + 3, opened.height))
    larger.save(image)
    part = load_split(config, 0, "all")
    refused(
        lambda: part.pair(0), f"{part.root / part.labels[0]}: is ", " pixels, its image ", f"{larger.width}x"
    )


OUT_OF_RANGE = {
    "cityscapes": (34, "0 to 33 and 255"),
    "ade20k": (151, "0 to 150 and 255"),
    "pascal_context": (60, "0 to 59 and 255"),
    "coco_stuff": (171, "0 to 170 and 255"),
    "folder": (3, "0 to 2 and 255"),
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_a_label_out_of_range(name: str, tmp_path: Path) -> None:
    make, configure = LAYOUTS[name]
    config = configure(str(make(tmp_path / "root")))
    _, mask = first(config)
    value, allowed = OUT_OF_RANGE[name]
    with Image.open(mask) as opened:
        labels = np.array(opened)
    labels[-1, -1] = value
    trees.write_mask(mask, labels)
    part = load_split(config, 0, "all")
    refused(lambda: part.label(0), f"{mask}: holds the label {value}; allowed are {allowed}")
    refused(lambda: DATASETS[config.name].class_pixels(config), f"{mask}: holds the label {value}")


def test_a_category_out_of_range_in_a_matlab_file(tmp_path: Path) -> None:
    from scipy.io import savemat

    root = trees.make_pascal_context(tmp_path / "root", kind="mat")
    part = load_split(PascalContextConfig(root=str(root)), 0, "test")
    path = part.root / part.labels[0]
    for labels, value in ((np.full((20, 28), 460, np.uint16), 460), (np.full((20, 28), -1, np.int16), -1)):
        savemat(path, {"LabelMap": labels})
        refused(lambda value=value: part.label(0), f"{path}: holds the label {value}; allowed are 0 to 459")
    savemat(path, {"Other": np.zeros((2, 2))})
    refused(lambda: part.label(0), f"{path}: has no matrix called LabelMap")
    savemat(path, {"LabelMap": np.zeros((2, 2, 2))})
    refused(lambda: part.label(0), f"{path}: LabelMap is not a matrix of numbers")
    for damaged in (
        b"",
        b"MATLAB but no more",
        b"MATLAB 5.0 MAT-file" + b" " * 105 + b"\0\1IM" + b"\x0f\0\0\0\xff",
    ):
        path.write_bytes(damaged)
        refused(lambda: part.label(0), f"{path}: cannot be read")


def test_unreadable_and_truncated_files(config: Any) -> None:
    part = load_split(config, 0, "all")
    for read, path in ((part.image, part.root / part.images[0]), (part.label, part.root / part.labels[0])):
        content = path.read_bytes()
        for damaged in (b"", b"no image at all", content[: len(content) // 2], content[:20]):
            path.write_bytes(damaged)
            refused(lambda read=read: read(0), f"{path}: cannot be read: ")
        path.unlink()
        refused(lambda read=read: read(0), f"{path}: there is no such file")


def test_cityscapes_without_label_maps(tmp_path: Path) -> None:
    root = trees.make_cityscapes(tmp_path / "root")
    for mask in (root / "gtFine").rglob("*.png"):
        mask.unlink()
    wanted = "has no label maps; expected CITY/*_gtFine_labelIds.png or CITY/*_gtFine_labelTrainIds.png"
    refused(lambda: fingerprint(CityscapesConfig(root=str(root))), f"{root}/gtFine/train: {wanted}")


def test_pascal_without_annotations(tmp_path: Path) -> None:
    root = trees.make_pascal_context(tmp_path / "root")
    (root / "SegmentationClassContext").rename(root / "SegmentationClass")
    refused(
        lambda: fingerprint(PascalContextConfig(root=str(root))),
        f"data.root: {root} has neither SegmentationClassContext/ nor trainval/",
    )


def test_the_wrong_variant_of_coco_stuff(tmp_path: Path) -> None:
    root = trees.make_coco_stuff_10k(tmp_path / "small")
    refused(lambda: fingerprint(CocoStuffConfig(root=str(root))), f"{root} has no images/train2017")
    root = trees.make_coco_stuff(tmp_path / "large")
    refused(
        lambda: fingerprint(CocoStuffConfig(root=str(root), variant="10k")),
        "imageLists/train.txt: there is no such",
    )


def test_two_images_of_one_name(tmp_path: Path) -> None:
    root = trees.make_folder(tmp_path / "root")
    Image.new("RGB", (28, 20)).save(root / "train/images/train_000.png")
    refused(lambda: fingerprint(FolderConfig(root=str(root))), "are one image with two endings")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("road\nroad\n", ":2: the name 'road' is there twice"),
        ("road\n", ": lists 1 classes; 2 to 254"),
        ("road\n\ntree\n", ":2: '' is not the name of a class"),
        ("road/side\ntree\n", ":1: 'road/side' is not the name of a class"),
        ("road 300,0,0\ntree\n", ":1: the colour 300,0,0 is not three numbers of 0 to 255"),
        ("".join(f"c{i}\n" for i in range(255)), ": lists 255 classes"),
    ],
)
def test_a_wrong_class_file(tmp_path: Path, text: str, message: str) -> None:
    root = trees.make_folder(tmp_path / "root")
    (root / "classes.txt").write_text(text)
    with pytest.raises(UserError, match=re.escape(f"{root}/classes.txt{message}")):
        _ = FolderConfig(root=str(root)).num_classes


def test_names_and_colours_of_a_class_file(tmp_path: Path) -> None:
    root = trees.make_folder(tmp_path / "root", classes=("road", "traffic light #ff8000", "sky 70,130,180"))
    config = FolderConfig(root=str(root))
    classes = DATASETS["folder"].classes(config)
    assert classes.names == ("road", "traffic_light", "sky")
    assert classes.colours == (None, (255, 128, 0), (70, 130, 180))
    assert config.num_classes == 3
    (root / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"data\.root: there is no .*classes\.txt; data=folder needs it"):
        _ = config.num_classes
