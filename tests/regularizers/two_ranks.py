"""Runs a function on two ranks, and the training of the baselines that is compared over ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from sarx.config.schema.regularizers import REGULARIZERS
from sarx.regularizers import build_regularizer

CLASSES, WIDTH, IMAGES = 4, 6, 3
CENTRES = 2.0 * torch.eye(CLASSES, 3, dtype=torch.float64)
"""Of the pixels of each class."""
BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "car": ("car", {}),
    "center_loss": ("center_loss", {}),
    "pixel_prototype_contrast": ("pixel_prototype_contrast", {"ema_decay": 0.7}),
    "prototype_ema": ("prototype_ema", {"ema_decay": 0.7}),
    "gated": ("prototype_ema", {"ema_decay": 0.7, "gate": "all", "update_confidence": 0.3}),
    "gated_per_class": ("prototype_ema", {"ema_decay": 0.7, "gate": "per_class", "update_confidence": 0.3}),
}
"""Name of the case -> regularizer and options."""


def on_two_ranks(function: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """Return what ``function(rank, *arguments)`` returns on each of two ranks.

    Args:
        function: Importable by its name in a fresh process.
        folder: Empty; holds the store and the results.
        arguments: What pickle takes.
    """
    torch.multiprocessing.spawn(_enter, (function, str(folder), arguments), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(2)]


def _enter(rank: int, function: Callable[..., Any], folder: str, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        torch.save(function(rank, *arguments), Path(folder) / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()


def train_baselines(rank: int | None) -> dict[str, list[dict[str, Tensor]]]:
    """Train every case: rank 0 on the first image of each batch, rank 1 on the others, None on all."""
    part = {None: slice(None), 0: slice(0, 1), 1: slice(1, None)}[rank]
    return {case: _train(name, options, part) for case, (name, options) in BASELINES.items()}


def batches() -> list[tuple[Tensor, Tensor, bool]]:
    """Return images (3, 3, 2, 3), labels (3, 4, 6) and whether the state advances, of five micro-batches.

    Class 0 is on rank 0 alone, class 3 on rank 1 alone and only in the last; ignored pixels are uneven: all
    of rank 1 in the third, all of both ranks in the fourth.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (5, IMAGES, 4, 6), generator=generator)
    labels[4, 1, :2] = 3
    noise = torch.randn(5, IMAGES, 2, 3, 3, generator=generator, dtype=torch.float64)
    images = (CENTRES[labels[:, :, ::2, ::2]] + 0.5 * noise).movedim(-1, 2)
    labels[:, 1:][labels[:, 1:] == 0] = 255
    labels[:, 0, 3:] = 255
    labels[2, 1:] = 255
    labels[3] = 255
    return list(zip(images, labels, (True, False, True, True, True), strict=True))


def _train(name: str, options: dict[str, Any], part: slice) -> list[dict[str, Tensor]]:
    """Return loss, metrics, gradients and state of every micro-batch, averaged over ranks as DDP does."""
    torch.manual_seed(0)
    producer = nn.Conv2d(3, WIDTH, 1).double()
    classifier = _nearest_centre(producer(CENTRES[:, :, None, None])[:, :, 0, 0].detach())
    regularizer = build_regularizer(
        REGULARIZERS[name](**options), num_classes=CLASSES, feature_dim=WIDTH, total_steps=10
    ).double()
    records = []
    for images, labels, advance in batches():
        output = regularizer(producer(images[part]), labels[part], classifier, advance=advance)
        gradients = torch.autograd.grad(output.loss, list(producer.parameters()))
        averaged = {f"gradient{i}": gradient for i, gradient in enumerate(gradients)}
        averaged |= output.metrics | {"loss": output.loss.detach()}
        if dist.is_initialized():
            for tensor in averaged.values():
                dist.all_reduce(tensor.div_(dist.get_world_size()))
        with torch.no_grad():
            for i, parameter in enumerate(producer.parameters()):
                parameter.sub_(0.1 * averaged[f"gradient{i}"])
        records.append(averaged | {k: v.clone() for k, v in regularizer.state_dict().items()})
    return records


def _nearest_centre(features_CD: Tensor) -> nn.Linear:
    """Return the classifier of the nearest of C features, which never finds the last class."""
    classifier = nn.Linear(WIDTH, CLASSES).double()
    with torch.no_grad():
        classifier.weight.copy_(features_CD)
        classifier.bias.copy_(-features_CD.square().sum(dim=1) / 2)
        classifier.bias[-1] -= 100.0
    return classifier
