"""Long-tailed class frequencies: who is rare, how rare, and which digit each instance shows.

Legend: C = classes, r = rank (0 = most frequent), K = instances.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from sarx.data.digits import NUM_DIGITS, Digits

GROUP_SIZES: dict[str, int] = {"head": 3, "body": 4, "tail": 3}


def stream(seed: int, name: str) -> np.random.Generator:
    """Return the random generator of one named purpose; streams of other names or seeds are independent."""
    word = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, word])))


def class_ranks(seed: int, num_classes: int = NUM_DIGITS) -> npt.NDArray[np.int64]:
    """Return the frequency rank of every class, (C,); a permutation drawn from the trial's seed.

    Over seeds every class is rare equally often, so rarity is not confounded with difficulty.
    """
    return _permutation(stream(seed, "class_ranks"), num_classes)


def rank_frequencies(imbalance: float, num_classes: int = NUM_DIGITS) -> npt.NDArray[np.float64]:
    """Return the share of instances per rank, (C,): proportional to ``imbalance ** (-r / (C - 1))``."""
    shares = float(imbalance) ** (-np.arange(num_classes) / (num_classes - 1))
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def rank_groups(ranks_C: npt.NDArray[np.int64], offset: int = 0) -> dict[str, tuple[int, ...]]:
    """Return head, body and tail: the 3, 4 and 3 classes by rank, each plus ``offset``."""
    order = np.argsort(ranks_C, kind="stable") + offset
    groups: dict[str, tuple[int, ...]] = {}
    start = 0
    for name, size in GROUP_SIZES.items():
        groups[name] = tuple(int(c) for c in order[start : start + size])
        start += size
    return groups


def instance_counts(
    ranks_C: npt.NDArray[np.int64], imbalance: float, num_instances: int
) -> npt.NDArray[np.int64]:
    """Return how many instances of each class ``draw_digits`` draws, (C,)."""
    level = (np.arange(num_instances) + 0.5) / num_instances
    edges = np.cumsum(rank_frequencies(imbalance, len(ranks_C)))[:-1]
    by_rank = np.bincount(np.searchsorted(edges, level, side="right"), minlength=len(ranks_C))
    return np.asarray(by_rank[ranks_C], dtype=np.int64)


def draw_digits(
    rng: np.random.Generator,
    digits: Digits,
    ranks_C: npt.NDArray[np.int64],
    imbalance: float,
    num_instances: int,
) -> npt.NDArray[np.int64]:
    """Draw which digit every instance shows: indices into ``digits``, (K,).

    The draw is stratified: the instances of a class number their expectation, up to rounding. The random
    numbers used do not depend on ``imbalance``: two imbalances with one seed differ as little as possible.
    """
    level = (_permutation(rng, num_instances) + 0.5) / num_instances
    which = rng.random(num_instances)
    edges = np.cumsum(rank_frequencies(imbalance, len(ranks_C)))[:-1]
    classes_K = np.argsort(ranks_C, kind="stable")[np.searchsorted(edges, level, side="right")]
    by_class = np.argsort(digits.labels, kind="stable")
    sizes = np.bincount(digits.labels, minlength=len(ranks_C))
    starts = np.cumsum(sizes) - sizes
    chosen = by_class[starts[classes_K] + (which * sizes[classes_K]).astype(np.int64)]
    return np.asarray(chosen, dtype=np.int64)


def _permutation(rng: np.random.Generator, size: int) -> npt.NDArray[np.int64]:
    return np.argsort(rng.random(size), kind="stable").astype(np.int64)
