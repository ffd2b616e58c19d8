"""A contrast of pixels against class prototypes, beside the linear classifier.

Legend: C classes, D feature channels, V the valid pixels of the batch of all ranks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sarx.config.schema.regularizers import PixelPrototypeContrastConfig
from sarx.regularizers.advance import is_recomputing
from sarx.regularizers.checks import align_labels, check_options, check_place, check_sizes
from sarx.regularizers.distributed import global_sum, world_size
from sarx.regularizers.functional import class_counts, class_sums, weighted
from sarx.regularizers.output import RegularizerOutput
from sarx.regularizers.prototype_ema import move_prototypes

METRIC_KEYS = ("train/contrast_loss", "train/prototypes_seen")
SHORTEST = 1e-6
"""Features at most this long have no direction: cosine 0 with everything, and no gradient."""


def class_products(features: Tensor, vectors_CD: Tensor) -> Tensor:
    """Return the inner product of every pixel with every row, without a copy of the features.

    Args:
        features: (N, D) or (B, D, H, W).
        vectors_CD: (C, D).

    Returns:
        (N, C) or (B, C, H, W).
    """
    if features.dim() == 2:
        return torch.mm(features, vectors_CD.T)
    stack = vectors_CD.expand(features.shape[0], *vectors_CD.shape)
    products = torch.bmm(stack, features.flatten(start_dim=2))
    return products.view(*products.shape[:2], *features.shape[2:])


def inverse_lengths(features: Tensor, ignored: Tensor) -> Tensor:
    """Return 1 / ||f_i|| of every pixel, 0 (with gradient 0) where it is ignored or has no direction.

    Args:
        features: (N, D) or (B, D, H, W).
        ignored: (N,) or (B, H, W) bool.

    Returns:
        (N,) or (B, H, W).
    """
    result: Tensor = _InverseLengths.apply(features, ignored)
    return result


def contrast_loss(
    features: Tensor,
    labels: Tensor,
    prototypes_CD: Tensor,
    seen_C: Tensor,
    *,
    temperature: float,
    ignore_index: int,
) -> Tensor:
    """Return the sum over the pixels of seen classes of -log softmax(cos(f_i, m_c) / temperature)_{y_i}.

    The softmax is over the seen classes. Ignored pixels have no gradient, whatever their features are.

    Args:
        features: (N, D) or (B, D, H, W), in the prototypes' precision.
        labels: (N,) or (B, H, W) int64; every label is ``ignore_index`` or in [0, C).
        prototypes_CD: (C, D) without gradient, of any length.
        seen_C: (C,) bool.
        temperature: Above 0.
        ignore_index: Label of the pixels that do not count.

    Returns:
        Scalar.
    """
    ignored = labels == ignore_index
    scales = inverse_lengths(features, ignored) / temperature
    products = class_products(features, F.normalize(prototypes_CD, dim=1))
    logits = products.masked_fill(ignored.unsqueeze(1), 0.0) * scales.unsqueeze(1)
    unseen = ~seen_C.view(-1, *[1] * (features.dim() - 2))
    logits = logits.masked_fill(unseen, torch.finfo(logits.dtype).min)
    known = seen_C[labels.masked_fill(ignored, 0)] & ~ignored
    return F.cross_entropy(
        logits, labels.masked_fill(~known, ignore_index), ignore_index=ignore_index, reduction="sum"
    )


class PixelPrototypeContrast(nn.Module):
    """InfoNCE of the features against one moving-average prototype per class; the classifier stays linear.

    m_c averages nu_c, the mean over the batch's pixels of class c of f_i / ||f_i||, without gradient: nu_c at
    first sight, then ema_decay m_c + (1 - ema_decay) nu_c; a class absent from the batch keeps its m_c. After
    this update the loss is contrast_weight * mean over V of -log(exp(s_{i,y_i}) / sum over the classes c seen
    so far of exp(s_{i,c})) with s_{i,c} = cos(f_i, m_c) / temperature.

    This is not ProtoSeg (Zhou et al., CVPR 2022), which has no linear classifier: it classifies by the
    nearest of 10 prototypes per class behind a projection head, assigned by Sinkhorn iterations. Taken from
    it are the cross-entropy over cosines to prototypes and the momentum .999. Nor is it ContrastiveSeg (Wang
    et al., ICCV 2021), which contrasts 256-channel projections of sampled pixels with each other, from
    iteration 5000 on. Taken from it are the place beside a linear classifier and, as the published values,
    weight .1 and temperature .1, from its released configuration of HRNet-W48 on Cityscapes (whose further
    factor .1 / .07 is left out). Here there is no projection head: the features that enter the classifier are
    contrasted themselves, all of them, from the first step on.

    Attributes:
        prototypes: (C, D) m, zeros for classes not seen yet. Each step binds a new tensor.
        seen: (C,) bool.
    """

    prototypes: Tensor
    seen: Tensor

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        contrast_weight: float = 0.1,
        temperature: float = 0.1,
        ema_decay: float = 0.999,
        ignore_index: int = 255,
    ) -> None:
        """Build empty prototypes; nothing is drawn at random.

        Args:
            num_classes: C.
            feature_dim: D.
            contrast_weight: Weight of the contrast.
            temperature: Divides the cosines.
            ema_decay: Weight of the old m_c, in [0, 1).
            ignore_index: Label of pixels that do not count.

        Raises:
            ValueError: For an option out of range, naming it, its value and what is allowed.
        """
        super().__init__()
        check_sizes(num_classes, feature_dim, ignore_index)
        check_options(
            PixelPrototypeContrastConfig,
            contrast_weight=contrast_weight,
            temperature=temperature,
            ema_decay=ema_decay,
        )
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.contrast_weight = contrast_weight
        self.temperature = temperature
        self.ema_decay = ema_decay
        self.ignore_index = ignore_index
        self.register_buffer("prototypes", torch.zeros(num_classes, feature_dim))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    def forward(
        self, features: Tensor, labels: Tensor, classifier: nn.Module, *, advance: bool = True
    ) -> RegularizerOutput:
        """Return the weighted contrast and, in train(), move the prototypes by one step.

        In eval() nothing is computed or changed: the loss and its metrics are 0.

        Args:
            features: (N, D) or (B, D, H, W).
            labels: (N,) or (B, H', W'), integer; a map is brought to (H, W) by the nearest rule.
            classifier: Not used; every regularizer is called alike.
            advance: False for the second and later micro-batches of one optimizer step: contrasts with the
                prototypes as they are, pixels of classes not seen yet not at all, and moves nothing.

        Raises:
            ValueError: For shapes or labels that do not fit.
        """
        if not self.training:
            zero = self.prototypes.new_zeros(())
            return RegularizerOutput(zero, dict.fromkeys(METRIC_KEYS, zero.clone()))
        advance = advance and not is_recomputing()
        check_place(self)
        labels = align_labels(
            features,
            labels,
            num_classes=self.num_classes,
            feature_dim=self.feature_dim,
            ignore_index=self.ignore_index,
        )
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.prototypes.dtype)
            counts_C = global_sum(class_counts(labels, self.num_classes, self.ignore_index))
            moved_CD, seen_C = self.prototypes, self.seen
            if advance:
                moved_CD, seen_C = self._move(features.detach(), labels, counts_C)
            total = contrast_loss(
                features,
                labels,
                moved_CD,
                seen_C,
                temperature=self.temperature,
                ignore_index=self.ignore_index,
            )
            contrast = total * (world_size() / counts_C.sum().clamp(min=1).to(total.dtype))
            loss = weighted(contrast, self.contrast_weight)
        if advance:
            self.prototypes, self.seen = moved_CD, seen_C
        values = (contrast.detach(), seen_C.to(contrast.dtype).mean())
        return RegularizerOutput(loss, dict(zip(METRIC_KEYS, values, strict=True)))

    def _move(self, features: Tensor, labels: Tensor, counts_C: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (C, D) prototypes and the (C,) bool of the classes seen, both after this batch."""
        directions = features * inverse_lengths(features, labels == self.ignore_index).unsqueeze(1)
        sums_CD = global_sum(class_sums(directions, labels, self.num_classes, self.ignore_index))
        return move_prototypes(self.prototypes, self.seen, sums_CD, counts_C, self.ema_decay)


class _InverseLengths(torch.autograd.Function):
    """Keeps no copy of the features, and no gradient of a pixel that has none."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, ignored: Tensor) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(features, dim=1)
        inverse: Tensor = lengths.reciprocal().masked_fill(ignored | ~(lengths > SHORTEST), 0.0)
        ctx.save_for_backward(features, inverse)
        return inverse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, inverse = ctx.saved_tensors
        slopes = (-gradients[0] * inverse**3).unsqueeze(1)
        return (features * slopes).masked_fill((inverse == 0).unsqueeze(1), 0.0), None
