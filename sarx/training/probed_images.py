"""The few report images that every arm and seed is shown on: which ones, and what a model says of them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sarx.config.errors import UserError
from sarx.data import DataSet, FileSplit, Split
from sarx.training.batches import batches
from sarx.training.evaluation import evaluating, predictor
from sarx.training.step import TrainingModule

Arrays = dict[str, NDArray[Any]]

CANDIDATES = 500
"""Images are chosen among at most so many, evenly spaced over the split; the labels of these are read."""

LEAST_SHARE = 0.001
"""A class is in an image if it has this share of its pixels; of less, nobody sees anything."""


def choose(present_IC: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Return which images show most classes, rare ones first: int64, ascending, at most ``count``.

    Each choice is the image whose classes that have not been shown yet have the largest sum of 1 / (images
    with the class), the earlier one of equals; when nothing new is left, all classes are new again. It
    depends on the labels alone, so it is the same for every arm and seed.

    Args:
        present_IC: (I, C), which classes each image shows.
        count: At most so many.
    """
    weights_C = 1 / np.maximum(present_IC.sum(0), 1)
    fresh_C = np.ones(present_IC.shape[1], dtype=bool)
    left_I = np.ones(len(present_IC), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(count, len(present_IC)):
        gains_I = (present_IC[left_I] * (weights_C * fresh_C)).sum(1)
        if gains_I.max() == 0 and not fresh_C.all():
            fresh_C[:] = True
            continue
        best = int(np.flatnonzero(left_I)[gains_I.argmax()])
        chosen.append(best)
        left_I[best] = False
        fresh_C &= ~present_IC[best]
    return np.sort(np.array(chosen, dtype=np.int64))


def chosen_images(split: Split | FileSplit, data: DataSet, count: int) -> list[int]:
    """Return the indices of the images of a split to look at, ascending; see ``choose``."""
    spaced = np.linspace(0, len(split) - 1, min(CANDIDATES, len(split)))
    candidates = spaced.round().astype(np.int64)
    present_IC = np.zeros((len(candidates), data.num_classes), dtype=bool)
    for row, index in enumerate(candidates.tolist()):
        label = np.atleast_1d(split.labels[index] if isinstance(split, Split) else split.label(index))
        counts = np.bincount(label.reshape(-1), minlength=data.num_classes)[: data.num_classes]
        present_IC[row] = counts >= max(1.0, LEAST_SHARE * label.size)
        if data.ignore_index < data.num_classes:
            present_IC[row, data.ignore_index] = False
    return [int(index) for index in candidates[choose(present_IC, count)]]


def predicted_images(
    module: TrainingModule, split: Split | FileSplit, data: DataSet, chosen: list[int], device: torch.device
) -> tuple[Arrays, Arrays]:
    """Return images with labels, and what a trained model predicts for them.

    Args:
        module: In eval mode, on ``device``.
        split: The report split.
        data: Its description.
        chosen: Ascending indices.
        device: Where to compute.

    Returns:
        ``indices`` (N,), ``names`` (N,), ``class_names`` (C,), ``task``, ``ignore_index``, and for each index
        i ``image_i`` uint8 (H, W, 1 or 3) as the model sees it but for normalisation and ``label_i`` (H', W')
        or (); then ``prediction_i`` of the shape of its label, uint8 if that holds every class.
    """
    if isinstance(split, FileSplit):  # so few images are not worth the start of worker processes
        split = dataclasses.replace(split, options=dataclasses.replace(split.options, workers=0))
    named = [split.images[i] for i in chosen] if isinstance(split, FileSplit) else [str(i) for i in chosen]
    small = np.uint8 if data.num_classes <= 256 else np.uint16
    shown: Arrays = {
        "indices": np.array(chosen, dtype=np.int64),
        "names": np.array(named, dtype=np.str_),
        "class_names": np.array(data.class_names, dtype=np.str_),
        "task": np.array(data.task),
        "ignore_index": np.array(data.ignore_index),
    }
    predictions: Arrays = {}
    predict = predictor(split, module.model, data, device, module.prediction_adjustment)
    with evaluating(module.model):
        for batch in batches(split, chosen=chosen):
            found = predict(batch.images, batch.labels.to(device))[1].cpu()
            for place, index in enumerate(batch.indices.tolist()):
                shown[f"image_{index}"] = batch.images[place].movedim(0, -1).numpy()
                shown[f"label_{index}"] = batch.labels[place].numpy()
                predictions[f"prediction_{index}"] = found[place].numpy().astype(small)
    return shown, predictions


def content_key(arrays: Arrays) -> str:
    """Return 8 hex digits of the SHA-256 over names, types, shapes and contents."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = arrays[name]
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:8]


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as a compressed .npz, whole or not at all.

    Raises:
        UserError: If it cannot be written, naming the folder and why.
    """
    buffer = io.BytesIO()
    plain: dict[str, Any] = dict(arrays)
    np.savez_compressed(buffer, **plain)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as handle:
            handle.write(buffer.getvalue())
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # what matters is why it could not be written
            temporary.unlink(missing_ok=True)
        message = f"cannot be written ({error.strerror}); free space or make the folder writable"
        raise UserError(message, where=str(path.parent)) from None


def read_npz(path: Path) -> Arrays | None:
    """Return the arrays of a file, None where there is none or it is damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
