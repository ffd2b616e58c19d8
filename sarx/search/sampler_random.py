"""Independent draws by index, equal to those of a fresh Optuna random sampler for each index."""

from __future__ import annotations

from collections.abc import Sequence

from sarx.search.axes import unit_point
from sarx.search.told import Point
from sarx.study.seeds import derive
from sarx.study.space import Parameter


def point(space: Sequence[Parameter], seed: int, index: int) -> Point:
    """Return draw ``index``, from 0: uniform on each parameter's axis."""
    import numpy as np

    generator = np.random.RandomState(derive(seed, "random", index) % 2**32)
    return unit_point(space, generator.random_sample(len(space)).tolist())
