"""Images without labels: a teacher, the running mean of the model, labels what it is sure of.

Mean teacher (Tarvainen and Valpola 2017) with a threshold on the teacher's confidence (FixMatch, Sohn et al.
2020) and mixed images (CutMix for segmentation, French et al. 2020). The teacher sees images as they are;
the student learns its labels on images that are distorted and pasted into one another. Legend: b images of a
rank, C classes, (H, W) pixels.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

CONTRAST = (0.5, 1.5)
BRIGHTNESS = 0.5
"""Of normalised images: a factor, and a shift of at most so many standard deviations."""

MIXED = 0.5
"""Part of the area of an image that comes from its neighbour, for segmentation."""


def teacher_of(model: nn.Module) -> nn.Module:
    """Return a copy of a model that no gradient reaches."""
    teacher = copy.deepcopy(model).requires_grad_(False)
    return teacher.eval()


@torch.no_grad()
def follow(teacher: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move a teacher towards a model, in place: teacher <- d teacher + (1 - d) model.

    d = min(decay, 1 - 1/(step + 1)), so at step 0 the teacher becomes the model. Buffers move likewise,
    counters are copied.

    Args:
        teacher: Of ``teacher_of``.
        model: What is trained.
        decay: Largest d.
        step: Optimizer steps done before this one.
    """
    share = 1 - min(decay, 1 - 1 / (step + 1))
    ours, theirs = teacher.state_dict(), model.state_dict()
    for name, value in ours.items():
        if value.is_floating_point():
            value.lerp_(theirs[name].to(value.dtype), share)
        else:
            value.copy_(theirs[name])


@torch.no_grad()
def pseudo_labels(logits: Tensor, given: Tensor, confidence: float, ignore_index: int) -> Tensor:
    """Return the class of the largest logit where its probability reaches ``confidence``, else ignored.

    Args:
        logits: (b, C, H, W) or (b, C).
        given: (b, H, W) or (b,): only whether it is ``ignore_index``, as padding is, is looked at.
        confidence: In [0, 1].
        ignore_index: Label of what does not count.
    """
    probability, label = logits.float().softmax(dim=1).max(dim=1)
    sure = (probability >= confidence) & (given != ignore_index)
    return torch.where(sure, label, ignore_index)


def distort(images: Tensor) -> Tensor:
    """Change contrast and brightness of each normalised image (b, C, H, W); from the global generator."""
    low, high = CONTRAST
    factor = low + (high - low) * torch.rand(len(images), 1, 1, 1)
    shift = BRIGHTNESS * (2 * torch.rand(len(images), 1, 1, 1) - 1)
    return images * factor.to(images) + shift.to(images)


def paste(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Replace a random rectangle of each image and label map with that of the next; global generator.

    In classification nothing is pasted.

    Args:
        images: (b, C, H, W).
        labels: (b, H, W) or (b,).
    """
    if labels.dim() == 1 or len(images) == 1:
        return images, labels
    inside = torch.zeros(len(labels), *labels.shape[1:], dtype=torch.bool)
    for mask in inside:
        aspect, row, column = torch.rand(3).tolist()
        side = MIXED**0.5
        height = round(mask.shape[0] * min(1.0, side * (0.75 + 0.5 * aspect)))
        width = round(mask.shape[1] * min(1.0, side / (0.75 + 0.5 * aspect)))
        top, left = round(row * (mask.shape[0] - height)), round(column * (mask.shape[1] - width))
        mask[top : top + height, left : left + width] = True
    inside = inside.to(labels.device)
    other = torch.arange(len(images), device=labels.device).roll(-1)
    return (
        torch.where(inside[:, None], images[other], images),
        torch.where(inside, labels[other], labels),
    )
