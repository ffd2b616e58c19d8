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
from sarx.data import DataSet, Split, class_counts, describe, load_split, split_names
from sarx.models.output import ModelOutput
from sarx.regularizers.functional import downsample_labels
from sarx.training import checkpoint, geometry
from sarx.training.distributed import on_main
from sarx.training.evaluation import confusion, feature_size, predicted_classes, scores
from sarx.training.loop import EpochResult, train
from sarx.training.metrics import confusion_matrix
from sarx.training.probe import Probe, as_rows, balanced_sample, fit_probe
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
    ``weights-<epoch>.pt``, and what the geometry was computed from as ``geometry.npz``.

    Under several ranks rank 0 alone computes and writes this, and hands the metrics to the others, which
    wait for it; the process group's timeout must allow for that.

    Raises:
        ValueError: For a search trial, which must never see the report split.
        RuntimeError: On the other ranks, if it fails on rank 0.
    """
    if config.role != "confirm":
        raise ValueError("only confirm trials are scored on the report split")
    for result in train(config, folder=folder, resume=resume, name=name, replay_from=replay_from):
        if result.last and not result.diverged:
            result.metrics = result.metrics | on_main(partial(make_report, config, result, folder))
        yield result


def make_report(config: TrainConfig, result: EpochResult, folder: Path | None) -> dict[str, float]:
    """Return the metrics of the report and, with ``folder``, write what belongs to it."""
    metrics, arrays = report_metrics(config, result)
    if folder is not None:
        write_arrays(folder / GEOMETRY, arrays)
        checkpoint.save(folder, result.epoch, result.module.model.state_dict(), name="weights")
    return metrics


def report_metrics(config: TrainConfig, result: EpochResult) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Score the trained model on the report split and measure the geometry of its features.

    Returns:
        Scalars by name, and the arrays of ``geometry.npz``: ``class_means`` (C, D) float64, NaN for a class
        without report pixels; the other ``class_vectors``; ``features`` (P, D) of the sampled report pixels
        with ``pixels`` (P,), their positions in the report split at the size of the features, and ``labels``
        (P,); ``train_counts`` (C,); ``iou`` (C,), or ``accuracy`` in classification.
    """
    device = torch.device(config.training.device)
    model, data = result.module.model, describe(config.data, config.seed)
    train_split = load_split(config.data, config.seed, "train")
    split = load_split(config.data, config.seed, split_names(config.data)[1])
    size = feature_size(model, split, data, device)
    probe = fit_probe(model, train_split, grid_labels(train_split, size), data, device, config.seed)
    seen = Observation(data, grid_labels(split, size), probe)
    matrix = confusion(model, split, data, device, seen.add, result.module.prediction_adjustment).cpu()
    metrics = scores(matrix, data, "test")
    vectors = class_vectors(model, result.module.regularizer, seen.scatter)
    counts = torch.from_numpy(class_counts(train_split.labels, data.num_classes, data.ignore_index))
    kind = "iou" if data.task == "segmentation" else "accuracy"
    per_class = torch.tensor([metrics[f"test/{kind}/{name}"] for name in data.class_names])
    arrays = vectors | seen.sampled() | {"train_counts": counts, kind: per_class}
    metrics |= geometry_metrics(data, matrix, vectors, seen.scatter, counts, {kind: per_class})
    return metrics | probe_metrics(probe, seen.probe_matrix, data), arrays


class Observation:
    """What one pass over the report images gathers besides the scores; fed batch by batch, in order.

    Attributes:
        scatter: Of all labelled pixels.
        probe_matrix: Confusion matrix of the probe, int64 (C, C).
    """

    def __init__(self, data: DataSet, labels_Nhw: Tensor, probe: Probe) -> None:
        """Choose the pixels whose features are kept: the same for every arm, seed and study of these data."""
        self.data, self.probe = data, probe
        self.labels = labels_Nhw.flatten()
        with stream(0, "report_pixels"):
            self.pixels = balanced_sample(self.labels, data.num_classes, SAMPLED // data.num_classes)
        width = probe.weight.shape[1]
        self.scatter = geometry.empty_scatter(data.num_classes, width, probe.weight.device)
        self.probe_matrix = torch.zeros(data.num_classes, data.num_classes, dtype=torch.int64)
        self._kept: list[Tensor] = []
        self._done = 0

    def add(self, labels: Tensor, output: ModelOutput) -> None:
        """Take the labels and the output of one batch."""
        rows = as_rows(output.features)
        last = self._done + len(rows)
        targets = self.labels[self._done : last].to(rows.device)
        self.scatter = geometry.add_samples(self.scatter, rows, targets, self.data.ignore_index)
        inside = self.pixels[(self.pixels >= self._done) & (self.pixels < last)] - self._done
        self._kept.append(rows[inside.to(rows.device)].cpu())
        predictions = self.probe.classes[predicted_classes(self.probe.logits(output.features), labels)]
        self.probe_matrix += confusion_matrix(
            labels, predictions, self.data.num_classes, self.data.ignore_index
        ).cpu()
        self._done = last

    def sampled(self) -> dict[str, Tensor]:
        """Return features, positions and labels of the chosen pixels."""
        return {
            "features": torch.cat(self._kept),
            "pixels": self.pixels,
            "labels": self.labels[self.pixels],
        }


def grid_labels(split: Split, size: tuple[int, ...]) -> Tensor:
    """Return the labels at the size of the features, by the rule of the regularizers: (N, h, w) or (N,)."""
    labels = torch.tensor(split.labels)
    return downsample_labels(labels, (size[0], size[1])) if size else labels


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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as handle:
        handle.write(buffer.getvalue())
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)
