"""Evaluate a model on one split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from sarx.data import DataSet, FileSplit, Split
from sarx.losses import adjust
from sarx.models.output import ModelOutput
from sarx.training.batches import Batch, batches
from sarx.training.distributed import global_sum, rank, world_size
from sarx.training.inference import predict_logits
from sarx.training.metrics import SCORES, confusion_matrix


def evaluate(
    model: nn.Module,
    split: Split | FileSplit,
    data: DataSet,
    device: torch.device,
    prefix: str,
    adjustment: Tensor | None = None,
) -> dict[str, float]:
    """Score a model on every sample of a split; the model's mode is restored afterwards.

    Each rank takes every n-th batch, and the counts of all ranks are added: every rank must call it, with
    the same model, and gets the scores that one process gives.

    Args:
        model: Returns a ``ModelOutput``.
        split: Images and labels.
        data: Description of the data set.
        device: Where the model lies.
        prefix: Prefix of the metric names, such as ``val``.
        adjustment: (C,) what the task loss wants added to the logits that predict, or None.
    """
    share = (rank(), world_size())
    matrix = confusion(model, split, data, device, adjustment=adjustment, share=share)
    return scores(global_sum(matrix), data, prefix)


def confusion(
    model: nn.Module,
    split: Split | FileSplit,
    data: DataSet,
    device: torch.device,
    observe: Callable[[Batch, ModelOutput], None] | None = None,
    adjustment: Tensor | None = None,
    share: tuple[int, int] = (0, 1),
    count: Callable[[Tensor, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Return the confusion matrix, int64 (C, C), of a model on every sample of a split.

    Args:
        model: Returns a ``ModelOutput``.
        split: Images and labels.
        data: Description of the data set.
        device: Where the model lies.
        observe: Called with each batch and its output, so that what else is measured on these samples costs
            no second forward pass; only where images are predicted whole.
        adjustment: (C,) what the task loss wants added to the logits that predict, or None.
        share: (r, n): only every n-th batch, from the r-th on.
        count: Called with the indices, labels and predictions of each batch.
    """
    matrix = torch.zeros(data.num_classes, data.num_classes, dtype=torch.int64, device=device)
    predict_batch = predictor(split, model, data, device, adjustment)
    with evaluating(model):
        for batch in batches(split, share):
            labels = batch.labels.to(device)
            output, predictions = predict_batch(batch.images, labels)
            matrix += confusion_matrix(labels, predictions, data.num_classes, data.ignore_index)
            if count is not None:
                count(batch.indices, labels, predictions)
            if observe is not None:
                assert output is not None, "windows and scales give no feature map"
                observe(batch, output)
    return matrix


Predict = Callable[[Tensor, Tensor], tuple[ModelOutput | None, Tensor]]


def predictor(
    split: Split | FileSplit,
    model: nn.Module,
    data: DataSet,
    device: torch.device,
    adjustment: Tensor | None = None,
) -> Predict:
    """Return a function of uint8 images and labels: the output, if the images went in whole, and the classes.

    Args:
        split: Says how its images are predicted.
        model: Returns a ``ModelOutput``.
        data: Description of the data set.
        device: Where the model lies.
        adjustment: (C,) added to the logits before the largest is taken, or None.
    """
    options = split.options if isinstance(split, FileSplit) else None
    mode = getattr(options, "evaluation", "whole")

    def whole(images: Tensor, labels: Tensor) -> tuple[ModelOutput, Tensor]:
        output = infer(model, images, data, device)
        size = (images.shape[2], images.shape[3])
        return output, predicted_classes(output.logits, labels, adjustment, size, multiple_of(model))

    def windows_or_scales(images: Tensor, labels: Tensor) -> tuple[None, Tensor]:
        assert options is not None
        found = predict_logits(
            lambda part: adjust(model(part).logits, adjustment),
            normalised(model, images, data, device),
            mode,
            window=options.window,
            stride=options.stride,
            multiple=multiple_of(model),
            size=(labels.shape[1], labels.shape[2]),
        )
        return None, found.argmax(dim=1)

    return whole if mode == "whole" else windows_or_scales


