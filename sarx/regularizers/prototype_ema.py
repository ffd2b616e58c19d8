"""The baseline that pulls features towards moving averages of their own class means.

Legend: C classes, D feature channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sarx.config.schema.regularizers import PrototypeEmaConfig
from sarx.regularizers.checks import align_labels, check_options, check_sizes
from sarx.regularizers.functional import class_means, ema_update, pull_loss, weighted
from sarx.regularizers.output import RegularizerOutput

METRIC_KEYS = ("train/pull_loss", "train/prototypes_seen")


class PrototypeEMA(nn.Module):
    """Pull towards M_c, a moving average of mu_c, the mean of the detached features of class c in the batch.

    M_c is mu_c when class c is first seen, then ema_decay M_c + (1 - ema_decay) mu_c; a class absent from
    the batch keeps its M_c. The update comes before the loss, pull_weight times the mean over valid pixels
    of (1/D) ||f_i - M_{y_i}||^2.

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
        ignore_index: int = 255,
    ) -> None:
        """Build empty prototypes; nothing is drawn at random.

        Args:
            num_classes: C.
            feature_dim: D.
            pull_weight: Weight of the pull loss.
            ema_decay: Weight of the old M_c, in [0, 1).
            ignore_index: Label of pixels that do not count.

        Raises:
            ValueError: For an option out of range, naming it, its value and what is allowed.
        """
        super().__init__()
        check_sizes(num_classes, feature_dim)
        check_options(PrototypeEmaConfig, pull_weight=pull_weight, ema_decay=ema_decay)
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.pull_weight = pull_weight
        self.ema_decay = ema_decay
        self.ignore_index = ignore_index
        self.register_buffer("prototypes", torch.zeros(num_classes, feature_dim))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    def forward(
        self, features: Tensor, labels: Tensor, classifier: nn.Module, *, advance: bool = True
    ) -> RegularizerOutput:
        """Return the weighted pull and, in train(), move the prototypes by one step.

        In eval() nothing is computed or changed: the loss and its metric are 0.

        Args:
            features: (N, D) or (B, D, H, W).
            labels: (N,) or (B, H', W'), integer; a map is brought to (H, W) by the nearest rule.
            classifier: Not used; every regularizer is called alike.

        Raises:
            ValueError: For shapes or labels that do not fit.
        """
        if not self.training:
            zero = self.prototypes.new_zeros(())
            return RegularizerOutput(zero, self._metrics(zero))
        labels = align_labels(
            features,
            labels,
            num_classes=self.num_classes,
            feature_dim=self.feature_dim,
            ignore_index=self.ignore_index,
        )
        with torch.autocast(features.device.type, enabled=False):
            moved_CD, present = self._move(features.detach().to(self.prototypes.dtype), labels)
            pull = pull_loss(features, labels, moved_CD, self.ignore_index)
            loss = weighted(pull, self.pull_weight)
        self.prototypes = moved_CD
        self.seen = self.seen | present
        return RegularizerOutput(loss, self._metrics(pull))

    def _move(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (C, D) prototypes after this batch and the (C,) bool of the classes in it."""
        means_CD, counts = class_means(features, labels, self.num_classes, self.ignore_index)
        present = counts > 0
        moved_CD = ema_update(self.prototypes, means_CD, self.seen[:, None], self.ema_decay)
        return torch.where(present[:, None], moved_CD, self.prototypes), present

    def _metrics(self, pull: Tensor) -> dict[str, Tensor]:
        """Return the detached scalars of ``METRIC_KEYS``: the unweighted pull, the share of classes seen."""
        dtype = self.prototypes.dtype
        values = (pull.detach().to(dtype), self.seen.to(dtype).mean())
        return dict(zip(METRIC_KEYS, values, strict=True))
