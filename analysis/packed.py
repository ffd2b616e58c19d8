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


def metric_values(found: pl.DataFrame) -> pl.DataFrame:
    """Return the metrics of events: trial_id, epoch, metric, value, which may be NaN, inf or -inf.

    Raises:
        UserError: metrics that are not what the ledger's schema says.
    """
    recorded = found.select("trial_id", "epoch", "metrics").drop_nulls("metrics")
    packed_events = recorded["metrics"].to_list()
    names: list[str] = []
    values: list[float | None] = []
    counts = np.empty(len(packed_events), dtype=np.int64)
    for number, packed in enumerate(packed_events):
        some, their = _columns(packed)
        names += some
        values += their
        counts[number] = len(some)
    rows = recorded.select("trial_id", "epoch")[np.repeat(np.arange(len(counts)), counts)]
    try:
        columns = (pl.Series("metric", names, dtype=pl.String), pl.Series("value", values, dtype=pl.Float64))
    except TypeError as problem:
        for packed in packed_events:
            unpacked(packed)  # says which
        what = str(problem).partition("\n")[0]
        raise UserError(f"the ledger holds metrics that do not fit its schema ({what})") from None
    return rows.with_columns(*columns)


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


def _columns(packed: bytes) -> tuple[list[str], list[float | None]]:
    """Return names and values of the metrics of one event; quicker than ``unpacked``, which looks closer."""
    try:
        items = orjson.loads(packed)
        names, values = [item["name"] for item in items], [item["value"] for item in items]
    except (ValueError, KeyError, TypeError):
        values = [None]
    if None in values:  # one that is not finite, or not recorded
        found = unpacked(packed)
        return [name for name, _ in found], [value for _, value in found]
    return names, values


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
