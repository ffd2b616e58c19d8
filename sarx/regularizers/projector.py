"""The projector E that maps fixed anchors into the feature space."""

from __future__ import annotations

from torch import nn


def build_projector(anchor_dim: int, feature_dim: int, depth: int = 3) -> nn.Sequential:
    """Build ``depth`` blocks of Linear, BatchNorm1d and ReLU; (C, A) -> (C, D).

    The first Linear maps A to D, the others D to D, and the last has no bias. Batch normalisation in train
    mode takes its statistics over the C rows. Initialisation draws from the global generator of torch.

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
    return nn.Sequential(*layers)
