"""Geometry of features as numbers: how tight classes are, how far apart, what frequency does to them.

Legend: C classes, D feature channels, N pixels (in classification: images). All tensors are float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

CHUNK = 1 << 14
"""Rows that are turned into float64 at a time."""

ACCURACY = 1e-7
"""Relative accuracy of float32 features; what is smaller is rounding, not structure."""


@dataclass(frozen=True)
class Scatter:
    """What a stream of features leaves behind.

    Attributes:
        counts: (C,) samples per class.
        means: (C, D) class means, 0 for a class without samples.
        within: (D, D) sum over samples of (x - mean of its class)(x - mean of its class)^T.
    """

    counts: Tensor
    means: Tensor
    within: Tensor


def empty_scatter(num_classes: int, feature_dim: int, device: torch.device | str = "cpu") -> Scatter:
    """Return the scatter of no samples."""
    zeros = torch.zeros(num_classes, feature_dim, dtype=torch.float64, device=device)
    return Scatter(zeros[:, 0].clone(), zeros, zeros.new_zeros(feature_dim, feature_dim))


def add_samples(scatter: Scatter, features_ND: Tensor, labels_N: Tensor, ignore_index: int = 255) -> Scatter:
    """Return the scatter with more samples; any division of the samples into calls gives the same.

    Means and scatter are merged, not sums of squares, so nothing cancels. Source: Chan, Golub and LeVeque
    1983, "Algorithms for Computing the Sample Variance".

    Args:
        scatter: Of the samples so far.
        features_ND: (N, D), any float type.
        labels_N: (N,) integer; samples labelled ``ignore_index`` do not count.
        ignore_index: That label.
    """
    for start in range(0, len(labels_N), CHUNK):
        labels = labels_N[start : start + CHUNK].long()
        valid = labels != ignore_index
        scatter = _merge(scatter, features_ND[start : start + CHUNK][valid].double(), labels[valid])
    return scatter


def _merge(scatter: Scatter, features_ND: Tensor, labels_N: Tensor) -> Scatter:
    """Return the scatter of the union of ``scatter`` and a few more samples."""
    counts = torch.bincount(labels_N, minlength=len(scatter.counts)).double()
    sums = torch.zeros_like(scatter.means).index_add_(0, labels_N, features_ND)
    means = sums / counts.clamp(min=1)[:, None]
    centred = features_ND - means[labels_N]
    total = scatter.counts + counts
    share = counts / total.clamp(min=1)
    shift = means - scatter.means
    between = shift.T @ (shift * (scatter.counts * share)[:, None])
    return Scatter(
        total, scatter.means + shift * share[:, None], scatter.within + centred.T @ centred + between
    )


def within_class(scatter: Scatter) -> tuple[float, float]:
    """Return NC1 and the share of the variance that lies within classes; NaN where undefined.

    NC1 = tr(S_W S_B^+) / C with S_W the mean of (x - mu_c)(x - mu_c)^T over samples, S_B the mean of
    (mu_c - mu)(mu_c - mu)^T over the C classes that have samples, and mu the mean of their means: classes
    count alike in S_B, samples alike in S_W. Source: Papyan, Han and Donoho 2020, "Prevalence of neural
    collapse", where all classes are of one size. The share is tr(S_W) / tr(S_T), S_T the covariance of all
    samples. Both are unchanged when all features are rotated, scaled or shifted.
    """
    present = scatter.counts > 0
    means, counts = scatter.means[present], scatter.counts[present]
    if len(means) < 2:
        return math.nan, math.nan
    samples = counts.sum()
    grand_mean = (counts[:, None] * means).sum(0) / samples
    between = (counts[:, None] * (means - grand_mean).square()).sum()
    within = scatter.within.trace()
    share = float(within / (within + between)) if within + between > 0 else math.nan
    centred = centre(means)
    if not centred.any():
        return math.nan, share
    inverse = torch.linalg.pinv(centred, rtol=ACCURACY)  # S_B^+ = C inverse inverse^T
    return float((inverse * (scatter.within / samples @ inverse)).sum()), share


def centre(vectors_CD: Tensor) -> Tensor:
    """Subtract the mean of the vectors (C, D); of equal or non-finite ones exact zeros are left."""
    centred = vectors_CD - vectors_CD.mean(0)
    floor = ACCURACY * vectors_CD.norm(dim=1).max()
    return torch.where(centred.norm(dim=1, keepdim=True) > floor, centred, 0.0)


def off_diagonal_cosines(vectors_CD: Tensor) -> Tensor:
    """Return the cosines between different vectors, (C (C - 1),); a zero vector has cosine 0 to all."""
    directions = normalize(vectors_CD, dim=1)
    different = ~torch.eye(len(vectors_CD), dtype=torch.bool, device=vectors_CD.device)
    return (directions @ directions.T)[different]


def etf_distance(vectors_CD: Tensor) -> float:
    """Return how far the vectors are from a simplex equiangular tight frame: 0 = they are one.

    || G / ||G||_F - E / ||E||_F ||_F with G = M M^T (C, C), M the vectors minus their mean, and
    E = I - 1 1^T / C, whose norm is sqrt(C - 1). It sees unequal lengths as well as unequal angles. Source:
    Zhu et al. 2021, "A Geometric Analysis of Neural Collapse with Unconstrained Features". NaN for equal
    vectors.
    """
    centred = centre(vectors_CD)
    gram = centred @ centred.T
    if not gram.any():
        return math.nan
    ideal = torch.eye(len(gram), dtype=gram.dtype, device=gram.device) - 1 / len(gram)
    return float((gram / gram.norm() - ideal / ideal.norm()).norm())


def between_class(vectors_CD: Tensor) -> dict[str, float]:
    """Return how one vector per class lies to those of the other classes.

    Keys: ``mean_cosine`` and ``max_cosine`` over pairs of classes, the same with ``centred_`` before it for
    the vectors minus their mean, and ``etf_distance``. Of a simplex equiangular tight frame each centred
    cosine is -1 / (C - 1).

    Args:
        vectors_CD: (C, D) class means, classifier rows, anchors, ...; a row that is 0 or not finite belongs
            to a class that has none and is left out. NaN with fewer than two rows.
    """
    vectors = vectors_CD.double()
    vectors = vectors[torch.isfinite(vectors).all(1) & vectors.any(1)]
    result = dict.fromkeys(BETWEEN_KEYS, math.nan)
    if len(vectors) < 2:
        return result
    for prefix, rows in (("", vectors), ("centred_", centre(vectors))):
        cosines = off_diagonal_cosines(rows)
        result |= {f"{prefix}mean_cosine": float(cosines.mean()), f"{prefix}max_cosine": float(cosines.max())}
    result["etf_distance"] = etf_distance(vectors)
    return result


BETWEEN_KEYS = ("mean_cosine", "max_cosine", "centred_mean_cosine", "centred_max_cosine", "etf_distance")


def log_ratio(predicted_C: Tensor, labelled_C: Tensor) -> Tensor:
    """Return log((predicted + 1/2) / (labelled + 1/2)) per class, (C,): finite for a class never predicted.

    The halves are those of Haldane 1956 and Anscombe 1956.
    """
    return ((predicted_C.double() + 0.5) / (labelled_C.double() + 0.5)).log()


def frequency_slope(counts_C: Tensor, values_C: Tensor, counted: Tensor) -> tuple[float, float]:
    """Return the least-squares slope of per-class values on log train frequency, and its standard error.

    slope = sum (x - mean x)(y - mean y) / Sxx with x = log frequency (natural) and Sxx = sum (x - mean x)^2;
    its standard error = sqrt(sum of squared residuals / (n - 2) / Sxx). Positive: frequent classes have more.

    Args:
        counts_C: (C,) training pixels (or images) per class of this trial; classes with 0 are left out.
        values_C: (C,) for example IoU.
        counted: (C,) bool, the classes to look at.

    Returns:
        The slope, NaN without two classes of different frequency, and its error, NaN below three classes.
    """
    chosen = counted & (counts_C > 0)
    x, y = counts_C[chosen].double().log(), values_C[chosen].double()
    x, y = x - x.mean(), y - y.mean()
    spread = x.square().sum()
    if len(x) < 2 or not spread > ACCURACY**2:
        return math.nan, math.nan
    slope = (x * y).sum() / spread
    if len(x) < 3:
        return float(slope), math.nan
    return float(slope), float(((y - slope * x).square().sum() / (len(x) - 2) / spread).sqrt())
