"""The facts that ship with sarx: class names, colours, published counts, held-out images."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from sarx.data.class_list import (
    CLASSES,
    GROUPS,
    frequency_thirds,
    groups_text,
    published_images,
    read_classes,
    shot_groups,
)
from sarx.data.holding_out import RULES, held_out, rule_digest

SIZES = {
    "cityscapes": 19,
    "ade20k": 150,
    "pascal_context": 60,
    "coco_stuff": 171,
    "cifar10": 10,
    "cifar100": 100,
}


def test_every_file_of_classes_is_tested_here() -> None:
    assert {path.stem for path in CLASSES.iterdir()} == SIZES.keys()


@pytest.mark.parametrize("name", SIZES)
def test_classes(name: str) -> None:
    classes = read_classes(name)
    assert len(classes.names) == len(set(classes.names)) == len(classes.colours) == SIZES[name]
    assert all(word.isascii() and " " not in word and "/" not in word for word in classes.names)
    for colour in classes.colours:
        assert name.startswith("cifar") if colour is None else len(colour) == 3 and max(colour) <= 255


@pytest.mark.parametrize(
    ("name", "index", "word", "colour"),
    [
        ("cityscapes", 0, "road", (128, 64, 128)),
        ("cityscapes", 18, "bicycle", (119, 11, 32)),
        ("ade20k", 0, "wall", (120, 120, 120)),
        ("ade20k", 149, "flag", (92, 0, 255)),
        ("pascal_context", 0, "background", (120, 120, 120)),
        ("pascal_context", 59, "wood", (31, 0, 255)),
        ("coco_stuff", 0, "person", (0, 192, 64)),
        ("coco_stuff", 170, "wood", (64, 64, 0)),
        ("cifar100", 47, "maple_tree", None),
    ],
)
def test_some_of_them(name: str, index: int, word: str, colour: tuple[int, int, int] | None) -> None:
    classes = read_classes(name)
    assert (classes.names[index], classes.colours[index]) == (word, colour)


def test_published_counts() -> None:
    assert {path.stem for path in GROUPS.iterdir()} == {"ade20k"}
    counts = published_images("ade20k")
    assert counts is not None
    assert (len(counts), counts[0], counts[149]) == (150, 11664, 421)
    assert counts.max() <= 20210
    assert published_images("cityscapes") is None


def test_written_groups_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sarx.data import class_list

    counts = np.arange(40)
    (tmp_path / "x.json").write_text(groups_text(counts, 'counted "here"'))
    monkeypatch.setattr(class_list, "GROUPS", tmp_path)
    np.testing.assert_array_equal(published_images("x"), counts)
    assert json.loads((tmp_path / "x.json").read_text())["source"] == 'counted "here"'


def test_thirds() -> None:
    counts = np.array([5, 9, 9, 1, 7, 0, 3])
    assert frequency_thirds(counts) == {"head": (1, 2), "body": (4, 0, 6), "tail": (3, 5)}
    assert frequency_thirds(np.array([1, 2])) == {"body": (1, 0)}
    assert frequency_thirds(np.array([1, 2, 3])) == {"head": (2,), "body": (1,), "tail": (0,)}


def test_shots() -> None:
    counts = np.array([101, 100, 20, 19, 0, 500])
    assert shot_groups(counts) == {"many": (5, 0), "medium": (1, 2), "few": (3, 4)}
    assert shot_groups(np.array([50, 200])) == {"many": (1,), "medium": (0,)}


def test_held_out_cities_are_a_tenth_to_a_seventh_of_cityscapes() -> None:
    content = json.loads((RULES / "cityscapes.json").read_text())
    assert sorted(content["images"]) == content["folders"]
    assert 0.10 <= sum(content["images"].values()) / content["of"] <= 0.15
    images = ["leftImg8bit/train/bochum/x.png", "leftImg8bit/train/aachen/bochum.png"]
    assert held_out("cityscapes", images).tolist() == [True, False]


def test_held_out_stems_are_about_a_tenth_and_never_change() -> None:
    stems = [f"images/training/ADE_train_{i:08d}.jpg" for i in range(1, 20_211)]
    apart = held_out("stems", stems)
    assert apart.mean() == pytest.approx(0.1, abs=0.01)
    assert np.flatnonzero(apart)[:5].tolist() == FIRST_HELD_OUT
    np.testing.assert_array_equal(held_out("stems", [stem.replace("jpg", "png") for stem in stems]), apart)


FIRST_HELD_OUT = [4, 14, 34, 50, 58]
"""A changed rule is another data set: give it another version."""


def test_the_rules_that_ship_do_not_change_unnoticed() -> None:
    assert {path.stem: rule_digest(path.stem)[:16] for path in RULES.iterdir()} == DIGESTS


DIGESTS = {"cityscapes": "2f66abdf8d900be3", "stems": "73c32dbb7158197b"}


def test_the_files_are_in_the_package() -> None:
    root = Path(__file__).parents[2]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "sarx"
    ]
    shipped = {path for pattern in patterns for path in (root / "sarx").glob(pattern)}
    assert {*CLASSES.iterdir(), *GROUPS.iterdir(), *RULES.iterdir()} <= shipped
