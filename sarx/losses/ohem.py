"""Online hard example mining over pixels.

Sources: Shrivastava, Gupta and Girshick, "Training region-based object detectors with online hard example
mining", CVPR 2016, which keeps the regions of the highest loss; in segmentation the usual rule keeps pixels
below a probability of .7 and at least 100,000 of them (mmsegmentation's example for two crops of 512 x 1024
on a GPU).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sarx.config.schema.loss import OhemConfig
from sarx.losses.normalise import count, normalise, over_ranks


def hard_pixels(losses: Tensor, ignored: Tensor, *, threshold: float, min_kept_share: float) -> Tensor:
    """Return which pixels count: p_y = exp(-loss) below ``threshold``, and at least the hardest ones.

    The hardest are the max(1, round(min_kept_share * V)) valid pixels of the largest loss, V being the
    number of valid pixels; of equal losses the earlier pixel comes first. A loss that is not a number is the
    largest, so that a diverged batch stays visible. Nothing is read from the device.

    Args:
        losses: Cross-entropy of every pixel, any shape.
        ignored: Bool of the same shape: pixels that never count.
        threshold: In (0, 1]; 1 keeps all but pixels of probability exactly 1.
        min_kept_share: In [0, 1].

    Returns:
        Bool of the same shape.
    """
    hardness = losses.detach().masked_fill(ignored, -torch.inf).flatten()
    order = hardness.argsort(descending=True, stable=True)
    ranks = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    at_least = ((~ignored).sum().double() * min_kept_share).round().clamp(min=1.0)
    kept = ((-hardness).exp() < threshold) | (ranks < at_least)
    return kept.view_as(ignored) & ~ignored


class OhemCrossEntropy(nn.Module):
    """Mean of the cross-entropy over the hard pixels: sum over H of -log p_y, divided by |H|.

    H is what ``hard_pixels`` keeps of the valid pixels. Each rank chooses among its own pixels, so the least
    number that is kept holds on every rank; the mean is over what all ranks keep. Which pixels of a
    micro-batch are hard is known only once it is computed, so under gradient accumulation each micro-batch
    has its own mean, weighted by its share of the step's valid pixels. Without a valid pixel the loss is 0.

    Deviations: the least number of pixels is a share of the valid ones instead of 100,000, so that it means
    the same at every crop and batch size (100,000 of two crops of 512 x 1024 are .095; mmsegmentation counts
    them per image, .19), and exactly the hardest are kept where its rule keeps those strictly below the
    probability of the next one. The mean is over kept pixels, where mmsegmentation divides by all pixels.
    CVPR 2016 mines regions of one image and has no threshold.

    Attributes:
        prediction_adjustment: None: predictions use the bare logits.
    """

    prediction_adjustment: Tensor | None = None

    def __init__(
        self, *, threshold: float = 0.7, min_kept_share: float = 0.1, ignore_index: int = 255
    ) -> None:
        """Keep the options.

        Raises:
            ValueError: For an option out of range, naming it.
        """
        super().__init__()
        options = OhemConfig(threshold=threshold, min_kept_share=min_kept_share)
        self.threshold = options.threshold
        self.min_kept_share = options.min_kept_share
        self.ignore_index = ignore_index

    def normaliser(self, labels: Tensor) -> Tensor:
        """Return what the labels (N,) or (B, H, W) of this rank add to the divisor: scalar."""
        return count(labels, self.ignore_index)

    def forward(self, logits: Tensor, labels: Tensor, whole: Tensor | None = None) -> Tensor:
        """Return the scalar loss of logits (N, C) or (B, C, H, W) and labels (N,) or (B, H, W)."""
        losses = F.cross_entropy(logits, labels, ignore_index=self.ignore_index, reduction="none")
        kept = hard_pixels(
            losses,
            labels == self.ignore_index,
            threshold=self.threshold,
            min_kept_share=self.min_kept_share,
        )
        total = losses.masked_fill(~kept, 0.0).sum()
        if whole is None:
            return normalise(total, kept.sum())
        sums, _ = over_ranks(torch.stack([kept.sum(), count(labels, self.ignore_index)]), total)
        share = sums[1].to(total.dtype) / whole.to(total.dtype).masked_fill(whole == 0, 1.0)
        return normalise(total, kept.sum(), sums[0]) * share
