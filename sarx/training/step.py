"""One training step: the module that a distributed wrapper wraps holds model, task loss and regularizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from sarx.config.schema import TrainConfig
from sarx.data import DataSet
from sarx.losses import build_loss
from sarx.models import build_model
from sarx.models.backbone import synchronise_batch_norm
from sarx.regularizers import build_regularizer
from sarx.regularizers.distributed import global_sum
from sarx.regularizers.functional import downsample_labels
from sarx.study.seeds import derive
from sarx.training.evaluation import resize_logits
from sarx.training.seeding import stream
from sarx.training.unlabelled import teacher_of

COMPILER = "inductor"

STATES = ("train/first_open_step",)
"""Metrics that are a state, not a rate: the last value counts."""


class Share(NamedTuple):
    """What one micro-batch is of the step that it belongs to; over all ranks.

    Attributes:
        whole: Scalar, what the task losses of the step divide by; see ``sarx.losses``.
        samples: Float64 scalar, the micro-batch's share of the step's samples.
        pixels: Float64 scalar, its share of the valid pixels at feature size; over a step they add up to 1.
        first: Whether it is the step's first, the one that moves the regularizer's state.
    """

    whole: Tensor
    samples: Tensor
    pixels: Tensor
    first: bool


class Unlabelled(NamedTuple):
    """Images that the teacher has labelled.

    Attributes:
        images: (b, C, H, W), as the student sees them.
        labels: (b, H, W) or (b,), ignored where the teacher is not sure.
        weight: Of the task loss on them.
    """

    images: Tensor
    labels: Tensor
    weight: float


class TrainingModule(nn.Module):
    """Model, regularizer and task loss; forward returns the total loss and what to log.

    ``teacher`` is a running mean of the model that labels images without labels, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        regularizer: nn.Module,
        task_loss: nn.Module,
        auxiliary_weight: float = 0.0,
        teacher: nn.Module | None = None,
    ) -> None:
        """Hold the parts, and the weight of the task loss on a model's auxiliary logits."""
        super().__init__()
        self.model = model
        self.regularizer = regularizer
        self.task_loss = task_loss
        self.teacher = teacher
        self.auxiliary_weight = auxiliary_weight

    @property
    def prediction_adjustment(self) -> Tensor | None:
        """(C,) what the task loss wants added to the logits that predict, or None."""
        wanted: Tensor | None = getattr(self.task_loss, "prediction_adjustment", None)
        return wanted

    def train(self, mode: bool = True) -> Self:
        """Set the mode of everything but the teacher, which always evaluates."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(
        self,
        images: Tensor,
        labels: Tensor,
        share: Share | None = None,
        unlabelled: Unlabelled | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar to minimise and detached metrics with the same keys on every step.

        Under several ranks both are such that their mean over ranks is what one process gives.

        Args:
            images: (b, C, H, W), this rank's.
            labels: (b, H, W) or (b,).
            share: For a micro-batch: loss and metrics are its part of a sum over micro-batches. None: the
                whole step.
            unlabelled: What is learnt from beside the labelled images; not with ``share``.
        """
        if unlabelled is not None:
            return self._with_unlabelled(images, labels, unlabelled)
        output = self.model(images)
        classifier = self.model.classifier
        task = self._task(output.logits, labels, share)
        if share is None:
            regularized = self.regularizer(output.features, labels, classifier)
            extra, values = regularized.loss, regularized.metrics
        else:
            regularized = self.regularizer(output.features, labels, classifier, advance=share.first)
            extra = regularized.loss * share.pixels.to(regularized.loss.dtype)
            values = {
                key: value if key in STATES else value * share.pixels
                for key, value in regularized.metrics.items()
            }
        total = task + extra
        if output.auxiliary is not None:
            auxiliary = self._task(output.auxiliary, labels, share)
            total = total + self.auxiliary_weight * auxiliary
            values = {"train/auxiliary_loss": auxiliary.detach(), **values}
        return total, {"train/loss": total.detach(), "train/task_loss": task.detach(), **values}

    def _with_unlabelled(
        self, images: Tensor, labels: Tensor, unlabelled: Unlabelled
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return loss and metrics of both kinds of images; the regularizer sees them as one batch."""
        count = len(images)
        output = self.model(torch.cat([images, unlabelled.images]))
        task = self._task(output.logits[:count], labels, None)
        pseudo = self._task(output.logits[count:], unlabelled.labels, None)
        targets = torch.cat([labels, unlabelled.labels])
        regularized = self.regularizer(output.features, targets, self.model.classifier)
        total = task + unlabelled.weight * pseudo + regularized.loss
        values = dict(regularized.metrics)
        if output.auxiliary is not None:
            auxiliary = self._task(output.auxiliary[:count], labels, None)
            extra = self._task(output.auxiliary[count:], unlabelled.labels, None)
            total = total + self.auxiliary_weight * (auxiliary + unlabelled.weight * extra)
            values = {"train/auxiliary_loss": auxiliary.detach(), **values}
        return total, {
            "train/loss": total.detach(),
            "train/task_loss": task.detach(),
            "train/pseudo_loss": pseudo.detach(),
            **values,
        }

    def _task(self, logits: Tensor, labels: Tensor, share: Share | None) -> Tensor:
        """Return the task loss of logits of any size, or its part of a micro-batch.

        One that does not know its divisor goes by samples.
        """
        logits = resize_logits(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels)
        if share is None:
            whole: Tensor = self.task_loss(logits, labels)
            return whole
        if hasattr(self.task_loss, "normaliser"):
            part: Tensor = self.task_loss(logits, labels, share.whole)
            return part
        mean: Tensor = self.task_loss(logits, labels)
        return mean * share.samples.to(mean.dtype)

    def shares(self, labels: Sequence[Tensor], size: tuple[int, ...], ignore_index: int) -> list[Share]:
        """Return the share of each micro-batch, from this rank's labels of them all; one exchange.

        Args:
            labels: (b, H, W) or (b,) per micro-batch.
            size: (h, w) of the features, or () in classification.
            ignore_index: Label of the pixels that do not count.
        """
        normaliser = getattr(self.task_loss, "normaliser", None)
        own = [normaliser(part).double() for part in labels] if normaliser else []
        small = [downsample_labels(part, (size[0], size[1])) if size else part for part in labels]
        pixels = [(part != ignore_index).sum().double() for part in small]
        samples = [torch.full_like(count, len(part)) for count, part in zip(pixels, labels, strict=True)]
        sums = global_sum(torch.stack([sum(own, torch.zeros_like(pixels[0])), *pixels, *samples]))
        whole, counted, taken = sums[0], sums[1 : len(labels) + 1], sums[len(labels) + 1 :]
        parts = torch.where(counted.sum() > 0, counted / counted.sum().clamp(min=1), 1 / len(labels))
        return [
            Share(whole, share, part, number == 0)
            for number, (share, part) in enumerate(zip(taken / taken.sum(), parts, strict=True))
        ]


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
    options = config.training
    if options.sync_bn:
        model = synchronise_batch_norm(model)
    if options.channels_last:
        model = model.to(memory_format=torch.channels_last)  # 1.3 to 1.8 x faster steps on CPU
    if options.compile:
        model.compile(backend=COMPILER)
    task_loss = build_loss(config.loss, class_counts=class_counts, ignore_index=data.ignore_index)
    teacher = teacher_of(model) if options.unlabelled_weight else None
    module = TrainingModule(model, regularizer, task_loss, config.model.auxiliary_weight, teacher)
    return module.double() if options.precision == "float64" else module
