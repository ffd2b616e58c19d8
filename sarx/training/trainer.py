"""One optimizer step: micro-batches, precision, clipping, and the wrapper that averages over ranks."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sarx.config.errors import UserError
from sarx.config.schema import TrainConfig
from sarx.data import DataSet, FileSplit, Split, load_split, training_counts
from sarx.study.seeds import derive
from sarx.training.distributed import largest, rank, summed, together, world_size, wrap
from sarx.training.evaluation import feature_size, multiple_of, padded, resize_logits
from sarx.training.file_samples import FileSamples
from sarx.training.optim import build_optimizer, learning_rate
from sarx.training.samples import PRECISIONS, Part, Samples, TrainingSamples
from sarx.training.seeding import stream
from sarx.training.step import STATES, Share, TrainingModule, Unlabelled, build_module
from sarx.training.unlabelled import distort, follow, paste, pseudo_labels

UNLABELLED = "unlabelled"
"""A split, and the streams of random numbers of its samples."""


@dataclass
class Trainer:
    """What a step needs.

    Attributes:
        config: Options of the run.
        module: What is trained.
        wrapped: What steps call: ``module``, or a wrapper around it that averages gradients over ranks.
        optimizer: Of the module's parameters.
        scaler: Scales the loss of float16; does nothing in another precision.
        samples: The training samples.
        data: Description of the data set.
        device: Where to train.
        unlabelled: Training samples without labels, or None.
        size: (h, w) of the features, or () in classification; looked at under accumulation alone.
    """

    config: TrainConfig
    module: TrainingModule
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    samples: TrainingSamples
    data: DataSet
    device: torch.device
    size: tuple[int, ...]
    unlabelled: TrainingSamples | None = None
    wrapped: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        """Start without a wrapper."""
        self.wrapped = self.module

    def close(self) -> None:
        """End what reads samples ahead."""
        self.samples.close()
        if self.unlabelled is not None:
            self.unlabelled.close()


def build_trainer(
    config: TrainConfig, data: DataSet, split: Split | FileSplit, device: torch.device
) -> Trainer:
    """Build everything that steps need, without a wrapper; every rank gets the same weights.

    Args:
        config: Options of the run.
        data: Description of the data set.
        split: The training split.
        device: Where to train.

    Raises:
        UserError: For a batch that is too small for the micro-batches and ranks, or parts that do not fit.
    """
    samples = training_samples(split, data, config, device)
    module = build_module(config, data, torch.from_numpy(training_counts(config, split))).to(device)
    optimizer = build_optimizer(module.parameters(), config.optim)
    scaler = torch.amp.GradScaler(device.type, enabled=config.training.precision == "float16")
    size = feature_size(module.model, data) if config.training.accumulation > 1 else ()
    unlabelled = unlabelled_samples(config, data, device) if config.training.unlabelled_weight else None
    return Trainer(config, module.train(), optimizer, scaler, samples, data, device, size, unlabelled)


def training_samples(
    split: Split | FileSplit, data: DataSet, config: TrainConfig, device: torch.device
) -> TrainingSamples:
    """Return the samples of a split, in memory or read ahead from files."""
    if isinstance(split, FileSplit):
        return FileSamples(split, data, config, device)
    return Samples(split, data, config, device)


def unlabelled_samples(config: TrainConfig, data: DataSet, device: torch.device) -> TrainingSamples:
    """Return the training samples without labels, in an order of their own.

    Raises:
        UserError: If there are none.
    """
    if not any(hasattr(config.data, option) for option in ("labelled_share", "unlabelled")):
        raise UserError(
            f"data={config.data.name} has no images without labels", key="training.unlabelled_weight"
        )
    split = load_split(config.data, config.seed, UNLABELLED)
    if not len(split):
        raise UserError(
            "there is no image without labels; give data.labelled_share below 1",
            key="training.unlabelled_weight",
        )
    own = replace(config, seed=derive(config.seed, UNLABELLED))
    return training_samples(split, data, own, device)


def distribute(trainer: Trainer) -> None:
    """Wrap the module for the ranks of the default process group; nothing happens for one process.

    A step of a copy, with few samples, tells whether gradients are complete. ``find_unused_parameters`` is
    set only where one is missing: a decoder that reads one of several parallel branches (``pool`` on an
    HRNet), or a plug-in.

    Raises:
        RuntimeError: If the model fails on another rank, such as a batch normalisation on a single sample;
            its own error on that rank.
    """
    if world_size() == 1:
        return
    images, labels = trainer.samples.few()
    images, labels = padded(images, multiple_of(trainer.module.model)), fitted(trainer, labels)
    twin = copy.deepcopy(trainer.module).train()
    with dropout(trainer, 0, 0), autocast(trainer):
        together(lambda: twin.model(images))  # before the ranks wait for each other inside a step
        loss: Tensor = twin(images, labels)[0]
    loss.backward()  # type: ignore[no-untyped-call]
    missing = any(value.requires_grad and value.grad is None for value in twin.parameters())
    trainer.wrapped = wrap(trainer.module, find_unused=largest(float(missing)) > 0)


def take_step(trainer: Trainer, step: int) -> dict[str, Tensor]:
    """Take an optimizer step and return its metrics on this rank, whose mean over ranks is the step's.

    ``diverged`` is 1 where the loss is not finite. A step whose gradients overflow in float16 changes no
    weight; the scaler leaves it out and lowers its scale.
    """
    config = trainer.config
    for group in trainer.optimizer.param_groups:
        group["lr"] = learning_rate(config.optim, step, config.training.steps)
    trainer.optimizer.zero_grad(set_to_none=True)
    found: dict[str, Tensor] = {}
    multiple = multiple_of(trainer.module.model)
    parts = [replace(part, labels=fitted(trainer, part.labels)) for part in trainer.samples.parts(step)]
    for number, (part, share) in enumerate(zip(parts, micro_batches(trainer, parts), strict=True)):
        with held_back(trainer.wrapped, number < len(parts) - 1):
            images = padded(part.images(), multiple)
            given = labelled_by_teacher(trainer, step)
            with dropout(trainer, step, number), autocast(trainer):
                loss, metrics = trainer.wrapped(images, part.labels, *share, **given)
            trainer.scaler.scale(loss).backward()
        for key, value in metrics.items():
            found[key] = found[key] + value if key in found and key not in STATES else value
    if config.training.grad_clip:
        trainer.scaler.unscale_(trainer.optimizer)
        nn.utils.clip_grad_norm_(trainer.module.parameters(), config.training.grad_clip)
    trainer.scaler.step(trainer.optimizer)
    trainer.scaler.update()
    if trainer.module.teacher is not None:
        follow(trainer.module.teacher, trainer.module.model, config.training.teacher_decay, step)
    return {**found, "diverged": (~torch.isfinite(found["train/loss"])).float()}


def fitted(trainer: Trainer, labels: Tensor) -> Tensor:
    """Return label maps (b, H, W) padded as the model's images are, with what is ignored; (b,) stays."""
    if labels.dim() == 1:
        return labels
    return padded(labels, multiple_of(trainer.module.model), trainer.data.ignore_index)


