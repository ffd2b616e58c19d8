"""The size to which an image is scaled, its ratio of sides kept."""

from __future__ import annotations


def scaled_size(size: tuple[int, int], target: tuple[int, int], ratio: float = 1.0) -> tuple[int, int]:
    """Return (height, width) of an image scaled to fit a target times a ratio.

    The longer side fits the larger number of the target, the shorter side the smaller one. Target sides are
    cut to whole pixels, image sides rounded half up, as in mmcv's ``imrescale``.

    Args:
        size: (height, width) of the image.
        target: (height, width), in either order.
        ratio: Factor on the target.
    """
    long, short = int(max(target) * ratio), int(min(target) * ratio)
    factor = min(long / max(size), short / min(size))
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))
