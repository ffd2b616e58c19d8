"""Interval of a difference over images and seeds: the report images are a sample too (protocol 14).

N images, S scored classes, K confirm seeds, two arms, which see the same images on the same seeds. The
difference of two means over seeds varies because other seeds would give other models and because other
images would give other scores. The confirm trials' counts per image and class (pixels; 0 or 1 image in
classification) say how much of it is due to images.

The variance is analytic, not a bootstrap: with a few seeds a bootstrap over them covers too rarely
(simulated, 5 seeds that matter more than 60 images: two-way percentile bootstrap .85, this interval .95),
while a t quantile with the right degrees of freedom holds. It costs one pass and no random numbers, and a
rare class does not vanish from some resamples. A mean over classes of ratios of sums is linear in the images
to first order (the infinitesimal jackknife), so that every image has an influence on the difference of every
seed, and images x seeds is a two-way layout without replication:

    variance = variance due to seeds + variance due to images - variance of what is left,

each estimated as for clusters in two directions, and never less than either of the first two.
Sources: Cameron, Gelbach and Miller 2011, "Robust Inference With Multiway Clustering", JBES 29; Owen 2007,
"The pigeonhole bootstrap", Annals of Applied Statistics 1; Satterthwaite 1946, Biometrics Bulletin 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.statistics import Array, t_quantile


@dataclass(frozen=True)
class Counts:
    """What a trial's model got right, per image and scored class; 0 where an image lacks the class.

    Attributes:
        right: correct pixels, or images (N, S).
        whole: what they are a part of (N, S): the union of label and prediction for IoU, the label for
        recall.
    """

    right: Array
    whole: Array


@dataclass(frozen=True)
class ImageInterval:
    """A paired difference with its interval over images and seeds.

    Attributes:
        value: mean over seeds of the difference.
        low: bound of the interval; NaN with fewer than 2 seeds or images.
        high: its other bound.
        seed_share: the variance over seeds, as part of the whole: how much of it the interval over seeds has.
        images: how many.
        seeds: how many.
    """

    value: float
    low: float
    high: float
    seed_share: float
    images: int
    seeds: int


def score(counts: Counts) -> float:
    """Return the mean over scored classes of right / whole, summed over images; a class without any is 0."""
    whole = np.maximum(counts.whole.sum(axis=0), 1)
    return float((counts.right.sum(axis=0) / whole).mean())


def influence(counts: Counts) -> Array:
    """Return what every image adds to the score (N,), to first order; the sum over images is 0.

    The derivative of the score in the weight of an image: mean over classes of (right - ratio whole) / sum.
    """
    whole = np.maximum(counts.whole.sum(axis=0), 1)
    ratio = counts.right.sum(axis=0) / whole
    return np.asarray(((counts.right - ratio * counts.whole) / whole).mean(axis=1), dtype=np.float64)


def two_way_interval(values_K: Array, influence_NK: Array, confidence: float = 0.95) -> ImageInterval:
    """Return the t interval of the mean over seeds, images being a sample as well.

    Args:
        values_K: difference of the two arms on every seed.
        influence_NK: difference of the influences of every image on every seed.
        confidence: of the interval.
    """
    images, seeds = influence_NK.shape
    value = float(values_K.mean())
    if seeds < 2 or images < 2:
        return ImageInterval(value, np.nan, np.nan, np.nan, images, seeds)
    of_seeds = float(values_K.var(ddof=1)) / seeds
    of_images = float((influence_NK.mean(axis=1) ** 2).sum()) * images / (images - 1)
    rest = influence_NK - influence_NK.mean(axis=1, keepdims=True)
    both = float((rest**2).sum()) * images / ((images - 1) * (seeds - 1) * seeds)
    variance = max(of_seeds + of_images - both, of_seeds, of_images)
    terms = of_seeds**2 / (seeds - 1) + of_images**2 / (images - 1)
    df = variance**2 / terms if terms > 0 else np.inf
    half = float(t_quantile(np.array([max(1.0, df)]), 0.5 + confidence / 2)[0]) * np.sqrt(variance)
    share = of_seeds / variance if terms > 0 else np.nan
    return ImageInterval(value, value - half, value + half, share, images, seeds)
