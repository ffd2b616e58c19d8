"""A folder of images without labels, for ``training.unlabelled_weight``."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sarx.config.errors import UserError
from sarx.data.dataset import Bytes, FileSplit
from sarx.data.image_files import read_image, read_size
from sarx.data.layout import IMAGE_ENDINGS, File, list_files

NAME = "unlabelled"
KEY = "data.unlabelled"


def unlabelled_split(config: Any) -> FileSplit:
    """Return the images of ``data.unlabelled``, each with a label map of zeros; no image is read.

    Raises:
        UserError: If the folder is not given, not there, or holds no image.
    """
    if not config.unlabelled:
        raise UserError("give the folder of the images without labels", key=KEY)
    root = Path(config.unlabelled).expanduser().absolute()
    if not root.is_dir():
        raise UserError(f"there is no folder {root}", key=KEY)
    paths = tuple(file.path for file in _files(root))
    if not paths:
        raise UserError(f"{root} holds no image ({', '.join(IMAGE_ENDINGS)})", key=KEY)
    return FileSplit(root.parent, paths, paths, read_image, config, no_label)


def no_label(path: Path) -> Bytes:
    """Return zeros of the size of an image, uint8 (H, W): what padding, which is ignored, is told from."""
    return np.zeros(read_size(path), np.uint8)


def folder_digest(config: Any) -> str:
    """Return hex digits that change with names and sizes of these images; '' without any."""
    if not config.unlabelled:
        return ""
    split = unlabelled_split(config)
    files = _files(split.root / Path(split.images[0]).parts[0])
    text = "".join(f"{file.path}\t{file.size}\n" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def _files(root: Path) -> tuple[File, ...]:
    return tuple(list_files(root.parent, root.name, IMAGE_ENDINGS).values())
