"""Lines of a ledger that are parsed together: what stands before the metrics, and where the metrics stand."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
from zlib_ng import zlib_ng

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


class Unsealed(Exception):
    """The checksum of a line does not agree with what stands before it.

    Attributes:
        start: where the line begins in the file.
    """

    def __init__(self, start: int) -> None:
        """Remember the place."""
        super().__init__(start)
        self.start = start


class Part:
    """Lines of a file, taken apart.

    Args:
        line: number of the first line.
        start: its place in the file, in bytes.

    Attributes:
        end: where the lines that were taken end.
    """

    def __init__(self, line: int, start: int = 0) -> None:
        """Begin without lines."""
        self.line, self.start, self.end = line, start, start
        self._crcs: list[int] = []  # what the checksum of each line must be
        self._heads: list[bytes] = []  # JSON without metrics, in pieces
        self._spans: list[int] = []  # begin and end of the metrics of each line
        self._moved: dict[int, bytes] = {}  # metrics that do not stand in the file like this
        self._misfit: Misfit | None = None  # the first line that is no event
        self._parsing: Future[pl.DataFrame] | None = None

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self._crcs)

    def take(self, chunk: bytes) -> int:
        """Take the complete lines of ``chunk``, which stands at ``end`` in the file; return their bytes."""
        crcs, heads, spans, crc32 = self._crcs, self._heads, self._spans, zlib_ng.crc32
        find, view, begin, start = chunk.find, memoryview(chunk), self.end, 0
        while (end := find(b"\n", start)) >= 0:
            seal = end - SEAL
            at = find(_METRICS, start, seal)  # inside a string the quotes would be escaped
            if at >= 0 and find(b"]", at, seal) == seal - 1:  # nothing but the checksum follows
                heads += chunk[start:at], chunk[seal : end + 1]
                spans += begin + at + len(_METRICS) - 1, begin + seal
            else:
                heads.append(self._without_metrics(chunk[start : end + 1]))
                spans += begin + start, begin + start
            crcs.append(crc32(b"}", crc32(view[start:seal])))
            start = end + 1
        self.end += start
        return start

    def parse(self, pool: Executor, schema: pl.Schema) -> None:
        """Let another thread parse what stands before the metrics; no line can be taken any more.

        Polars does it by itself: whatever else is done beside ``take`` must wait for the interpreter's lock.
        """
        self._plain = pl.Schema({name: kind for name, kind in schema.items() if name != "metrics"})
        self._joined = b"".join(self._heads)
        if self._joined:
            self._parsing = pool.submit(pl.read_ndjson, self._joined, schema=self._plain)

    def frame(self, data: mmap.mmap | bytes, schema: pl.Schema) -> pl.DataFrame:
        """Return one row per line, with the columns of the ledger's schema, ``metrics`` as bytes.

        Args:
            data: the whole file.
            schema: of the ledger, as ``parse`` was given.

        Raises:
            Unsealed: the checksum of a line does not agree.
            Misfit: a line is not what the schema says.
        """
        try:
            found = self._parsing.result() if self._parsing else self._plain.to_frame()
        except pl.exceptions.PolarsError:
            self._misfit = self._misfit or next(self._misfits())
        if self._misfit:
            self._check_seals(data)
            raise self._misfit
        expected = np.array(self._crcs, dtype=">u4").tobytes().hex()
        if found.height != len(self) or found["crc"].str.join("", ignore_nulls=False).item() != expected:
            self._check_seals(data)
            raise AssertionError(f"line {self.line}: {found.height} events in {len(self)} lines")
        return found.with_columns(self._packed(data)).select(*schema)

    def _check_seals(self, data: mmap.mmap | bytes) -> None:
        """Look for a line whose checksum does not agree."""
        start = self.start
        for line in data[self.start : self.end].split(b"\n")[:-1]:
            if not sealed(line):
                raise Unsealed(start)
            start += len(line) + 1

    def _without_metrics(self, line: bytes) -> bytes:
        """Return a line as it is, or without metrics that do not stand at its end."""
        return self._move(line) if b'"metrics"' in line else line

    def _move(self, line: bytes) -> bytes:
        """Take the metrics out of a line in which something follows them."""
        number = len(self)
        try:
            event = orjson.loads(line)
            metrics = event.pop("metrics", None)
        except (orjson.JSONDecodeError, AttributeError, TypeError) as problem:
            self._misfit = self._misfit or Misfit(str(problem), self.line + number)
            return line
        if metrics is None:
            return line
        self._moved[number] = orjson.dumps(metrics)
        return orjson.dumps(event) + b"\n"

    def _packed(self, data: mmap.mmap | bytes) -> pl.Series:
        """Return the metrics of every line as bytes that are not copied from the file; null without any."""
        bounds = np.array([*self._spans, self._spans[-1] if self._spans else 0], dtype=np.int64)
        buffers = [None, pa.py_buffer(bounds), pa.py_buffer(data)]
        spans = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(self._spans), buffers)
        # By its Arrow interface alone: of an array of pyarrow polars wants pyarrow.compute, slow to import.
        exported: Any = SimpleNamespace(__arrow_c_array__=spans.__arrow_c_array__)
        packed = pl.Series("metrics", exported).gather_every(2)  # between them is the rest of the lines
        moved = [self._moved.get(number) for number in range(len(self))] if self._moved else [None]
        given = pl.when(packed.bin.size() > 0).then(packed)
        return pl.select(pl.coalesce(given, pl.Series(moved, dtype=pl.Binary)).alias("metrics")).to_series()

    def _misfits(self) -> Iterator[Misfit]:
        """Yield what does not fit the schema, line by line."""
        for number, line in enumerate(self._joined.split(b"\n"), start=self.line):
            try:
                pl.read_ndjson(line, schema=self._plain)
            except pl.exceptions.PolarsError as problem:
                yield Misfit(str(problem), number)


def sealed(line: bytes) -> bool:
    """Return whether a line ends with the checksum of what stands before; such a line is what was written."""
    crc = b"%08x" % zlib_ng.crc32(b"}", zlib_ng.crc32(memoryview(line)[:-SEAL]))
    return line[-SEAL:] == b',"crc":"' + crc + b'"}'
