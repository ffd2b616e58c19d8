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

from sarx.data.transforms.draws import Doubles
from sarx.data.transforms.resample import Floats

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


def distort(pixels: Floats, distortion: Distortion) -> Floats:
    """Distort pixels (n, 3, w): whole numbers in [0, 255] in and out; the input may be overwritten."""
    if distortion.brightness:
        pixels = _cut(pixels + np.float32(distortion.brightness))
    contrast = np.float32(distortion.contrast)
    if distortion.contrast_first and contrast != 1:
        pixels = _cut(pixels * contrast)
    if distortion.hue:
        pixels = turn_hue(pixels, distortion.hue, distortion.saturation)
    elif distortion.saturation != 1:
        pixels = scale_saturation(pixels, distortion.saturation)
    if not distortion.contrast_first and contrast != 1:
        pixels = _cut(pixels * contrast)
    return pixels


def _cut(pixels: Floats) -> Floats:
    np.maximum(pixels, 0, out=pixels)
    np.minimum(pixels, 255, out=pixels)
    return np.floor(pixels, out=pixels)


def scale_saturation(pixels: Floats, factor: float) -> Floats:
    """Scale S of pixels (n, 3, w), rounded: each channel keeps its share of the way from V down."""
    value, chroma = _value_and_chroma(pixels)
    scale = _saturation_scale(value, chroma, factor)[:, None]
    value = value[:, None]
    result = value - (value - pixels) * scale
    return np.rint(result, out=result)


def turn_hue(pixels: Floats, degrees: float, factor: float = 1.0) -> Floats:
    """Scale S and turn H of pixels (n, 3, w), rounded.

    With hue h in sextants, a channel is V - chroma * clip(2 - |h - p|, 0, 1), where p is where it is weakest
    (red at cyan -3, green at magenta -1, blue at yellow 1) and |.| is the way around the circle:
    ||h - p - 3| - 3| for h - p in [-3, 9]. All is multiplied by chroma, so nothing divides by that of grey.
    """
    value, chroma = _value_and_chroma(pixels)
    red, green, blue = pixels[:, 0], pixels[:, 1], pixels[:, 2]
    is_red, is_green = red == value, green == value
    beyond = np.where(is_red, green - blue, np.where(is_green, blue - red, red - green))
    sextant = np.where(is_red, np.float32(0), np.where(is_green, np.float32(2), np.float32(4)))
    if factor != 1:
        scale = _saturation_scale(value, chroma, factor)
        beyond *= scale
        chroma *= scale
    hue = beyond + (sextant + np.float32(degrees / 60)) * chroma
    result = np.empty_like(pixels)
    for channel, weakest in enumerate((-3, -1, 1)):
        away = np.abs(hue - np.float32(weakest + 3) * chroma)
        depth = 2 * chroma - np.abs(away - 3 * chroma)
        np.maximum(depth, 0, out=depth)
        np.minimum(depth, chroma, out=depth)
        np.subtract(value, depth, out=result[:, channel])
    return np.rint(result, out=result)


def _value_and_chroma(pixels: Floats) -> tuple[Floats, Floats]:
    red, green, blue = pixels[:, 0], pixels[:, 1], pixels[:, 2]
    value = np.maximum(np.maximum(red, green), blue)
    return value, value - np.minimum(np.minimum(red, green), blue)


def _saturation_scale(value: Floats, chroma: Floats, factor: float) -> Floats:
    """Return new S / S; chroma is 0 or at least 1, and where it is 0 the scale has no effect."""
    return np.minimum(value / np.maximum(chroma, np.float32(1)), np.float32(factor))
