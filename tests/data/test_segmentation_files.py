"""Segmentation data sets in their own layouts: what is found, how labels are read, what is held out."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from sarx.config.errors import UserError
from sarx.config.schema.segmentation_data import (
    ADE20KConfig,
    CityscapesConfig,
    CocoStuffConfig,
    FolderConfig,
    PascalContextConfig,
)
from sarx.data import DATASETS, describe, fingerprint, label_counts, label_values, load_split
from sarx.data.pascal_context import CATEGORIES
from sarx.data.segmentation_files import forget_indices
from tests.data import trees

CITYSCAPES = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12}
CITYSCAPES |= {26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)


def coco_class(category: int) -> int:
    """Return the index of a category among those that COCO has."""
    return category - 1 - sum(unused < category for unused in UNUSED)


CASES: dict[str, tuple[Callable[[Path], Path], Callable[[str], Any], Callable[[int], int]]] = {
    "cityscapes": (
        trees.make_cityscapes,
        lambda root: CityscapesConfig(root=root),
        lambda v: CITYSCAPES.get(v, 255),
    ),
    "cityscapes_train_ids": (
        lambda root: trees.make_cityscapes(root, kind="labelTrainIds"),
        lambda root: CityscapesConfig(root=root),
        lambda v: v,
    ),
    "ade20k": (
        trees.make_ade20k,
        lambda root: ADE20KConfig(root=root),
        lambda v: 255 if v == 0 else v - 1,
    ),
    "pascal_context_59": (
        trees.make_pascal_context,
        lambda root: PascalContextConfig(root=root),
        lambda v: 255 if v == 0 else v - 1,
    ),
    "pascal_context_60": (
        trees.make_pascal_context,
        lambda root: PascalContextConfig(root=root, background=True),
        lambda v: v,
    ),
    "coco_stuff": (trees.make_coco_stuff, lambda root: CocoStuffConfig(root=root), lambda v: v),
    "coco_stuff_pixelmaps": (
        lambda root: trees.make_coco_stuff(root, kind="pixelmaps"),
        lambda root: CocoStuffConfig(root=root),
        lambda v: 255 if v == 255 else coco_class(v + 1),
    ),
    "coco_stuff_10k": (
        trees.make_coco_stuff_10k,
        lambda root: CocoStuffConfig(root=root, variant="10k"),
        lambda v: 255 if v == 0 else v - 1,
    ),
    "coco_stuff_10k_mat": (
        lambda root: trees.make_coco_stuff_10k(root, kind="mat"),
        lambda root: CocoStuffConfig(root=root, variant="10k"),
        lambda v: 255 if v == 0 else coco_class(v),
    ),
    "folder": (trees.make_folder, lambda root: FolderConfig(root=root), lambda v: v),
    "folder_lists": (
        lambda root: trees.make_folder(root, kind="lists"),
        lambda root: FolderConfig(root=root),
        lambda v: v,
    ),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SARX_CACHE", str(tmp_path / "cache"))
    forget_indices()


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Callable[[int], int]]:
    make, config, meaning = CASES[request.param]
    return config(str(make(tmp_path / "root"))), meaning


def stored(path: Path) -> list[list[int]]:
    """Read a label map with nothing of ours."""
    if path.suffix == ".mat":
        content = loadmat(path)
        return next(content[key] for key in ("LabelMap", "S") if key in content).tolist()
    with Image.open(path) as image:
        return np.array(image).tolist()


def test_every_value_of_every_label_map_means_what_it_should(case: Any) -> None:
    config, meaning = case
    for split in ("all", "test"):
        part = load_split(config, 0, split)
        assert len(part) == len(part.images) == len(part.labels) > 0
        for i in range(len(part)):
            image, label = part.pair(i)
            assert image.dtype == label.dtype == np.uint8
            assert image.shape == (3, *label.shape)
            wanted = [[meaning(v) for v in row] for row in stored(part.root / part.labels[i])]
            assert label.tolist() == wanted
            with Image.open(part.root / part.images[i]) as literal:
                np.testing.assert_array_equal(image, np.array(literal.convert("RGB")).transpose(2, 0, 1))


def test_label_images_of_predictions_are_read_back_as_these(case: Any) -> None:
    config, stored_class = case[0], case[-1]
    classes = np.arange(config.num_classes)
    values = label_values(config, classes)
    if config.name == "cityscapes":
        assert [CITYSCAPES[int(value)] for value in values] == classes.tolist()  # also from trainIds
    else:
        assert [stored_class(int(value)) for value in values] == classes.tolist()


def test_image_and_label_map_of_a_pair_have_the_same_stem(case: Any) -> None:
    config, _ = case
    for split in ("all", "test"):
        part = load_split(config, 0, split)
        for image, mask in zip(part.images, part.labels, strict=True):
            stem = Path(image).stem.removesuffix("_leftImg8bit")
            ending = Path(mask).stem.removeprefix(stem)
            assert ending in ("", "_labelTrainIds", "_gtFine_labelIds", "_gtFine_labelTrainIds")


def test_held_out_images_are_apart_and_fixed(case: Any) -> None:
    config, _ = case
    parts = {split: load_split(config, seed, split) for seed, split in enumerate(("train", "val", "all"))}
    train, val, full = (set(part.images) for part in parts.values())
    assert train
    assert val
    assert train | val == full
    assert not train & val
    assert not full & set(load_split(config, 0, "test").images)
    if config.name == "cityscapes":
        cities = {Path(image).parent.name for image in val}
        assert cities == {"bochum", "zurich"}
    else:
        for image in full:
            number = int(hashlib.sha256(Path(image).stem.encode()).hexdigest(), 16)
            assert (image in val) == (number % 10 == 0)
    with pytest.raises(ValueError, match="train, all, val, test"):
        load_split(config, 0, "report")


def test_the_description(case: Any) -> None:
    config, _ = case
    data = describe(config, 3)
    assert data.num_classes == config.num_classes == len(data.class_names) == len(set(data.class_names))
    assert data.task == config.task == "segmentation"
    assert (data.in_channels, data.image_size) == (3, (config.crop_height, config.crop_width))
    assert data.score_classes == tuple(range(data.num_classes))
    grouped = [c for group in data.groups.values() for c in group]
    assert sorted(grouped) == list(range(data.num_classes))
    third = data.num_classes // 3
    assert [len(group) for group in data.groups.values()] == [third, data.num_classes - 2 * third, third]
    assert data.mean == pytest.approx((0.485, 0.456, 0.406))
    assert data.std == pytest.approx((0.229, 0.224, 0.225))
    assert data.fingerprint == fingerprint(config)


def test_counts_are_those_of_a_loop_over_pixels(case: Any) -> None:
    config, _ = case
    source = DATASETS[config.name]
    for split in ("train", "all", "val"):
        part = load_split(config, 0, split)
        pixels, images = np.zeros((2, config.num_classes), np.int64)
        for i in range(len(part)):
            labels = part.label(i)
            for c in range(config.num_classes):
                pixels[c] += (labels == c).sum()
                images[c] += (labels == c).any()
        np.testing.assert_array_equal(source.pixel_counts(config, split), pixels)
        np.testing.assert_array_equal(source.image_counts(config, split), images)
        np.testing.assert_array_equal(label_counts(config, 0, split), pixels)
    assert source.class_pixels(config).shape == (len(load_split(config, 0, "all")), config.num_classes)


def test_label_maps_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sarx.data import segmentation_files

    config = FolderConfig(root=str(trees.make_folder(tmp_path / "root")))
    first = describe(config, 0).groups
    monkeypatch.setattr(segmentation_files, "count_masks", None)
    forget_indices()
    assert describe(config, 1).groups == first
    counts = DATASETS["folder"].image_counts(config)
    assert list(np.argsort(-counts, kind="stable")) == [c for group in first.values() for c in group]


def test_published_counts_of_ade20k_need_no_label_map(tmp_path: Path) -> None:
    root = trees.make_ade20k(tmp_path / "root")
    for mask in root.rglob("*.png"):
        mask.write_bytes(b"not read")
    data = describe(ADE20KConfig(root=str(root)), 0)
    assert [data.class_names[c] for c in data.groups["head"][:3]] == ["wall", "floor", "sky"]


def test_a_split_can_be_sent_to_another_process(case: Any) -> None:
    part = load_split(case[0], 0, "test")
    copy = pickle.loads(pickle.dumps(part))
    np.testing.assert_array_equal(copy.label(0), part.label(0))
    np.testing.assert_array_equal(copy.image(0), part.image(0))


def test_reading_lists_needs_no_image(case: Any) -> None:
    config, _ = case
    before = fingerprint(config)
    for path in Path(config.root).rglob("*.jpg"):
        path.write_bytes(b"x" * path.stat().st_size)
    forget_indices()
    assert fingerprint(config) == before


def refreshed(config: Any) -> str:
    forget_indices()
    return fingerprint(config)


def test_the_fingerprint_changes_with_files_and_with_what_shapes_labels(case: Any, tmp_path: Path) -> None:
    config, _ = case
    before = fingerprint(config)
    moved = tmp_path / "elsewhere"
    shutil.copytree(config.root, moved)
    same = type(config)(**{k: getattr(config, k) for k in ("variant", "background") if hasattr(config, k)})
    same.root = str(moved)
    assert fingerprint(same) == before
    same.selection, same.crop_height, same.workers = "report", 64, 7
    assert fingerprint(same) == before
    part = load_split(same, 0, "all")
    mask = moved / part.labels[0]
    content = mask.read_bytes()
    mask.write_bytes(content + b"x")
    seen = {before, refreshed(same)}
    mask.write_bytes(content)
    assert refreshed(same) == before
    image = moved / load_split(same, 0, "test").images[0]
    image.write_bytes(image.read_bytes() + b"x")
    seen.add(refreshed(same))
    assert len(seen) == 3


def test_background_and_variant_are_in_the_fingerprint(tmp_path: Path) -> None:
    root = str(trees.make_pascal_context(tmp_path / "voc"))
    both = {fingerprint(PascalContextConfig(root=root, background=value)) for value in (True, False)}
    assert len(both) == 2


VOC_CATEGORIES = (2, 23, 25, 31, 34, 45, 59, 65, 72, 98, 397, 113, 207, 258, 284, 308, 347, 368, 416, 427)
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "table", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The 20 classes of PASCAL VOC among the 459 categories."""