def labelled_by_teacher(trainer: Trainer, step: int) -> dict[str, Unlabelled]:
    """Return this rank's unlabelled images of a step as the module wants them, if there are any.

    The teacher sees them as they are; the student distorted and pasted into one another.
    """
    if trainer.unlabelled is None or trainer.module.teacher is None:
        return {}
    options, (part,) = trainer.config.training, trainer.unlabelled.parts(step)
    images = padded(part.images(), multiple_of(trainer.module.model))
    given = fitted(trainer, part.labels)
    with torch.no_grad(), autocast(trainer):
        logits = resize_logits(trainer.module.teacher(images).logits, given)
    labels = pseudo_labels(logits, given, options.pseudo_confidence, trainer.data.ignore_index)
    with stream(trainer.config.seed, UNLABELLED, step, rank()):
        images, labels = paste(distort(images), labels)
    return {"unlabelled": Unlabelled(images, labels, options.unlabelled_weight)}


def micro_batches(trainer: Trainer, parts: list[Part]) -> list[tuple[Share, ...]]:
    """Return what the module is called with for each micro-batch, besides its samples."""
    if len(parts) == 1:
        return [()]
    labels = [part.labels for part in parts]
    return [(share,) for share in trainer.module.shares(labels, trainer.size, trainer.data.ignore_index)]


def held_back(module: nn.Module, wanted: bool) -> AbstractContextManager[None]:
    """Keep gradients on this rank inside the block: only the last micro-batch's backward exchanges them."""
    if wanted and isinstance(module, DistributedDataParallel):
        held: AbstractContextManager[None] = module.no_sync()
        return held
    return contextlib.nullcontext()


def dropout(trainer: Trainer, step: int, number: int) -> AbstractContextManager[None]:
    """Draw dropout masks from a stream of the step, and of micro-batch and rank where there are several."""
    several = trainer.config.training.accumulation > 1 or world_size() > 1
    return stream(trainer.config.seed, "dropout", step, *((number, rank()) if several else ()))


@contextlib.contextmanager
def autocast(trainer: Trainer) -> Iterator[None]:
    """Compute in half precision inside the block if the precision is one."""
    dtype = PRECISIONS[trainer.config.training.precision]
    if dtype in (torch.float32, torch.float64):
        yield
        return
    with torch.autocast(trainer.device.type, dtype):
        yield


class Means:
    """The means of step metrics over an epoch and over ranks.

    Under float16 a step whose loss is not finite counts for nothing: the scaler leaves it out.
    """

    def __init__(self, trainer: Trainer) -> None:
        """Start with no step."""
        self.skipping = trainer.scaler.is_enabled()
        self.sums: dict[str, Any] = {}
        self.states: dict[str, Tensor] = {}
        self.steps = 0

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Add the metrics of a step, on the device."""
        self.steps += 1
        counted = 1.0 - metrics["diverged"] if self.skipping else torch.ones_like(metrics["diverged"])
        for key, value in {**metrics, "counted": counted}.items():
            if key in STATES:
                self.states[key] = value
                continue
            if self.skipping and key != "diverged":
                value = torch.where(counted > 0, value, 0.0)
            self.sums[key] = self.sums[key] + value.double() if key in self.sums else value.double()

    def result(self) -> tuple[dict[str, float], bool]:
        """Return the means, equal on all ranks, and whether the training has diverged; read from the device.

        It has if the loss of a step was not finite on a rank; under float16, if that of every step was.
        """
        means = summed({key: float(value) for key, value in self.sums.items()})
        lost, counted = means.pop("diverged"), means.pop("counted")
        states = summed({key: float(value) for key, value in self.states.items()})
        means = {key: value / counted if counted else float("nan") for key, value in means.items()}
        means |= {key: value / world_size() for key, value in states.items()}
        return means, lost > 0 if not self.skipping else counted == 0
