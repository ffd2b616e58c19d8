"""Lines of a ledger that are parsed together: what stands before the metrics, and where the metrics stand."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator

import numpy as np
import orjson
import polars as pl
import pyarrow as pa

SEAL = len(b',"crc":"01234567"}')
"""Bytes of the checksum at the end of every line."""
_METRICS = b',"metrics":['


class Misfit(Exception):
    """A line does not fit the ledger's schema.

    Attributes:
        line: its number in the file.
    """

    def __init__(self, problem: str, line: int) -> None:
        """Remember the line."""
        super().__init__(problem)
        self.line = line


class Part:
    """Lines of a file, taken apart.

    Args:
        line: number of the first line.
        start: its place in the file, in bytes.

    Attributes:
        end: where the lines that were added end.
    """

    def __init__(self, line: int, start: int = 0) -> None:
        """Begin without lines."""
        self.line, self.start, self.end = line, start, start
        self._heads: list[bytes] = []  # JSON without metrics, in pieces
        self._spans: list[int] = []  # begin and end of the metrics of each line
        self._moved: dict[int, bytes] = {}  # metrics that do not stand in the file like this

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self._spans) // 2

    def add(self, data: bytes, start: int, end: int) -> None:
        """Add the line ``data[start:end]``, whose checksum agrees, and the newline behind it."""
        self.end = end + 1
        seal = end - SEAL
        at = data.find(_METRICS, start, seal)  # inside a string the quotes would be escaped
        if at >= 0 and data.find(b"]", at, seal) == seal - 1:  # nothing but the checksum follows
            self._heads += data[start:at], data[seal : end + 1]
            self._spans += at + len(_METRICS) - 1, seal
            return
        line = data[start : end + 1]
        if at >= 0 or b'"metrics"' in line:
            line = self._move(line)
        self._heads.append(line)
        self._spans += start, start

    def frame(self, data: bytes, schema: pl.Schema) -> pl.DataFrame:
        """Return one row per line, with the columns of the ledger's schema, ``metrics`` as bytes.

        Args:
            data: the whole file.
            schema: of the ledger.

        Raises:
            Misfit: a line is not what the schema says.
        """
        plain = pl.Schema({name: kind for name, kind in schema.items() if name != "metrics"})
        heads = b"".join(self._heads)
        try:
            found = pl.scan_ndjson(io.BytesIO(heads), schema=plain).collect() if heads else plain.to_frame()
        except pl.exceptions.PolarsError:
            raise next(self._misfits(heads, plain)) from None
        assert found.height == len(self), f"line {self.line}: {found.height} events in {len(self)} lines"
        return found.with_columns(self._packed(data)).select(*schema)

    def _move(self, line: bytes) -> bytes:
        """Take the metrics out of a line in which something follows them."""
        number = len(self)
        try:
            event = orjson.loads(line)
        except orjson.JSONDecodeError as problem:
            raise Misfit(str(problem), self.line + number) from None
        metrics = event.pop("metrics", None)
        if metrics is None:
            return line
        self._moved[number] = orjson.dumps(metrics)
        return orjson.dumps(event) + b"\n"

    def _packed(self, data: bytes) -> pl.Series:
        """Return the metrics of every line as bytes that are not copied from the file; null without any."""
        bounds = np.array([*self._spans, self._spans[-1] if self._spans else 0], dtype=np.int64)
        buffers = [None, pa.py_buffer(bounds), pa.py_buffer(data)]
        spans = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(self._spans), buffers)
        packed = pl.Series("metrics", spans).gather_every(2)  # between them is the rest of the lines
        moved = [self._moved.get(number) for number in range(len(self))] if self._moved else [None]
        given = pl.when(packed.bin.size() > 0).then(packed)
        return pl.select(pl.coalesce(given, pl.Series(moved, dtype=pl.Binary)).alias("metrics")).to_series()

    def _misfits(self, heads: bytes, schema: pl.Schema) -> Iterator[Misfit]:
        """Yield what does not fit the schema, line by line."""
        for number, line in enumerate(heads.split(b"\n"), start=self.line):
            try:
                pl.scan_ndjson(io.BytesIO(line), schema=schema).collect()
            except pl.exceptions.PolarsError as problem:
                yield Misfit(str(problem), number)


def sealed(line: bytes) -> bool:
    """Return whether a line ends with the checksum of what stands before; such a line is what was written."""
    crc = b"%08x" % zlib.crc32(b"}", zlib.crc32(memoryview(line)[:-SEAL]))
    return line[-SEAL:] == b',"crc":"' + crc + b'"}'
