"""The ResNet for small images: depth, parameters, shortcuts."""

from __future__ import annotations

import torch
from model_files import config_of
from torch import nn
from torch.nn.functional import pad

from sarx.models import build_model
from sarx.models.cifar_resnet import BasicBlock


def model(num_classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return build_model(config_of("pool_resnet32"), in_channels=3, num_classes=num_classes)


def test_it_has_32_layers_and_464_154_parameters() -> None:
    layers = [module for module in model().modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == 32
    assert sum(value.numel() for value in model().parameters()) == 464_154


def test_stages_have_16_32_and_64_channels_at_full_half_and_quarter_size() -> None:
    network = model().eval().backbone.network
    x = network.stem(torch.randn(1, 3, 32, 32))
    shapes = []
    for block in network.blocks:
        x = block(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(16, 32, 32)] * 5 + [(32, 16, 16)] * 5 + [(64, 8, 8)] * 5


def test_shortcuts_have_no_weights() -> None:
    torch.manual_seed(0)
    block = BasicBlock(4, 7, 2).eval()
    x = torch.randn(2, 4, 6, 6)
    inner = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
    wanted = inner.clone()
    for channel in range(4):
        for row in range(3):
            for column in range(3):
                wanted[:, channel + 1, row, column] += x[:, channel, 2 * row, 2 * column]
    torch.testing.assert_close(block(x), wanted.clamp(min=0))
    plain = BasicBlock(4, 4, 1).eval()
    nn.init.zeros_(plain.bn2.weight)
    assert torch.equal(plain(x), x.clamp(min=0))
    assert torch.equal(pad(x, (0, 0, 0, 0, 1, 2))[:, 1:5], x)


def test_classification_takes_images_of_any_size() -> None:
    assert model().multiple == 1
    output = model().eval()(torch.randn(2, 3, 33, 29))
    assert output.logits.shape == (2, 10)
    assert output.features.shape == (2, 64)
