"""The training loop: a generator that yields after each epoch and can be closed at any yield."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sarx.config.schema import TrainConfig
from sarx.data import FileSplit, Split, load_split, selects, split_names, training_split
from sarx.training import checkpoint, saving
from sarx.training.described import data_of
from sarx.training.distributed import average_batch_norm, is_main, largest, on_main
from sarx.training.evaluation import evaluate
from sarx.training.optim import learning_rate
from sarx.training.saving import Writer, state_of
from sarx.training.step import TrainingModule
from sarx.training.trainer import Means, Trainer, build_trainer, distribute, take_step

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

    Where the selection split is held out of the training images, a confirm trial trains on it and is not
    scored on it.

    The report split is not read here; see sarx.training.report.

    Where the host has initialised the default process group (gloo, or nccl with each rank's GPU set as the
    current one), every rank calls this with the same arguments and gets the same results equally often;
    ``folder`` and ``resume`` are storage that all ranks share. A rank that closes its generator, or fails,
    leaves the others waiting up to the group's timeout: the host closes all or ends the group.

    Args:
        config: Everything that decides the result.
        folder: Where checkpoints are written after each epoch; None writes none.
        resume: Folders of earlier attempts, newest first, to continue from.
        name: What the witness file of the kill tests calls this run.
        replay_from: First epoch whose result the caller lacks; see ``results_again``.
    """
    device = torch.device(config.training.device)
    data = data_of(config)
    train_split = load_split(config.data, config.seed, training_split(config.data, config.role))
    selection_split = None
    if selects(config.data, config.role):
        selection_split = load_split(config.data, config.seed, split_names(config.data)[0])
    writer = Writer(folder, threaded=config.training.async_checkpoint)
    forget_compiled(config)
    trainer: Trainer | None = None
    try:
        trainer = build_trainer(config, data, train_split, device)
        epoch, totals = 0, dict.fromkeys(SHARES, 0.0)
        state = saving.resume(resume, trainer, device)
        if state is not None:
            epoch, totals = state["epoch"], state["totals"]
            if is_main():
                print(f"continues after epoch {epoch} of {config.training.epochs}", flush=True)
            yield from results_again(config, resume, state, replay_from, trainer.module)
        if epoch < config.training.epochs:
            distribute(trainer)
        while epoch < config.training.epochs:
            result = run_epoch(trainer, selection_split, writer, epoch, totals, name)
            epoch = result.epoch
            yield result
            if result.diverged:
                return
    finally:
        if trainer is not None:
            trainer.close()
        writer.close()
        forget_compiled(config)


def run_epoch(
    trainer: Trainer,
    selection: Split | FileSplit | None,
    writer: Writer,
    epoch: int,
    totals: dict[str, float],
    name: str,
) -> EpochResult:
    """Train an epoch, score it, and save it unless it diverged.

    Args:
        trainer: What is trained.
        selection: The selection split; None where the trial trains on it.
        writer: Of checkpoints.
        epoch: Epochs done so far.
        totals: See ``train_epoch``.
        name: See ``witness``.
    """
    options = trainer.config.training
    started = time.perf_counter()
    metrics, diverged = train_epoch(trainer, epoch, totals)
    epoch += 1
    if is_main():
        witness(name, epoch)
    if not diverged:
        average_batch_norm(trainer.module)
    if selection is not None and not diverged:
        model, adjustment = trainer.module.model, trainer.module.prediction_adjustment
        metrics |= evaluate(model, selection, trainer.data, trainer.device, "val", adjustment)
    duration = largest(time.perf_counter() - started)
    metrics["time/samples_per_s"] = options.eval_every * options.batch_size / duration
    if not diverged:
        known = {"epoch": epoch, "totals": totals, "metrics": metrics, "duration_s": duration}
        writer.save(epoch, lambda: known | state_of(trainer))
    last = epoch == options.epochs
    if last:
        writer.wait()
    return EpochResult(epoch, epoch * options.eval_every, duration, metrics, last, diverged, trainer.module)


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
    before = on_main(lambda: checkpoint.results_before(folders, first, state["epoch"]))
    for known in (*before, state):
        epoch = known["epoch"]
        if epoch >= first:
            step = epoch * config.training.eval_every
            duration, metrics = known["duration_s"], known["metrics"]
            yield EpochResult(epoch, step, duration, metrics, epoch == epochs, False, module)


def train_epoch(trainer: Trainer, epoch: int, totals: dict[str, float]) -> tuple[dict[str, float], bool]:
    """Train one epoch; return the means of its step metrics over steps and ranks, and whether it diverged.

    Whether the loss was finite is a device flag that is read here alone.

    Args:
        trainer: What is trained.
        epoch: Epochs done so far.
        totals: Sums over the whole run of the metrics in ``SHARES``; the epoch's are added.
    """
    options = trainer.config.training
    trainer.module.train()
    means = Means(trainer)
    first = epoch * options.eval_every
    for step in range(first, first + options.eval_every):
        means.add(take_step(trainer, step))
    metrics, diverged = means.result()
    for source, target in SHARES.items():
        if source in metrics:
            totals[source] += metrics[source] * options.eval_every
            metrics[target] = totals[source] / (first + options.eval_every)
    metrics["train/learning_rate"] = learning_rate(
        trainer.config.optim, first + options.eval_every - 1, options.steps
    )
    return metrics, diverged


def forget_compiled(config: TrainConfig) -> None:
    """Drop compiled code: a process that trains one model after another would reach the compiler's limit."""
    if config.training.compile:
        torch.compiler.reset()


def witness(name: str, epoch: int) -> None:
    """Append to the file that kill tests count executions from, if SARX_WITNESS names one."""
    file = os.environ.get("SARX_WITNESS")
    if file:
        with Path(file).open("a", encoding="utf-8") as handle:
            handle.write(f"{name} {epoch} {os.getpid()}\n")
