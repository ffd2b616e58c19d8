"""``python -m sarx.data.verify``: exit codes, what it prints, what it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sarx.data import DATASETS, describe
from sarx.data import verify as verify_entry
from sarx.data.segmentation_files import forget_indices
from sarx.data.verify import main, read_config
from tests.data import trees


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SARX_CACHE", str(tmp_path / "cache"))
    forget_indices()


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_a_folder_that_is_as_it_should_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = trees.make_folder(tmp_path / "root")
    file = tmp_path / "groups.json"
    code, out, err = ran(capsys, "data=folder", f"data.root={root}", "--write-groups", str(file))
    assert (code, err) == (0, "")
    config = read_config(["data=folder", f"data.root={root}"])
    source = DATASETS["folder"]
    images, pixels = source.image_counts(config), source.pixel_counts(config)
    lines = out.splitlines()
    assert lines[0] == "found 24 training and 3 test images"
    assert "read 24 of 24 training images with their label maps" in lines
    held = source.image_counts(config, "val")
    for c, name in enumerate(("road", "tree", "sky")):
        (row,) = [line.split() for line in lines if line.split()[0] == name]
        assert (int(row[1]), int(row[3]), int(row[4])) == (pixels[c], images[c], held[c])
    names = describe(config, 0).class_names
    for group, members in describe(config, 0).groups.items():
        assert f"{group}: {', '.join(names[c] for c in members)}" in lines
    assert lines[-1] == "as it should be"
    np.testing.assert_array_equal(json.loads(file.read_text())["train_images"], images)
    code, _, err = ran(capsys, "data=folder", f"data.root={root}", "--write-groups", str(tmp_path))
    assert code == 2
    assert err.startswith(f"error: --write-groups: {tmp_path} cannot be written")


def test_what_it_counts_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sarx.data import segmentation_files

    root = trees.make_folder(tmp_path / "root")
    assert ran(capsys, "data=folder", f"data.root={root}")[0] == 0
    monkeypatch.setattr(segmentation_files, "count_masks", None)
    config = read_config(["data=folder", f"data.root={root}"])
    assert DATASETS["folder"].pixel_counts(config).sum() > 0


MAKERS = {
    "cityscapes": (trees.make_cityscapes, (), (2975, 500)),
    "ade20k": (trees.make_ade20k, (), (20210, 2000)),
    "pascal_context": (trees.make_pascal_context, (), (4998, 5105)),
    "coco_stuff": (trees.make_coco_stuff, (), (118287, 5000)),
    "coco_stuff_10k": (trees.make_coco_stuff_10k, (), (9000, 1000)),
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_known_numbers_are_compared(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, more, (train, test) = MAKERS[name]
    root = make(tmp_path / "root")
    code, out, err = ran(capsys, f"data={name}", f"data.root={root}", *more)
    assert (code, err) == (1, "")
    (problem,) = [line for line in out.splitlines() if line.startswith("problem: ")]
    assert problem.endswith(f" test images, not {train} and {test}")
    assert out.splitlines()[-1] == "problems: 1"


def test_every_broken_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = trees.make_folder(tmp_path / "root")
    (root / "train/images/train_003.jpg").write_bytes(b"")
    trees.write_mask(root / "train/masks/train_005.png", np.full((20, 28), 7))
    trees.write_mask(root / "val/masks/val_001.png", np.zeros((20, 27)))
    code, out, err = ran(capsys, "data=folder", f"data.root={root}", "--write-groups", str(tmp_path / "g"))
    assert code == 1
    assert err == f"{tmp_path / 'g'} is not written: that needs label maps without a problem\n"
    assert not (tmp_path / "g").exists()
    problems = [line for line in out.splitlines() if line.startswith("problem: ")]
    assert f"problem: {root}/train/images/train_003.jpg: cannot be read" in problems[0]
    assert problems[1].endswith("train_005.png: holds the label 7; allowed are 0 to 2 and 255")
    assert problems[2].endswith("val_001.png: is 27x20 pixels, its image 28x20")
    assert len(problems) == 3
    (root / "val/masks/val_001.png").unlink()
    forget_indices()
    code, out, _ = ran(capsys, "data=folder", f"data.root={root}")
    assert code == 1
    assert "val_001.png: there is no such label map for val/images/val_001.jpg" in out


def test_trees_from_which_nothing_can_be_learnt_or_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = trees.make_folder(tmp_path / "root")
    for path in (*root.glob("val/images/*"), *root.glob("val/masks/*")):
        path.unlink()
    for path in root.glob("train/masks/*.png"):
        trees.write_mask(path, np.full((20, 28), 255))
    code, out, _ = ran(capsys, "data=folder", f"data.root={root}")
    assert code == 1
    assert f"problem: split 'test' of data=folder is empty: {root} has 24 training and 0 validation" in out
    root = trees.make_folder(tmp_path / "other")
    for path in root.glob("train/masks/*.png"):
        trees.write_mask(path, np.full((20, 28), 255))
    code, out, _ = ran(capsys, "data=folder", f"data.root={root}")
    assert code == 1
    assert f"problem: {root}: no training label map that was read shows a class" in out


def test_some_images_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = trees.make_folder(tmp_path / "root")
    (root / "train/images/train_003.jpg").write_bytes(b"")
    code, out, err = ran(capsys, "data=folder", f"data.root={root}", "--images", "2")
    assert (code, err) == (0, "")  # the first and the last
    assert "read 2 of 24 training images with their label maps" in out
    assert "head, body and tail are known once all label maps are read" in out
    (root / "train/images/train_023.jpg").write_bytes(b"")
    code, out, _ = ran(capsys, "data=folder", f"data.root={root}", "--images", "2")
    assert code == 1
    assert "train_023.jpg: cannot be read" in out
    trees.make_folder(root)
    code, _, err = ran(capsys, "data=folder", f"data.root={root}", "--images", "2", "--write-groups", "x")
    assert code == 2
    assert err.startswith("error: --write-groups: not written: that needs all label maps")


def test_classes_that_no_image_shows_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = trees.make_folder(tmp_path / "root", classes=("road", "tree", "sky"))
    for mask in root.rglob("*.png"):
        trees.write_mask(mask, np.full((20, 28), 1 if "val" in mask.name else 0))
    _, out, _ = ran(capsys, "data=folder", f"data.root={root}")
    assert "no training image that was read shows: tree, sky" in out
    assert "no test image that was read shows: road, sky" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=folder"], "error: data.root: not set"),
        (["data=cityscapes", "data.root=/gone"], "error: data.root: there is no folder /gone"),
        (["data=cityscape"], "error: data: there is no data called 'cityscape'; did you mean 'cityscapes'?"),
        (["data.root=/x"], "error: data: not set; write data=NAME"),
        (["data=folder", "optim.lr=1"], "error: optim.lr: only data=NAME and data.OPTION=VALUE"),
        (["data=folder", "data.rooot=1"], "error: data.rooot: unknown key; did you mean 'data.root'?"),
        (["data=digit_scenes"], "error: data: data=digit_scenes is not read from files"),
        (["data=folder", "--images", "0"], "error: --images: 0 images are none"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = ran(capsys, *arguments)
    assert code == 2
    assert message in err


def test_cifar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = trees.make_cifar(tmp_path / "root", 10, per_class=20)
    code, out, _ = ran(capsys, "data=cifar10_lt", f"data.root={root}", "data.imbalance=2")
    assert code == 1
    assert "its MD5 is " in out
    assert "found 200 training and 20 test images, not 50000 and 10000" in out
    assert "imbalance 2 keeps " in out
    assert "20 to 10 per class" in out


def test_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = {f"ImageNet_LT_{name}.txt": (3, 2) for name in ("train", "val", "test")}
    root = trees.make_image_lists(tmp_path / "root", counts)
    with (root / "ImageNet_LT_val.txt").open("a") as file:
        file.write("ImageNet_LT_train/c0000/00001.jpg 0\ngone.jpg 1\n")
    code, out, _ = ran(capsys, "data=imagenet_lt", f"data.root={root}")
    assert code == 1
    assert "00001.jpg is in data.list_train and again in data.list_val" in out
    assert f"problem: {root}/gone.jpg: there is no such file" in out
    assert "found 5 training and 5 test images, not 115846 and 50000" in out
    assert "problems: 3" in out


def test_the_command(tmp_path: Path) -> None:
    root = trees.make_folder(tmp_path / "root", train=30, val=2)
    command = [sys.executable, "-m", verify_entry.__name__, "data=folder", f"data.root={root}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("as it should be\n")