def multiple_of(model: nn.Module) -> int:
    """Return what both sides of the images of a model must be multiples of."""
    return int(getattr(model, "multiple", 1))


def scores(matrix: Tensor, data: DataSet, prefix: str) -> dict[str, float]:
    """Return the scores of a confusion matrix (C, C) under the names ``prefix/...``."""
    values = SCORES[data.task](matrix, data.class_names, data.score_classes, data.groups)
    return {f"{prefix}/{name}": value for name, value in values.items()}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode without gradients inside the block; its mode is restored after it."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def predict(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    data: DataSet,
    device: torch.device,
    adjustment: Tensor | None = None,
) -> Tensor:
    """Return the predicted class of every label position: images uint8 (B, C, H, W)."""
    size = (images.shape[2], images.shape[3])
    logits = infer(model, images, data, device).logits
    return predicted_classes(logits, labels, adjustment, size, multiple_of(model))


def infer(model: nn.Module, images: Tensor, data: DataSet, device: torch.device) -> ModelOutput:
    """Return what a model gives for uint8 images (B, C, H, W), in the precision of its weights: no autocast.

    A trial that trains in half precision is scored in float32. Images are padded at the bottom and the right
    with zeros, the mean colour, to what the model can take.
    """
    output: ModelOutput = model(padded(normalised(model, images, data, device), multiple_of(model)))
    return output


def padded(maps: Tensor, multiple: int, value: float = 0) -> Tensor:
    """Return maps (..., H, W) padded at the bottom and the right until both sides are multiples."""
    height, width = (-side % multiple for side in maps.shape[-2:])
    return pad(maps, (0, width, 0, height), value=value) if height or width else maps


def normalised(model: nn.Module, images: Tensor, data: DataSet, device: torch.device) -> Tensor:
    """Return uint8 images normalised, in the type of a model's weights."""
    dtype = next((value.dtype for value in model.parameters()), torch.float32)
    return normalise(images, data, device, dtype)


def feature_size(model: nn.Module, data: DataSet) -> tuple[int, ...]:
    """Return (h, w) of the features of a training image, or () in classification."""
    weight = next(model.parameters())
    image = torch.zeros(1, data.in_channels, *data.image_size, dtype=weight.dtype, device=weight.device)
    with evaluating(model):
        return tuple(model(padded(image, multiple_of(model))).features.shape[2:])


def predicted_classes(
    logits: Tensor,
    labels: Tensor,
    adjustment: Tensor | None = None,
    size: tuple[int, int] | None = None,
    multiple: int = 1,
) -> Tensor:
    """Return the class of the largest adjusted logit at every label position: int64 of the labels' shape.

    Args:
        logits: (B, C, h, w), or (B, C) in classification.
        labels: (B, H', W') or (B,).
        adjustment: (C,) added to the logits, or None.
        size: (H, W) of the images, where they were padded to multiples of ``multiple``.
        multiple: See there.
    """
    found = adjust(logits, adjustment)
    if logits.dim() == 4 and size is not None and any(side % multiple for side in size):
        whole = tuple(side + -side % multiple for side in size)
        found = interpolate(found, size=whole, mode="bilinear", align_corners=False)
        found = found[:, :, : size[0], : size[1]]
    return resize_logits(found, labels).argmax(dim=1)


def normalise(
    images: Tensor, data: DataSet, device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Turn uint8 images (B, C, H, W) into what the model sees: floats of zero mean and unit variance."""
    pixels = images.to(device).to(dtype).div_(255)
    mean = torch.tensor(data.mean, device=device, dtype=dtype).view(1, -1, 1, 1)
    std = torch.tensor(data.std, device=device, dtype=dtype).view(1, -1, 1, 1)
    return pixels.sub_(mean).div_(std)


def resize_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Upsample logits (B, C, h, w) bilinearly to the labels (B, H, W); logits (N, C) stay as they are."""
    if logits.dim() == 2 or logits.shape[2:] == labels.shape[1:]:
        return logits
    return interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=False)
