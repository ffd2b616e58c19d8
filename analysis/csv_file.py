"""The tidy frame as CSV, safe to open in a spreadsheet."""

from __future__ import annotations

import re

import polars as pl

_FORMULA = r"^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]"
"""What spreadsheets run: signs at the start, also after blanks and in full width."""


def to_csv(tidy: pl.DataFrame) -> str:
    """Return CSV with full-precision numbers; text that a spreadsheet would run gets a quote before it.

    Headings are text too: a metric may be called anything.
    """
    text = pl.selectors.string()
    safe = pl.when(text.str.contains(_FORMULA)).then("'" + text).otherwise(text).name.keep()
    headings = {name: f"'{name}" for name in tidy.columns if re.match(_FORMULA, name)}
    return tidy.with_columns(safe).rename(headings).write_csv()
