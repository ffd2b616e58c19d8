"""ImageNet-LT and iNaturalist by list files: classes beyond a byte, held-out images, wrong lines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarx.config.errors import UserError
from sarx.config.schema.classification_data import ImageNetLTConfig, INaturalistConfig
from sarx.data import class_counts, describe, fingerprint, label_counts, load_split
from sarx.data.holding_out import held_out
from tests.data import trees

COUNTS = {
    "ImageNet_LT_train.txt": (101, 100, 20, 19, 1),
    "ImageNet_LT_val.txt": (2, 2, 2, 2, 2),
    "ImageNet_LT_test.txt": (1, 1, 1, 1, 1),
}


@pytest.fixture
def imagenet(tmp_path: Path) -> ImageNetLTConfig:
    return ImageNetLTConfig(root=str(trees.make_image_lists(tmp_path, COUNTS, sizes=((6, 8), (9, 5)))))


@pytest.fixture
def inaturalist(tmp_path: Path) -> INaturalistConfig:
    counts = {"iNaturalist18_train.txt": (40, 8), "iNaturalist18_val.txt": (3, 3)}
    root = trees.make_image_lists(tmp_path, counts, sizes=((6, 8),))
    trees.write_lines(root / "more.txt", [*(root / "iNaturalist18_train.txt").read_text().splitlines()[:5]])
    return INaturalistConfig(root=str(root))


def listed(config: Any, name: str) -> list[tuple[str, int]]:
    lines = (Path(config.root) / name).read_text().splitlines()
    return [(line.split()[0], int(line.split()[1])) for line in lines]


def test_splits_are_the_lists(imagenet: ImageNetLTConfig) -> None:
    for split, name in (("train", "train"), ("all", "train"), ("val", "val"), ("test", "test")):
        part = load_split(imagenet, 0, split)
        assert list(zip(part.images, part.labels, strict=True)) == listed(imagenet, f"ImageNet_LT_{name}.txt")
        assert part.labels.dtype == np.int64
        image, label = part.pair(1)
        assert image.shape[0] == 3
        assert image.dtype == np.uint8
        assert label == part.labels[1]
        assert type(label) is int


def test_without_a_list_selection_is_held_out_of_the_training_images(inaturalist: INaturalistConfig) -> None:
    full = listed(inaturalist, "iNaturalist18_train.txt")
    parts = {split: load_split(inaturalist, 0, split) for split in ("train", "val", "all")}
    pairs = {split: list(zip(part.images, part.labels, strict=True)) for split, part in parts.items()}
    assert pairs["all"] == full
    assert pairs["train"]
    assert pairs["val"]
    assert sorted(pairs["train"] + pairs["val"]) == sorted(full)
    assert [
        pair for pair, apart in zip(full, held_out("stems", parts["all"].images), strict=True) if apart
    ] == pairs["val"]
    own = INaturalistConfig(root=inaturalist.root, list_val="more.txt")
    assert list(load_split(own, 0, "val").images) == [image for image, _ in full[:5]]
    assert list(load_split(own, 0, "train").images) == [image for image, _ in full]


def test_the_description(imagenet: ImageNetLTConfig) -> None:
    data = describe(imagenet, 0)
    assert data.num_classes == imagenet.num_classes == 1000
    assert data.ignore_index == -1
    assert data.class_names[:2] == ("class_000", "class_001")
    assert data.groups["many"] == (0,)
    assert data.groups["medium"] == (1, 2)
    assert data.groups["few"] == (3, 4, *range(5, 1000))
    assert data.image_size == (224, 224)
    assert INaturalistConfig().num_classes == 8142


def test_classes_beyond_a_byte_are_counted(imagenet: ImageNetLTConfig) -> None:
    path = Path(imagenet.root) / "ImageNet_LT_train.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[3].rsplit(" ", 1)[0] + " 999"]))
    counts = label_counts(imagenet, 0, "train")
    assert (counts[0], counts[999], counts.sum()) == (3, 1, 4)


def test_class_counts_of_wide_labels() -> None:
    labels = np.array([0, 700, 700, -1, 255])
    assert class_counts(labels, 1000, ignore_index=-1)[[0, 255, 700]].tolist() == [1, 1, 2]
    assert class_counts(labels, 1000, ignore_index=-1).sum() == 4
    with pytest.raises(ValueError, match="label 700 is neither below num_classes=600"):
        class_counts(labels, 600, ignore_index=-1)
    with pytest.raises(ValueError, match="label -1 is neither"):
        class_counts(labels, 1000, ignore_index=255)
    with pytest.raises(ValueError, match="label -2 is neither"):
        class_counts(np.array([-2, 3]), 1000, ignore_index=-1)
    assert class_counts(np.array([255, 0], np.uint8), 256, ignore_index=-1)[255] == 1


def test_the_fingerprint_is_that_of_the_lists(imagenet: ImageNetLTConfig) -> None:
    first = fingerprint(imagenet)
    path = Path(imagenet.root) / "ImageNet_LT_val.txt"
    path.rename(path.with_name("val.txt"))
    renamed = ImageNetLTConfig(root=imagenet.root, list_val=str(path.with_name("val.txt")), crop=64)
    assert fingerprint(renamed) == first
    path.with_name("val.txt").write_text("a.jpg 1\n")
    assert fingerprint(renamed) != first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg 0\nb.jpg\n", "{path}:2: 'b.jpg' is not a path and a class (a/b.jpg 3)"),
        ("a.jpg -1\n", "{path}:1: 'a.jpg -1' is not a path and a class"),
        ("a.jpg 1000\n", "{path}:1: the class 1000 is not 0 to 999"),
        ("\n", "{path}: lists no image"),
    ],
)
def test_a_wrong_list(imagenet: ImageNetLTConfig, text: str, message: str) -> None:
    path = Path(imagenet.root) / "ImageNet_LT_train.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(message.format(path=path))):
        load_split(imagenet, 0, "train")


def test_missing_lists_and_images(imagenet: ImageNetLTConfig, tmp_path: Path) -> None:
    part = load_split(imagenet, 0, "train")
    (tmp_path / part.images[0]).unlink()
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / part.images[0]}: there is no such file")):
        part.image(0)
    with pytest.raises(UserError, match=r"data\.list_val: there is no .*gone\.txt; data=imagenet_lt expects"):
        load_split(ImageNetLTConfig(root=imagenet.root, list_val="gone.txt"), 0, "val")
    with pytest.raises(UserError, match=r"data\.list_test: not set; data=imagenet_lt needs a list"):
        load_split(ImageNetLTConfig(root=imagenet.root, list_test=""), 0, "test")
    with pytest.raises(UserError, match=r"data\.root: not set, nor SARX_DATA; data=imagenet_lt expects"):
        fingerprint(ImageNetLTConfig())
