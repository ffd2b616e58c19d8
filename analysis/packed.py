"""Metrics as events carry them: JSON as bytes, one list of {name, value, nonfinite} for each event.

Most of a ledger is metrics, and a table needs few of them: they are unpacked where they are looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import orjson
import polars as pl

from analysis.errors import UserError
from analysis.ledger import ledger_schema


def metric_values(found: pl.DataFrame) -> pl.DataFrame:
    """Return the metrics of events: trial_id, epoch, metric, value, which may be NaN, inf or -inf.

    Raises:
        UserError: metrics that are not what the ledger's schema says.
    """
    recorded = found.select("trial_id", "epoch", "metrics").drop_nulls("metrics")
    texts = pl.Series(
        "metrics", recorded["metrics"].to_list(), dtype=pl.Binary
    )  # a cast checks all the ledger
    try:
        items = texts.cast(pl.String).str.json_decode(ledger_schema()["metrics"])
        rows = recorded.with_columns(items).explode("metrics").drop_nulls("metrics").unnest("metrics")
        bad = rows["name"].null_count()
    except pl.exceptions.PolarsError:
        bad = True
    if bad:
        for packed in recorded["metrics"]:
            unpacked(packed)  # says which
        raise UserError("the ledger holds metrics that do not fit its schema")
    value = pl.coalesce("value", pl.col("nonfinite").cast(pl.Float64))
    return rows.select("trial_id", "epoch", pl.col("name").alias("metric"), value)


def values_of(found: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Return one metric of the events that have it: trial_id, epoch, value.

    Raises:
        UserError: as ``metric_values``.
    """
    recorded = found.select("trial_id", "epoch", "metrics").drop_nulls("metrics")
    known = list(_values_of(recorded["metrics"].to_list(), metric))
    rows = recorded.select("trial_id", "epoch")[np.array([row for row, _ in known], dtype=np.int64)]
    return rows.with_columns(pl.Series("value", [value for _, value in known], dtype=pl.Float64))


def begins_with(prefix: str) -> pl.Expr:
    """Return whether an event has a metric whose name begins so; null for an event without metrics.

    Looked for in the JSON as the driver writes it, which is quick.
    """
    return pl.col("metrics").bin.contains(b'"name":' + json.dumps(prefix).encode()[:-1])


def unpacked(packed: bytes) -> list[tuple[str, float | None]]:
    """Return name and value of the metrics of one event.

    Raises:
        UserError: as ``metric_values``.
    """
    try:
        return [
            (item["name"], value if type(value := item.get("value")) is float else _number(item))
            for item in orjson.loads(packed)
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        start = packed[:80].decode(errors="replace")
        raise UserError(f"the ledger holds metrics that do not fit its schema ({problem}): {start}") from None


def _values_of(metrics: list[bytes], metric: str) -> Iterator[tuple[int, float | None]]:
    """Yield which event has the metric, and its value."""
    member = b'{"name":%s,"value":' % json.dumps(metric).encode()
    for row, packed in enumerate(metrics):
        start = packed.find(member) + len(member)
        if start >= len(member):
            try:
                yield row, float(packed[start : packed.find(b"}", start)])
                continue
            except ValueError:  # something follows the number
                pass
        for name, value in unpacked(packed):
            if name == metric:
                yield row, value


def _number(item: dict[str, float | str | None]) -> float | None:
    """Return the value of a metric; null where none is recorded."""
    value = item.get("value")
    if value is None:
        value = item.get("nonfinite")
    return None if value is None else float(value)
