"""Layers that several decoders are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention


def conv_norm_relu(in_channels: int, out_channels: int, kernel_size: int = 1) -> nn.Sequential:
    """Return convolution, BatchNorm and ReLU: (B, in, h, w) -> (B, out, h, w)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def concatenate(branches: list[Tensor]) -> Tensor:
    """Upsample all branches bilinearly to the first one's size and concatenate their channels."""
    size = branches[0].shape[2:]
    others = [interpolate(branch, size=size, mode="bilinear", align_corners=False) for branch in branches[1:]]
    return torch.cat([branches[0], *others], dim=1)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return for each query the mean of the values, weighted by softmax over n of query . key / sqrt(d).

    Args:
        queries: (B, d, h, w).
        keys: (B, d, n).
        values: (B, e, n).

    Returns:
        (B, e, h, w)
    """
    rows = (queries.flatten(2).mT, keys.mT, values.mT)
    query, key, value = (item.unsqueeze(1) for item in rows)  # one head: fused kernels want four dimensions
    means = scaled_dot_product_attention(query, key, value).squeeze(1)
    return means.mT.reshape(len(queries), -1, *queries.shape[2:])
