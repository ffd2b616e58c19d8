"""What the embedded data sets share: identity of their content and cached loading of one split."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from sarx.data.cache import cached
from sarx.data.dataset import SPLITS, Array, LongTailConfig, Split
from sarx.data.digits import NUM_DIGITS
from sarx.data.long_tail import class_ranks
from sarx.study.identity import part_digest


def content_fingerprint(hashes: Mapping[str, str], config: LongTailConfig) -> str:
    """Identify the content: the hashes of the fixed splits and the options that shape the others."""
    return (
        f"{config.name}:{hashes['val'][:16]}:{hashes['test'][:16]}"
        f":imbalance={config.imbalance!r}:eval_imbalance={config.eval_imbalance!r}:num_train={config.num_train}"
    )


def cache_key(hashes: Mapping[str, str], config: LongTailConfig, seed: int, split: str) -> str:
    """Name everything that one split depends on, the code that makes it included.

    ``val`` and ``test`` depend on the seed only if ``eval_imbalance`` > 1: through the training ranks.

    Raises:
        ValueError: If there is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; found {split!r}")
    if split == "train":
        sampling = f"imbalance={config.imbalance!r}:num_train={config.num_train}:seed={seed}"
    elif config.eval_imbalance > 1:
        sampling = f"imbalance={config.eval_imbalance!r}:seed={seed}"
    else:
        sampling = "balanced"
    return f"{config.name}:{split}:{part_digest('data')}:{hashes['val']}:{hashes['test']}:{sampling}"


def split_tail(config: LongTailConfig, seed: int, split: str) -> tuple[npt.NDArray[np.int64], float]:
    """Return the rank of every digit (10,) and the imbalance of one split.

    A balanced evaluation split ranks digits canonically, so that it is the same for every seed.
    """
    if split == "train":
        return class_ranks(seed), config.imbalance
    if config.eval_imbalance > 1:
        return class_ranks(seed), config.eval_imbalance
    return np.arange(NUM_DIGITS), 1.0


def load_cached(
    hashes: Mapping[str, str],
    make: Callable[[LongTailConfig, int, str], dict[str, Array]],
    config: LongTailConfig,
    seed: int,
    split: str,
) -> Split:
    """Return one split as read-only maps that the processes of a machine share, made on first use."""
    arrays = cached(cache_key(hashes, config, seed, split), lambda: make(config, seed, split))
    part = slice(None) if split == "train" else slice(config.num_eval)
    return Split(arrays["images"][part], arrays["labels"][part])