def test_the_published_files_of_pascal_context_give_the_converted_classes(tmp_path: Path) -> None:
    """Categories are read as the toolboxes convert them: 59 of 459, the others background."""
    names = dict(zip(VOC_CATEGORIES, VOC_CLASSES, strict=True))
    root = trees.make_pascal_context(tmp_path / "root", kind="mat")
    for background, rest in ((True, 0), (False, 255)):
        config = PascalContextConfig(root=str(root), background=background)
        classes, part = describe(config, 0).class_names, load_split(config, 0, "all")
        met = set()
        for i in range(len(part)):
            labels, published = part.label(i), loadmat(part.root / part.labels[i])["LabelMap"]
            met |= set(np.unique(published).tolist()) & names.keys()
            for category, name in names.items():
                assert {classes[c] for c in labels[published == category]} <= {name}
            for category in (1, 3, 8, 10, 459):
                assert set(labels[published == category].tolist()) <= {rest}
        assert len(met) > 10


def test_categories_and_classes_of_pascal_context_are_in_alphabetical_order() -> None:
    """The 459 published categories are, so ascending ids are the 59 classes in their order."""
    names = DATASETS["pascal_context"].classes(PascalContextConfig()).names
    assert list(names) == sorted(names)
    assert list(CATEGORIES) == sorted(set(CATEGORIES))
    assert len(CATEGORIES) == len(names) == 59


