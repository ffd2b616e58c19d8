"""The models of sarx/conf/model as a Markdown table: ``python -m sarx.models.table [NAME ...]``.

Everything is counted on the meta device: no weights are drawn, no images computed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sarx.config.compose import compose_groups, group_names
from sarx.config.errors import UserError, exit_code, nearest
from sarx.config.schema.model import ModelConfig

if TYPE_CHECKING:
    from torch import nn

HEADER = (
    "model",
    "parameters (M)",
    "SAR adds in training",
    "GFLOPs 512x1024",
    "GFLOPs 512x512",
    "D",
    "stride",
)
SIZES = (((512, 1024), 19), ((512, 512), 150))
"""(height, width) of the image and number of classes: the crops of Cityscapes and ADE20K."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of the named models, or of all; returns the exit code."""
    names = list(sys.argv[1:] if arguments is None else arguments)
    known = group_names("model")
    for name in names:
        if name not in known:
            raise UserError(f"there is no model called {name!r}; {nearest(name, known)}", key="model")
    print(line(HEADER))
    print(line(["---"] * len(HEADER)))
    for name in names or known:
        print(row(name), flush=True)
    return 0


def row(name: str) -> str:
    """Return the line of one file of sarx/conf/model.

    Parameters are counted with 19 classes. A multiply-add counts as two operations; GFLOPs are those of the
    convolutions and matrix products of one image's forward pass in evaluation, as
    ``torch.utils.flop_counter`` counts them, with the classes of ``SIZES``.
    """
    config = ModelConfig(**compose_groups((("model", name),))["model"])
    models = [build_without_weights(config, num_classes) for _, num_classes in SIZES]
    parameters = sum(value.numel() for value in models[0].parameters())
    width: int = models[0].feature_dim
    stride = getattr(models[0], "stride", None)
    operations = ["-"] * len(SIZES)
    if stride is not None:
        operations = [f"{gflops(model, size):,.0f}" for model, (size, _) in zip(models, SIZES, strict=True)]
    cells = [name, f"{parameters / 1e6:.2f}", f"{sar_parameters(width):,}", *operations, f"{width}"]
    return line([*cells, "-" if stride is None else f"{stride}"])


def line(cells: Sequence[str]) -> str:
    """Return one line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def build_without_weights(config: ModelConfig, num_classes: int) -> Any:
    """Create a model (see ``sarx.models.build_model``) for colour images on the meta device."""
    import torch

    from sarx.models import build_model

    with torch.device("meta"):
        return build_model(config, in_channels=3, num_classes=num_classes).eval()


def gflops(model: nn.Module, size: tuple[int, int]) -> float:
    """Return the 10^9 floating-point operations of one image of (height, width) pixels."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    images = torch.empty(1, 3, *size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    return float(counter.get_total_flops()) / 1e9


def sar_parameters(width: int) -> int:
    """Return what SAR trains besides the model for D = width, with its published projector and A = D.

    Three linear layers D -> D, of which two have a bias, and three BatchNorms: 3 D^2 + 8 D.
    """
    return 3 * width**2 + 8 * width


if __name__ == "__main__":
    sys.exit(exit_code(main, "stopped"))
