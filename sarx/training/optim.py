"""Optimizers and the polynomial learning-rate schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from sarx.config.schema.optim import OptimConfig


def _adamw(parameters: Iterable[nn.Parameter], config: OptimConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        parameters, lr=config.lr, betas=(config.momentum, 0.999), weight_decay=config.weight_decay
    )


def _sgd(parameters: Iterable[nn.Parameter], config: OptimConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )


OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], OptimConfig], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "sgd": _sgd,
}


def build_optimizer(parameters: Iterable[nn.Parameter], config: OptimConfig) -> torch.optim.Optimizer:
    """Build the optimizer that ``config.name`` names; weight decay acts on every parameter."""
    return OPTIMIZERS[config.name](parameters, config)


def learning_rate(config: OptimConfig, step: int, total_steps: int) -> float:
    """Return the rate of a step: poly decay of the full training length, down to ``floor`` times ``lr``."""
    decay: float = (1.0 - step / total_steps) ** config.power
    return config.lr * (decay * (1.0 - config.floor) + config.floor)
