"""The tidy frame as CSV, safe to open in a spreadsheet."""

from __future__ import annotations

import polars as pl


def to_csv(tidy: pl.DataFrame) -> str:
    """Return CSV with full-precision numbers; text that a spreadsheet would run gets a quote before it."""
    text = pl.selectors.string()
    risky = text.str.contains(r"^[=+\-@\t\r]")
    return tidy.with_columns(pl.when(risky).then("'" + text).otherwise(text).name.keep()).write_csv()
