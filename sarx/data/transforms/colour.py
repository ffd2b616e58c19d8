"""Photometric distortion: brightness, contrast, saturation and hue, each acting on every other image.

Published as mmsegmentation's PhotoMetricDistortion: brightness adds, contrast multiplies, both cut to whole
numbers; contrast comes before or after the rest by a coin; saturation scales the S of HSV, hue turns its H.
Its H has 180 steps of 2 degrees, of which it adds -18 to 17, so its hue_delta of 18 means 36 degrees. It
goes through HSV in 8 bits, twice; here HSV is exact and rounded once at the end, so a colour may come out a
few levels from where its H, rounded to 2 degrees, would have put it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sarx.data.transforms.draws import Doubles

BRIGHTNESS = 32.0
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
HUE_STEPS = 18
HUE_STEP_DEGREES = 2


@dataclass(frozen=True)
class Distortion:
    """What is done to the colours; the defaults do nothing.

    Attributes:
        brightness: Added to every channel, in levels.
        contrast: Factor on every channel.
        contrast_first: Whether contrast acts before saturation and hue.
        saturation: Factor on S, which ends at 1.
        hue: Turn of H in degrees, in [-60, 60].
    """

    brightness: float = 0.0
    contrast: float = 1.0
    contrast_first: bool = True
    saturation: float = 1.0
    hue: int = 0


def draw_distortion(numbers: Doubles) -> Distortion:
    """Make a distortion of uniform numbers in [0, 1), (9,)."""
    acts = numbers[[0, 3, 5, 7]] < 0.5
    steps = int(np.floor(numbers[8] * 2 * HUE_STEPS)) - HUE_STEPS
    return Distortion(
        brightness=float(BRIGHTNESS * (2 * numbers[1] - 1)) if acts[0] else 0.0,
        contrast_first=bool(numbers[2] < 0.5),
        contrast=_between(CONTRAST, numbers[4]) if acts[1] else 1.0,
        saturation=_between(SATURATION, numbers[6]) if acts[2] else 1.0,
        hue=HUE_STEP_DEGREES * steps if acts[3] else 0,
    )


def _between(limits: tuple[float, float], number: float) -> float:
    return float(limits[0] + (limits[1] - limits[0]) * number)


def distort(pixels: Tensor, distortion: Distortion) -> Tensor:
    """Distort pixels (n, 3, w): float32 whole numbers in [0, 255], the input may be overwritten."""
    if distortion.brightness:
        pixels = pixels.add_(distortion.brightness).clamp_(0, 255).floor_()
    if distortion.contrast_first and distortion.contrast != 1:
        pixels = pixels.mul_(distortion.contrast).clamp_(0, 255).floor_()
    if distortion.hue:
        pixels = turn_hue(pixels, distortion.hue, distortion.saturation)
    elif distortion.saturation != 1:
        pixels = scale_saturation(pixels, distortion.saturation)
    if not distortion.contrast_first and distortion.contrast != 1:
        pixels = pixels.mul_(distortion.contrast).clamp_(0, 255).floor_()
    return pixels


def scale_saturation(pixels: Tensor, factor: float) -> Tensor:
    """Scale S of pixels (n, 3, w), rounded: each channel keeps its share of the way from V down."""
    value, chroma = _value_and_chroma(pixels)
    scale = _saturation_scale(value, chroma, factor).unsqueeze(1)
    value = value.unsqueeze(1)
    return (value - (value - pixels).mul_(scale)).round_()


def turn_hue(pixels: Tensor, degrees: float, factor: float = 1.0) -> Tensor:
    """Scale S and turn H of pixels (n, 3, w), rounded.

    With hue h in sextants, a channel is V - chroma * clip(2 - |h - p|, 0, 1), where p is where it is weakest
    (red at cyan -3, green at magenta -1, blue at yellow 1) and |.| is the way around the circle:
    ||h - p - 3| - 3| for h - p in [-3, 9]. All is multiplied by chroma, so nothing divides by that of grey.
    """
    value, chroma = _value_and_chroma(pixels)
    hue = _hue_times_chroma(pixels, value, chroma)
    if factor != 1:
        scale = _saturation_scale(value, chroma, factor)
        hue.mul_(scale)
        chroma.mul_(scale)
    hue.add_(chroma, alpha=degrees / 60)
    double = chroma * 2
    result = torch.empty_like(pixels)
    for channel, weakest in enumerate((-3, -1, 1)):
        away = torch.add(hue, chroma, alpha=-(weakest + 3)).abs_().sub_(chroma, alpha=3).abs_()
        depth = torch.sub(double, away, out=away).clamp_(min=0)
        torch.minimum(depth, chroma, out=depth)
        torch.sub(value, depth, out=result[:, channel])
    return result.round_()


def _hue_times_chroma(pixels: Tensor, value: Tensor, chroma: Tensor) -> Tensor:
    """Return chroma (n, w) times hue in sextants, in [-1, 5]; of equal largest channels the first one counts.

    A channel is the largest where channel - V + 1, cut at 0, is 1: pixels are whole numbers, and arithmetic
    is several times faster than comparing and choosing.
    """
    red, green, blue = pixels.unbind(1)
    hue = (red - green).add_(chroma, alpha=4)
    for channel, other in ((green, (blue - red).add_(chroma, alpha=2)), (red, green - blue)):
        hue = torch.lerp(hue, other, (channel - value).add_(1).clamp_(min=0))
    return hue


def _value_and_chroma(pixels: Tensor) -> tuple[Tensor, Tensor]:
    red, green, blue = pixels.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    return value, value - torch.minimum(torch.minimum(red, green), blue)


def _saturation_scale(value: Tensor, chroma: Tensor, factor: float) -> Tensor:
    """Return new S / S; chroma is 0 or at least 1, and where it is 0 the scale has no effect."""
    return (value / chroma.clamp(min=1)).clamp_(max=factor)
