"""One training step: the module that a distributed wrapper wraps holds model, task loss and regularizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sarx.config.schema import TrainConfig
from sarx.data import DataSet
from sarx.losses import build_loss
from sarx.models import build_model
from sarx.regularizers import build_regularizer
from sarx.study.seeds import derive
from sarx.training.evaluation import resize_logits
from sarx.training.seeding import stream


class TrainingModule(nn.Module):
    """Model, regularizer and task loss; forward returns the total loss and what to log."""

    def __init__(self, model: nn.Module, regularizer: nn.Module, task_loss: nn.Module) -> None:
        """Hold the three parts."""
        super().__init__()
        self.model = model
        self.regularizer = regularizer
        self.task_loss = task_loss

    @property
    def prediction_adjustment(self) -> Tensor | None:
        """(C,) what the task loss wants added to the logits that predict, or None."""
        wanted: Tensor | None = getattr(self.task_loss, "prediction_adjustment", None)
        return wanted

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar to minimise and detached metrics with the same keys on every step."""
        output = self.model(images)
        task = self.task_loss(resize_logits(output.logits, labels), labels)
        regularized = self.regularizer(output.features, labels, self.model.classifier)
        total = task + regularized.loss
        metrics = {"train/loss": total.detach(), "train/task_loss": task.detach(), **regularized.metrics}
        return total, metrics


def build_module(config: TrainConfig, data: DataSet, class_counts: Tensor) -> TrainingModule:
    """Build what is trained, each part from its own stream of random numbers.

    Args:
        config: Options of the run.
        data: Description of the data set.
        class_counts: Training pixels (or images) per class: int64 (C,).
    """
    with stream(config.seed, "model"):
        model: Any = build_model(config.model, in_channels=data.in_channels, num_classes=data.num_classes)
    with stream(config.seed, "regularizer"):
        regularizer = build_regularizer(
            config.regularizer,
            num_classes=data.num_classes,
            feature_dim=model.feature_dim,
            total_steps=config.training.steps,
            ignore_index=data.ignore_index,
            anchor_seed=derive(config.seed, "anchors"),
        )
    model = model.to(memory_format=torch.channels_last)  # 1.3 to 1.8 x faster steps on CPU
    task_loss = build_loss(config.loss, class_counts=class_counts, ignore_index=data.ignore_index)
    return TrainingModule(model, regularizer, task_loss)


def optimizer_step(loss: Tensor, optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Take one step down the gradient of ``loss`` at learning rate ``rate``."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
