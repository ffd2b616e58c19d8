"""The training samples, and how a step's batch is cut over micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from sarx.config.schema import TrainConfig
from sarx.data import DataSet, Split
from sarx.data.transforms import augmentation_seed, crop_flip
from sarx.training.distributed import rank, world_size
from sarx.training.evaluation import normalise
from sarx.training.seeding import batch_indices

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


@dataclass(frozen=True)
class Part:
    """This rank's part of a micro-batch.

    Attributes:
        labels: int64 (b, H, W) or (b,), on the device.
        images: Returns the normalised images (b, C, H, W), on the device.
    """

    labels: Tensor
    images: Callable[[], Tensor]


class TrainingSamples(Protocol):
    """What steps take their samples from."""

    def parts(self, step: int) -> list[Part]:
        """Return this rank's part of each micro-batch of a step."""

    def few(self) -> tuple[Tensor, Tensor]:
        """Return two samples of this rank: normalised images and labels, on the device."""

    def close(self) -> None:
        """End what reads ahead."""


def cut(positions: Tensor, pieces: int, number: int, ranks: int) -> list[Tensor]:
    """Return a rank's part of each micro-batch of a step; together the ranks have every position once.

    Args:
        positions: (B,) samples of the step.
        pieces: Number of micro-batches; contiguous, sizes differ by at most one.
        number: Of the rank.
        ranks: Number of ranks; each micro-batch is cut over them in the same way.
    """
    return [torch.tensor_split(piece, ranks)[number] for piece in torch.tensor_split(positions, pieces)]


class Samples:
    """The training samples in memory, batched by global position."""

    def __init__(self, split: Split, data: DataSet, config: TrainConfig, device: torch.device) -> None:
        """Copy the split into memory.

        Raises:
            UserError: If a rank would get no sample of a micro-batch.
        """
        config.training.check_shares(world_size(), config.model.fewest_images)
        self.images = torch.tensor(split.images)
        self.labels = torch.tensor(split.labels)
        self.data, self.device = data, device
        self.seed, self.batch_size = config.seed, config.training.batch_size
        self.accumulation = config.training.accumulation
        self.crop_flip = bool(getattr(config.data, "crop_flip", False))
        self.dtype = torch.float64 if config.training.precision == "float64" else torch.float32

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return normalised images (B, C, H, W) and int64 labels of a step, over all ranks."""
        chosen = self.chosen(step)
        return self.images_of(chosen), self.labels_of(chosen)

    def parts(self, step: int) -> list[Part]:
        """Return this rank's part of each micro-batch of a step."""
        chosen, places = self.chosen(step), torch.arange(self.batch_size)
        pieces = cut(places, self.accumulation, rank(), world_size())
        return [
            Part(self.labels_of(chosen[piece]), partial(self.changed, step, piece, chosen[piece]))
            for piece in pieces
        ]

    def changed(self, step: int, places: Tensor, chosen: Tensor) -> Tensor:
        """Return normalised images (b, C, H, W) of samples as a step sees them.

        Args:
            step: Of which the random numbers are, with the places: ranks and restarts change nothing.
            places: (b,) of the samples in the step's batch over all ranks.
            chosen: (b,) samples.
        """
        if not self.crop_flip:
            return self.images_of(chosen)
        seeds = [augmentation_seed(self.seed, step, place) for place in places.tolist()]
        return normalise(crop_flip(self.images[chosen], seeds), self.data, self.device, self.dtype)

    def few(self) -> tuple[Tensor, Tensor]:
        """Return two samples of this rank: normalised images and labels, on the device."""
        chosen = cut(self.chosen(0), self.accumulation, rank(), world_size())[-1][:2]
        return self.images_of(chosen), self.labels_of(chosen)

    def close(self) -> None:
        """Nothing reads ahead."""

    def images_of(self, chosen: Tensor) -> Tensor:
        """Return normalised images (b, C, H, W) of samples (b,)."""
        return normalise(self.images[chosen], self.data, self.device, self.dtype)

    def labels_of(self, chosen: Tensor) -> Tensor:
        """Return int64 labels of samples (b,)."""
        return self.labels[chosen].to(self.device).long()

    def chosen(self, step: int) -> Tensor:
        """Return the samples of a step over all ranks: int64 (B,)."""
        return batch_indices(self.seed, len(self.labels), self.batch_size, step)
