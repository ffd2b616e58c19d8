"""Training samples from files: read, changed and batched by worker processes ahead of the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sarx.config.schema import TrainConfig
from sarx.data import DataSet, FileSplit
from sarx.data.decoded import pair_of
from sarx.data.transforms import augmentation_seed, random_resized_crop, train_transform
from sarx.training.distributed import rank, world_size
from sarx.training.evaluation import normalise
from sarx.training.loading import plainly
from sarx.training.samples import Part, cut
from sarx.training.seeding import batch_indices

Key = tuple[int, int, int]
"""Step, position in the step's batch over all ranks, index of the sample."""


class Changed(Dataset[tuple[Tensor, Tensor]]):
    """A sample as a step sees it: uint8 image (3, h, w), label (h, w) or ().

    Random numbers come from seed, step and position alone, so ranks, workers and restarts change nothing.
    """

    def __init__(self, split: FileSplit, data: DataSet, seed: int) -> None:
        """Keep the split; nothing is read."""
        self.split, self.data, self.seed = split, data, seed

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        """Read and change one sample."""
        step, position, index = key
        options, seed = self.split.options, augmentation_seed(self.seed, step, position)
        image, label = pair_of(self.split, self.data.fingerprint, index)
        if isinstance(label, int):
            return random_resized_crop(torch.from_numpy(image), seed, options.crop), torch.tensor(label)
        return train_transform(options, self.data.ignore_index, self.data.mean)(image, label, seed)


class Steps(Sampler[list[Key]]):
    """The keys of one step after another, made when they are asked for."""

    def __init__(self, keys: Callable[[int], list[Key]], steps: range) -> None:
        """Keep what makes them."""
        self.keys, self.steps = keys, steps

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield the keys of each step."""
        return map(self.keys, self.steps)


class FileSamples:
    """The training samples of this rank, in the order of steps."""

    def __init__(self, split: FileSplit, data: DataSet, config: TrainConfig, device: torch.device) -> None:
        """Read nothing yet.

        Raises:
            UserError: If a rank would get no sample of a micro-batch.
        """
        config.training.check_shares(world_size(), config.model.fewest_images)
        self.split, self.data, self.device = split, data, device
        self.seed, self.options = config.seed, config.training
        self.dtype = torch.float64 if self.options.precision == "float64" else torch.float32
        self.source = Changed(split, data, config.seed)
        self._stream: Iterator[Any] | None = None
        self._next = -1

    def parts(self, step: int) -> list[Part]:
        """Return this rank's part of each micro-batch of a step; steps in order are read ahead."""
        if self._stream is None or step != self._next:
            self.close()
            self._stream = plainly(self._loader(step))
        images, labels = next(self._stream)
        self._next = step + 1
        sizes = [len(piece) for piece in self._pieces(step)]
        return [
            Part(label.to(self.device, non_blocking=True).long(), partial(self._normalised, image))
            for image, label in zip(images.split(sizes), labels.split(sizes), strict=True)
        ]

    def few(self) -> tuple[Tensor, Tensor]:
        """Return two samples of this rank: normalised images and labels, on the device."""
        images, labels = zip(*(self.source[key] for key in self.keys(0)[:2]), strict=True)
        return self._normalised(torch.stack(images)), torch.stack(labels).to(self.device).long()

    def close(self) -> None:
        """End the workers."""
        self._stream = None

    def _normalised(self, images: Tensor) -> Tensor:
        return normalise(images, self.data, self.device, self.dtype)

    def _loader(self, first: int) -> DataLoader[Any]:
        workers = self.split.options.workers
        return DataLoader(
            self.source,
            batch_sampler=Steps(self.keys, range(first, self.options.steps)),
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
            prefetch_factor=2 if workers else None,
        )

    def keys(self, step: int) -> list[Key]:
        """Return what this rank reads for a step, micro-batch after micro-batch."""
        chosen = batch_indices(self.seed, len(self.split), self.options.batch_size, step)
        return [(step, int(place), int(chosen[place])) for piece in self._pieces(step) for place in piece]

    def _pieces(self, step: int) -> list[Tensor]:
        """Return the positions that this rank has in each micro-batch of a step."""
        places = torch.arange(self.options.batch_size)
        return cut(places, self.options.accumulation, rank(), world_size())
