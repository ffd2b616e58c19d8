"""What all decoders have in common, on small models: gradients, scale, layouts, precision, sizes."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from model_files import FILES, MAPS, NAMES, config_of

from sarx.models import build_model
from sarx.models.backbone import FAILURES, build_backbone


def small(name: str, **changes: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(config_of(name, **changes), in_channels=3, num_classes=5)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient_as_ddp_demands(name: str) -> None:
    model = small(name).train()
    output = model(torch.randn(4, 3, 64, 64))
    output.logits.square().mean().backward()  # also without the loss on auxiliary logits
    assert [key for key, value in model.named_parameters() if value.grad is None] == []
    assert all(bool(torch.isfinite(value.grad).all()) for value in model.parameters())
    silent = [key for key, value in model.named_parameters() if value.dim() > 1 and not value.grad.any()]
    zero_scale = ("decoder.block.", "backbone.network.layer")  # behind a BatchNorm that begins at scale 0
    assert [key for key in silent if not key.startswith(zero_scale)] == []


@pytest.mark.parametrize("name", NAMES)
def test_features_end_in_batch_norm_and_relu_but_for_linear_and_pool(name: str) -> None:
    model = small(name).train()
    features = model(torch.randn(4, 3, 64, 64)).features.detach()
    if name.startswith(("linear", "pool")):
        return
    assert features.min() == 0
    # a normal variable of mean 0 and variance 1, cut off below 0, has the mean square 1/2
    assert float(features.square().mean()) == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("name", NAMES)
def test_channels_last_changes_no_number(name: str) -> None:
    images = torch.randn(2, 3, 64, 64)
    plain = small(name).eval()
    wanted = plain(images)
    turned = plain.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(turned.logits, wanted.logits, rtol=1e-4, atol=1e-4)
    turned.logits.sum().backward()


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_close(name: str) -> None:
    images = torch.randn(2, 3, 64, 64)
    model = small(name).eval()
    wanted = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(images)
    assert output.logits.dtype == torch.bfloat16
    off = (output.logits.float() - wanted.logits).norm() / wanted.logits.norm()
    assert off < 0.1
    output.logits.float().square().mean().backward()
    assert all(value.grad is not None for value in model.classifier.parameters())


@pytest.mark.parametrize("name", MAPS)
def test_sides_that_are_multiples_give_exact_maps(name: str) -> None:
    model = small(name).eval()
    height, width = 3 * model.multiple, 5 * model.multiple
    branches = model.backbone(torch.zeros(1, 3, height, width))
    for branch, stride in zip(branches, model.backbone.strides, strict=True):
        assert branch.shape[2:] == (height // stride, width // stride)
    output = model(torch.zeros(1, 3, height, width))
    assert output.logits.shape[2:] == (height // model.stride, width // model.stride)


BACKBONES = {
    "hrnet_w18_small": (None, 32, 32),
    "resnet18": (None, 32, 1),
    "resnet26": (8, 8, 1),
    "test_resnet": (16, 16, 1),
    "test_convnext": (None, 32, 1),
    "swin_tiny_patch4_window7_224": (None, 32, 4),
    "test_vit": (None, 16, 16),
    "mit_b0": (None, 32, 1),
    "cifar_resnet32": (None, 4, 1),
}
"""Backbone -> output stride, the multiple that gives exact maps, the one without which it does not run."""


def sizes(backbone: torch.nn.Module, side: int) -> list[tuple[int, ...]]:
    with torch.no_grad():
        return [tuple(branch.shape[2:]) for branch in backbone(torch.zeros(1, 3, side, side, device="meta"))]


@pytest.mark.parametrize("name", BACKBONES)
def test_multiples_are_no_larger_than_they_must_be(name: str) -> None:
    output_stride, multiple, least = BACKBONES[name]
    with torch.device("meta"):
        backbone = build_backbone(name, 3, output_stride=output_stride).eval()
        final = build_backbone(name, 3, output_stride=output_stride, final=True)
    assert (backbone.multiple, final.least_multiple) == (multiple, least)
    for side in (3 * multiple, 7 * multiple):
        assert sizes(backbone, side) == [(side // stride,) * 2 for stride in backbone.strides]
    between = 3 * multiple + multiple // 2
    if between % least == 0:
        found = sizes(backbone, between)
        assert found != [(between / stride,) * 2 for stride in backbone.strides]
    for side in (67 * least, 33 * least):
        sizes(backbone, side)
    if least > 1:
        with pytest.raises(FAILURES):
            sizes(backbone, 67 * least // 2)


def test_output_stride_dilates_and_keeps_the_weights() -> None:
    torch.manual_seed(0)
    plain = build_backbone("test_resnet", 3)
    for stride, strides in ((16, (4, 8, 16, 16)), (8, (4, 8, 8, 8))):
        torch.manual_seed(0)
        dilated = build_backbone("test_resnet", 3, output_stride=stride)
        assert dilated.strides == strides
        assert dilated.multiple == stride
        before, after = plain.state_dict(), dilated.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_swin_shifts_its_windows_in_every_stage() -> None:
    with torch.device("meta"):
        backbone = build_backbone("swin_tiny_patch4_window7_224", 3)
    blocks = [module for module in backbone.modules() if type(module).__name__ == "SwinTransformerBlock"]
    assert len(blocks) == 12
    assert all(block.window_size == (7, 7) for block in blocks)
    assert [block.shift_size for block in blocks] == [(0, 0), (3, 3)] * 6


def test_weights_depend_on_the_torch_seed_alone() -> None:
    for name in ("upernet_test_convnext", "ocr_test_convnext", "pool_resnet32", "linear_test_vit"):
        one, two = small(name).state_dict(), small(name).state_dict()
        assert all(torch.equal(one[key], two[key]) for key in one), name
        torch.manual_seed(1)
        other = build_model(config_of(name), in_channels=3, num_classes=5).state_dict()
        assert not all(torch.equal(one[key], other[key]) for key in one), name


def test_no_two_files_build_the_same() -> None:
    built = [dataclasses.replace(config_of(path.stem), name="") for path in FILES]
    assert all(one != two for one, two in itertools.combinations(built, 2))
