"""A fixed classifier whose rows form a simplex equiangular tight frame.

Source: Yang et al., "Inducing neural collapse in imbalanced learning: do we really need a learnable
classifier at the end of deep neural network?", NeurIPS 2022 (arXiv 2203.09081), and its release. Legend: C
classes, D feature channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sarx.config.errors import UserError


def simplex_vertices(num_classes: int) -> Tensor:
    """Return (C, C-1) float64 rows of length 1 with the cosine -1/(C-1) between any two.

    They are the rows of an orthonormal basis (Helmert's) of what is orthogonal to (1, ..., 1) in C
    dimensions, times sqrt(C/(C-1)).
    """
    steps = torch.arange(1, num_classes, dtype=torch.float64)
    basis = torch.ones(num_classes, num_classes - 1, dtype=torch.float64).triu()
    basis[1:] -= steps.diag()
    basis /= (steps * (steps + 1.0)).sqrt()
    return torch.mul(basis, (num_classes / (num_classes - 1.0)) ** 0.5)


def random_frame(num_classes: int, feature_dim: int) -> Tensor:
    """Return (C, D) float64 simplex vertices in a random orientation, uniform over all orientations.

    W = V Q^T with V (C, C-1) from ``simplex_vertices`` and Q (D, C-1) the orthonormal factor of a Gaussian
    matrix, its signs fixed by a positive diagonal of the other factor. So W W^T = C/(C-1) (I - 1 1^T / C).
    The draw is from torch's global generator.
    """
    drawn = torch.randn(feature_dim, num_classes - 1, dtype=torch.float64)
    orthonormal, triangular = torch.linalg.qr(drawn)
    signs = triangular.diagonal().sign()
    return torch.mm(simplex_vertices(num_classes), (orthonormal * signs).T)


def simplex_etf(feature_dim: int, num_classes: int, *, maps: bool) -> nn.Module:
    """Return the frozen classifier: logits = W f, an nn.Linear or 1x1 nn.Conv2d without bias.

    The rows have length 1: the paper's length sqrt(E_W) at E_W = 1, as released. A longer or shorter W would
    only rescale features that are free to have any length.

    The head puts a BatchNorm before it, as released: the decoders end in a ReLU, and the vertices of a
    simplex lie in no one orthant.

    Deviations from the paper and its release: the features are not divided by their length after the
    BatchNorm, because the loss is the study's (cross-entropy, which needs longer logits than cosines) and not
    dot regression; the rows span C-1 dimensions directly, so D = C-1 is enough where the paper's construction
    by a (D, C) orthogonal matrix needs D = C. The orientation is uniform; the release orthogonalises uniform
    numbers in [0, 1).

    Args:
        feature_dim: D, at least C-1.
        num_classes: C, at least 2.
        maps: Whether the features are maps (B, D, h, w) instead of rows (N, D).

    Raises:
        UserError: If D is too small for C directions that are equally far from each other.
    """
    least = num_classes - 1
    if least < 1:
        raise UserError(f"simplex_etf needs at least 2 classes, not {num_classes}", key="model.classifier")
    if feature_dim < least:
        raise UserError(
            f"simplex_etf needs at least {least} feature channels for {num_classes} classes, and the decoder "
            f"gives {feature_dim}; set model.feature_dim to {least} or more",
            key="model.classifier",
        )
    layer: nn.Conv2d | nn.Linear
    if maps:
        layer = nn.Conv2d(feature_dim, num_classes, 1, bias=False)
    else:
        layer = nn.Linear(feature_dim, num_classes, bias=False)
    with torch.no_grad():
        layer.weight.copy_(random_frame(num_classes, feature_dim).view_as(layer.weight))
    return layer.requires_grad_(False)
