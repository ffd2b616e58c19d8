"""Training, evaluation and report on images in files: tiny trees in the layouts of the real data sets."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sarx.config.compose import compose
from sarx.config.errors import UserError
from sarx.config.schema import TrainConfig
from sarx.config.schema.segmentation_data import FolderConfig
from sarx.data import FileSplit, describe, load_split
from sarx.data.cityscapes import LABEL_IDS
from sarx.evaluate import main
from sarx.study.provenance import write_config
from sarx.training import file_samples, report
from sarx.training.batches import batches, largest_pixels
from sarx.training.equal_sizes import equal_size_batches
from sarx.training.evaluation import confusion
from sarx.training.file_samples import FileSamples
from sarx.training.loop import train
from sarx.training.report import train_and_report
from sarx.training.samples import Samples
from sarx.training.step import build_module
from sarx.training.trainer import build_trainer, take_step
from tests.data.trees import (
    make_ade20k,
    make_cifar,
    make_cityscapes,
    make_folder,
    make_image_lists,
    write_image,
)

CITIES = {"aachen": 4, "bochum": 3, "zurich": 2, "ulm": 2}
OPTIONS: dict[str, Any] = {
    "model": "fcn_test_efficientnet",
    "training.steps": 4,
    "training.eval_every": 2,
    "training.batch_size": 4,
    "data.crop_height": 32,
    "data.crop_width": 64,
    "data.resize_height": 40,
    "data.resize_width": 80,
    "data.workers": 0,
}
CPU = torch.device("cpu")


@pytest.fixture
def streets(tmp_path: Path) -> Callable[..., TrainConfig]:
    """Make a tree of 40x80 streets and return a maker of options."""
    root = make_cityscapes(tmp_path / "streets", train=CITIES, sizes=((40, 80),))

    def make(**overrides: Any) -> TrainConfig:
        pairs = {key.replace("__", "."): value for key, value in overrides.items()}
        return compose({"data": "cityscapes", "data.root": str(root), **OPTIONS, **pairs})

    return make


@pytest.fixture
def ragged(tmp_path: Path) -> TrainConfig:
    """Return options of a tree whose images have four sizes."""
    sizes = ((40, 56), (64, 40), (40, 56), (33, 47), (52, 52))
    root = make_ade20k(tmp_path / "scenes", train=12, val=9, sizes=sizes)
    small = {"data.crop_height": 32, "data.crop_width": 32, "data.resize_height": 32, "data.resize_width": 90}
    return compose({"data": "ade20k", "data.root": str(root), **OPTIONS, **small})


def numbers(results: Any) -> list[dict[str, float]]:
    return [
        {key: value for key, value in result.metrics.items() if not key.startswith("time/")}
        for result in results
    ]


def model_of(config: TrainConfig) -> torch.nn.Module:
    data = describe(config.data, 0)
    return build_module(config, data, torch.ones(data.num_classes)).model.eval()


def test_workers_change_nothing(streets: Callable[..., TrainConfig]) -> None:
    assert repr(numbers(train(streets()))) == repr(numbers(train(streets(data__workers=2))))


def test_a_cache_of_decoded_images_changes_nothing(
    streets: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SARX_CACHE", str(tmp_path / "cache"))
    plain = repr(numbers(train(streets())))
    assert repr(numbers(train(streets(data__cache=True)))) == plain
    entries = list((tmp_path / "cache" / "images").rglob("*.npy"))
    assert entries
    entries[0].write_bytes(entries[0].read_bytes()[:40])  # torn by a power loss
    assert repr(numbers(train(streets(data__cache=True)))) == plain


def test_a_resumed_training_sees_the_same_samples(
    streets: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    whole = numbers(train(streets()))
    first = train(streets(), folder=tmp_path / "one")
    next(first)
    first.close()
    rest = numbers(train(streets(), folder=tmp_path / "two", resume=[tmp_path / "one"]))
    assert repr(rest) == repr(whole[1:])


def test_accumulation_gives_the_same_loss(streets: Callable[..., TrainConfig]) -> None:
    exact = {"training__precision": "float64", "regularizer": "none", "training__steps": 2}
    one = numbers(train(streets(**exact)))[0]["train/loss"]
    assert math.isfinite(one)
    two = streets(**exact, training__accumulation=2)
    assert numbers(train(two))[0]["train/loss"] != one  # batch statistics of halves


def test_search_never_sees_the_held_out_images_and_confirm_trains_on_all(
    streets: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sarx.training.loop as loop

    asked: list[tuple[str, frozenset[str]]] = []
    original = loop.load_split

    def recorded(config: Any, seed: int, split: str) -> Any:
        found = original(config, seed, split)
        asked.append((split, frozenset(found.images)))
        return found

    monkeypatch.setattr(loop, "load_split", recorded)
    searched = numbers(train(streets()))
    search = dict(asked)
    assert search.keys() == {"train", "val"}
    assert not search["train"] & search["val"]
    assert "val/miou" in searched[-1]
    asked.clear()
    confirmed = numbers(train(streets(role="confirm")))
    confirm = dict(asked)
    assert confirm.keys() == {"all"}
    assert confirm["all"] == search["train"] | search["val"]
    assert not [key for key in confirmed[-1] if key.startswith("val/")]
    asked.clear()
    list(train(streets(data__selection="report")))
    assert dict(asked).keys() == {"all", "test"}


def test_ragged_images_count_as_one_at_a_time(ragged: TrainConfig) -> None:
    model, data = model_of(ragged), describe(ragged.data, 0)
    split = load_split(ragged.data, 0, "test")
    assert isinstance(split, FileSplit)
    sizes = [tuple(batch.images.shape) for batch in batches(split)]
    assert max(size[0] for size in sizes) > 1
    assert len({size[2:] for size in sizes}) == 4
    whole = confusion(model, split, data, CPU)
    single = sum(confusion(model, split.subset([i]), data, CPU) for i in range(len(split)))
    assert torch.equal(whole, torch.as_tensor(single))
    halves = [confusion(model, split, data, CPU, share=(rank, 2)) for rank in (0, 1)]
    assert torch.equal(whole, halves[0] + halves[1])
    valid = sum(int((np.asarray(split.label(i)) != 255).sum()) for i in range(len(split)))
    assert int(whole.sum()) == valid


@pytest.mark.parametrize("mode", ["slide", "multi_scale", "multi_scale_slide"])
def test_the_report_of_windows_and_scales_has_the_features_of_whole_images(
    streets: Callable[..., TrainConfig], mode: str, tmp_path: Path
) -> None:
    common = {"role": "confirm", "training__steps": 2}
    whole = list(train_and_report(streets(**common), folder=tmp_path / "whole"))[-1].metrics
    other = streets(**common, data__evaluation=mode, data__window=32, data__stride=20)
    found = list(train_and_report(other, folder=tmp_path / mode))[-1].metrics
    assert found.keys() == whole.keys()
    assert found["probe/miou"] == whole["probe/miou"]
    assert found["geometry/features/nc1"] == whole["geometry/features/nc1"]
    assert found["test/pixel_accuracy"] != whole["test/pixel_accuracy"]


def test_kept_features_are_those_of_their_pixels(
    ragged: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "SAMPLED", 600)
    config = dataclasses.replace(ragged, role="confirm")
    config.training.steps = 2
    (result,) = train_and_report(config, folder=tmp_path)
    stored = np.load(tmp_path / "geometry.npz")
    split, data = load_split(config.data, 0, "test"), describe(config.data, 0)
    rows: dict[int, Tensor] = {}
    starts, total = {}, 0
    model = result.module.model.eval()
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in (data.mean, data.std))
    maps = {}
    for batch in batches(split):
        for index, image in zip(batch.indices.tolist(), batch.images, strict=True):
            pixels = (image / 255 - mean) / std
            right, bottom = -pixels.shape[2] % model.multiple, -pixels.shape[1] % model.multiple
            padded = torch.nn.functional.pad(pixels, (0, right, 0, bottom))
            with torch.inference_mode():
                maps[index] = model(padded[None]).features[0]
    for index in range(len(split)):
        starts[index] = total
        total += maps[index][0].numel()
        rows[index] = maps[index].flatten(1).T
    everything = torch.cat([rows[index] for index in range(len(split))])
    np.testing.assert_allclose(stored["features"], everything[stored["pixels"]], rtol=2e-4, atol=2e-4)
    assert len(stored["pixels"]) > 100


def test_crops_are_padded_to_what_the_backbone_can_take(streets: Callable[..., TrainConfig]) -> None:
    config = streets(data__crop_height=40, data__crop_width=72, training__steps=2)
    shapes: list[tuple[int, ...]] = []
    results = train(config)
    trainer = build_trainer(
        config,
        describe(config.data, 0),
        load_split(config.data, 0, "train"),
        CPU,
    )
    multiple = trainer.module.model.multiple
    assert 40 % multiple
    trainer.module.model.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape)))
    loss = take_step(trainer, 0)["train/loss"]
    trainer.close()
    assert torch.isfinite(loss)
    assert shapes == [(4, 3, 40 + -40 % multiple, 72 + -72 % multiple)]
    assert math.isfinite(next(results).metrics["train/loss"])


@pytest.fixture
def trained(streets: Callable[..., TrainConfig], tmp_path: Path) -> tuple[Path, dict[str, float]]:
    """Return the final weights of a confirm trial, where a study would keep them, and its metrics."""
    config = streets(role="confirm", training__steps=2)
    trial = tmp_path / "study" / "trials" / "0123456789abcdef"
    (result,) = train_and_report(config, folder=trial / "attempt-1")
    write_config(trial, dataclasses.asdict(config), trial.name, 0)
    return trial / "attempt-1" / "weights-00001.pt", result.metrics


def test_evaluate_gives_the_scores_of_the_report_and_label_images(
    trained: tuple[Path, dict[str, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    path, metrics = trained
    assert main([str(path), "--labels"]) == 0
    printed = capsys.readouterr().out
    assert "choose nothing by it" in printed
    folder = path.parent.parent / "evaluation" / "test-whole"
    found = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert found == {key: value for key, value in metrics.items() if key in found}
    assert "test/miou" in found
    images = sorted((folder / "labels").rglob("*.png"))
    assert [image.name for image in images] == [
        "frankfurt_000000_000019_leftImg8bit.png",
        "frankfurt_000001_000019_leftImg8bit.png",
        "munster_000000_000019_leftImg8bit.png",
    ]
    values = np.asarray(Image.open(images[0]))
    assert values.dtype == np.uint8
    assert values.shape == (40, 80)
    assert set(np.unique(values)) <= set(LABEL_IDS)
    with (folder / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    road = [row for row in rows if row["class"] == "road"]
    shared, predicted, true = (
        sum(int(row[key]) for row in road) for key in ("intersection", "predicted", "true")
    )
    assert shared / max(1, predicted + true - shared) == pytest.approx(found["test/iou/road"])


def test_evaluate_says_by_what_and_does_not_write_over_results_of_other_options(
    trained: tuple[Path, dict[str, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = trained
    folder = path.parent.parent / "evaluation"
    assert main([str(path), "--split", "val", "evaluation=slide", "data.window=32", "data.stride=20"]) == 0
    assert "these scores say nothing about new images" in capsys.readouterr().out
    record = json.loads((folder / "val-slide-window=32-stride=20" / "metrics.json").read_text())
    assert (record["evaluation"], record["changed"]) == ("slide", {"window": 32, "stride": 20})
    assert (record["split"], record["role"]) == ("val", "confirm")
    assert "trained on" in record["note"]
    assert main([str(path), "evaluation=slide", "data.window=32", "data.stride=32"]) == 0
    assert sorted(found.name for found in folder.iterdir()) == [
        "test-slide-window=32-stride=32",
        "val-slide-window=32-stride=20",
    ]
    assert "note" not in json.loads((folder / "test-slide-window=32-stride=32" / "metrics.json").read_text())


def test_evaluate_predicts_images_without_labels(
    trained: tuple[Path, dict[str, float]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = trained
    place, rng = tmp_path / "leftImg8bit" / "test", np.random.default_rng(0)
    for name, size in (("berlin/berlin_0", (40, 80)), ("bonn/bonn_0", (24, 56))):
        write_image(place / f"{name}_leftImg8bit.png", rng, size)
    assert main([str(path), "--images", str(place)]) == 0
    folder = path.parent.parent / "evaluation" / "test-whole"
    assert f"results      {folder / 'labels'} (2 label images)" in capsys.readouterr().out
    for name, size in (("berlin/berlin_0", (40, 80)), ("bonn/bonn_0", (24, 56))):
        values = np.asarray(Image.open(folder / "labels" / "test" / f"{name}_leftImg8bit.png"))
        assert values.shape == size
        assert set(np.unique(values)) <= set(LABEL_IDS)
    assert not (folder / "metrics.json").exists()
    assert main([str(path), "--images", str(tmp_path / "none")]) == 2
    assert "--images: there is no folder" in capsys.readouterr().err


def test_resized_images_count_at_their_size_in_a_batch(tmp_path: Path) -> None:
    options = FolderConfig(root=str(make_folder(tmp_path / "root")))
    assert largest_pixels(options, (64, 64)) == 512 * 512
    assert largest_pixels(options, (4000, 4000)) == 4000 * 4000
    options = dataclasses.replace(options, evaluation="multi_scale")
    assert largest_pixels(options, (64, 64)) == int(1.75**2 * 512 * 512)
    assert equal_size_batches([(64, 64)] * 20, 1 << 21, lambda _: 512 * 512) == [
        [*range(8)],
        [*range(8, 16)],
        [*range(16, 20)],
    ]


def test_evaluate_writes_names_that_are_not_ascii(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "root", classes=("Straße", "tree", "sky"))
    pairs = {"data": "folder", "data.root": str(root), "data.crop_height": 16, "data.crop_width": 16}
    pairs |= {"data.resize_height": 20, "data.resize_width": 28, "data.workers": 0, "training.steps": 1}
    pairs |= {"model": "fcn_test_efficientnet", "training.eval_every": 1, "training.batch_size": 2}
    config = compose({**pairs, "role": "confirm"})
    trial = tmp_path / "study" / "trials" / "0123456789abcdef"
    (_,) = train_and_report(config, folder=trial / "attempt-1")
    write_config(trial, dataclasses.asdict(config), trial.name, 0)
    assert main([str(trial / "attempt-1" / "weights-00001.pt")]) == 0
    assert "Straße" in (trial / "evaluation" / "test-whole" / "per_image.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optim.lr=1"], "optim.lr: a trained model has it already"),
        (["evaluaton=slide"], "evaluaton: unknown key; did you mean 'evaluation'"),
        (["evaluation=sideways"], "'sideways' is not one of"),
        (["data.root=/nowhere"], "there is no folder /nowhere"),
        (["training.device=cuda"], "no GPU is visible"),
    ],
)
def test_evaluate_refuses_what_does_not_fit(
    trained: tuple[Path, dict[str, float]],
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(trained[0]), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_evaluate_refuses_a_damaged_and_a_missing_checkpoint(
    trained: tuple[Path, dict[str, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = trained
    assert main([str(path.with_name("weights-00009.pt"))]) == 2
    assert "there is no such file" in capsys.readouterr().err
    path.write_bytes(path.read_bytes()[:-9])
    assert main([str(path)]) == 2
    assert "is damaged" in capsys.readouterr().err


def test_classification_in_files_trains_and_is_scored(tmp_path: Path) -> None:
    lists = {
        f"ImageNet_LT_{name}.txt": counts
        for name, counts in (("train", (4, 3)), ("val", (1, 1)), ("test", (2, 1)))
    }
    root = make_image_lists(tmp_path / "images", lists)
    config = compose(
        {
            "data": "imagenet_lt",
            "data.root": str(root),
            "data.crop": 32,
            "data.resize": 40,
            "data.workers": 0,
            "model": "pool_test_efficientnet",
            "regularizer": "none",
            "training.steps": 2,
            "training.eval_every": 2,
            "training.batch_size": 4,
            "role": "confirm",
        }
    )
    (result,) = train_and_report(config)
    assert math.isfinite(result.metrics["train/loss"])
    assert {"val/mean_accuracy", "test/mean_accuracy"} <= result.metrics.keys()


def test_small_images_are_cut_and_mirrored_alike_for_any_number_of_micro_batches(tmp_path: Path) -> None:
    root = make_cifar(tmp_path / "cifar")
    common = {
        "data": "cifar10_lt",
        "data.root": str(root),
        "data.imbalance": 2.0,
        "model": "pool_test_efficientnet",
        "training.batch_size": 6,
    }
    plain, whole, halves = (
        Samples(load_split(config.data, 0, "train"), describe(config.data, 0), config, CPU)
        for config in (
            compose({**common, "data.crop_flip": False}),
            compose(common),
            compose({**common, "training.accumulation": 2}),
        )
    )
    (part,) = whole.parts(3)
    images = part.images()
    assert torch.equal(torch.cat([half.images() for half in halves.parts(3)]), images)
    assert torch.equal(part.images(), images)
    assert not torch.equal(plain.parts(3)[0].images(), images)
    assert torch.equal(plain.parts(3)[0].labels, part.labels)
    assert not torch.equal(whole.parts(4)[0].images(), images)


def test_ranks_share_a_step_without_overlap_and_see_the_same_samples(
    streets: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = streets(training__accumulation=2)
    split, data = load_split(config.data, 0, "train"), describe(config.data, 0)
    assert isinstance(split, FileSplit)

    def keys(number: int, ranks: int) -> list[tuple[int, int, int]]:
        monkeypatch.setattr(file_samples, "rank", lambda: number)
        monkeypatch.setattr(file_samples, "world_size", lambda: ranks)
        return FileSamples(split, data, config, CPU).keys(5)

    whole = keys(0, 1)
    assert [place for _, place, _ in whole] == list(range(4))
    parts = [keys(number, 2) for number in (0, 1)]
    assert [len(part) for part in parts] == [2, 2]
    assert sorted(key for part in parts for key in part) == whole
    source = FileSamples(split, data, config, CPU).source
    for key in whole:
        assert all(torch.equal(*pair) for pair in zip(source[key], source[key], strict=True))


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_damaged_file_is_named_by_a_worker_without_a_traceback(
    streets: Callable[..., TrainConfig], split: str
) -> None:
    config = streets(data__workers=1)
    found = load_split(config.data, 0, split)
    assert isinstance(found, FileSplit)
    for name in found.images:
        (found.root / name).write_bytes((found.root / name).read_bytes()[:200])
    with pytest.raises(UserError) as caught:
        list(train(config))
    text = str(caught.value)
    assert "Traceback" not in text
    assert text.startswith(str(found.root))
    assert any(name in text for name in found.images)
