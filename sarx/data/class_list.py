"""Names and colours of classes (sarx/data/classes) and who is frequent (sarx/data/groups)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

CLASSES = Path(__file__).parent / "classes"
GROUPS = Path(__file__).parent / "groups"

MANY, FEW = 100, 20
"""Many-shot classes have more training images than the first, few-shot ones fewer than the second."""


@dataclass(frozen=True)
class ClassList:
    """Classes in the order of their indices: unique names, and (red, green, blue) where a colour is known."""

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int] | None, ...]


@cache
def read_classes(name: str) -> ClassList:
    """Return the classes of one file of sarx/data/classes."""
    pairs = json.loads((CLASSES / f"{name}.json").read_text(encoding="utf-8"))["classes"]
    colours = tuple(None if colour is None else (colour[0], colour[1], colour[2]) for _, colour in pairs)
    return ClassList(tuple(name for name, _ in pairs), colours)


def published_images(name: str) -> Counts | None:
    """Return the number of training images that contain each class, (C,), if sarx/data/groups has them."""
    path = GROUPS / f"{name}.json"
    if not path.is_file():
        return None
    return np.array(json.loads(path.read_text(encoding="utf-8"))["train_images"], np.int64)


def groups_text(images_C: Counts, source: str) -> str:
    """Write a file for sarx/data/groups."""
    numbers = [str(count) for count in images_C]
    lines = [", ".join(numbers[start : start + 15]) for start in range(0, len(numbers), 15)]
    head = f'{{\n  "version": 1,\n  "source": {json.dumps(source)},\n  "train_images": [\n    '
    return head + ",\n    ".join(lines) + "\n  ]\n}\n"


def frequency_thirds(images_C: Counts) -> dict[str, tuple[int, ...]]:
    """Return head, body and tail: thirds of the classes, most frequent first; body takes the remainder.

    Classes of equal frequency keep their order. An empty group is left out.
    """
    order = np.argsort(-images_C, kind="stable")
    third = len(order) // 3
    parts = {"head": order[:third], "body": order[third : len(order) - third]}
    parts["tail"] = order[len(order) - third :]
    return {name: tuple(int(c) for c in part) for name, part in parts.items() if len(part)}


def shot_groups(images_C: Counts) -> dict[str, tuple[int, ...]]:
    """Return many, medium and few: classes of more than 100, 20 to 100, and fewer than 20 training images.

    The bounds are those of Liu et al., CVPR 2019. Most frequent first; an empty group is left out.
    """
    order = np.argsort(-images_C, kind="stable")
    ordered = images_C[order]
    parts = {"many": order[ordered > MANY], "medium": order[(ordered >= FEW) & (ordered <= MANY)]}
    parts["few"] = order[ordered < FEW]
    return {name: tuple(int(c) for c in part) for name, part in parts.items() if len(part)}
