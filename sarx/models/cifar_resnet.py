"""The ResNet for images of 32 x 32 pixels: three stages of 16, 32 and 64 channels, shortcuts without weights.

Source: He et al., "Deep residual learning for image recognition", CVPR 2016, section 4.2: 6n + 2 layers, and
option A: where a stage halves the map, its shortcut takes every second pixel and pads channels with zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

BLOCKS = {"cifar_resnet32": 5}
"""Name -> n, the blocks of each stage."""

WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, narrow, H, W) -> (B, wide, H/stride, W/stride)."""

    def __init__(self, narrow: int, wide: int, stride: int) -> None:
        """Create the layers."""
        super().__init__()
        self.conv1 = nn.Conv2d(narrow, wide, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.stride = stride
        self.missing = wide - narrow

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        before = self.missing // 2
        shortcut = pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.missing - before))
        return torch.relu(inner + shortcut)


class CifarResNet(nn.Module):
    """Images (B, in, H, W) -> one map (B, 64, H/4, W/4)."""

    def __init__(self, blocks: int, in_channels: int) -> None:
        """Create the layers; weights come from torch's global generator."""
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, WIDTHS[0], 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()
        )
        wide = [width for width in WIDTHS for _ in range(blocks)]
        narrow = [WIDTHS[0], *wide[:-1]]
        self.blocks = nn.Sequential(
            *(BasicBlock(before, after, after // before) for before, after in zip(narrow, wide, strict=True))
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the map."""
        return [self.blocks(self.stem(images))]


def cifar_resnet(name: str, in_channels: int) -> tuple[nn.Module, tuple[int, ...], tuple[int, ...]]:
    """Create a network; returns it with the channels and strides of its map."""
    return CifarResNet(BLOCKS[name], in_channels), (WIDTHS[-1],), (4,)
