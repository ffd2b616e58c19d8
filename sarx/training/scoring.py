"""Score a checkpoint on a split: metrics, counts per image and class, predictions as label images."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sarx.config.compose import override, parse_overrides
from sarx.config.errors import UserError, nearest
from sarx.config.schema import TrainConfig, as_dict, build, part_names
from sarx.data import DataSet, FileSplit, Split, label_values, load_split, selects, training_counts
from sarx.data import training_split as trained_on
from sarx.data.unlabelled import unlabelled_split
from sarx.study.provenance import CONFIG
from sarx.study.source import read_source
from sarx.training import checkpoint
from sarx.training.batches import batches
from sarx.training.described import data_of
from sarx.training.evaluation import evaluating, predictor, scores
from sarx.training.metrics import confusion_matrix
from sarx.training.step import TrainingModule, build_module

METRICS, COUNTS = "metrics.json", "per_image.csv"
SHORT = "evaluation"
"""``evaluation=slide`` says ``data.evaluation=slide``."""

SEEN = "val is part of what this trial was trained on: these scores say nothing about new images"

EVERY_S = 10.0
"""Seconds between two lines of progress."""


def evaluate_checkpoint(
    path: Path,
    texts: Sequence[str],
    *,
    split: str,
    output: Path | None,
    labels: bool,
    threads: int,
    images: str | None = None,
) -> dict[str, float]:
    """Score a checkpoint, write the results and print where they are; return the metrics.

    Args:
        path: ``weights-N.pt`` or ``epoch-N.pt`` of an attempt at a trial.
        texts: ``key=value`` over the trial's options.
        split: ``val`` or ``test``.
        output: Folder to write into; None: one in the trial's folder ``evaluation``, named after the split
            (or the folder of images), the mode and the options that are not the trial's own.
        labels: Whether to write each prediction as a PNG.
        threads: CPU threads.
        images: Folder of images without labels to predict instead of a split; there is nothing to score.

    Raises:
        UserError: For a file that is no checkpoint of a trial, or options that do not fit it.
    """
    if not 1 <= threads <= (os.cpu_count() or 1):
        raise UserError(f"{threads} is outside [1, {os.cpu_count()}]", where="--threads")
    torch.set_num_threads(threads)
    own, config = options_of(path, texts)
    device = torch.device(config.training.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("no GPU is visible here; add training.device=cpu", key="training.device")
    data = data_of(config)
    if labels and data.task != "segmentation":
        raise UserError("classification has no label images", where="--labels")
    module = load_module(path, config, data).to(device)
    mode, changed = getattr(config.data, "evaluation", "whole"), changes(own, config)
    name = "-".join([Path(images).name if images else split, mode, *(f"{k}={v}" for k, v in changed.items())])
    folder = output or path.resolve().parent.parent / "evaluation" / name
    if images:
        unknown = to_predict(config, images)
        write_predictions(folder, per_image(module, unknown, data, device), unknown, config)
        return {}
    samples = load_split(config.data, config.seed, split)
    folder.mkdir(parents=True, exist_ok=True)
    seen = split == "val" and not selects(config.data, config.role)
    if seen:
        print(SEEN, flush=True)
    per = per_image(module, samples, data, device)
    total = write_counts(folder, per, samples, data, config if labels else None)
    metrics = scores(total, data, split)
    record: dict[str, Any] = {"checkpoint": str(path), "data": data.fingerprint, "role": config.role}
    record |= {"split": split, "evaluation": mode, "changed": changed, "metrics": metrics}
    record |= {"note": SEEN} if seen else {}
    (folder / METRICS).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print_result(metrics, folder, split)
    return metrics


def write_counts(
    folder: Path,
    results: Iterator[tuple[int, Tensor, Tensor]],
    samples: Split | FileSplit,
    data: DataSet,
    labels: TrainConfig | None,
) -> Tensor:
    """Write the counts of each image and class; return the confusion matrix of all, int64 (C, C).

    Args:
        folder: Where to.
        results: Of ``per_image``.
        samples: The images.
        data: Description of the data set.
        labels: Options of the trial, if predictions are to be written as label images too.
    """
    total = torch.zeros(data.num_classes, data.num_classes, dtype=torch.int64)
    with (folder / f".{COUNTS}").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "class", "intersection", "predicted", "true"])
        for index, matrix, prediction in results:
            total += matrix
            name = samples.images[index] if isinstance(samples, FileSplit) else str(index)
            table.writerows(counts_of(str(name), matrix, data))
            if labels is not None:
                write_labels(folder / "labels", str(name), label_values(labels.data, prediction.numpy()))
    (folder / f".{COUNTS}").replace(folder / COUNTS)
    return total


def to_predict(config: TrainConfig, images: str) -> FileSplit:
    """Return a folder of images without labels.

    Raises:
        UserError: If the data set is not read from image files, or the folder holds no image.
    """
    options: Any = config.data
    if not hasattr(options, "unlabelled"):
        raise UserError(f"data={options.name} is not read from image files", where="--images")
    try:
        return unlabelled_split(replace(options, unlabelled=images))
    except UserError as error:
        raise UserError(error.message, where="--images") from None


def write_predictions(
    folder: Path, predictions: Iterator[tuple[int, Tensor, Tensor]], samples: FileSplit, config: TrainConfig
) -> None:
    """Write a label image for each image, and print where they are."""
    for index, _, prediction in predictions:
        values = label_values(config.data, prediction.numpy())
        write_labels(folder / "labels", samples.images[index], values)
    print(f"results      {folder / 'labels'} ({len(samples)} label images)")


def changes(own: TrainConfig, config: TrainConfig) -> dict[str, Any]:
    """Return the options of the data that bear on numbers and are not the trial's own, but for the mode."""
    before, after = as_dict(own)["data"], as_dict(config)["data"]
    bear = {item.name for item in fields(config.data) if item.metadata.get("identity", True)} - {SHORT}
    return {key: after[key] for key in after if key in bear and after[key] != before.get(key)}


