"""Images and label maps in files, read to uint8 arrays; what is wrong with a file is said with its path.

Images are taken as they are stored: an orientation in their metadata is not applied, since label maps have
none. Legend: H, W = height and width in pixels.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sarx.config.errors import UserError
from sarx.data.dataset import Array, Bytes

Read = TypeVar("Read")

IGNORED = 255
WRONG = 254
"""Marks in a table the stored values that a label map must not hold."""

DAMAGED: tuple[type[Exception], ...] = (OSError, EOFError, SyntaxError, ValueError, IndexError, KeyError)
DAMAGED += (TypeError, NotImplementedError, struct.error, zlib.error)
"""What PIL and SciPy raise on files that are no images or no matrices."""


def make_table(mapping: Mapping[int, int], size: int = 256) -> Bytes:
    """Return the class of every stored value, (size,): ``mapping``; 255 stays ignored, others are refused."""
    table = np.full(size, WRONG, np.uint8)
    if size > IGNORED:
        table[IGNORED] = IGNORED
    for stored, label in mapping.items():
        table[stored] = label
    return table


def read_image(path: Path) -> Bytes:
    """Read an image as RGB: uint8 (3, H, W), a view of interleaved pixels.

    Raises:
        UserError: Naming the file and what is wrong with it.
    """
    return _reading(path, _read_rgb)


def _read_rgb(path: Path) -> Bytes:
    from PIL import Image

    with Image.open(path) as image:
        if image.mode.startswith(("I", "F")):
            raise UserError(f"has {image.mode} pixels; save it with 8 bits per channel", where=str(path))
        if image.mode == "P" and "transparency" in image.info:
            return np.array(image.convert("RGBA").convert("RGB")).transpose(2, 0, 1)
        return np.array(image.convert("RGB")).transpose(2, 0, 1)


def read_mask(path: Path, table: Bytes, variable: str = "") -> Bytes:
    """Read a label map and translate what it stores into classes: uint8 (H, W), 255 = ignored.

    Args:
        path: Grey or palette image, or a MATLAB file.
        table: The class of every stored value, as ``make_table`` makes it.
        variable: Name of the matrix in a MATLAB file.

    Raises:
        UserError: Naming the file and what is wrong with it.
    """
    if path.suffix == ".mat":
        stored = _reading(path, lambda file: _read_matrix(file, variable))
    else:
        stored = _reading(path, _read_indices)
    limit = len(table)
    if limit <= np.iinfo(stored.dtype).max or stored.dtype.kind == "i":
        strange = (stored < 0) | (stored >= limit)
        if strange.any():
            raise UserError(_out_of_range(int(stored[strange][0]), table), where=str(path))
    labels = np.take(table, stored)
    wrong = labels == WRONG
    if wrong.any():
        raise UserError(_out_of_range(int(stored[wrong][0]), table), where=str(path))
    return labels


def read_size(path: Path) -> tuple[int, int]:
    """Return (H, W) of an image from its header alone.

    Raises:
        UserError: Naming the file and what is wrong with it.
    """
    return _reading(path, _read_header)


def _read_header(path: Path) -> tuple[int, int]:
    from PIL import Image

    with Image.open(path) as image:
        return image.height, image.width


def _read_indices(path: Path) -> Bytes:
    from PIL import Image

    with Image.open(path) as image:
        if image.mode in ("L", "P"):
            factor = _spread_by(image)  # loading it forgets how it is stored
            stored = np.asarray(image, dtype=np.uint8)
            return stored if factor == 1 else stored // factor
        if image.mode == "1":
            return np.asarray(image.convert("L")) // np.uint8(255)
        if image.mode.startswith("I"):
            wide = np.asarray(image)
            if wide.min() >= 0 and wide.max() <= IGNORED:
                return wide.astype(np.uint8)
            raise UserError(
                f"holds the label {int(wide.max() if wide.min() >= 0 else wide.min())}, which is not a byte",
                where=str(path),
            )
        raise UserError(
            f"is a colour image ({image.mode}); a label map is a grey or palette image of class indices",
            where=str(path),
        )


def _spread_by(image: Any) -> np.uint8:
    """Return the factor by which PIL spreads a grey PNG of 2 or 4 bits over a byte, else 1."""
    tiles = getattr(image, "tile", None) or [(None,)]
    return np.uint8({"L;2": 85, "L;4": 17}.get(tiles[0][-1], 1))


def _read_matrix(path: Path, variable: str) -> Array:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(path, variable_names=[variable])
    except MatReadError as error:
        raise ValueError(str(error)) from None
    if variable not in content:
        raise UserError(f"has no matrix called {variable}", where=str(path))
    matrix = np.asarray(content[variable])
    if matrix.ndim != 2 or matrix.dtype.kind not in "uif":
        raise UserError(f"{variable} is not a matrix of numbers", where=str(path))
    if matrix.dtype.kind == "f":
        whole: npt.NDArray[np.int64] = matrix.astype(np.int64)
        return whole
    return matrix


def _reading(path: Path, read: Callable[[Path], Read]) -> Read:
    from PIL import Image

    try:
        return read(path)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError("there is no such file", where=str(path)) from None
    except Image.DecompressionBombError:
        raise UserError("is too large to be an image of this data set", where=str(path)) from None
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot be read: {reason}", where=str(path)) from None


def _out_of_range(value: int, table: Bytes) -> str:
    return f"holds the label {value}; allowed are {describe_values(np.flatnonzero(table != WRONG))}"


def describe_values(values: npt.NDArray[np.int64]) -> str:
    """Write sorted numbers as ranges, for example ``0 to 18 and 255``."""
    breaks = np.flatnonzero(np.diff(values) > 1)
    starts, ends = values[[0, *(breaks + 1)]], values[[*breaks, len(values) - 1]]
    parts = [f"{a}" if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True)]
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]
