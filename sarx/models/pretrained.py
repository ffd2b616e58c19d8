"""Published weights: who has them, what they were normalised with, what to do where they cannot be had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from sarx.config.errors import UserError
from sarx.config.schema.model import ModelConfig
from sarx.models.backbone_names import CIFAR_RESNETS, MIX_TRANSFORMERS

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's pixels / 255, per channel."""

FAILURES = (OSError, RuntimeError, ValueError, LookupError, EOFError, UnpicklingError)
"""What the libraries raise where a file cannot be had, read or put into the network."""


def model_mean_std(config: ModelConfig) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return what the pixels of a pretrained model must be normalised with, or None without such weights.

    Returns:
        Per-channel mean and standard deviation of pixel / 255: ImageNet's for most weights, .5 and .5 for
        timm's vision transformers. A data set's own mean and deviation do not know of them.
    """
    if not config.pretrained or config.backbone in CIFAR_RESNETS:
        return None
    if config.backbone in MIX_TRANSFORMERS:
        return IMAGENET
    import timm

    published = timm.get_pretrained_cfg(config.backbone)
    return None if published is None else (tuple(published.mean), tuple(published.std))


def check_published(name: str, source: object) -> None:
    """Refuse ``model.pretrained`` where nobody publishes weights.

    Args:
        name: The backbone.
        source: Where its library would load the weights from, or None.

    Raises:
        UserError: Naming the backbone.
    """
    if not source:
        raise UserError(
            f"there are no published weights of {name}; set model.pretrained=false or choose another "
            "backbone",
            key="model.pretrained",
        )


@contextmanager
def loading(name: str, source: str) -> Iterator[None]:
    """Turn every failure to load weights into one message that says what to do.

    Args:
        name: The backbone.
        source: Address of the weights, or the name of their repository.

    Raises:
        UserError: Naming the weights and the folder in which their library looks for them.
    """
    from huggingface_hub.errors import HfHubHTTPError
    from safetensors import SafetensorError

    network: tuple[Any, ...] = HfHubHTTPError.__bases__  # the errors of the HTTP client
    try:
        yield
    except (*FAILURES, SafetensorError, *network) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"cannot load the weights {source} of {name} ({type(error).__name__}: {reason[:200]}); set "
            f"model.pretrained=false, or {_cure(source)}",
            key="model.pretrained",
        ) from error


def _cure(source: str) -> str:
    """Say how to bring weights to a machine that cannot download them."""
    from huggingface_hub import constants
    from torch import hub

    if "://" in source:
        return f"put that file into {Path(hub.get_dir()) / 'checkpoints'}"
    folder = Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}"
    return f"run 'hf download {source}' where there is a network and copy the folder it fills to {folder}"
