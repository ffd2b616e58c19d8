"""Which training images are held out for selection: fixed, versioned rules in sarx/data/held_out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

RULES = Path(__file__).parent / "held_out"


def held_out(rule: str, images: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which images are held out, (N,).

    Args:
        rule: Name of a file of rules: one that lists folders (an image is held out if the folder right above
            it is listed), or one by SHA-256 of the image's name.
        images: Paths with ``/``.
    """
    content = _read(rule)
    if content["rule"] == "folders":
        folders = [[folder] for folder in content["folders"]]
        return np.array([image.split("/")[-2:-1] in folders for image in images], bool)
    modulus, remainder = content["modulus"], content["remainder"]
    names = (image.rpartition("/")[2] for image in images)
    return np.array([_number(name.rpartition(".")[0] or name) % modulus == remainder for name in names], bool)


def rule_digest(rule: str) -> str:
    """Return the hex SHA-256 of a file of rules."""
    return hashlib.sha256((RULES / f"{rule}.json").read_bytes()).hexdigest()


def _number(stem: str) -> int:
    return int.from_bytes(hashlib.sha256(stem.encode()).digest(), "big")


@cache
def _read(rule: str) -> dict[str, Any]:
    content = json.loads((RULES / f"{rule}.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content
