"""Both embedded data sets: what is fixed, what depends on the seed, what the description promises."""

import subprocess
import sys
import time

import numpy as np
import pytest

from sarx.config.schema.data import DigitScenesConfig, DigitsLTConfig
from sarx.data import (
    DATASETS,
    class_counts,
    describe,
    fingerprint,
    load_split,
    split_names,
)
from sarx.data.digits import sha256
from sarx.data.long_tail import class_ranks

CONFIGS = {"digit_scenes": DigitScenesConfig, "digits_lt": DigitsLTConfig}
SHAPES = {"digit_scenes": ((64, 64), (64, 64)), "digits_lt": ((32, 32), ())}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SARX_CACHE", str(tmp_path))


def test_every_embedded_data_set_is_tested_here():
    embedded = {name for name, source in DATASETS.items() if hasattr(source, "SHA256")}
    assert embedded == CONFIGS.keys() == SHAPES.keys()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("split", ["val", "test"])
def test_fixed_splits_have_the_stated_hash_for_every_seed(name, split):
    for seed, options in ((0, {}), (9, {"imbalance": 100.0, "num_train": 50})):
        arrays = DATASETS[name].make_arrays(CONFIGS[name](**options), seed, split)
        assert sha256(arrays["images"], arrays["labels"]) == DATASETS[name].SHA256[split]


@pytest.mark.parametrize("name", CONFIGS)
def test_training_images_depend_on_the_seed_alone(name):
    config = CONFIGS[name](num_train=200)
    made = [DATASETS[name].make_arrays(config, seed, "train") for seed in (1, 1, 2)]
    for key in ("images", "labels"):
        np.testing.assert_array_equal(made[0][key], made[1][key])
        assert not np.array_equal(made[0][key], made[2][key])


@pytest.mark.parametrize("name", CONFIGS)
def test_splits_have_the_described_shapes(name):
    config = CONFIGS[name](num_train=60)
    data = describe(config, 4)
    image_shape, label_shape = SHAPES[name]
    for split, count in (("train", 60), ("val", DATASETS[name].NUM_EVAL)):
        part = load_split(config, 4, split)
        assert part.images.shape == (count, data.in_channels, *data.image_size)
        assert data.image_size == image_shape
        assert part.labels.shape == (count, *label_shape)
        assert part.images.dtype == part.labels.dtype == np.uint8
        assert class_counts(part.labels, data.num_classes).sum() == part.labels.size
    assert len(data.class_names) == data.num_classes
    assert data.task == config.task
    by_rank = [data.groups[name] for name in ("head", "body", "tail")]
    assert sorted(c for group in by_rank for c in group) == sorted(data.score_classes)


@pytest.mark.parametrize("name", CONFIGS)
def test_fewer_evaluation_images_are_the_first_of_them(name):
    default = CONFIGS[name](num_train=60)
    assert default.num_eval == DATASETS[name].NUM_EVAL
    for split in ("val", "test"):
        whole = load_split(default, 4, split)
        part = load_split(CONFIGS[name](num_train=60, num_eval=40), 4, split)
        np.testing.assert_array_equal(part.images, whole.images[:40])
        np.testing.assert_array_equal(part.labels, whole.labels[:40])
    assert len(load_split(CONFIGS[name](num_train=60, num_eval=40), 4, "train")) == 60


@pytest.mark.parametrize("imbalance", [1.0, 20.0, 100.0])
def test_digits_have_many_medium_or_few_images(imbalance):
    config = CONFIGS["digits_lt"](imbalance=imbalance)
    for seed in range(3):
        groups = describe(config, seed).groups
        counts = class_counts(load_split(config, seed, "train").labels, 10)
        wanted = {
            "many": counts > 100,
            "medium": (counts >= 20) & (counts <= 100),
            "few": counts < 20,
        }
        for name, members in wanted.items():
            assert sorted(groups.get(name, ())) == np.flatnonzero(members).tolist()


@pytest.mark.parametrize("name", CONFIGS)
def test_stated_mean_and_std_are_near_the_truth(name):
    config = CONFIGS[name](num_train=300)
    data = describe(config, 0)
    pixels = DATASETS[name].make_arrays(config, 0, "train")["images"] / 255
    assert pixels.mean() == pytest.approx(data.mean[0], abs=0.02)
    assert pixels.std() == pytest.approx(data.std[0], abs=0.02)


@pytest.mark.parametrize("name", CONFIGS)
def test_head_classes_have_more_training_labels_than_tail(name):
    config = CONFIGS[name](imbalance=100.0)
    data = describe(config, 6)
    train = class_counts(load_split(config, 6, "train").labels, data.num_classes)
    head, tail = (train[list(data.groups[group])].min() for group in ("head", "tail"))
    assert head > 5 * tail
    val = class_counts(load_split(config, 6, "val").labels, data.num_classes)[list(data.score_classes)]
    assert val.max() < 3 * val.min()


@pytest.mark.parametrize("name", CONFIGS)
def test_long_tailed_evaluation_uses_the_training_ranks(name):
    config = CONFIGS[name](eval_imbalance=50.0)
    for seed in (1, 2):
        data = describe(config, seed)
        counts = class_counts(load_split(config, seed, "val").labels, data.num_classes)
        first, last = np.argsort(class_ranks(seed))[[0, -1]] + (data.num_classes - 10)
        assert counts[first] > 10 * counts[last]


@pytest.mark.parametrize("name", CONFIGS)
def test_reading_one_split_makes_no_other(name, monkeypatch):
    made = []
    monkeypatch.setattr(
        DATASETS[name],
        "load_digits",
        lambda split, load=DATASETS[name].load_digits: (
            made.append(split),
            load(split),
        )[1],
    )
    load_split(CONFIGS[name](num_train=20), 0, "val")
    assert made == ["val"]
    with pytest.raises(ValueError, match="train, val, test"):
        load_split(CONFIGS[name](), 0, "report")


def test_split_names():
    assert split_names(DigitScenesConfig()) == ("val", "test")
    assert split_names(DigitScenesConfig(selection="report")) == ("test", "test")


def test_class_counts_leaves_out_ignored_pixels_and_refuses_strange_ones():
    labels = np.array([[0, 2, 255], [2, 1, 255]], np.uint8)
    assert class_counts(labels, 4).tolist() == [1, 1, 2, 0]
    assert class_counts(labels, 256, ignore_index=2)[255] == 2
    with pytest.raises(ValueError, match="label 2"):
        class_counts(labels, 2)


@pytest.mark.parametrize("name", CONFIGS)
def test_fingerprint_is_cheap_and_names_what_shapes_the_data(name):
    config = CONFIGS[name]
    start = time.process_time()
    first = fingerprint(config())
    assert time.process_time() - start < 0.01
    assert first == fingerprint(config(selection="report"))
    changed = (config(imbalance=21.0), config(eval_imbalance=2.0), config(num_train=99))
    assert len({first, *map(fingerprint, changed)}) == 4


def test_describing_imports_neither_sklearn_nor_torch():
    code = (
        "import sys; from sarx.config.schema.data import DigitScenesConfig as C; import sarx.data as d;"
        "d.describe(C(), 0); print({'sklearn', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
