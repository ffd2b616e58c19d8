"""ProtoSeg: prototypes that the pixels assigned to them move, and the two losses around them.

Source: Zhou et al., "Rethinking semantic segmentation: a prototype view", CVPR 2022 (arXiv 2203.15102), and
observations of its released implementation. Legend: C classes, K prototypes per class, D feature channels, N
pixels of a batch in one row.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sarx.config.schema.regularizers.protoseg import ProtoSegConfig
from sarx.regularizers.advance import is_recomputing
from sarx.regularizers.checks import align_labels, check_options, check_sizes
from sarx.regularizers.distributed import global_sum, world_size
from sarx.regularizers.functional import weighted
from sarx.regularizers.output import RegularizerOutput

METRIC_KEYS = ("train/prototype_contrast", "train/prototype_distance", "train/prototypes_used")
SINKHORN_STEPS = 3
SINKHORN_EPSILON = 0.05
"""As released: alternating normalisations, and the temperature of what they start from."""


def assign(cosines_NK: Tensor, rows: Tensor, num_classes: int) -> Tensor:
    """Return which prototype of its class each pixel belongs to, every prototype taking an equal share.

    Q_ik starts at exp(cos_ik / .05); three times each prototype's column is divided by its sum over the
    pixels of the class, then each pixel's row by its sum (Sinkhorn-Knopp). The answer is the largest entry
    of each row. Sums are over the batch of all ranks.

    Args:
        cosines_NK: Cosines of each pixel with the prototypes of its class.
        rows: (N,) int64 class of each pixel in [0, C]; the pixels of row C are on their own.
        num_classes: C.

    Returns:
        (N,) int64 in [0, K).
    """
    share_NK = ((cosines_NK.clamp(-1.0, 1.0) - 1.0) / SINKHORN_EPSILON).exp()  # the factor e^-20 cancels
    for _ in range(SINKHORN_STEPS):
        sums = share_NK.new_zeros(num_classes + 1, share_NK.shape[1]).index_add(0, rows, share_NK)
        share_NK = share_NK / global_sum(sums)[rows]
        share_NK = share_NK / share_NK.sum(dim=1, keepdim=True)
    return share_NK.argmax(dim=1)


def move(prototypes_CKD: Tensor, features_ND: Tensor, slots: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """Return the prototypes after a step, and which of them were moved.

    p becomes decay p + (1 - decay) m / |m|, divided by its length, where m is the sum over all ranks of the
    features assigned to it; a prototype without a pixel stays.

    Args:
        prototypes_CKD: (C, K, D) of length 1.
        features_ND: (N, D) without gradient.
        slots: (N,) int64 in [0, C K]: c K + k, or C K for a pixel that moves nothing.
        decay: Weight of the old prototype.

    Returns:
        (C, K, D) of length 1 and (C, K) bool.
    """
    sizes = prototypes_CKD.shape
    sums = features_ND.new_zeros(sizes[0] * sizes[1] + 1, sizes[2]).index_add(0, slots, features_ND)
    counts = slots.new_zeros(len(sums)).index_add(0, slots, torch.ones_like(slots))
    directions = F.normalize(global_sum(sums)[:-1].view(sizes), dim=-1)
    used = global_sum(counts)[:-1].view(sizes[:2]) > 0
    moved_CKD = F.normalize(decay * prototypes_CKD + (1.0 - decay) * directions, dim=-1)
    return torch.where(used[..., None], moved_CKD, prototypes_CKD), used


class PrototypeBased(Protocol):
    """What a classifier must offer: K prototypes per class, and its decision in two steps.

    Attributes:
        prototypes: (C, K, D) of length 1, a buffer.
    """

    prototypes: Tensor

    def current(self) -> Tensor:
        """Return the prototypes of this forward: earlier ones where checkpointing repeats an earlier one."""
        ...

    def move_to(self, prototypes: Tensor) -> None:
        """End a training forward: bind the prototypes of the next one."""
        ...

    def cosines(self, features: Tensor) -> Tensor:
        """Return (N, C, K) cosines of features (N, D) with every prototype, with gradient on the features."""
        ...

    def decide(self, cosines: Tensor) -> Tensor:
        """Return the logits (N, C) of cosines (N, C, K)."""
        ...


class ProtoSeg(nn.Module):
    """Prototype contrast and distance, and one move of the classifier's prototypes per training step.

    With s_ick = <f_i, p_ck> and k_i the prototype that ``assign`` gives pixel i among those of its class y_i:
    contrast = mean over valid i of the cross-entropy of softmax over (c, k) of s_ick / temperature at
    (y_i, k_i); distance = mean over valid i of (1 - s_{i y_i k_i})^2; loss = contrast_weight contrast +
    distance_weight distance. Both read the prototypes from before the step; only the features get a gradient.
    Then each prototype moves (``move``) to the pixels assigned to it that the classifier gets right.

    Published: .01, .001, temperature .1 (the released contrast has none, that is 1), decay .999.

    Deviations from the release: the pixels that move a prototype are those of the largest Sinkhorn entry, as
    in both losses, where the release draws them by Gumbel noise around it; sums over pixels, in assignment,
    move and means, are over the global batch instead of per rank with prototypes averaged afterwards. As
    released, all labelled pixels are assigned and enter the losses, and only correct ones move prototypes.
    There is no per-class loop and nothing is read from the device. Memory: N C K cosines, as released.

    Attributes:
        num_classes: C.
        feature_dim: D.
    """

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        contrast_weight: float = 0.01,
        distance_weight: float = 0.001,
        temperature: float = 0.1,
        ema_decay: float = 0.999,
        ignore_index: int = 255,
    ) -> None:
        """Keep the options; the prototypes belong to the classifier.

        Args:
            num_classes: C.
            feature_dim: D.
            contrast_weight: Weight of the contrast.
            distance_weight: Weight of the distance.
            temperature: Divides the cosines in the contrast.
            ema_decay: Weight of the old prototype, in [0, 1).
            ignore_index: Label of pixels that do not count.

        Raises:
            ValueError: For an option out of range, naming it, its value and what is allowed.
        """
        super().__init__()
        check_sizes(num_classes, feature_dim, ignore_index)
        check_options(
            ProtoSegConfig,
            contrast_weight=contrast_weight,
            distance_weight=distance_weight,
            temperature=temperature,
            ema_decay=ema_decay,
        )
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.contrast_weight = contrast_weight
        self.distance_weight = distance_weight
        self.temperature = temperature
        self.ema_decay = ema_decay
        self.ignore_index = ignore_index

    def forward(
        self, features: Tensor, labels: Tensor, classifier: nn.Module, *, advance: bool = True
    ) -> RegularizerOutput:
        """Return the weighted loss and, in train(), move the classifier's prototypes by one step.

        In eval() nothing is computed or changed: the loss and all metrics are 0. Nothing moves either while
        activation checkpointing repeats the last forward.

        Args:
            features: (N, D) or (B, D, H, W), every pixel of length 1.
            labels: (N,) or (B, H', W'), integer; a map is brought to (H, W) by the nearest rule.
            classifier: The task's classifier, ``PrototypeBased``.
            advance: False computes the same loss and moves nothing.

        Raises:
            ValueError: For shapes, labels or a classifier that do not fit.
        """
        if not self.training:
            zero = features.new_zeros(())
            return RegularizerOutput(zero, dict.fromkeys(METRIC_KEYS, zero))
        labels = align_labels(
            features,
            labels,
            num_classes=self.num_classes,
            feature_dim=self.feature_dim,
            ignore_index=self.ignore_index,
        )
        based = self._check_classifier(classifier)
        with torch.autocast(features.device.type, enabled=False):
            features_ND = features.movedim(1, -1).flatten(end_dim=-2).to(based.prototypes.dtype)
            return self._step(features_ND, labels.flatten(), based, advance)

    def _step(
        self, features_ND: Tensor, labels: Tensor, classifier: PrototypeBased, advance: bool
    ) -> RegularizerOutput:
        prototypes_CKD = classifier.current()
        per_class = prototypes_CKD.shape[1]
        valid = labels != self.ignore_index
        classes = labels.masked_fill(~valid, 0)
        features_ND = features_ND.masked_fill(~valid[:, None], 0.0)
        cosines_NCK = classifier.cosines(features_ND)
        with torch.no_grad():
            own_NK = cosines_NCK.take_along_dim(classes[:, None, None], dim=1)[:, 0]
            chosen = assign(own_NK, labels.masked_fill(~valid, self.num_classes), self.num_classes)
            targets = classes * per_class + chosen
            correct = valid & (classifier.decide(cosines_NCK).argmax(dim=1) == classes)
            slots = targets.masked_fill(~correct, self.num_classes * per_class)
            moved_CKD, used = move(prototypes_CKD, features_ND.detach(), slots, self.ema_decay)
        flat = cosines_NCK.flatten(start_dim=1)
        count = global_sum(valid.sum()).clamp(min=1)
        contrasts = F.cross_entropy(flat / self.temperature, targets, reduction="none")
        contrast = contrasts.masked_fill(~valid, 0.0).sum() * world_size() / count
        distances = (1.0 - flat.take_along_dim(targets[:, None], dim=1)[:, 0]).square()
        distance = distances.masked_fill(~valid, 0.0).sum() * world_size() / count
        loss = weighted(contrast, self.contrast_weight) + weighted(distance, self.distance_weight)
        if not is_recomputing():
            classifier.move_to(moved_CKD if advance else prototypes_CKD)
        values = (contrast.detach(), distance.detach(), used.to(loss.dtype).mean())
        return RegularizerOutput(loss, dict(zip(METRIC_KEYS, values, strict=True)))

    def _check_classifier(self, classifier: nn.Module) -> PrototypeBased:
        """Refuse a classifier without prototypes, or with those of another size."""
        prototypes = getattr(classifier, "prototypes", None)
        if not isinstance(prototypes, Tensor):
            name = type(classifier).__name__
            raise ValueError(f"classifier: {name} has no prototypes; it needs model.classifier: prototypes")
        shape = tuple(prototypes.shape)
        if len(shape) != 3 or (shape[0], shape[2]) != (self.num_classes, self.feature_dim):
            wanted = f"({self.num_classes}, K, {self.feature_dim})"
            raise ValueError(f"classifier: prototypes of shape {shape} are not {wanted}")
        return cast(PrototypeBased, classifier)
