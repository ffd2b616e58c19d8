"""The baseline that pulls features towards moving averages of their own class means.

Legend: C classes, D feature channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sarx.config.schema.regularizers import PrototypeEmaConfig
from sarx.regularizers.advance import is_recomputing
from sarx.regularizers.checks import align_labels, check_options, check_place, check_sizes, linear_map
from sarx.regularizers.distributed import global_sum, world_size
from sarx.regularizers.functional import (
    AnchorStatistics,
    anchor_statistics,
    class_counts,
    class_sums,
    ema_update,
    open_gates,
    pull_weights,
    weighted,
)
from sarx.regularizers.output import RegularizerOutput
from sarx.regularizers.pull import pull_loss

METRIC_KEYS = ("train/pull_loss", "train/prototypes_seen", "train/gate_open")


def move_prototypes(
    prototypes_CD: Tensor, seen_C: Tensor, sums_CD: Tensor, counts_C: Tensor, decay: float
) -> tuple[Tensor, Tensor]:
    """Return the prototypes after a batch and which classes have been seen, as new tensors.

    Args:
        prototypes_CD: (C, D) moving averages before the batch.
        seen_C: (C,) bool, where they hold anything.
        sums_CD: (C, D) sums over the pixels of each class in the batch of all ranks.
        counts_C: (C,) numbers of those pixels.
        decay: Weight of the old average.

    Returns:
        (C, D): the batch mean at first sight, then the blend; a class absent from the batch keeps its row.
        (C,) bool.
    """
    means_CD = sums_CD / counts_C.clamp(min=1)[:, None]
    present_C = counts_C > 0
    blended_CD = ema_update(prototypes_CD, means_CD, seen_C[:, None], decay)
    return torch.where(present_C[:, None], blended_CD, prototypes_CD), seen_C | present_C


def judge_prototypes(logits_CC: Tensor, seen_C: Tensor, gate: str, update_confidence: float) -> Tensor:
    """Return the (C,) bool of the classes whose pixels are pulled; never a class not seen yet.

    A prototype passes if the classifier gives it its own class with more than ``update_confidence``. ``all``
    opens for every seen class once all seen classes pass, ``per_class`` for the seen classes that pass.

    Args:
        logits_CC: (C, C); row c holds the logits of the prototype of class c.
        seen_C: (C,) bool; the rows of the other classes are not looked at.
        gate: ``all`` or ``per_class``.
        update_confidence: In [0, 1).
    """
    judged = anchor_statistics(logits_CC)
    confidence = judged.confidence.masked_fill(~seen_C, 1.0)
    judged = AnchorStatistics(judged.log_confidence, confidence, judged.correct | ~seen_C)
    return open_gates(judged, update_confidence, gate) & seen_C


class PrototypeEMA(nn.Module):
    """Pull towards M_c, a moving average of mu_c, the mean of the detached features of class c in the batch.

    M_c is mu_c when class c is first seen, then ema_decay M_c + (1 - ema_decay) mu_c; a class absent from
    the batch keeps its M_c. The update comes before the loss, pull_weight times the mean over all valid
    pixels of (1/D) ||f_i - M_{y_i}||^2. Batch, means and pixels are those of all ranks.

    With a gate other than ``none`` the pull acts only where SAR's condition holds for the prototypes: M_c
    through the classifier is argmax-correct with p_c > update_confidence, for every class seen so far
    (``all``) or for the pixels' own class (``per_class``). The mean stays over all valid pixels. Unlike
    SAR's, this gate does not hold the average still: nothing but new features changes M, so an M that rested
    while the gate is shut would be judged on features long outdated and could keep it shut for good.

    Attributes:
        prototypes: (C, D) M, zeros for classes not seen yet. Each step binds a new tensor.
        seen: (C,) bool.
    """

    prototypes: Tensor
    seen: Tensor

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        pull_weight: float = 0.1,
        ema_decay: float = 0.999,
        gate: str = "none",
        update_confidence: float = 0.8,
        ignore_index: int = 255,
    ) -> None:
        """Build empty prototypes; nothing is drawn at random.

        Args:
            num_classes: C.
            feature_dim: D.
            pull_weight: Weight of the pull loss.
            ema_decay: Weight of the old M_c, in [0, 1).
            gate: ``none``, ``all`` or ``per_class``.
            update_confidence: Confidence that a prototype must exceed; without a gate it does nothing.
            ignore_index: Label of pixels that do not count.

        Raises:
            ValueError: For an option out of range, naming it, its value and what is allowed.
        """
        super().__init__()
        check_sizes(num_classes, feature_dim, ignore_index)
        check_options(
            PrototypeEmaConfig,
            pull_weight=pull_weight,
            ema_decay=ema_decay,
            gate=gate,
            update_confidence=update_confidence,
        )
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.pull_weight = pull_weight
        self.ema_decay = ema_decay
        self.gate = gate
        self.update_confidence = update_confidence
        self.ignore_index = ignore_index
        self.register_buffer("prototypes", torch.zeros(num_classes, feature_dim))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    def forward(
        self, features: Tensor, labels: Tensor, classifier: nn.Module, *, advance: bool = True
    ) -> RegularizerOutput:
        """Return the weighted pull and, in train(), move the prototypes by one step.

        In eval() nothing is computed or changed: the loss and its metrics are 0.

        Args:
            features: (N, D) or (B, D, H, W).
            labels: (N,) or (B, H', W'), integer; a map is brought to (H, W) by the nearest rule.
            classifier: Judges the prototypes where there is a gate, an nn.Linear or 1x1 nn.Conv2d, D -> C;
                it gets no gradient.
            advance: False for the second and later micro-batches of one optimizer step: pulls to the
                prototypes as they are, classes not seen yet not at all, and moves nothing.

        Raises:
            ValueError: For shapes, labels or a classifier that do not fit.
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
            counts_C = global_sum(class_counts(labels, self.num_classes, self.ignore_index))
            moved_CD, seen_C = self.prototypes, self.seen
            if advance:
                moved_CD, seen_C = self._move(features.detach(), labels, counts_C)
            open_C = self._decide(moved_CD, seen_C, classifier)
            weights_C = pull_weights(counts_C, open_C, "pixel", ranks=world_size(), dtype=moved_CD.dtype)
            pull = pull_loss(features, labels, moved_CD, weights_C, ignore_index=self.ignore_index)
            loss = weighted(pull, self.pull_weight)
        if advance:
            self.prototypes, self.seen = moved_CD, seen_C
        return RegularizerOutput(loss, self._metrics(pull, seen_C, open_C))

    def _move(self, features: Tensor, labels: Tensor, counts_C: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (C, D) prototypes and the (C,) bool of the classes seen, both after this batch."""
        sums_CD = class_sums(features.to(self.prototypes.dtype), labels, self.num_classes, self.ignore_index)
        return move_prototypes(self.prototypes, self.seen, global_sum(sums_CD), counts_C, self.ema_decay)

    def _decide(self, prototypes_CD: Tensor, seen_C: Tensor, classifier: nn.Module) -> Tensor:
        """Return the (C,) bool of the classes whose pixels are pulled."""
        if self.gate == "none":
            return seen_C
        weight, bias = linear_map(classifier, self.num_classes, self.feature_dim)
        with torch.no_grad():
            dtype = prototypes_CD.dtype
            logits_CC = F.linear(prototypes_CD, weight.to(dtype), None if bias is None else bias.to(dtype))
            return judge_prototypes(logits_CC, seen_C, self.gate, self.update_confidence)

    def _metrics(self, pull: Tensor, seen_C: Tensor, open_C: Tensor) -> dict[str, Tensor]:
        """Return the detached scalars of ``METRIC_KEYS``.

        The unweighted pull, the share of classes seen and, of these, the share whose pixels are pulled.
        """
        dtype = self.prototypes.dtype
        share_open = open_C.sum() / seen_C.sum().clamp(min=1)
        values = (pull.detach().to(dtype), seen_C.to(dtype).mean(), share_open.to(dtype))
        return dict(zip(METRIC_KEYS, values, strict=True))
