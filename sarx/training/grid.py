"""Where the features of an image lie: the model's padding and stride, and labels brought to that size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from sarx.regularizers.functional import downsample_labels


@dataclass(frozen=True)
class Grid:
    """How a model divides an image.

    Attributes:
        multiple: Images are padded at the bottom and the right until both sides are multiples of it.
        stride: Pixels per feature; 0 in classification, where an image has one feature.
    """

    multiple: int
    stride: int

    def padded(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size (H, W) of an image with its padding."""
        height, width = (-(-side // self.multiple) * self.multiple for side in size)
        return height, width

    def shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size (h, w) of the features of an image (H, W)."""
        height, width = self.padded(size)
        return height // self.stride, width // self.stride

    def labels(self, labels: Tensor, size: tuple[int, int], ignore_index: int) -> Tensor:
        """Return label maps at the size of the features, by the nearest rule: (B, h, w).

        Args:
            labels: (B, H', W'), of images that were scaled to ``size``; (B,) in classification stays.
            size: (H, W) of the images that the model sees, without padding.
            ignore_index: Label of the padding.
        """
        if labels.dim() == 1:
            return labels
        fitted = downsample_labels(labels, size)
        height, width = self.padded(size)
        whole = pad(fitted, (0, width - size[1], 0, height - size[0]), value=ignore_index)
        return downsample_labels(whole, self.shape(size))


def grid_of(model: nn.Module, in_channels: int) -> Grid:
    """Return how a model divides images; a small one of zeros goes through it, in eval mode.

    Args:
        model: Returns a ``ModelOutput``; ``multiple`` is 1 where it has none.
        in_channels: Of its images.
    """
    multiple = int(getattr(model, "multiple", 1))
    side = multiple * max(1, -(-64 // multiple))
    weight = next(iter(model.parameters()), torch.zeros(()))
    image = torch.zeros(1, in_channels, side, side, device=weight.device, dtype=weight.dtype)
    training = model.training
    model.eval()
    with torch.inference_mode():
        features = model(image).features
    model.train(training)
    return Grid(multiple, side // features.shape[2] if features.dim() == 4 else 0)