def test_one_pixel_is_enough_for_an_image_to_contain_a_class(tmp_path: Path) -> None:
    root = trees.make_folder(tmp_path / "root", train=2)
    labels = np.zeros((20, 28))
    labels[3, 4] = 2
    for mask in (root / "train/masks").iterdir():
        trees.write_mask(mask, labels)
    assert DATASETS["folder"].image_counts(FolderConfig(root=str(root))).tolist() == [2, 0, 2]


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    root = trees.make_ade20k(tmp_path / "root", train=2)
    (root / "images/training/._ADE_train_00000001.jpg").write_bytes(b"of another system")
    assert len(load_split(ADE20KConfig(root=str(root)), 0, "all")) == 2


def test_the_official_image_comes_from_a_list_and_nothing_else(tmp_path: Path) -> None:
    root = trees.make_pascal_context(tmp_path / "root", train=4, val=2)
    shutil.copy(root / "JPEGImages/2008_000001.jpg", root / "JPEGImages/2009_000001.jpg")
    config = PascalContextConfig(root=str(root))
    assert len(load_split(config, 0, "all")) == 4
    assert len(load_split(config, 0, "test")) == 2


def test_converted_copies_of_coco_10k_come_first(tmp_path: Path) -> None:
    """The toolboxes convert in place: the published files stay beside the converted ones."""
    root = trees.make_coco_stuff_10k(tmp_path / "root", kind="mat")
    trees.make_coco_stuff_10k(root, kind="labelTrainIds", seed=3)
    part = load_split(CocoStuffConfig(root=str(root), variant="10k"), 0, "all")
    assert all(mask.endswith("_labelTrainIds.png") for mask in part.labels)
    assert all(image.startswith("images/train2014/") for image in part.images)


def test_a_root_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.make_folder(tmp_path / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load_split(FolderConfig(root="~/mine"), 0, "test")) == 3


def test_many_label_maps_are_counted_by_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from sarx.data import mask_counts

    config = FolderConfig(root=str(trees.make_folder(tmp_path / "root", train=70, sizes=((4, 6), (8, 4)))))
    one = DATASETS["folder"].class_pixels(config)
    monkeypatch.setenv("SARX_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(mask_counts, "FEW", 10)
    monkeypatch.setattr(mask_counts, "PROGRESS_S", 0.0)
    monkeypatch.setattr(mask_counts.os, "sched_getaffinity", lambda pid: {0, 1})
    np.testing.assert_array_equal(DATASETS["folder"].class_pixels(config), one)
    shown = capfd.readouterr().err.splitlines()
    assert shown[-1].startswith("counting labels of data=folder: 70 of 70")


def test_what_breaks_in_another_process_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sarx.data import mask_counts

    root = trees.make_folder(tmp_path / "root", train=70, sizes=((4, 6),))
    (root / "train/masks/train_050.png").write_bytes(b"")
    monkeypatch.setattr(mask_counts, "FEW", 10)
    monkeypatch.setattr(mask_counts.os, "sched_getaffinity", lambda pid: {0, 1})
    with pytest.raises(UserError, match=r"train_050\.png: cannot be read"):
        DATASETS["folder"].class_pixels(FolderConfig(root=str(root)))
    assert [path.name for path in tmp_path.iterdir()] == ["root"]
