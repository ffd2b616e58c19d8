"""Pixels of each class in many label maps, counted once by all processors.

Legend: N = label maps, C = classes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sarx.data.dataset import Bytes

Job = TypeVar("Job")
Result = TypeVar("Result")

FEW = 256
"""So many files are read faster than processes start."""
CHUNK = 32
PROGRESS_S = 10.0


def count_masks(
    paths: Sequence[Path], read: Callable[[Path], Bytes], num_classes: int, title: str
) -> npt.NDArray[np.int32]:
    """Count the pixels of every class in every label map: int32 (N, C).

    Args:
        paths: Label maps.
        read: From a path to a label map; a function that can be pickled.
        num_classes: C; larger labels are not counted.
        title: What the progress line on stderr begins with.

    Raises:
        UserError: From ``read``.
    """
    counts = np.zeros((len(paths), num_classes), np.int32)
    jobs = ((path, read, num_classes) for path in paths)
    for row, counted in enumerate(each(_count, jobs, len(paths), title)):
        counts[row] = counted
    return counts


def _count(job: tuple[Path, Callable[[Path], Bytes], int]) -> npt.NDArray[np.int32]:
    path, read, num_classes = job
    return np.bincount(read(path).reshape(-1), minlength=256)[:num_classes].astype(np.int32)


def each(work: Callable[[Job], Result], jobs: Iterable[Job], total: int, title: str) -> Iterator[Result]:
    """Yield the results of all jobs in order, from several processes if there are many.

    Args:
        work: What to do with a job; a function that can be pickled, as its jobs and results.
        jobs: Any number of them.
        total: Their number.
        title: What a line on stderr begins with that every few seconds says how far they are.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(processors, (total + CHUNK - 1) // CHUNK)
    if total <= FEW or workers == 1:
        yield from _with_progress(map(work, jobs), total, title)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield from _with_progress(pool.map(work, jobs, chunksize=CHUNK), total, title)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _with_progress(results: Iterable[Result], total: int, title: str) -> Iterator[Result]:
    start = shown = time.monotonic()
    for done, result in enumerate(results, start=1):
        yield result
        now = time.monotonic()
        if now - shown >= PROGRESS_S:
            shown = now
            left = (now - start) / done * (total - done)
            print(f"{title}: {done} of {total}, {left:.0f} s left", file=sys.stderr, flush=True)
