"""The probe: a class-balanced linear classifier, fitted anew on frozen features.

Its score tells better features from a merely re-balanced classifier. Legend: N images, (h, w) feature size,
P chosen pixels, D feature channels, K classes that were seen. In classification an image is one pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sarx.data import DataSet, FileSplit, Split
from sarx.training.batches import batches
from sarx.training.evaluation import evaluating, infer
from sarx.training.geometry import ACCURACY
from sarx.training.grid import Grid
from sarx.training.seeding import stream

PIXELS_PER_CLASS = 400
IMAGES_PER_CLASS = 64
"""At most so many training pixels per class, from a choice of images with so many of each class.

Twice as many images moved the score of two trained models on digit_scenes by at most .006; three draws
differed by up to .009.
"""

FILES = 1000
"""At most so many images are read from files for it."""

L2 = 0.01
ITERATIONS = 300
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Probe:
    """A linear classifier of features.

    Attributes:
        classes: (K,) int64, the class of each row.
        weight: (K, D).
        bias: (K,).
    """

    classes: Tensor
    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Return (B, K, h, w) of features (B, D, h, w), or (N, K) of (N, D)."""
        weight, bias = self.weight.to(features.dtype), self.bias.to(features.dtype)
        return (features.movedim(1, -1) @ weight.T + bias).movedim(-1, 1)


def fit_probe(
    model: nn.Module,
    train: Split | FileSplit,
    data: DataSet,
    grid: Grid,
    device: torch.device,
    seed: int,
) -> Probe:
    """Fit a probe to the features that a trained model gives for a balanced sample of its training split.

    The sample depends on the seed and the labels alone, so it is the same in every arm. Of images in files
    it is drawn from ``FILES`` of them, as they are before any random change.

    Args:
        model: Returns a ``ModelOutput``; left as it is.
        train: The training split.
        data: Description of the data set.
        grid: How the model divides images.
        device: Where the model lies.
        seed: The trial's seed.
    """
    with stream(seed, "probe"):
        if isinstance(train, FileSplit) and len(train) > FILES:
            train = train.subset(sorted(torch.randperm(len(train))[:FILES].tolist()))
        labels = grid_labels(train, grid, data.ignore_index)
        wanted = IMAGES_PER_CLASS if labels[0].dim() else PIXELS_PER_CLASS
        images = choose_images(labels, data.num_classes, wanted)
        parts = [labels[i].flatten() for i in images.tolist()]
        pixels = torch.cat(parts)
        chosen = balanced_sample(pixels, data.num_classes, PIXELS_PER_CLASS)
    features = features_at(model, train, images, chosen, [len(part) for part in parts], data, device)
    return fit_linear(features, pixels[chosen].long().to(features.device))


def grid_labels(split: Split | FileSplit, grid: Grid, ignore_index: int) -> Sequence[Tensor]:
    """Return the labels of each image at the size of its features, by the nearest rule: (h, w) or ()."""
    if isinstance(split, Split):
        labels = torch.tensor(split.labels)
        return list(grid.labels(labels, (split.images.shape[2], split.images.shape[3]), ignore_index))
    found: dict[int, Tensor] = {}
    for batch in batches(split):
        size = (batch.images.shape[2], batch.images.shape[3])
        found |= zip(batch.indices.tolist(), grid.labels(batch.labels, size, ignore_index), strict=True)
    return [found[index] for index in range(len(split))]


def fit_linear(features_PD: Tensor, labels_P: Tensor) -> Probe:
    """Fit a multinomial logistic regression in which every class has the same total weight.

    Minimises the mean over classes of the mean cross-entropy over their samples plus L2/2 ||W||^2, W the
    weight for features standardised with the same weights; L-BFGS from 0, in float64. The problem is convex,
    so the start does not matter. Features that are not finite give a probe that is not finite.

    Args:
        features_PD: (P, D).
        labels_P: (P,) int64.
    """
    counts = torch.bincount(labels_P)
    classes = counts.nonzero().flatten()
    targets = torch.searchsorted(classes, labels_P)
    share_P = 1 / (counts[labels_P].double() * len(classes))
    features = features_PD.double()
    mean = share_P @ features
    deviation = (share_P @ (features - mean).square()).sqrt()
    scale = torch.where(deviation > ACCURACY * mean.abs(), deviation, torch.inf)  # constants get no weight
    standard = (features - mean) / scale
    weight = standard.new_zeros(len(classes), standard.shape[1], requires_grad=True)
    bias = standard.new_zeros(len(classes), requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=ITERATIONS,
        history_size=20,
        tolerance_grad=TOLERANCE,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        losses_P = cross_entropy(standard @ weight.T + bias, targets, reduction="none")
        value: Tensor = share_P @ losses_P + L2 / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    unscaled = weight.detach() / scale
    return Probe(classes, unscaled, bias.detach() - unscaled @ mean)


def choose_images(labels: Sequence[Tensor], num_classes: int, most: int) -> Tensor:
    """Draw images until each class is in ``most`` of them or in all that have it; int64, ascending.

    Args:
        labels: Of each image, of any shape.
        num_classes: C.
        most: See above.
    """
    present = torch.zeros(len(labels), num_classes, dtype=torch.bool)
    for image, part in enumerate(labels):
        found = torch.unique(part.flatten()).long()
        present[image, found[(found >= 0) & (found < num_classes)]] = True
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for c in range(num_classes):
        has_class = present[:, c]
        missing = most - int((has_class & chosen).sum())
        others = (has_class & ~chosen).nonzero().flatten()
        chosen[others[torch.randperm(len(others))[: max(0, missing)]]] = True
    return chosen.nonzero().flatten()


def balanced_sample(labels_N: Tensor, num_classes: int, most: int) -> Tensor:
    """Draw at most ``most`` positions of each class: int64, ascending; other labels are left out."""
    parts = []
    for c in range(num_classes):
        positions = (labels_N == c).nonzero().flatten()
        parts.append(positions[torch.randperm(len(positions))[:most]])
    return torch.cat(parts).sort().values


def features_at(
    model: nn.Module,
    split: Split | FileSplit,
    images: Tensor,
    chosen: Tensor,
    counts: Sequence[int],
    data: DataSet,
    device: torch.device,
) -> Tensor:
    """Return the features (P, D) of chosen pixels.

    Args:
        model: Returns a ``ModelOutput``.
        split: Images and labels.
        images: Indices of the images that hold them, ascending.
        chosen: (P,) positions among the pixels of these images, ascending.
        counts: Pixels of each of these images, at the size of the features.
        data: Description of the data set.
        device: Where the model lies.
    """
    starts = torch.tensor([0, *counts]).cumsum(0)
    found: Tensor | None = None
    with evaluating(model):
        for batch in batches(split, chosen=images.tolist()):
            rows = as_rows(infer(model, batch.images, data, device).features)
            if found is None:
                found = rows.new_zeros(len(chosen), rows.shape[1])
            numbers = torch.searchsorted(images, batch.indices)
            for number, one in zip(numbers, torch.split(rows, len(rows) // len(numbers)), strict=True):
                inside = (chosen >= starts[number]) & (chosen < starts[number + 1])
                found[inside.to(device)] = one[(chosen[inside] - starts[number]).to(device)]
    assert found is not None
    return found


def as_rows(features: Tensor) -> Tensor:
    """Return features (B, D, h, w) as (B h w, D); (N, D) stays."""
    return features.movedim(1, -1).flatten(end_dim=-2)
