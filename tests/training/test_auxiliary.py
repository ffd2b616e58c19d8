"""The task loss on auxiliary logits: its weight, its share of micro-batches, and who has none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sarx.losses import CrossEntropy, OhemCrossEntropy
from sarx.models.output import ModelOutput
from sarx.regularizers import NoRegularizer
from sarx.training.loop import train
from sarx.training.step import TrainingModule


class Network(nn.Module):
    """Two classifiers at different strides and no batch statistics."""

    def __init__(self, auxiliary: bool = True) -> None:
        super().__init__()
        self.features = nn.Conv2d(2, 6, 3, 2, 1)
        self.classifier = nn.Conv2d(6, 4, 1)
        self.early = nn.Conv2d(2, 4, 4, 4) if auxiliary else None

    def forward(self, images: Tensor) -> ModelOutput:
        features = self.features(images)
        early = None if self.early is None else self.early(images)
        return ModelOutput(self.classifier(features), features, early)


def module(weight: float, loss: nn.Module | None = None, auxiliary: bool = True) -> TrainingModule:
    torch.manual_seed(0)
    network = Network(auxiliary)
    return TrainingModule(network, NoRegularizer(4, 6), loss or CrossEntropy(), weight).double()


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    labels = torch.randint(0, 4, (5, 8, 8))
    labels[0, 2:] = 255  # micro-batches of very different numbers of valid pixels
    labels[1, :, 1:] = 255
    return torch.randn(5, 2, 8, 8, dtype=torch.float64), labels


def up(logits: Tensor) -> Tensor:
    return nn.functional.interpolate(logits, size=(8, 8), mode="bilinear", align_corners=False)


def test_the_same_loss_is_added_with_its_weight() -> None:
    images, labels = batch()
    trained = module(0.4)
    output = trained.model(images)
    main = nn.functional.cross_entropy(up(output.logits), labels, ignore_index=255)
    early = nn.functional.cross_entropy(up(output.auxiliary), labels, ignore_index=255)
    total, metrics = trained(images, labels)
    torch.testing.assert_close(total, main + 0.4 * early)
    torch.testing.assert_close(metrics["train/loss"], total.detach())
    torch.testing.assert_close(metrics["train/task_loss"], main.detach())
    torch.testing.assert_close(metrics["train/auxiliary_loss"], early.detach())
    assert not any(value.requires_grad for value in metrics.values())
    total.backward()
    (wanted,) = torch.autograd.grad(0.4 * early, [trained.model.early.weight])
    torch.testing.assert_close(trained.model.early.weight.grad, wanted)


def test_without_auxiliary_logits_nothing_is_added() -> None:
    images, labels = batch()
    one, two = module(0.4, auxiliary=False), module(0.0, auxiliary=False)
    (total, metrics), (wanted, _) = one(images, labels), two(images, labels)
    assert torch.equal(total, wanted)
    assert metrics.keys() == {"train/loss", "train/task_loss"}


def test_weight_0_trains_nothing_by_it_and_keeps_the_graph() -> None:
    images, labels = batch()
    trained = module(0.0)
    total, metrics = trained(images, labels)
    assert torch.equal(total, metrics["train/task_loss"])
    assert metrics["train/auxiliary_loss"] > 0
    total.backward()
    assert not trained.model.early.weight.grad.any()


@pytest.mark.parametrize("cuts", [(1, 2, 2), (4, 1), (5,)])
def test_micro_batches_add_up_to_the_whole(cuts: tuple[int, ...]) -> None:
    images, labels = batch()
    whole = module(0.7)
    total, wanted = whole(images, labels)
    total.backward()
    parts = module(0.7)
    shares = parts.shares(labels.split(cuts), (4, 4), 255)
    metrics: dict[str, Tensor] = {}
    for some, theirs, share in zip(images.split(cuts), labels.split(cuts), shares, strict=True):
        loss, found = parts(some, theirs, share)
        loss.backward()
        metrics = {key: metrics.get(key, 0) + value for key, value in found.items()}
    for key, value in wanted.items():
        torch.testing.assert_close(metrics[key], value)
    for one, two in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def test_a_loss_that_chooses_pixels_chooses_by_the_auxiliary_logits_too() -> None:
    images, labels = batch()
    trained = module(0.5, OhemCrossEntropy(threshold=0.2, min_kept_share=0.3))
    output = trained.model(images)
    loss = trained.task_loss
    wanted = loss(up(output.logits), labels) + 0.5 * loss(up(output.auxiliary), labels)
    torch.testing.assert_close(trained(images, labels)[0], wanted)


def test_ocr_trains_with_it(tiny) -> None:
    results = list(train(tiny(model="ocr_test_convnext", model__auxiliary_weight=0.5)))
    assert all(result.metrics["train/auxiliary_loss"] > 0 for result in results)
    plain = list(train(tiny(model="fcn_test_convnext", training__steps=2)))
    assert "train/auxiliary_loss" not in plain[-1].metrics
