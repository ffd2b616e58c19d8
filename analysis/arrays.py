"""Arrays that trials and ``python -m sarx.probe`` left in the study's folder."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.errors import UserError

Arrays = Mapping[str, NDArray[Any]]


def read_arrays(file: Path, names: Collection[str] | None = None) -> Arrays:
    """Return the arrays of an ``.npz`` file; with ``names`` only those of these names, as far as it has them.

    Raises:
        UserError: The file is damaged or cannot be read.
    """
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays if names is None or name in names}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as problem:
        raise UserError(f"{file} is damaged ({problem}); delete it to leave its trial out") from None


def read_predictions(study: Path, trial_id: str) -> Arrays | None:
    """Return what a trial predicts for the images of ``read_images``; None if it was not probed.

    Keys: ``indices`` (N,), ``images`` (the name of their file), and for each index i ``prediction_i``, (H, W)
    or () in classification.

    Raises:
        UserError: The file is damaged.
    """
    file = study / "probe" / trial_id / "predictions.npz"
    return read_arrays(file) if file.is_file() else None


def read_images(study: Path, name: str) -> Arrays | None:
    """Return the report images that trials were probed on; None if the file is gone.

    Keys: ``indices`` (N,), ``names`` (N,), ``class_names`` (C,), ``task``, ``ignore_index``, and for each
    index i ``image_i`` uint8 (H, W, 1 or 3) and ``label_i`` (H', W') or ().

    Raises:
        UserError: The file is damaged.
    """
    file = study / "probe" / Path(name).name
    return read_arrays(file) if file.is_file() else None
