"""CIFAR-LT: published numbers, fixed selection, samples of the seed, and pickles that cannot run code."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarx.config.errors import UserError
from sarx.config.schema.classification_data import Cifar10LTConfig, Cifar100LTConfig
from sarx.data import class_counts, describe, fingerprint, label_counts, load_split
from sarx.data.cifar_archive import _Unpickler
from sarx.data.cifar_lt import choose, tail_counts
from tests.data import trees

CONFIGS = {10: Cifar10LTConfig, 100: Cifar100LTConfig}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SARX_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=[10, 100])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    root = trees.make_cifar(tmp_path / "root", request.param)
    return CONFIGS[request.param](root=str(root), imbalance=10.0)


@pytest.mark.parametrize(
    ("full", "classes", "imbalance", "total", "last"),
    [
        (5000, 10, 100.0, 12406, 50),
        (500, 100, 100.0, 10847, 5),
        (5000, 10, 1.0, 50000, 5000),
        (500, 100, 10.0, 19573, 50),
    ],
)
def test_the_published_numbers(full: int, classes: int, imbalance: float, total: int, last: int) -> None:
    """12,406 and 10,847 training images at imbalance 100, as long-tail papers state."""
    counts = tail_counts(np.full(classes, full), imbalance)
    literal = [int(full * (1 / imbalance) ** (c / (classes - 1.0))) for c in range(classes)]
    assert counts.tolist() == literal
    assert (counts[0], counts[-1]) == (full, last)
    assert counts.sum() == total


def test_splits_are_images_of_the_archive_with_their_labels(config: Any) -> None:
    for split in ("train", "all", "val", "test"):
        part = load_split(config, 0, split)
        assert part.images.dtype == part.labels.dtype == np.uint8
        assert part.images.shape == (len(part), 3, 32, 32)
        np.testing.assert_array_equal(part.images[:, 0, 0, 0], part.labels)  # so the maker wrote them
    assert (
        class_counts(load_split(config, 0, "test").labels, config.num_classes).tolist()
        == [2] * config.num_classes
    )
    with pytest.raises(ValueError, match="train, all, val, test"):
        load_split(config, 0, "report")


def keys(part: Any) -> set[bytes]:
    return {image.tobytes() for image in part.images}


def test_selection_is_balanced_fixed_and_apart(config: Any) -> None:
    val = load_split(config, 0, "val")
    assert class_counts(val.labels, config.num_classes).tolist() == [2] * config.num_classes
    assert keys(val) == keys(load_split(config, 7, "val"))
    for seed in (0, 7):
        assert not keys(val) & keys(load_split(config, seed, "train"))
    assert keys(val) & keys(load_split(config, 0, "all"))


def test_how_many_images_a_class_keeps(config: Any) -> None:
    for split, pool in (("train", 18), ("all", 20)):
        counts = class_counts(load_split(config, 3, split).labels, config.num_classes)
        assert counts.tolist() == tail_counts(np.full(config.num_classes, pool), 10.0).tolist()
        np.testing.assert_array_equal(label_counts(config, 3, split), counts)


def test_the_seed_draws_the_sample_and_nothing_else(config: Any) -> None:
    first, again, other = (load_split(config, seed, "train") for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert keys(first) != keys(other)
    np.testing.assert_array_equal(np.sort(first.labels), np.sort(other.labels))


def test_a_smaller_imbalance_keeps_all_of_a_larger_one() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 50))
    mild, wild = (set(choose(labels, 10, imbalance, 4, "train", "x")) for imbalance in (5.0, 50.0))
    assert wild < mild


def test_the_description(config: Any) -> None:
    data = describe(config, 5)
    assert data.num_classes == config.num_classes == len(set(data.class_names)) == len(data.class_names)
    assert (data.in_channels, data.image_size, data.task) == (3, (32, 32), "classification")
    full = describe(type(config)(root=config.root, imbalance=100.0), 0)
    sizes = {name: len(group) for name, group in full.groups.items()}
    assert sizes == (
        {"many": 8, "medium": 2} if config.num_classes == 10 else {"many": 35, "medium": 35, "few": 30}
    )
    assert sorted(c for group in full.groups.values() for c in group) == list(range(config.num_classes))
    if config.num_classes == 100:
        assert list(data.class_names) == sorted(data.class_names)


@pytest.mark.parametrize("classes", [10, 100])
def test_an_unpacked_folder_gives_the_same_images(classes: int, tmp_path: Path) -> None:
    parts = []
    for archive in (True, False):
        root = trees.make_cifar(tmp_path / str(archive), classes, archive=archive)
        parts.append(load_split(CONFIGS[classes](root=str(root)), 0, "train"))
    np.testing.assert_array_equal(parts[0].images, parts[1].images)
    np.testing.assert_array_equal(parts[0].labels, parts[1].labels)


def test_the_fingerprint(config: Any) -> None:
    first = fingerprint(config)
    assert fingerprint(type(config)(root=config.root, imbalance=10.0, selection="report")) == first
    assert fingerprint(type(config)(root=config.root, imbalance=11.0)) != first
    (archive,) = Path(config.root).iterdir()
    archive.write_bytes(archive.read_bytes() + b"x")
    assert fingerprint(config) != first


def unpacked(tmp_path: Path) -> tuple[Any, Path]:
    root = trees.make_cifar(tmp_path / "root", archive=False)
    return Cifar10LTConfig(root=str(root)), root / "cifar-10-batches-py"


def test_arrays_that_python_2_pickled() -> None:
    """The published files are: their bytes are text, and numpy.core is the old name."""
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01K\x02K\x03\x86" + kind + b"\x89U\x06\x00\x01\x02\xfd\xfe\xfftb."
    loaded = _Unpickler(io.BytesIO(b"\x80\x02" + array + state), encoding="latin1").load()
    assert loaded.dtype == np.uint8
    assert loaded.tolist() == [[0, 1, 2], [253, 254, 255]]


class Harm:
    def __reduce__(self) -> Any:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    "harm", [Harm(), np.array([Harm()], object), {"data": Harm()}], ids=["alone", "in an array", "in a dict"]
)
def test_a_pickle_cannot_run_code(harm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config, folder = unpacked(tmp_path)
    (folder / "data_batch_3").write_bytes(pickle.dumps(harm, protocol=2))
    with pytest.raises(
        UserError, match=r"data_batch_3: data_batch_3 cannot be read: it asks for posix\.mkdir"
    ):
        load_split(config, 0, "train")
    assert not (tmp_path / "harm").exists()


DATA = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([1], "does not hold 'data' and 'labels'"),
        ({"data": DATA, "fine_labels": [0, 1]}, "does not hold 'data' and 'labels'"),
        ({"data": DATA.astype(np.int16), "labels": [0, 1]}, r"its images are int16 \(2, 3072\)"),
        ({"data": DATA[:, :5], "labels": [0, 1]}, r"its images are uint8 \(2, 5\)"),
        ({"data": DATA, "labels": [0]}, "has 2 images and classes of shape"),
        ({"data": DATA, "labels": [0, 10]}, "holds the label 10; allowed are 0 to 9"),
    ],
)
def test_a_wrong_batch(record: Any, message: str, tmp_path: Path) -> None:
    config, folder = unpacked(tmp_path)
    (folder / "data_batch_2").write_bytes(pickle.dumps(record, protocol=2))
    with pytest.raises(UserError, match=f"data_batch_2.*{message}"):
        load_split(config, 0, "train")


def test_damaged_files(tmp_path: Path) -> None:
    config, folder = unpacked(tmp_path)
    (folder / "test_batch").write_bytes((folder / "test_batch").read_bytes()[:999])
    with pytest.raises(UserError, match="test_batch: test_batch cannot be read: "):
        load_split(config, 0, "test")
    (folder / "test_batch").unlink()
    with pytest.raises(UserError, match="test_batch: there is no such file; data=cifar10_lt expects"):
        load_split(config, 0, "test")
    archive = trees.make_cifar(tmp_path / "packed") / "cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz: data_batch_\d cannot be read: "):
        load_split(Cifar10LTConfig(root=str(archive.parent)), 0, "train")


def test_a_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"data\.root: not set; data=cifar10_lt expects cifar-10-python\.tar\.gz"
    ):
        fingerprint(Cifar10LTConfig())
    with pytest.raises(UserError, match=r"data\.root: .* has neither; .*https://www\.cs\.toronto\.edu"):
        fingerprint(Cifar100LTConfig(root=str(tmp_path)))
    _, folder = unpacked(tmp_path)
    with pytest.raises(UserError, match=rf"{folder} has neither; .*; {folder.parent} looks right"):
        fingerprint(Cifar10LTConfig(root=str(folder)))
