"""Frames for CSV files that are safe to open in a spreadsheet."""

from __future__ import annotations

import re

import polars as pl

_FORMULA = r"^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]"
"""What spreadsheets run: signs at the start, also after blanks and in full width."""


def without_formulas(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame in which text that a spreadsheet would run has a quote before it.

    Headings are text too: a metric may be called anything.
    """
    text = pl.selectors.string()
    safe = pl.when(text.str.contains(_FORMULA)).then("'" + text).otherwise(text).name.keep()
    headings = {name: f"'{name}" for name in frame.columns if re.match(_FORMULA, name)}
    return frame.with_columns(safe).rename(headings)
