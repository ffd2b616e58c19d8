"""The samples of a split as batches for evaluation: images of one size each, with their labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sarx.data import FileSplit, Split
from sarx.data.transforms import resize_centre_crop, resized_for_test
from sarx.data.transforms.sizes import scaled_size
from sarx.training.equal_sizes import area, equal_size_batches
from sarx.training.inference import FACTORS
from sarx.training.loading import plainly

BATCH = 100
"""Images in memory that are evaluated at a time."""

PIXELS = 1 << 21
"""Images from files are evaluated together up to so many pixels, resized: one of Cityscapes."""


class Batch(NamedTuple):
    """Some samples of a split.

    Attributes:
        indices: int64 (B,), which samples.
        images: uint8 (B, C, H, W), as the model is to see them but for normalisation.
        labels: (B, H', W') at the size of the original images, or (B,) in classification.
    """

    indices: Tensor
    images: Tensor
    labels: Tensor


class TestImages(Dataset[Batch]):
    """The samples of a split in files, each as a batch of one."""

    def __init__(self, split: FileSplit) -> None:
        """Keep the split; nothing is read."""
        self.split = split

    def __getitem__(self, index: int) -> Batch:
        """Read one sample."""
        raw, label = self.split.pair(index)
        options, image = self.split.options, torch.from_numpy(raw)
        if self.split.read_label is None:
            image = resize_centre_crop(image, options.resize, options.crop)
        else:
            image = resized_for_test(image, options)
        return Batch(torch.tensor([index]), image[None], torch.as_tensor(label)[None])


def batches(
    split: Split | FileSplit, share: tuple[int, int] = (0, 1), chosen: Sequence[int] | None = None
) -> Iterator[Batch]:
    """Yield every sample once; those in memory come in order.

    Args:
        split: Images and labels.
        share: (r, n): only every n-th batch, from the r-th on.
        chosen: Ascending indices of the samples to take; None: all.
    """
    wanted = range(len(split)) if chosen is None else chosen
    if isinstance(split, FileSplit):
        yield from _from_files(split, share, wanted)
        return
    for start in range(share[0] * BATCH, len(wanted), share[1] * BATCH):
        part = wanted[start : start + BATCH]
        where = slice(part.start, part.stop) if isinstance(part, range) else list(part)
        images, labels = torch.tensor(split.images[where]), torch.tensor(split.labels[where])
        yield Batch(torch.tensor(part), images, labels)


def _from_files(split: FileSplit, share: tuple[int, int], wanted: Sequence[int]) -> Iterator[Batch]:
    options, same = split.options, split.read_label is None  # classification brings all to one size
    sizes = [(options.crop,) * 2 if same else split.size(index) for index in wanted]
    groups = equal_size_batches(sizes, PIXELS, area if same else partial(largest_pixels, options))
    parts = [[int(wanted[place]) for place in group] for group in groups]
    workers = options.workers
    loader: DataLoader[Batch] = DataLoader(
        TestImages(split),
        batch_sampler=parts[share[0] :: share[1]],
        num_workers=workers,
        collate_fn=_together,
        prefetch_factor=2 if workers else None,
    )
    yield from plainly(loader)


def largest_pixels(options: Any, size: tuple[int, int]) -> int:
    """Return the pixels of an image of this size as it is predicted, at the largest of several scales."""
    target = scaled_size(size, (options.resize_height, options.resize_width))
    factor = max(FACTORS) if options.evaluation.startswith("multi_scale") else 1.0
    return max(area(size), int(factor**2 * area(target)))


def _together(samples: list[Batch]) -> Batch:
    return Batch(*(torch.cat(values) for values in zip(*samples, strict=True)))
