"""The centre loss (Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition, 2016).

Legend: C classes, D feature channels, V the valid pixels of the batch of all ranks, n_j those of class j.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sarx.config.schema.regularizers import CenterLossConfig
from sarx.regularizers.advance import is_recomputing
from sarx.regularizers.checks import align_labels, check_options, check_place, check_sizes
from sarx.regularizers.distributed import global_sum, world_size
from sarx.regularizers.functional import class_counts, class_sums, pull_weights, weighted
from sarx.regularizers.output import RegularizerOutput
from sarx.regularizers.pull import pull_loss

METRIC_KEYS = ("train/pull_loss",)


def update_centres(centres_CD: Tensor, sums_CD: Tensor, counts_C: Tensor, alpha: float) -> Tensor:
    """Return the centres after a batch: c_j - alpha * sum over y_i = j of (c_j - f_i) / (1 + n_j).

    Args:
        centres_CD: (C, D) c.
        sums_CD: (C, D) sums of the features of each class.
        counts_C: (C,) n; a class without pixels keeps its centre.
        alpha: Rate of the centres, in [0, 1].

    Returns:
        (C, D), a new tensor.
    """
    counts_C1 = counts_C[:, None].to(centres_CD.dtype)
    return centres_CD - alpha * (counts_C1 * centres_CD - sums_CD) / (1.0 + counts_C1)


class CenterLoss(nn.Module):
    """Pull towards class centres that move by a rule of their own, at a rate of their own.

    The loss of step t is pull_weight * 1/2 * mean over V of (1/D) ||f_i - c^t_{y_i}||^2 with the centres of
    before the batch; then c^{t+1}_j = c^t_j - alpha * sum over y_i = j of (c^t_j - f_i) / (1 + n_j), which no
    gradient enters (equations 2 to 4 and Algorithm 1 of the paper, ECCV 2016).

    Deviations. The paper sums over the batch, cross-entropy and centre loss alike; here both are means, which
    leaves their ratio as published. The 1/D is not in the paper; it makes one weight mean the same pull per
    channel at every D, as for the other regularizers. The paper leaves the initial centres open and its
    released code fills them with small random numbers (Xavier); here they start at 0, so that nothing is
    drawn: of the start about (1 - alpha)^k is left after a class was in k batches.

    Published values: alpha .5 and lambda .003 (faces, D = 512). Because of the 1/D, a lambda is a pull_weight
    of lambda * D; the default 1.536 is .003 * 512. (The released code trains faces with .008 and digits with
    .01, and moves the centres by gradient descent at the network's learning rate.)

    Attributes:
        centres: (C, D), the centres that the latest step pulled to. Each step binds a new tensor.
        next_centres: (C, D), those that the next step pulls to. Kept apart, so that further micro-batches of
            a step and forwards repeated by activation checkpointing pull to the same centres as the first.
    """

    centres: Tensor
    next_centres: Tensor

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        pull_weight: float = 1.536,
        alpha: float = 0.5,
        ignore_index: int = 255,
    ) -> None:
        """Build centres at the origin; nothing is drawn at random.

        Args:
            num_classes: C.
            feature_dim: D.
            pull_weight: Weight of the loss; lambda * D in the paper's terms.
            alpha: Rate of the centres, in [0, 1].
            ignore_index: Label of pixels that do not count.

        Raises:
            ValueError: For an option out of range, naming it, its value and what is allowed.
        """
        super().__init__()
        check_sizes(num_classes, feature_dim, ignore_index)
        check_options(CenterLossConfig, pull_weight=pull_weight, alpha=alpha)
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.pull_weight = pull_weight
        self.alpha = alpha
        self.ignore_index = ignore_index
        self.register_buffer("centres", torch.zeros(num_classes, feature_dim))
        self.register_buffer("next_centres", torch.zeros(num_classes, feature_dim))

    def forward(
        self, features: Tensor, labels: Tensor, classifier: nn.Module, *, advance: bool = True
    ) -> RegularizerOutput:
        """Return the weighted loss and, in train(), move the centres by one step.

        In eval() nothing is computed or changed: the loss and its metric are 0.

        Args:
            features: (N, D) or (B, D, H, W).
            labels: (N,) or (B, H', W'), integer; a map is brought to (H, W) by the nearest rule.
            classifier: Not used; every regularizer is called alike.
            advance: False for the second and later micro-batches of one optimizer step: pulls to the same
                centres as the first one, and moves nothing.

        Raises:
            ValueError: For shapes or labels that do not fit.
        """
        if not self.training:
            zero = self.centres.new_zeros(())
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
            centres_CD = self.next_centres if advance else self.centres
            weights_C = pull_weights(
                counts_C, counts_C > 0, "pixel", ranks=world_size(), dtype=centres_CD.dtype
            )
            pull = pull_loss(features, labels, centres_CD, 0.5 * weights_C, ignore_index=self.ignore_index)
            loss = weighted(pull, self.pull_weight)
            if advance:
                moved_CD = self._move(features.detach(), labels, centres_CD, counts_C)
                self.centres, self.next_centres = centres_CD, moved_CD
        return RegularizerOutput(loss, {"train/pull_loss": pull.detach()})

    def _move(self, features: Tensor, labels: Tensor, centres_CD: Tensor, counts_C: Tensor) -> Tensor:
        """Return the (C, D) centres after this batch."""
        sums_CD = class_sums(features.to(centres_CD.dtype), labels, self.num_classes, self.ignore_index)
        return update_centres(centres_CD, global_sum(sums_CD), counts_C, self.alpha)
