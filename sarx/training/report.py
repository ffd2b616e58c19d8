"""Training with a report: the one place that scores the report split, once, after the last epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from sarx.config.schema import TrainConfig
from sarx.data import describe, load_split, split_names
from sarx.training import checkpoint
from sarx.training.evaluation import evaluate
from sarx.training.loop import EpochResult, train


def train_and_report(
    config: TrainConfig, *, folder: Path | None = None, resume: Sequence[Path] = (), name: str = ""
) -> Iterator[EpochResult]:
    """Train as ``train`` does; the last epoch's metrics gain ``test/...``.

    With ``folder`` the final weights of the model, without anything of the regularizer, are kept in it as
    ``weights-<epoch>.pt``.

    Raises:
        ValueError: For a search trial, which must never see the report split.
    """
    if config.role != "confirm":
        raise ValueError("only confirm trials are scored on the report split")
    for result in train(config, folder=folder, resume=resume, name=name):
        if result.last and not result.diverged:
            result.metrics = result.metrics | report_metrics(config, result)
            if folder is not None:
                checkpoint.save(folder, result.epoch, result.module.model.state_dict(), name="weights")
        yield result


def report_metrics(config: TrainConfig, result: EpochResult) -> dict[str, float]:
    """Score the trained model on the report split."""
    device = torch.device(config.training.device)
    data = describe(config.data, config.seed)
    split = load_split(config.data, config.seed, split_names(config.data)[1])
    return evaluate(result.module.model, split, data, device, "test")
