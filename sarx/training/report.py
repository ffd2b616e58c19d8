"""Training with a report: the one place that scores the report split, once, after the last epoch."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sarx.config.schema import TrainConfig
from sarx.data import DataSet, Split, load_split, split_names, training_counts, training_split
from sarx.models.output import ModelOutput
from sarx.training import checkpoint, geometry
from sarx.training.batches import Batch, batches
from sarx.training.described import data_of
from sarx.training.distributed import on_main_patiently
from sarx.training.evaluation import confusion, evaluating, infer, predicted_classes, scores
from sarx.training.grid import Grid, grid_of
from sarx.training.image_counts import FILE, ImageCounts
from sarx.training.loop import EpochResult, train
from sarx.training.metrics import confusion_matrix
from sarx.training.probe import Probe, as_rows, balanced_sample, fit_probe, grid_labels
from sarx.training.seeding import stream

GEOMETRY = "geometry.npz"
SAMPLED = 2000
"""At most so many report pixels keep their features, an equal number of each class if there are enough."""

REGULARIZER_VECTORS = ("semantic_anchors", "prototypes", "centres")
"""Buffers (C, D) of regularizers that hold one vector per class."""


def train_and_report(
    config: TrainConfig,
    *,
    folder: Path | None = None,
    resume: Sequence[Path] = (),
    name: str = "",
    replay_from: int | None = None,
) -> Iterator[EpochResult]:
    """Train as ``train`` does; the last epoch's metrics gain ``test/``, ``geometry/`` and ``probe/`` names.

    With ``folder`` the final weights of the model, without anything of the regularizer, are kept in it as
    ``weights-<epoch>.pt``, what the geometry was computed from as ``geometry.npz``, and the counts of each
    report image as ``images.parquet``.

    Under several ranks rank 0 alone computes and writes this, and hands the metrics to the others, which
    wait for it however long it takes.

    Raises:
        ValueError: For a search trial, which must never see the report split.
        RuntimeError: On the other ranks, if it fails on rank 0.
    """
    if config.role != "confirm":
        raise ValueError("only confirm trials are scored on the report split")
    for result in train(config, folder=folder, resume=resume, name=name, replay_from=replay_from):
        if result.last and not result.diverged:
            result.metrics = result.metrics | on_main_patiently(partial(make_report, config, result, folder))
        yield result


def make_report(config: TrainConfig, result: EpochResult, folder: Path | None) -> dict[str, float]:
    """Return the metrics of the report and, with ``folder``, write what belongs to it."""
    metrics, arrays, images = report_metrics(config, result)
    if folder is not None:
        write_arrays(folder / GEOMETRY, arrays)
        write_whole(folder / FILE, images.parquet())
        checkpoint.save(folder, result.epoch, result.module.model.state_dict(), name="weights")
    return metrics


def report_metrics(
    config: TrainConfig, result: EpochResult
) -> tuple[dict[str, float], dict[str, Tensor], ImageCounts]:
    """Score the trained model on the report split and measure the geometry of its features.

    Returns:
        Scalars by name, the arrays of ``geometry.npz``, and the counts of each image. The arrays are
        ``class_means`` (C, D) float64, NaN for a class without report pixels; the other ``class_vectors``;
        ``features`` (P, D) of the sampled report pixels with ``pixels`` (P,), their positions in the report
        split at the size of the features, and ``labels`` (P,); ``train_counts`` (C,); ``iou`` (C,), or
        ``accuracy`` in classification; ``confusion`` (C, C) int64, rows labels and columns predictions;
        ``score_classes``, those whose mean is the score.
    """
    device = torch.device(config.training.device)
    model, data = result.module.model, data_of(config)
    train_split = load_split(config.data, config.seed, training_split(config.data, config.role))
    split = load_split(config.data, config.seed, split_names(config.data)[1])
    grid = grid_of(model, data.in_channels)
    probe = fit_probe(model, train_split, data, grid, device, config.seed)
    seen = Observation(data, grid, grid_labels(split, grid, data.ignore_index), probe)
    adjustment = result.module.prediction_adjustment
    whole = isinstance(split, Split) or getattr(split.options, "evaluation", "whole") == "whole"
    images = ImageCounts(data.num_classes, data.ignore_index)
    observe = seen.add if whole else None
    matrix = confusion(model, split, data, device, observe, adjustment, count=images.add).cpu()
    if not whole:  # windows and scales give no feature map
        with evaluating(model):
            for batch in batches(split):
                seen.add(batch, infer(model, batch.images, data, device))
    metrics = scores(matrix, data, "test")
    vectors = class_vectors(model, result.module.regularizer, seen.scatter)
    counts = torch.from_numpy(training_counts(config, train_split))
    kind = "iou" if data.task == "segmentation" else "accuracy"
    per_class = torch.tensor([metrics[f"test/{kind}/{name}"] for name in data.class_names])
    scored = torch.tensor(list(data.score_classes))
    arrays = vectors | seen.sampled() | {"train_counts": counts, kind: per_class}
    arrays |= {"confusion": matrix, "score_classes": scored}
    metrics |= geometry_metrics(data, matrix, vectors, seen.scatter, counts, {kind: per_class})
    return metrics | probe_metrics(probe, seen.probe_matrix, data), arrays, images


class Observation:
    """What one pass over the report images gathers besides the scores; fed batch by batch.

    Attributes:
        scatter: Of all labelled pixels.
        probe_matrix: Confusion matrix of the probe, int64 (C, C).
    """

    def __init__(self, data: DataSet, grid: Grid, labels: Sequence[Tensor], probe: Probe) -> None:
        """Choose the pixels whose features are kept: the same for every arm, seed and study of these data.

        Args:
            data: Description of the data set.
            grid: How the model divides images.
            labels: Of each image, at the size of its features.
            probe: Scored on the way.
        """
        self.data, self.grid, self.probe = data, grid, probe
        self.starts = torch.tensor([0, *(part.numel() for part in labels)]).cumsum(0)
        self.labels = torch.cat([part.flatten() for part in labels])
        with stream(0, "report_pixels"):
            most = max(1, SAMPLED // data.num_classes)
            self.pixels = balanced_sample(self.labels, data.num_classes, most)
        width = probe.weight.shape[1]
        self.scatter = geometry.empty_scatter(data.num_classes, width, probe.weight.device)
        self.probe_matrix = torch.zeros(data.num_classes, data.num_classes, dtype=torch.int64)
        self._kept = torch.zeros(0)

    def add(self, batch: Batch, output: ModelOutput) -> None:
        """Take a batch and its output."""
        rows = as_rows(output.features)
        spans = [range(int(self.starts[i]), int(self.starts[i + 1])) for i in batch.indices.tolist()]
        positions = torch.cat([torch.arange(span.start, span.stop) for span in spans])
        targets = self.labels[positions].to(rows.device)
        self.scatter = geometry.add_samples(self.scatter, rows, targets, self.data.ignore_index)
        if not len(self._kept):
            self._kept = torch.zeros(len(self.pixels), rows.shape[1], dtype=rows.dtype)
        wanted = torch.isin(self.pixels, positions)
        places = positions.argsort()[torch.searchsorted(positions.sort().values, self.pixels[wanted])]
        self._kept[wanted] = rows[places.to(rows.device)].cpu()
        labels = batch.labels.to(rows.device)
        size = (batch.images.shape[2], batch.images.shape[3])
        logits = self.probe.logits(output.features)
        predictions = self.probe.classes[predicted_classes(logits, labels, None, size, self.grid.multiple)]
        self.probe_matrix += confusion_matrix(
            labels, predictions, self.data.num_classes, self.data.ignore_index
        ).cpu()

    def sampled(self) -> dict[str, Tensor]:
        """Return features, positions and labels of the chosen pixels."""
        return {
            "features": self._kept,
            "pixels": self.pixels,
            "labels": self.labels[self.pixels],
        }


def class_vectors(model: nn.Module, regularizer: nn.Module, scatter: geometry.Scatter) -> dict[str, Tensor]:
    """Return every set of one vector (D,) per class that there is, by name: (C, D) each.

    ``classifier_rows`` only for a linear classifier; ``REGULARIZER_VECTORS`` as far as the regularizer has a
    buffer (C, D) of this name.
    """
    absent = (scatter.counts == 0)[:, None]
    vectors = {"class_means": scatter.means.masked_fill(absent, torch.nan)}
    classifier = model.classifier
    if isinstance(classifier, nn.Linear):
        vectors["classifier_rows"] = classifier.weight
    elif isinstance(classifier, nn.Conv2d) and classifier.weight.shape[2:] == (1, 1):
        vectors["classifier_rows"] = classifier.weight.flatten(1)
    buffers = dict(regularizer.named_buffers())
    vectors |= {
        name: buffers[name] for name in REGULARIZER_VECTORS if name in buffers and buffers[name].dim() == 2
    }
    return {name: rows.detach().cpu() for name, rows in vectors.items()}


def geometry_metrics(
    data: DataSet,
    matrix: Tensor,
    vectors: Mapping[str, Tensor],
    scatter: geometry.Scatter,
    counts: Tensor,
    per_class: Mapping[str, Tensor],
) -> dict[str, float]:
    """Return the scalars ``geometry/...``; an undefined one is NaN, so the keys of an arm never change.

    Args:
        data: Description of the data set.
        matrix: (C, C) confusion matrix of the model on the report split.
        vectors: Of ``class_vectors``.
        scatter: Of the report features.
        counts: (C,) training pixels or images.
        per_class: What else, besides the norm of classifier rows and the log ratio of predicted to labelled
            pixels, is regressed on log train frequency; (C,) by name.
    """
    nc1, within_share = geometry.within_class(scatter)
    metrics = {"features/nc1": nc1, "features/within_share": within_share}
    for name, rows in vectors.items():
        metrics |= {f"{name}/{key}": value for key, value in geometry.between_class(rows).items()}
    values = {**per_class, "predicted_ratio": geometry.log_ratio(matrix.sum(0), matrix.sum(1))}
    if "classifier_rows" in vectors:
        values["classifier_norm"] = vectors["classifier_rows"].double().norm(dim=1)
    counted = torch.zeros(data.num_classes, dtype=torch.bool)
    counted[list(data.score_classes)] = True
    counted &= matrix.sum(1) > 0
    for name, value in values.items():
        slope, error = geometry.frequency_slope(counts, value, counted)
        metrics |= {f"slope/{name}": slope, f"slope/{name}_se": error}
    return {f"geometry/{name}": value for name, value in metrics.items()}


def probe_metrics(probe: Probe, matrix: Tensor, data: DataSet) -> dict[str, float]:
    """Return the probe's ``probe/miou``, or ``probe/mean_accuracy``; NaN for a probe that is not finite."""
    name = "probe/miou" if data.task == "segmentation" else "probe/mean_accuracy"
    finite = bool(torch.isfinite(probe.weight).all())
    return {name: scores(matrix, data, "probe")[name] if finite else float("nan")}


def write_arrays(path: Path, arrays: Mapping[str, Tensor]) -> None:
    """Write arrays as .npz, whole or not at all."""
    buffer = io.BytesIO()
    plain: dict[str, Any] = {name: values.numpy() for name, values in arrays.items()}
    np.savez(buffer, **plain)
    write_whole(path, buffer.getvalue())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)
