"""CIFAR-10 and CIFAR-100 with an exponential tail (Cao et al., NeurIPS 2019), as arrays in memory.

Class c keeps the share ``imbalance ** (-c / (C - 1))`` of its images; class 0 is the most frequent in every
trial, as published. *Which* images a class keeps is drawn from the trial's seed: equal in every arm, another
sample for another seed (the published code draws one fixed sample). A smaller imbalance keeps all images that
a larger one keeps.

Splits: ``val`` is a tenth of every class, the same for every seed and never in ``train``; ``all`` takes its
tail from all training images, and so has the published numbers; ``test`` is the balanced test set.
Legend: N = images, C = classes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sarx.data.cache import cached
from sarx.data.cifar_archive import CIFAR10, CIFAR100, SIDE, Archive, archive_files, read_part
from sarx.data.class_list import read_classes, shot_groups
from sarx.data.dataset import Array, DataSet, Split
from sarx.data.long_tail import stream
from sarx.study.identity import part_digest

SPLITS = ("train", "all", "val", "test")
HELD_OUT = 10
"""One of so many training images of a class is held out."""
TOTAL = 50_000
"""Training images as published."""


@dataclass(frozen=True)
class CifarLT:
    """One of the two data sets; a ``DataSource``. ``mean`` and ``std`` are those of the published code."""

    name: str
    classes: str
    archive: Archive
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def describe(self, config: Any, seed: int) -> DataSet:
        """Describe the data; the seed changes nothing. Groups are many-, medium- and few-shot classes."""
        names = read_classes(self.classes).names
        full = np.full(len(names), TOTAL // len(names))
        return DataSet(
            name=self.name,
            task="classification",
            num_classes=len(names),
            class_names=names,
            in_channels=3,
            image_size=(SIDE, SIDE),
            mean=self.mean,
            std=self.std,
            score_classes=tuple(range(len(names))),
            groups=shot_groups(tail_counts(full, config.imbalance)),
            fingerprint=self.fingerprint(config),
        )

    def fingerprint(self, config: Any) -> str:
        """Identify the content by the names and sizes of the files and by the tail."""
        digest = hashlib.sha256()
        for file in archive_files(config.root, self.archive, self.name):
            digest.update(f"{file.name}\t{file.stat().st_size}\n".encode())
        return f"{self.name}:{digest.hexdigest()[:32]}:imbalance={config.imbalance!r}"

    def load_split(self, config: Any, seed: int, split: str) -> Split:
        """Return one split as read-only maps that the processes of a machine share, made on first use.

        Raises:
            ValueError: If there is no such split.
            UserError: If the archive is missing or damaged, or the split empty.
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; found {split!r}")
        sampled = split in ("train", "all")
        content = self.fingerprint(config) if sampled else self.fingerprint(config).rpartition(":")[0]
        key = f"{content}:{part_digest('data')}:{split}:{seed if sampled else 'fixed'}"
        arrays = cached(key, lambda: self.make_arrays(config, seed, split))
        return Split(arrays["images"], arrays["labels"])

    def make_arrays(self, config: Any, seed: int, split: str) -> dict[str, Array]:
        """Make one split, past the cache: images uint8 (N, 3, 32, 32), labels uint8 (N,)."""
        part = "test" if split == "test" else "train"
        images, labels = read_part(config.root, self.archive, self.name, part)
        if split != "test":
            rows = choose(labels, self.archive.num_classes, config.imbalance, seed, split, self.name)
            images, labels = images[rows], labels[rows]
        return {"images": images, "labels": labels.astype(np.uint8)}


def tail_counts(full_C: npt.NDArray[np.int64], imbalance: float) -> npt.NDArray[np.int64]:
    """Return how many images every class keeps, (C,): the published formula, rounded down."""
    last = len(full_C) - 1
    kept = [int(full * (1 / imbalance) ** (c / last)) for c, full in enumerate(full_C.tolist())]
    return np.array(kept, np.int64)


def choose(
    labels: npt.NDArray[np.int64], num_classes: int, imbalance: float, seed: int, split: str, name: str
) -> npt.NDArray[np.int64]:
    """Return the rows of the training images that belong to ``train``, ``all`` or ``val``, ascending."""
    apart, drawn = stream(0, f"{name}/val"), stream(seed, f"{name}/{split}")
    chosen = []
    for c in range(num_classes):
        rows = np.flatnonzero(labels == c)
        shuffled = rows[np.argsort(apart.random(len(rows)), kind="stable")]
        held, rest = np.split(shuffled, [len(rows) // HELD_OUT])
        if split == "val":
            chosen.append(held)
            continue
        pool = np.sort(rows if split == "all" else rest)
        order = np.argsort(drawn.random(len(pool)), kind="stable")
        kept = tail_counts(np.full(num_classes, len(pool)), imbalance)[c]
        chosen.append(pool[order[:kept]])
    return np.sort(np.concatenate(chosen))


CIFAR10_LT = CifarLT("cifar10_lt", "cifar10", CIFAR10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
CIFAR100_LT = CifarLT("cifar100_lt", "cifar100", CIFAR100, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
