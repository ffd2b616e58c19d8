"""The pull of features towards one target per class, without one-hot or dense targets.

Legend: C classes, D feature channels, n pixels of a chunk, B images, (H, W) feature size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 2**19
"""Elements of features taken at a time on the CPU, few enough for the caches; elsewhere the fewest."""
SHARE = 64
"""Elsewhere a chunk is this part of the features: few chunks, and temporaries small beside the features."""
SHORTEST = 1e-3
"""Length below which a vector has no direction: the gradient of a direction grows as 1 / length."""


def squared_euclidean(features: Tensor, targets: Tensor, dim: int) -> Tensor:
    """Return (1/D) ||f - m||^2 along ``dim``."""
    return (features - targets).square().mean(dim)


def smooth_l1(features: Tensor, targets: Tensor, dim: int) -> Tensor:
    """Return (1/D) sum of h(f - m) along ``dim``, h(x) = x^2 / 2 for |x| < 1, else |x| - 1/2."""
    return F.smooth_l1_loss(features, targets, reduction="none").mean(dim)


def cosine(features: Tensor, targets: Tensor, dim: int) -> Tensor:
    """Return 1 - cos(f, m) along ``dim``; a vector shorter than ``SHORTEST`` is divided by that."""
    return 1.0 - F.cosine_similarity(features, targets, dim=dim, eps=SHORTEST)


DISTANCES: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "squared_euclidean": squared_euclidean,
    "smooth_l1": smooth_l1,
    "cosine": cosine,
}


def keep(vectors: Tensor, dim: int) -> Tensor:
    """Return the vectors as they are."""
    return vectors


def scale_to_root_dim(vectors: Tensor, dim: int) -> Tensor:
    """Return the vectors along ``dim`` at length sqrt(D), so that a channel's mean square is 1."""
    return F.normalize(vectors, dim=dim, eps=SHORTEST) * math.sqrt(vectors.shape[dim])


def standardise(vectors: Tensor, dim: int) -> Tensor:
    """Return the vectors with mean 0 and variance 1 along ``dim``: layer norm, 1e-5 added to the variance."""
    centred = vectors - vectors.mean(dim, keepdim=True)
    return centred * (centred.square().mean(dim, keepdim=True) + 1e-5).rsqrt()


NORMS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "none": keep,
    "l2": scale_to_root_dim,
    "layer": standardise,
}


def pull_loss(
    features: Tensor,
    labels: Tensor,
    targets_CD: Tensor,
    class_weights: Tensor,
    *,
    ignore_index: int,
    distance: str = "squared_euclidean",
    feature_norm: str = "none",
) -> Tensor:
    """Return the sum over valid pixels i of class_weights[y_i] * d(f_i, m_{y_i}).

    The features are read a chunk at a time, forward and again backward, and nothing of their size is kept in
    between. A class of weight 0 and ignored pixels have no gradient, whatever their features are. Half
    precision is computed in float32. Under torch.compile the loss is one plain expression for the compiler to
    fuse.

    Args:
        features: (N, D) or (B, D, H, W).
        labels: (N,) or (B, H, W) int64; every label is ``ignore_index`` or in [0, C).
        targets_CD: (C, D) m; gets a gradient where it needs one.
        class_weights: (C,) without gradient.
        ignore_index: Label of the pixels that do not count.
        distance: A key of ``DISTANCES``.
        feature_norm: A key of ``NORMS``, applied to features and targets alike.

    Returns:
        Scalar in float32, or the targets' precision if that is higher.
    """
    ignored = labels == ignore_index
    rows = labels.masked_fill(ignored, 0)
    targets_CD = targets_CD.to(torch.promote_types(targets_CD.dtype, torch.float32))
    weights = class_weights.to(targets_CD.dtype)[rows].masked_fill(ignored, 0.0)
    targets_CD = NORMS[feature_norm](targets_CD, 1)
    if torch.compiler.is_compiling():
        return _plain(features, rows, weights, targets_CD, distance, feature_norm)
    if features.dim() == 4 and not features.is_contiguous(memory_format=torch.channels_last):
        features = features.contiguous()
    result: Tensor = _ChunkedPull.apply(features, targets_CD, rows, weights, distance, feature_norm)
    return result


def _plain(
    features: Tensor, rows: Tensor, weights: Tensor, targets_CD: Tensor, distance: str, feature_norm: str
) -> Tensor:
    """Return the loss as one expression over whole tensors."""
    targets = targets_CD[rows].movedim(-1, 1)
    kept = torch.where((weights != 0).unsqueeze(1), features.to(targets.dtype), targets)
    distances = DISTANCES[distance](NORMS[feature_norm](kept, 1), targets, 1)
    return (distances.masked_fill(weights == 0, 0.0) * weights).sum()


