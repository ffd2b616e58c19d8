"""OCR and NonLocal against literal slow versions, in values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from model_files import config_of
from torch import Tensor

from sarx.models import build_model
from sarx.models.layers import attend, concatenate
from sarx.models.nonlocal_head import NonLocalBlock, NonLocalDecoder
from sarx.models.ocr import ObjectContext, region_features


def slow_attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One image, one pixel, one key at a time."""
    batch, depth, height, width = queries.shape
    images = []
    for b in range(batch):
        pixels = []
        for y in range(height):
            for x in range(width):
                scores = [
                    (queries[b, :, y, x] * keys[b, :, n]).sum() / math.sqrt(depth)
                    for n in range(keys.shape[2])
                ]
                largest = max(float(score.detach()) for score in scores)
                weights = [(score - largest).exp() for score in scores]
                total = sum(weights)
                pixels.append(sum(w / total * values[b, :, n] for n, w in enumerate(weights)))
        images.append(torch.stack(pixels, dim=1).view(-1, height, width))
    return torch.stack(images)


def slow_regions(pixels: Tensor, logits: Tensor) -> Tensor:
    """One image, one class at a time."""
    images = []
    for image, scores in zip(pixels, logits, strict=True):
        columns = []
        for row in scores:
            weights = row.exp() / row.exp().sum()
            columns.append((image * weights).sum(dim=(1, 2)))
        images.append(torch.stack(columns, dim=1))
    return torch.stack(images)


def assert_same(ours: Tensor, literal: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, literal)
    slope = torch.randn_like(literal)
    pairs = [torch.autograd.grad((item * slope).sum(), inputs, allow_unused=True) for item in (ours, literal)]
    for one, two, leaf in zip(*pairs, inputs, strict=True):
        zero = torch.zeros_like(leaf)
        torch.testing.assert_close(zero if one is None else one, zero if two is None else two)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_attention() -> None:
    torch.manual_seed(0)
    inputs = [draw(2, 6, 3, 4), draw(2, 6, 5), draw(2, 7, 5)]
    assert_same(attend(*inputs), slow_attend(*inputs), inputs)


def test_region_features() -> None:
    torch.manual_seed(1)
    inputs = [draw(2, 6, 3, 4), draw(2, 5, 3, 4)]
    found = region_features(*inputs)
    assert found.shape == (2, 6, 5)
    assert_same(found, slow_regions(*inputs), inputs)


def test_object_context() -> None:
    torch.manual_seed(2)
    context = ObjectContext(8).double().eval()
    for value in context.buffers():
        if value.is_floating_point():
            value.data.uniform_(0.5, 1.5)
    pixels, regions = draw(2, 8, 3, 4), draw(2, 8, 5)
    columns = regions[:, :, :, None]
    literal = context.rho(
        slow_attend(context.phi(pixels), context.psi(columns)[..., 0], context.delta(columns)[..., 0])
    )
    assert_same(context(pixels, regions), literal, [pixels, regions, *context.parameters()])
    assert context.phi[0][0].out_channels == context.phi[1][0].out_channels == 4


def test_ocr_puts_the_parts_together() -> None:
    torch.manual_seed(3)
    model = build_model(config_of("ocr_test_convnext"), in_channels=1, num_classes=3).double().eval()
    images = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    output = model(images)
    branches = model.backbone(images)
    whole = concatenate(branches)
    assert whole.shape == (2, 24 + 32 + 48 + 64, 8, 8)
    assert torch.equal(whole[:, :24], branches[0])
    auxiliary = model.coarse(whole)
    pixels = model.pixels(whole)
    context = model.context(pixels, slow_regions(pixels, auxiliary))
    features = model.fuse(torch.cat([context, pixels], dim=1))
    torch.testing.assert_close(output.auxiliary, auxiliary)
    torch.testing.assert_close(output.features, features)
    torch.testing.assert_close(output.logits, model.classifier(features))


def test_nonlocal_block() -> None:
    torch.manual_seed(4)
    block = NonLocalBlock(6).double().eval()
    torch.nn.init.normal_(block.norm.weight)
    x = draw(2, 6, 3, 4)
    rows = block.phi(x).flatten(2), block.g(x).flatten(2)
    literal = x + block.norm(block.out(slow_attend(block.theta(x), *rows)))
    assert_same(block(x), literal, [x, *block.parameters()])
    assert block.theta.out_channels == 3


def test_nonlocal_block_begins_as_the_identity_and_learns() -> None:
    torch.manual_seed(5)
    block = NonLocalBlock(6).train()
    x = torch.randn(2, 6, 3, 4)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert block.norm.weight.grad is not None
    assert block.norm.weight.grad.abs().sum() > 0


def test_nonlocal_decoder_joins_input_and_context() -> None:
    torch.manual_seed(6)
    decoder = NonLocalDecoder(5, 8).double().eval()
    first, last = draw(2, 3, 8, 8), draw(2, 5, 4, 4)
    inner = decoder.after(decoder.block(decoder.before(last)))
    assert_same(decoder([first, last]), decoder.fuse(torch.cat([last, inner], dim=1)), [last])
    assert [layer[0].kernel_size for layer in (decoder.before, decoder.after, decoder.fuse)] == [(3, 3)] * 3


@pytest.mark.parametrize("shift", [0.0, 300.0])
def test_region_weights_do_not_overflow(shift: float) -> None:
    torch.manual_seed(7)
    pixels, logits = torch.randn(1, 4, 3, 3), torch.randn(1, 2, 3, 3)
    torch.testing.assert_close(region_features(pixels, logits + shift), slow_regions(pixels, logits))
