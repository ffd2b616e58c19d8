"""Numbers as text: decimals that the interval justifies, no zero before the point."""

from __future__ import annotations

import math

import numpy as np

from analysis.statistics import Array


def decimals_for(half_widths: Array) -> int:
    """Return the decimals that show two digits of a typical half width; 3 where no interval is known."""
    known = half_widths[np.isfinite(half_widths) & (half_widths > 0)]
    if len(known) == 0:
        return 3
    return max(1, min(6, 1 - math.floor(math.log10(float(np.median(known))))))


def number(value: float | None, decimals: int, signed: bool = False) -> str:
    """Return ``.264`` or ``-1.500`` (``+.019`` if signed); ``-`` for None and NaN."""
    if value is None or math.isnan(value):
        return "-"
    text = f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("+-")  # neither -0 nor +0
    sign, digits = (text[0], text[1:]) if text[0] in "+-" else ("", text)
    return sign + (digits[1:] if digits.startswith("0.") else digits)


def significant(value: float | None, digits: int = 4) -> str:
    """Return a number with so many significant digits, zeros at its end left out: ``.0316``, ``12.5``."""
    if value is None or not math.isfinite(value) or value == 0:
        return "0" if value == 0 else "-" if value is None else str(value)
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    if decimals > 8:
        return f"{value:.{digits - 1}g}"
    text = number(value, max(0, decimals))
    return text.rstrip("0").rstrip(".") if "." in text else text


def interval(
    value: float | None, low: float | None, high: float | None, decimals: int, signed: bool = False
) -> str:
    """Return ``.264 [.252, .276]``; without bounds the value alone."""
    middle = number(value, decimals, signed)
    if low is None or high is None or math.isnan(low):
        return middle
    return f"{middle} [{number(low, decimals, signed)}, {number(high, decimals, signed)}]"


def p_value(p: float | None) -> str:
    """Return ``.031``, ``<.001`` or ``-``; a fourth digit where .050 would not tell on which side p is."""
    if p is None or math.isnan(p):
        return "-"
    near = 0.0495 <= p < 0.0505 and p != 0.05
    return "<.001" if p < 0.001 else number(p, 4 if near else 3)
