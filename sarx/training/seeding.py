"""Independent, named streams of random numbers: nothing is carried from one draw to the next.

A stream is (seed, name, position). Adding a projector draws from ``regularizer`` and shifts no other stream;
a resumed run needs no saved generator. Streams in use: model, regularizer, anchors, data_sample (in
sarx.data), order, dropout.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from sarx.study.seeds import derive


@contextmanager
def stream(seed: int, name: str, *position: int) -> Iterator[None]:
    """Let torch's global generators draw from one stream inside the block, and restore them after it."""
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng([torch.cuda.current_device()] if in_use else []):
        torch.manual_seed(derive(seed, name, *position))
        yield


@lru_cache(maxsize=4)
def permutation(seed: int, count: int, turn: int) -> Tensor:
    """Return the order of the training samples in one pass: int64 (count,)."""
    generator = torch.Generator().manual_seed(derive(seed, "order", turn))
    return torch.randperm(count, generator=generator)


def batch_indices(seed: int, count: int, batch_size: int, step: int) -> Tensor:
    """Return the samples of one step: int64 (batch_size,), a pure function of its arguments.

    Passes over the data follow one another without a gap, so no sample is dropped at the end of a pass.
    """
    positions = range(step * batch_size, (step + 1) * batch_size)
    turns = sorted({position // count for position in positions})
    parts = []
    for turn in turns:
        inside = [position - turn * count for position in positions if position // count == turn]
        parts.append(permutation(seed, count, turn)[inside[0] : inside[-1] + 1])
    return torch.cat(parts)
