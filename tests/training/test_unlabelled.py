"""Learning from images without labels: the teacher, its labels, and what the student sees."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sarx.config.compose import compose
from sarx.config.errors import UserError
from sarx.data import load_split
from sarx.training.loop import train
from sarx.training.unlabelled import distort, follow, paste, pseudo_labels, teacher_of
from tests.data.trees import make_cityscapes, write_image

FEW = {
    "model": "fcn_test_efficientnet",
    "data.num_train": 40,
    "data.labelled_share": 0.1,
    "training.steps": 4,
    "training.eval_every": 2,
    "training.batch_size": 4,
    "training.unlabelled_weight": 1.0,
    "training.pseudo_confidence": 0.05,
}


def numbers(**overrides: Any) -> list[dict[str, float]]:
    pairs = FEW | {key.replace("__", "."): value for key, value in overrides.items()}
    results = train(compose(pairs))
    return [{k: v for k, v in result.metrics.items() if not k.startswith("time/")} for result in results]


def test_a_teacher_is_the_running_mean_of_its_student() -> None:
    student = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    teacher = teacher_of(student)
    assert not any(value.requires_grad for value in teacher.parameters())
    seen = []
    for step in range(5):
        with torch.no_grad():
            for value in student.parameters():
                value.add_(torch.randn_like(value))
        student.train()(torch.randn(4, 1, 3, 3))
        seen.append(copy.deepcopy(student.state_dict()))
        follow(teacher, student, 0.6, step)
    shares = [1.0]
    for step in range(1, 5):
        decay = min(0.6, 1 - 1 / (step + 1))
        shares = [share * decay for share in shares] + [1 - decay]
    for name in ("0.weight", "1.running_var"):
        wanted = sum(share * state[name] for share, state in zip(shares, seen, strict=True))
        torch.testing.assert_close(teacher.state_dict()[name], wanted)
    assert teacher.state_dict()["1.num_batches_tracked"] == 5


def test_a_teacher_labels_what_it_is_sure_of_and_no_padding() -> None:
    logits = torch.tensor([[[[4.0, 0.1, 4.0]], [[0.0, 0.0, 0.0]]]])
    given = torch.tensor([[[0, 0, 255]]])
    assert pseudo_labels(logits, given, 0.9, 255).tolist() == [[[0, 255, 255]]]
    assert pseudo_labels(logits, given, 0.5, 255).tolist() == [[[0, 0, 255]]]


def test_pasted_pixels_keep_their_labels() -> None:
    torch.manual_seed(0)
    labels = torch.arange(6).view(6, 1, 1).expand(6, 16, 20).contiguous()
    images = labels[:, None].float().expand(6, 3, 16, 20)
    mixed, targets = paste(images, labels)
    assert torch.equal(mixed[:, 1], targets.float())
    for index, target in enumerate(targets):
        assert set(target.unique().tolist()) <= {index, (index + 1) % 6}
    share = (targets != labels).float().mean()
    assert 0.3 < share < 0.7
    assert paste(images[:1], labels[:1])[0] is images[:1] or torch.equal(
        paste(images[:1], labels[:1])[0], images[:1]
    )


def test_distortion_moves_each_image_as_a_whole() -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 1, 8, 8)
    changed = distort(images)
    for before, after in zip(images, changed, strict=True):
        factor = (after.max() - after.min()) / (before.max() - before.min())
        assert 0.5 <= factor <= 1.5
        torch.testing.assert_close(after - factor * before, (after - factor * before).mean().expand(1, 8, 8))
    assert not torch.equal(images, changed)


def test_labelled_and_unlabelled_scenes_are_the_training_scenes() -> None:
    config = compose(FEW)
    whole = load_split(compose({**FEW, "data.labelled_share": 1.0}).data, 0, "train")
    parts = [load_split(config.data, 0, name) for name in ("train", "unlabelled")]
    assert [len(part) for part in parts] == [4, 36]
    assert np.array_equal(np.concatenate([part.images for part in parts]), whole.images)


def test_training_with_unlabelled_scenes_repeats_and_resumes(tmp_path: Path) -> None:
    whole = numbers()
    assert repr(numbers()) == repr(whole)
    assert whole[-1]["train/pseudo_loss"] > 0
    config = compose(FEW)
    first = train(config, folder=tmp_path)
    next(first)
    first.close()
    (rest,) = train(config, resume=[tmp_path])
    kept = {key: value for key, value in rest.metrics.items() if not key.startswith("time/")}
    assert repr(kept) == repr(whole[1])


def test_unlabelled_scenes_act_through_loss_and_regularizer() -> None:
    alone = numbers(training__unlabelled_weight=0.0)
    assert "train/pseudo_loss" not in alone[-1]
    assert numbers()[-1]["val/miou"] != alone[-1]["val/miou"]
    sure = numbers(training__pseudo_confidence=1.0, regularizer="none")
    assert sure[-1]["train/pseudo_loss"] == 0  # nobody is that sure


def test_without_unlabelled_scenes_it_is_refused() -> None:
    with pytest.raises(UserError, match=r"there is no image without labels"):
        numbers(data__labelled_share=1.0)
    with pytest.raises(UserError, match=r"data=digits_lt has no images without labels"):
        list(
            train(compose({"data": "digits_lt", "model": "pool_lcnet_050", "training.unlabelled_weight": 1}))
        )
    with pytest.raises(UserError, match=r"training\.accumulation: 2 micro-batches do not go"):
        numbers(training__accumulation=2)


def test_a_folder_of_images_without_labels(tmp_path: Path) -> None:
    root = make_cityscapes(
        tmp_path / "streets", train={"aachen": 4, "ulm": 3, "bochum": 2}, sizes=((40, 80),)
    )
    rng = np.random.default_rng(0)
    for number in range(5):
        write_image(tmp_path / "more" / f"{number}.png", rng, (40, 80))
    pairs = {
        "data": "cityscapes",
        "data.root": str(root),
        "data.unlabelled": str(tmp_path / "more"),
        "data.crop_height": 32,
        "data.crop_width": 64,
        "data.resize_height": 40,
        "data.resize_width": 80,
        "data.workers": 0,
        "model": "fcn_test_efficientnet",
        "training.steps": 2,
        "training.eval_every": 2,
        "training.batch_size": 2,
        "training.unlabelled_weight": 0.5,
        "training.pseudo_confidence": 0.05,
    }
    (result,) = train(compose(pairs))
    assert result.metrics["train/pseudo_loss"] > 0
    from sarx.data import fingerprint

    before = fingerprint(compose(pairs).data)
    without = fingerprint(compose({**pairs, "data.unlabelled": ""}).data)
    assert before != without
    for folder, why in (
        ("leftImg8bit/val", "frankfurt_000000_000019_leftImg8bit.png is an image of the report split"),
        ("leftImg8bit/train", "bochum_000000_000019_leftImg8bit.png is an image of the selection split"),
        ("gtFine", "_gtFine_labelIds.png is a label map; nothing is learnt from it"),
    ):
        with pytest.raises(UserError, match=f"data.unlabelled: .*{re.escape(why)}"):
            load_split(compose({**pairs, "data.unlabelled": f"{root}/{folder}"}).data, 0, "unlabelled")
    with pytest.raises(UserError, match=r"data\.unlabelled: there is no folder"):
        fingerprint(compose({**pairs, "data.unlabelled": str(tmp_path / "none")}).data)
