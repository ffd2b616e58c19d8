"""Class-Aware Regularization (Huang et al., CAR, ECCV 2022, arXiv 2203.07160, and its released code).

Legend: C classes, D feature channels, V the valid pixels of the batch of all ranks, P the classes among them,
mu_c the mean feature of class c over V, stop(.) without gradient, [x]+ = max(x, 0).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sarx.config.schema.regularizers import CarConfig
from sarx.regularizers.checks import align_labels, check_options, check_sizes
from sarx.regularizers.distributed import global_sum, global_sum_with_gradient
from sarx.regularizers.functional import class_counts, class_sums, weighted
from sarx.regularizers.output import RegularizerOutput
from sarx.regularizers.pixel_prototype_contrast import class_products

METRIC_KEYS = ("train/intra_loss", "train/inter_centre_loss", "train/inter_pixel_loss")
CENTRE_THRESHOLD = 0.5
PIXEL_THRESHOLD = 0.25
"""Published; each divided by C - 1 is what one other class may have of a softmax before it costs."""


def deviation_sum(features: Tensor, labels: Tensor, centres_CD: Tensor, ignore_index: int) -> Tensor:
    """Return the sum over valid pixels of the mean over channels of |mu_{y_i} - f_i|.

    Args:
        features: (N, D) or (B, D, H, W).
        labels: (N,) or (B, H, W) int64; every label is ``ignore_index`` or in [0, C).
        centres_CD: (C, D) mu without gradient.
        ignore_index: Label of the pixels that do not count.

    Returns:
        Scalar; ignored pixels have no gradient, whatever their features are.
    """
    ignored = labels == ignore_index
    differences = features - centres_CD[labels.masked_fill(ignored, 0)].movedim(-1, 1)
    return differences.masked_fill_(ignored.unsqueeze(1), 0.0).abs().mean(dim=1).sum()


def excess_sum(
    features: Tensor, labels: Tensor, centres_CD: Tensor, present_C: Tensor, ignore_index: int
) -> Tensor:
    """Return the sum over valid pixels of what other classes' centres have of the pixel beyond the threshold.

    Args:
        features: (N, D) or (B, D, H, W).
        labels: (N,) or (B, H, W) int64; every label is ``ignore_index`` or in [0, C).
        centres_CD: (C, D) mu without gradient.
        present_C: (C,) bool, the classes P.
        ignore_index: Label of the pixels that do not count.

    Returns:
        Scalar: the sum over i, and over c in P with c != y_i, of [softmax_P(a_i)_c - .25 / (C - 1)]+ where
        a_ic = f_i . mu_c / sqrt(D), but mu_c . mu_c / sqrt(D) for c = y_i. Ignored pixels have no gradient,
        whatever their features are.
    """
    classes, width = centres_CD.shape
    shape = (-1, *[1] * (features.dim() - 2))
    ignored = (labels == ignore_index).unsqueeze(1)
    own = labels.unsqueeze(1) == torch.arange(classes, device=labels.device).view(shape)
    products = class_products(features, centres_CD).masked_fill(ignored, 0.0)
    affinity = torch.where(own, centres_CD.square().sum(dim=1).view(shape), products) / width**0.5
    affinity = affinity.masked_fill(~present_C.view(shape), torch.finfo(affinity.dtype).min)
    others = affinity.softmax(dim=1).masked_fill(own | ignored, 0.0)
    total: Tensor = (others - PIXEL_THRESHOLD / max(classes - 1, 1)).relu().sum()
    return total


def centre_excess(centres_CD: Tensor, present_C: Tensor) -> Tensor:
    """Return the mean over the classes P of what the other centres have of a centre beyond the threshold.

    Args:
        centres_CD: (C, D) mu with gradient.
        present_C: (C,) bool, the classes P.

    Returns:
        Scalar: the mean over c in P of the sum over k in P, k != c, of [softmax_P(a_c)_k - .5 / (C - 1)]+
        where a_ck = mu_c . stop(mu_k) / sqrt(D); 0 without a class.
    """
    classes, width = centres_CD.shape
    affinity = centres_CD @ centres_CD.detach().T / width**0.5
    affinity = affinity.masked_fill(~present_C, torch.finfo(affinity.dtype).min)
    absent = ~present_C[:, None] | torch.eye(classes, dtype=torch.bool, device=present_C.device)
    others = affinity.softmax(dim=1).masked_fill(absent, 0.0)
    excess: Tensor = (others - CENTRE_THRESHOLD / max(classes - 1, 1)).relu().sum()
    return excess / present_C.sum().clamp(min=1)


class ClassAwareRegularization(nn.Module):
    """Compact classes, and centres and pixels away from other classes' centres.

    The loss is the weighted sum of three squares, softmax_P being the softmax over the classes P alone:

    - intra: the mean over V and channels of |stop(mu_{y_i}) - f_i|;
    - inter_centre: the mean over c in P of the sum over k in P, k != c, of
      [softmax_P(mu_c . stop(mu) / sqrt(D))_k - .5 / (C - 1)]+;
    - inter_pixel: the mean over V of the sum over c in P, c != y_i, of
      [softmax_P(a_i / sqrt(D))_c - .25 / (C - 1)]+ with a_ic = f_i . stop(mu_c), but the constant
      mu_c . mu_c for c = y_i.

    Published weights: 1 each, with all three terms on. Nothing is kept from step to step.

    Deviations from the released code. It puts a linear 1x1 layer (D to at most 512 channels, with bias) into
    the network and regularizes what that layer gives; in its published configuration a further 1x1
    convolution, normalisation and ReLU come between that and the classifier. A regularizer here cannot change
    the network: it acts on the features that enter the classifier, as all others do. Absent classes are left
    out of both softmaxes and of the mean; there they stay in, with centres at 0. Ignored pixels do not count;
    there they count as deviation 0 in the first term and as pixels without an own class in the third. Each
    square is of a mean over all ranks; there of each replica's, with centres over all replicas. The code's
    clipping (the first term to at least 1e-5, sums inside (1e-7, 1 - 1e-7) in the others) is left out.

    Attributes:
        zero: Scalar; the device and precision of the module, which other regularizers' state has.
    """

    zero: Tensor

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        intra_weight: float = 1.0,
        inter_centre_weight: float = 1.0,
        inter_pixel_weight: float = 1.0,
        ignore_index: int = 255,
    ) -> None:
        """Check the options; there is nothing to build.

        Args:
            num_classes: C.
            feature_dim: D.
            intra_weight: Weight of the pixels' deviation from their own centre; 0 switches it off.
            inter_centre_weight: Weight of the centres' affinity to each other; 0 switches it off.
            inter_pixel_weight: Weight of the pixels' affinity to other centres; 0 switches it off.
            ignore_index: Label of pixels that do not count.

        Raises:
            ValueError: For an option out of range, naming it, its value and what is allowed.
        """
        super().__init__()
        check_sizes(num_classes, feature_dim, ignore_index)
        check_options(
            CarConfig,
            intra_weight=intra_weight,
            inter_centre_weight=inter_centre_weight,
            inter_pixel_weight=inter_pixel_weight,
        )
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.intra_weight = intra_weight
        self.inter_centre_weight = inter_centre_weight
        self.inter_pixel_weight = inter_pixel_weight
        self.ignore_index = ignore_index
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(
        self, features: Tensor, labels: Tensor, classifier: nn.Module, *, advance: bool = True
    ) -> RegularizerOutput:
        """Return the weighted loss; in eval() nothing is computed, and the loss and its metrics are 0.

        Args:
            features: (N, D) or (B, D, H, W).
            labels: (N,) or (B, H', W'), integer; a map is brought to (H, W) by the nearest rule.
            classifier: Not used; every regularizer is called alike.
            advance: Not used; there is no state.

        Raises:
            ValueError: For shapes or labels that do not fit.
        """
        if not self.training:
            return RegularizerOutput(self.zero.clone(), dict.fromkeys(METRIC_KEYS, self.zero.clone()))
        labels = align_labels(
            features,
            labels,
            num_classes=self.num_classes,
            feature_dim=self.feature_dim,
            ignore_index=self.ignore_index,
        )
        with torch.autocast(features.device.type, enabled=False):
            terms = self._terms(features.to(self.zero.dtype), labels)
            weights = (self.intra_weight, self.inter_centre_weight, self.inter_pixel_weight)
            intra, centre, pixel = (weighted(term, w) for term, w in zip(terms, weights, strict=True))
            loss = intra + centre + pixel
        return RegularizerOutput(loss, dict(zip(METRIC_KEYS, (t.detach() for t in terms), strict=True)))

    def _terms(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three unweighted scalars; equal on every rank."""
        counts_C = global_sum(class_counts(labels, self.num_classes, self.ignore_index))
        sums_CD = class_sums(features, labels, self.num_classes, self.ignore_index)
        centres_CD = global_sum_with_gradient(sums_CD) / counts_C.clamp(min=1)[:, None]
        present_C = counts_C > 0
        stopped_CD = centres_CD.detach()
        deviation = deviation_sum(features, labels, stopped_CD, self.ignore_index)
        excess = excess_sum(features, labels, stopped_CD, present_C, self.ignore_index)
        valid = counts_C.sum().clamp(min=1)
        intra, pixel = (global_sum_with_gradient(torch.stack([deviation, excess])) / valid).unbind()
        return intra.square(), centre_excess(centres_CD, present_C).square(), pixel.square()
