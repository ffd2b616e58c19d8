"""The fixed anchors: geometry, scale, and independence of everything but their seed."""

from __future__ import annotations

import pytest
import torch

from sarx.config.schema.regularizers import SarConfig
from sarx.regularizers import SemanticAnchorRegularizer
from sarx.regularizers.anchors import ANCHOR_INITS, draw_anchors

CLASSES, DIM = 5, 12


@pytest.mark.parametrize("name", ANCHOR_INITS)
def test_only_the_seed_matters(name):
    torch.manual_seed(1)
    first = draw_anchors(name, CLASSES, DIM, 7)
    torch.manual_seed(2)
    torch.set_default_dtype(torch.float64)
    try:
        again = draw_anchors(name, CLASSES, DIM, 7)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(first, again)
    assert first.dtype == torch.float32
    assert first.shape == (CLASSES, DIM)
    if name != "one_hot":
        assert not torch.equal(first, draw_anchors(name, CLASSES, DIM, 8))


@pytest.mark.parametrize(
    ("name", "off_diagonal"), [("orthogonal", 0.0), ("one_hot", 0.0), ("simplex", -DIM / (CLASSES - 1))]
)
@pytest.mark.parametrize("dim", [DIM, CLASSES])
def test_gram_matrix(name, off_diagonal, dim):
    anchors = draw_anchors(name, CLASSES, dim, 0).double()
    wanted = torch.full((CLASSES, CLASSES), off_diagonal * dim / DIM, dtype=torch.float64)
    wanted.fill_diagonal_(float(dim))  # rows of length sqrt(A)
    torch.testing.assert_close(anchors @ anchors.T, wanted, rtol=0.0, atol=1e-5)


def test_simplex_fits_into_one_dimension_less():
    anchors = draw_anchors("simplex", CLASSES, CLASSES - 1, 0).double()
    torch.testing.assert_close(anchors.sum(dim=0), torch.zeros(CLASSES - 1).double(), rtol=0.0, atol=1e-5)


def test_gaussian_is_unscaled():
    anchors = draw_anchors("gaussian", 200, 300, 0)
    assert abs(float(anchors.mean())) < 0.02
    assert float(anchors.std()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("name", "dim", "fits"),
    [
        ("orthogonal", 4, False),
        ("orthogonal", 5, True),
        ("one_hot", 4, False),
        ("simplex", 3, False),
        ("simplex", 4, True),
        ("gaussian", 2, True),
    ],
)
def test_too_few_dimensions_are_refused(name, dim, fits):
    config = SarConfig(anchor_init=name, anchor_dim=dim)
    if fits:
        config.check_sizes(CLASSES, 8)
        SemanticAnchorRegularizer(CLASSES, 8, anchor_init=name, anchor_dim=dim)
        return
    with pytest.raises(ValueError, match=f"{name} anchors of 5 classes need at least .* anchor_dim is {dim}"):
        config.check_sizes(CLASSES, 8)
    with pytest.raises(ValueError, match="anchor_init"):
        SemanticAnchorRegularizer(CLASSES, 8, anchor_init=name, anchor_dim=dim)
    config.check_sizes(None, None)  # not known yet: nothing to refuse
