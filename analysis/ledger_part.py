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

_SEAL = b',"crc":"01234567"}'
_DIGITS = slice(_SEAL.index(b"0"), _SEAL.index(b"0") + 8)
SEAL = len(_SEAL)
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
        self._seals: list[bytes] = []  # what it is
        self._heads: list[bytes] = []  # JSON without metrics, checksum and last bracket
        self._spans: list[int] = []  # begin and end of the metrics of each line
        self._moved: dict[int, bytes] = {}  # metrics that do not stand in the file like this
        self._misfit: Misfit | None = None  # the first line of which the metrics cannot be taken out
        self._parsing: Future[pl.DataFrame] | None = None

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self._crcs)

    def take(self, chunk: bytes) -> int:
        """Take the complete lines of ``chunk``, which stands at ``end`` in the file; return their bytes.

        Raises:
            Unsealed: a line is too short for a checksum; millions of such lines would fill the memory.
        """
        crcs, seals, heads, spans = self._crcs, self._seals, self._heads, self._spans
        find, crc32, view, begin, start = chunk.find, zlib_ng.crc32, memoryview(chunk), self.end, 0
        while (end := find(b"\n", start)) >= 0:
            seal = end - SEAL
            if seal < start:
                raise Unsealed(begin + start)
            at = find(_METRICS, start, seal)  # inside a string the quotes would be escaped
            if at >= 0 and find(b"]", at, seal) == seal - 1:  # nothing but the checksum follows
                heads.append(chunk[start:at])
                spans += begin + at + len(_METRICS) - 1, begin + seal
            else:
                heads.append(self._without_metrics(chunk[start:seal]))
                spans += begin + start, begin + start
            crcs.append(crc32(b"}", crc32(view[start:seal])))
            seals.append(chunk[seal:end])
            start = end + 1
        self.end += start
        return start

    def parse(self, pool: Executor, schema: pl.Schema) -> None:
        """Let another thread parse what stands before the metrics; no line can be taken any more.

        Polars does it by itself: whatever else is done beside ``take`` must wait for the interpreter's lock.
        """
        kinds = {name: kind for name, kind in schema.items() if name not in ("metrics", "crc")}
        self._schema = pl.Schema(kinds)
        self._joined = b"}\n".join([*self._heads, b""])
        self._heads.clear()  # small objects in great number: the next part takes their memory
        if self._joined:
            self._parsing = pool.submit(pl.read_ndjson, self._joined, schema=self._schema)

    def frame(self, data: mmap.mmap | bytes) -> pl.DataFrame:
        """Return one row per line; after the columns of the schema, without ``crc``, ``metrics`` as bytes.

        Args:
            data: the whole file.

        Raises:
            Unsealed: the checksum of a line does not agree.
            Misfit: a line is not what the schema says.
        """
        self._check_seals(data)
        try:
            found = self._parsing.result() if self._parsing else self._schema.to_frame()
        except pl.exceptions.PolarsError:
            self._misfit = self._misfit or next(self._misfits())
        if self._misfit:
            raise self._misfit
        assert found.height == len(self), f"line {self.line}: {found.height} events in {len(self)} lines"
        return found.with_columns(self._packed(data))

    def _check_seals(self, data: mmap.mmap | bytes) -> None:
        """Compare the checksum of every line."""
        digits = np.array(self._crcs, dtype=">u4").tobytes().hex().encode()
        expected = np.tile(np.frombuffer(_SEAL, dtype=np.uint8), (len(self), 1))
        expected[:, _DIGITS] = np.frombuffer(digits, dtype=np.uint8).reshape(-1, 8)
        if b"".join(self._seals) == expected.tobytes():
            return
        start = self.start
        for line in data[self.start : self.end].split(b"\n"):
            if not sealed(line):
                raise Unsealed(start)
            start += len(line) + 1

    def _without_metrics(self, head: bytes) -> bytes:
        """Return a line without its end as it is, or without metrics that something follows."""
        return self._move(head) if b'"metrics"' in head else head

    def _move(self, head: bytes) -> bytes:
        """Take the metrics out of a line in which something follows them."""
        number = len(self)
        try:
            event = orjson.loads(head + b"}")
            metrics = event.pop("metrics", None)
        except orjson.JSONDecodeError as problem:
            self._misfit = self._misfit or Misfit(str(problem), self.line + number)
            return head
        if metrics is None:
            return head
        self._moved[number] = orjson.dumps(metrics)
        return orjson.dumps(event)[:-1]

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
                pl.read_ndjson(line, schema=self._schema)
            except pl.exceptions.PolarsError as problem:
                yield Misfit(str(problem), number)


def sealed(line: bytes) -> bool:
    """Return whether a line ends with the checksum of what stands before; such a line is what was written."""
    crc = b"%08x" % zlib_ng.crc32(b"}", zlib_ng.crc32(memoryview(line)[:-SEAL]))
    return line[-SEAL:] == b',"crc":"' + crc + b'"}'