def options_of(path: Path, texts: Sequence[str]) -> tuple[TrainConfig, TrainConfig]:
    """Return the options of the trial that a checkpoint belongs to, as they are and with texts applied.

    Raises:
        UserError: If it has none beside it, or the texts do not fit.
    """
    file = path.resolve().parent.parent / CONFIG
    if not path.is_file():
        raise UserError("there is no such file", where=str(path))
    if not file.is_file():
        raise UserError(
            f"its options are not in {file}; give a checkpoint where its training left it", where=str(path)
        )
    pairs = parse_overrides([f"data.{text}" if text.startswith(f"{SHORT}=") else text for text in texts])
    own = build(read_source(file).values)
    values = as_dict(own)
    known = [SHORT, *values, *(f"{group}.{key}" for group in part_names() for key in values[group])]
    for key in pairs:
        if key not in known:
            raise UserError(f"unknown key; {nearest(key, known)}", key=key)
        if not key.startswith(("data.", "training.device")):
            raise UserError("a trained model has it already; give data.* or training.device", key=key)
    return own, build(override(values, {**pairs, "training.sync_bn": False}))


def load_module(path: Path, config: TrainConfig, data: DataSet) -> TrainingModule:
    """Return the trained model, regularizer and loss of a checkpoint, in eval mode.

    Raises:
        UserError: If it is damaged or of another model.
    """
    try:
        state: Any = checkpoint.load(path)
    except checkpoint.Damaged as error:
        raise UserError(str(error), where=str(path)) from error
    counts = torch.ones(data.num_classes, dtype=torch.int64)
    if config.loss.name != "cross_entropy":  # the others may add the class frequencies to the logits
        training = load_split(config.data, config.seed, trained_on(config.data, config.role))
        counts = torch.from_numpy(training_counts(config, training))
    blank = replace(config, model=replace(config.model, pretrained=False))  # the weights come from the file
    module = build_module(blank, data, counts)
    whole = state.get("module", {}) if isinstance(state, dict) else {}
    own = {key.removeprefix("model."): value for key, value in whole.items() if key.startswith("model.")}
    try:
        module.model.load_state_dict(own or state)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"does not fit the trial's model ({reason})", where=str(path)) from error
    return module.eval()


def per_image(
    module: TrainingModule, split: Split | FileSplit, data: DataSet, device: torch.device
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield index, confusion matrix int64 (C, C) and prediction of each image; prints progress."""
    predict = predictor(split, module.model, data, device, module.prediction_adjustment)
    started = said = time.monotonic()
    done = 0
    with evaluating(module.model):
        for batch in batches(split):
            labels = batch.labels.to(device)
            predictions = predict(batch.images, labels)[1]
            for index, label, prediction in zip(batch.indices.tolist(), labels, predictions, strict=True):
                matrix = confusion_matrix(label[None], prediction[None], data.num_classes, data.ignore_index)
                yield index, matrix.cpu(), prediction.cpu()
            done += len(labels)
            if time.monotonic() - said > EVERY_S:
                said = time.monotonic()
                left = (said - started) / done * (len(split) - done)
                print(f"{done} of {len(split)} images, about {left:.0f} s left", flush=True)


def counts_of(name: str, matrix: Tensor, data: DataSet) -> list[list[Any]]:
    """Return a row per class that an image shows or is predicted to show: name, class, counts of pixels."""
    predicted, true = matrix.sum(0), matrix.sum(1)
    present = ((predicted + true) > 0).nonzero().flatten().tolist()
    return [[name, data.class_names[c], int(matrix[c, c]), int(predicted[c]), int(true[c])] for c in present]


def write_labels(folder: Path, name: str, values: np.ndarray[Any, Any]) -> None:
    """Write a label image as a grey PNG under the name of its image."""
    from PIL import Image

    path = (folder / name).with_suffix(".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def print_result(metrics: dict[str, float], folder: Path, split: str) -> None:
    """Print the scores that a table would show, and where the rest is."""
    for key, value in metrics.items():
        if key.count("/") == 1:
            print(f"{key:<28} {value:.4f}")
    print(f"results      {folder} ({METRICS}, {COUNTS})")
    if split == "test":
        print("This looked at the report split: choose nothing by it.")