class _ChunkedPull(torch.autograd.Function):
    """The loss over chunks; the backward recomputes each chunk and writes its part of the gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        targets_CD: Tensor,
        rows: Tensor,
        weights: Tensor,
        distance: str,
        feature_norm: str,
    ) -> Tensor:
        ctx.save_for_backward(features, targets_CD, rows, weights)
        ctx.names = (distance, feature_norm)
        dim = _channel_dim(features)
        table = _table(targets_CD, dim)
        total = targets_CD.new_zeros(())
        everything = targets_CD.new_zeros(())
        for piece, row, weight in _chunks(features, rows, weights):
            targets = table.index_select(1 - dim, row)
            distances = _chunk_distances(piece, targets, dim, distance, feature_norm)
            everything += distances.sum()
            total += distances.masked_fill(weight == 0, 0.0) @ weight
        # Only features that are not finite, where they do not count, need a mask against 0 * inf. On the CPU
        # it costs nothing to ask; elsewhere asking would wait for the device, so the mask is always applied.
        ctx.masked = features.device.type != "cpu" or not bool(everything.isfinite())
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # otherwise a gradient penalty would silently leave this loss out
            raise RuntimeError("the pull loss has no second derivative; call backward without create_graph")
        features, targets_CD, rows, weights = ctx.saved_tensors
        distance, feature_norm = ctx.names
        on_features = torch.empty_like(features) if ctx.needs_input_grad[0] else None
        on_targets = torch.zeros_like(targets_CD) if ctx.needs_input_grad[1] else None
        dim = _channel_dim(features)
        table = _table(targets_CD, dim)
        places = _chunks(features if on_features is None else on_features, rows, weights)
        for (piece, row, weight), place in zip(_chunks(features, rows, weights), places, strict=True):
            targets = table.index_select(1 - dim, row)
            plain = (distance, feature_norm) == ("squared_euclidean", "none") and piece.dtype == targets.dtype
            out = place[0] if plain and on_features is not None else None
            on_piece, on_target = _chunk_gradient(
                piece, targets, weight * gradients[0], dim, distance, feature_norm, out
            )
            if ctx.masked:
                on_piece.masked_fill_((weight == 0).unsqueeze(dim), 0.0)
            if on_features is not None and out is None:
                place[0].copy_(on_piece)
            if on_targets is not None:
                by_target = -on_piece if on_target is None else on_target
                on_targets.index_add_(0, row, (by_target if dim == 1 else by_target.T).to(on_targets.dtype))
        return on_features, on_targets, None, None, None, None


def _channel_dim(features: Tensor) -> int:
    """Return which axis of a chunk holds the channels: 1 where they are next to each other in memory."""
    by_pixel = features.dim() == 2 or features.is_contiguous(memory_format=torch.channels_last)
    return 1 if by_pixel else 0


def _table(targets_CD: Tensor, dim: int) -> Tensor:
    """Return the targets with their channels on the axis that chunks have them on."""
    return targets_CD if dim == 1 else targets_CD.T.contiguous()


def _chunks(features: Tensor, rows: Tensor, weights: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield views of the features, (n, D) or (D, n) by ``_channel_dim``, with their (n,) rows and weights."""
    dim = _channel_dim(features)
    if features.dim() == 2:
        matrices = [(features, rows, weights)]
    elif dim == 1:
        matrices = [(features.permute(0, 2, 3, 1).flatten(end_dim=2), rows.flatten(), weights.flatten())]
    else:
        parts = zip(features, rows, weights, strict=True)
        matrices = [
            (image.flatten(start_dim=1), row.flatten(), weight.flatten()) for image, row, weight in parts
        ]
    elements = CHUNK if features.device.type == "cpu" else max(features.numel() // SHARE, CHUNK)
    count = max(elements // max(features.shape[1], 1), 1)
    for matrix, row, weight in matrices:
        cuts = (torch.split(matrix, count, 1 - dim), torch.split(row, count), torch.split(weight, count))
        yield from zip(*cuts, strict=True)


def _chunk_distances(piece: Tensor, targets: Tensor, dim: int, distance: str, feature_norm: str) -> Tensor:
    """Return the distances of a chunk; ``targets`` is overwritten where that saves memory traffic."""
    if (distance, feature_norm) == ("squared_euclidean", "none"):
        return targets.sub_(piece).square_().mean(dim)
    return DISTANCES[distance](NORMS[feature_norm](piece.to(targets.dtype), dim), targets, dim)


def _chunk_gradient(
    piece: Tensor,
    targets: Tensor,
    weights: Tensor,
    dim: int,
    distance: str,
    feature_norm: str,
    out: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients on features, in ``out`` if given, and on targets, None for minus the first.

    The published distance is differentiated by hand, the others by autograd. Where a weight is 0, features
    that are not finite give NaN.
    """
    if (distance, feature_norm) == ("squared_euclidean", "none"):
        return torch.sub(piece, targets, out=out).mul_(
            (weights * (2.0 / piece.shape[dim])).unsqueeze(dim)
        ), None
    with torch.enable_grad():
        piece = piece.detach().to(targets.dtype).requires_grad_()
        targets = targets.detach().requires_grad_()
        distances = DISTANCES[distance](NORMS[feature_norm](piece, dim), targets, dim)
        loss = distances.masked_fill(weights == 0, 0.0) @ weights
        on_piece, on_targets = torch.autograd.grad(loss, (piece, targets))
    return on_piece, on_targets.masked_fill((weights == 0).unsqueeze(dim), 0.0)
