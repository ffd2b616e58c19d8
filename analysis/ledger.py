"""Reading the ledger: NDJSON with a checksum in every line, into one polars frame with an explicit schema."""

from __future__ import annotations

import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from analysis.errors import UserError
from sarx.study.ledger_schema import COLUMNS, SCHEMA_VERSION

_SCALARS: dict[str, pl.DataType] = {"int": pl.Int64(), "float": pl.Float64(), "str": pl.String()}
_CRC_MEMBER = b',"crc":'


@dataclass(frozen=True)
class Ledger:
    """All events of a study, in the order of ``seq``.

    Attributes:
        events: one row per event; the columns are those of the ledger's schema.
        torn: files whose last line was cut off in the middle of writing, and is not in ``events``.
    """

    events: pl.DataFrame
    torn: tuple[str, ...]


def column_type(description: str) -> pl.DataType:
    """Return the polars type of a column, from its description in the ledger's schema.

    Example: ``list[name: str, value: float]`` becomes a list of structs.
    """
    if description in _SCALARS:
        return _SCALARS[description]
    members = re.fullmatch(r"list\[(.+)\]", description)
    if members is None:
        raise ValueError(
            f"ledger schema: unknown column type {description!r}; known: {sorted(_SCALARS)}, list[]"
        )
    pairs = (member.split(":") for member in members.group(1).split(","))
    return pl.List(pl.Struct({name.strip(): _SCALARS[kind.strip()] for name, kind in pairs}))


def ledger_schema() -> pl.Schema:
    """Return the polars schema of the ledger."""
    return pl.Schema({name: column_type(description) for name, description in COLUMNS.items()})


def read_ledger(study: Path) -> Ledger:
    """Read every ``ledger/*.ndjson`` of a study.

    A torn last line of a file is left out and its file named in ``torn``; an event that stands in two files
    (compaction keeps the originals) counts once.

    Raises:
        UserError: no complete line, or a bad line that is not the last of its file (with file and line).
    """
    files = sorted((study / "ledger").glob("*.ndjson"))
    frames: list[pl.DataFrame] = []
    torn: list[str] = []
    for file in files:
        lines, is_torn = _verified_lines(file)
        torn += [file.name] * is_torn
        if lines:
            frames.append(_parse(file, lines))
    if not frames:
        raise UserError(f"the ledger of study {study.name!r} holds no complete line yet: {study / 'ledger'}")
    events = pl.concat(frames).unique(["seq", "crc"], keep="first", maintain_order=True)
    _check_version(events, study)
    return Ledger(
        events.with_columns(pl.col("level").fill_null("")).sort("seq", maintain_order=True), tuple(torn)
    )


def line_problem(line: bytes) -> str:
    """Return what is wrong with a line (without its newline): '' if its checksum agrees and it is JSON."""
    at = line.rfind(_CRC_MEMBER)
    if at < 0:
        return "no crc at its end"
    try:
        event = json.loads(line)
    except ValueError as problem:  # also bytes that are not UTF-8
        return f"not JSON ({problem})"
    if not isinstance(event, dict):
        return "not a JSON object"
    expected = f"{zlib.crc32(line[:at] + b'}'):08x}"
    return (
        ""
        if event.get("crc") == expected
        else f"its crc is {event.get('crc')!r}, its content has {expected!r}"
    )


def _verified_lines(file: Path) -> tuple[list[bytes], bool]:
    """Return the good lines of a file, and whether its last line was torn."""
    *lines, rest = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        problem = line_problem(line)
        if problem and number == len(lines) and not rest:
            return lines[:-1], True
        if problem:
            raise UserError(
                f"{file}:{number}: a bad line in the middle of the ledger: {problem}. Nothing was read or "
                "changed; restore the file from a copy, or look at this line"
            )
    return lines, bool(rest)


def _parse(file: Path, lines: list[bytes]) -> pl.DataFrame:
    """Parse verified lines with the ledger's schema."""
    schema = ledger_schema()
    try:
        return pl.scan_ndjson(io.BytesIO(b"\n".join(lines)), schema=schema).collect()
    except pl.exceptions.PolarsError:
        number, problem = next(_misfits(lines, schema))
    raise UserError(
        f"{file}:{number}: does not fit the ledger's schema (version {SCHEMA_VERSION}): {problem}"
    )


def _misfits(lines: list[bytes], schema: pl.Schema) -> Iterator[tuple[int, str]]:
    """Yield the number and the problem of every line that does not fit the schema."""
    for number, line in enumerate(lines, start=1):
        try:
            pl.scan_ndjson(io.BytesIO(line), schema=schema).collect()
        except pl.exceptions.PolarsError as problem:
            yield number, str(problem)


def _check_version(events: pl.DataFrame, study: Path) -> None:
    """Refuse a ledger that a newer sarx has written."""
    newest = events["v"].max()
    if isinstance(newest, int) and newest > SCHEMA_VERSION:
        raise UserError(
            f"the ledger of study {study.name!r} has version {newest}, this analysis reads up to "
            f"{SCHEMA_VERSION}: use the sarx that wrote it"
        )
