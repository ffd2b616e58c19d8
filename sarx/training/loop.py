"""The training loop: a generator that yields after each epoch and can be closed at any yield."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sarx.config.schema import TrainConfig
from sarx.data import DataSet, Split, class_counts, describe, load_split, split_names
from sarx.training import checkpoint
from sarx.training.evaluation import evaluate, normalise
from sarx.training.optim import build_optimizer, learning_rate
from sarx.training.seeding import batch_indices, stream
from sarx.training.step import TrainingModule, build_module, optimizer_step

SHARES = {"train/gate_open": "train/gate_open_share", "train/aux_zero": "train/aux_zero_share"}
"""Step metrics whose mean over the whole run is reported too."""


@dataclass
class EpochResult:
    """What one epoch gave.

    Attributes:
        epoch: Epochs done, from 1.
        step: Optimizer steps done.
        duration_s: Seconds of training and evaluation of this epoch.
        metrics: Scalars by name; the keys are the same after every epoch.
        last: Whether training has reached its full length.
        diverged: Whether the loss became non-finite; nothing follows then.
        module: What is trained; valid until the next epoch is asked for.
    """

    epoch: int
    step: int
    duration_s: float
    metrics: dict[str, float]
    last: bool
    diverged: bool
    module: TrainingModule


def train(
    config: TrainConfig,
    *,
    folder: Path | None = None,
    resume: Sequence[Path] = (),
    name: str = "",
    replay_from: int | None = None,
) -> Iterator[EpochResult]:
    """Train and yield after each epoch (evaluation interval), scored on the selection split.

    The report split is not read here; see sarx.training.report.

    Args:
        config: Everything that decides the result.
        folder: Where checkpoints are written after each epoch; None writes none.
        resume: Folders of earlier attempts, newest first, to continue from.
        name: What the witness file of the kill tests calls this run.
        replay_from: First epoch whose result the caller lacks; see ``results_again``.
    """
    device = torch.device(config.training.device)
    data = describe(config.data, config.seed)
    train_split = load_split(config.data, config.seed, "train")
    selection = split_names(config.data)[0]
    selection_split = load_split(config.data, config.seed, selection)
    counts = torch.from_numpy(class_counts(train_split.labels, data.num_classes, data.ignore_index))
    module = build_module(config, data, counts).to(device)
    optimizer = build_optimizer(module.parameters(), config.optim)
    epoch, totals = 0, dict.fromkeys(SHARES, 0.0)
    state = checkpoint.resume(resume, module, optimizer, config.training.epochs, device)
    if state is not None:
        epoch, totals = state["epoch"], state["totals"]
        print(f"continues after epoch {epoch} of {config.training.epochs}", flush=True)
        yield from results_again(config, resume, state, replay_from, module)
    samples = Samples(train_split, data, config, device)
    while epoch < config.training.epochs:
        started = time.perf_counter()
        means = train_epoch(config, module, optimizer, samples, epoch)
        epoch += 1
        witness(name, epoch)
        step = epoch * config.training.eval_every
        diverged = means.pop("diverged") > 0
        metrics = dict(means)
        for source, target in SHARES.items():
            if source in means:
                totals[source] += means[source] * config.training.eval_every
                metrics[target] = totals[source] / step
        metrics["train/learning_rate"] = learning_rate(config.optim, step - 1, config.training.steps)
        if not diverged:
            adjustment = module.prediction_adjustment
            metrics |= evaluate(module.model, selection_split, data, device, "val", adjustment)
        duration = time.perf_counter() - started
        metrics["time/samples_per_s"] = config.training.eval_every * config.training.batch_size / duration
        if folder is not None and not diverged:
            state = {"epoch": epoch, "totals": totals, "metrics": metrics, "duration_s": duration}
            state |= {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
            checkpoint.save(folder, epoch, state)
        yield EpochResult(epoch, step, duration, metrics, epoch == config.training.epochs, diverged, module)
        if diverged:
            return


def results_again(
    config: TrainConfig,
    folders: Sequence[Path],
    state: dict[str, Any],
    replay_from: int | None,
    module: TrainingModule,
) -> Iterator[EpochResult]:
    """Yield results that checkpoints hold and that may have been lost on their way: nothing is trained.

    A host saves before it hands a result on, and is asked for the next epoch only when that is recorded. So
    at most the newest checkpoint is ahead of what is recorded, unless the driver's machine lost what it had
    not forced to disk yet; then the result before it is there too, and older ones are lost.

    Args:
        config: Options of the run.
        folders: Of the attempts, newest first.
        state: The checkpoint that training continues from.
        replay_from: First epoch whose result the caller lacks. The last epoch's is always given: nothing
            would come otherwise. None: that one alone.
        module: What is trained, as of ``state``.
    """
    epochs = config.training.epochs
    first = epochs if replay_from is None else min(replay_from, epochs)
    for known in (*checkpoint.results_before(folders, first, state["epoch"]), state):
        epoch = known["epoch"]
        if epoch >= first:
            step = epoch * config.training.eval_every
            duration, metrics = known["duration_s"], known["metrics"]
            yield EpochResult(epoch, step, duration, metrics, epoch == epochs, False, module)


class Samples:
    """The training samples in memory, batched by global position."""

    def __init__(self, split: Split, data: DataSet, config: TrainConfig, device: torch.device) -> None:
        """Copy the split into memory."""
        self.images = torch.tensor(split.images)
        self.labels = torch.tensor(split.labels)
        self.data, self.device = data, device
        self.seed, self.batch_size = config.seed, config.training.batch_size

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return normalised images (B, C, H, W) and int64 labels of a step."""
        chosen = batch_indices(self.seed, len(self.labels), self.batch_size, step)
        images = normalise(self.images[chosen], self.data, self.device)
        return images, self.labels[chosen].to(self.device).long()


def train_epoch(
    config: TrainConfig,
    module: TrainingModule,
    optimizer: torch.optim.Optimizer,
    samples: Samples,
    epoch: int,
) -> dict[str, float]:
    """Train one epoch and return the means of its step metrics.

    ``diverged`` counts the steps whose loss was not finite; it is a device flag that is read here alone.
    """
    module.train()
    sums: dict[str, Any] = {}
    first = epoch * config.training.eval_every
    for step in range(first, first + config.training.eval_every):
        images, labels = samples.batch(step)
        with stream(config.seed, "dropout", step):
            loss, metrics = module(images, labels)
        optimizer_step(loss, optimizer, learning_rate(config.optim, step, config.training.steps))
        metrics["diverged"] = (~torch.isfinite(loss.detach())).float()
        for key, value in metrics.items():
            sums[key] = sums[key] + value.double() if key in sums else value.double()
    means = {key: float(value) / config.training.eval_every for key, value in sums.items()}
    if "train/first_open_step" in metrics:  # a state, not a rate: its last value counts
        means["train/first_open_step"] = float(metrics["train/first_open_step"])
    return means


def witness(name: str, epoch: int) -> None:
    """Append to the file that kill tests count executions from, if SARX_WITNESS names one."""
    file = os.environ.get("SARX_WITNESS")
    if file:
        with Path(file).open("a", encoding="utf-8") as handle:
            handle.write(f"{name} {epoch} {os.getpid()}\n")
