"""The projector E that maps fixed anchors into the feature space."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class Projector(nn.Sequential):
    """Layers over anchors (C, A) -> (C, D), whose batch normalisation takes its statistics over the C rows.

    The statistics are those of the rows at hand in every mode and after ``convert_sync_batchnorm``: all
    ranks hold the same anchors, so there is nothing to synchronise.
    """

    def forward(self, anchors: Tensor, track: bool = True) -> Tensor:
        """Return the projected anchors; ``track`` says whether the running statistics move."""
        for layer in self:
            anchors = _normalise(layer, anchors, track) if isinstance(layer, _BatchNorm) else layer(anchors)
        return anchors


def _normalise(layer: _BatchNorm, rows: Tensor, track: bool) -> Tensor:
    """Return the rows normalised over themselves; without ``track`` only copies of the statistics move."""
    mean, variance = layer.running_mean, layer.running_var
    if track and layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
    if not track and mean is not None and variance is not None:
        mean, variance = mean.clone(), variance.clone()
    momentum = 0.1 if layer.momentum is None else layer.momentum
    return F.batch_norm(rows, mean, variance, layer.weight, layer.bias, True, momentum, layer.eps)


def build_projector(anchor_dim: int, feature_dim: int, depth: int = 3) -> Projector:
    """Build ``depth`` blocks of Linear, BatchNorm1d and ReLU; (C, A) -> (C, D).

    The first Linear maps A to D, the others D to D, and the last has no bias. Initialisation draws from the
    global generator of torch.

    Args:
        anchor_dim: A.
        feature_dim: D.
        depth: Number of blocks, published 3; 0 is the identity and needs A = D.

    Raises:
        ValueError: If ``depth`` is negative, or 0 with A different from D.
    """
    if depth < 0:
        raise ValueError(f"projector_depth: {depth!r} is outside the allowed range [0, inf)")
    if depth == 0 and anchor_dim != feature_dim:
        raise ValueError(
            f"projector_depth: 0 is the identity, which needs anchor_dim = feature_dim; "
            f"they are {anchor_dim} and {feature_dim}"
        )
    layers: list[nn.Module] = []
    for block in range(depth):
        width = anchor_dim if block == 0 else feature_dim
        linear = nn.Linear(width, feature_dim, bias=block < depth - 1)
        layers += [linear, nn.BatchNorm1d(feature_dim), nn.ReLU()]
    return Projector(*layers)
