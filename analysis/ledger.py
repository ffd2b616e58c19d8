"""Reading the ledger: NDJSON with a checksum in every line, into one polars frame with an explicit schema.

A second reading of the rules in ``sarx.study.ledger_schema`` and ``sarx/study/ledger_files.py``, independent
of the driver's: files in the order of their fences, events of replaced drivers dropped, no event missing.
"""

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
_SEAL = len(',"crc":"01234567"}')  # bytes at the end of every line
_FILE = re.compile(r"events\.ndjson|(events|compacted)-(\d{6,})\.ndjson")
_TRIES = 20  # listings, while a driver compacts


@dataclass(frozen=True)
class Ledger:
    """All events of a study, in the order of ``seq``.

    Attributes:
        events: one row per event; the columns are those of the ledger's schema.
        torn: files whose last line was cut off in the middle of writing, and is not in ``events``.
    """

    events: pl.DataFrame
    torn: tuple[str, ...]


@dataclass(frozen=True, order=True)
class LedgerFile:
    """A file of a ledger; ``events.ndjson`` has the fence 0. They sort in the order of reading."""

    fence: int
    compacted: bool
    path: Path


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
    """Read the ledger of a study; a driver may be writing or compacting it.

    A last line that was cut short is left out and its file named in ``torn``.

    Raises:
        UserError: no complete line; a bad line, or one of a newer sarx (with file and line); events missing
            (with the line after the gap).
    """
    folder = study / "ledger"
    frames: list[pl.DataFrame] = []
    parts = _read_parts(folder)
    for file, frame, _ in parts:
        if frame.is_empty():
            continue
        # A driver that had been replaced without noticing went on where this one begins.
        frames = [earlier.filter(pl.col("seq") < frame["seq"][0]) for earlier in frames]
        _check_seq(file, frame["seq"], sum(map(len, frames)))
        frames.append(frame)
    if not frames:
        raise UserError(f"the ledger of study {study.name!r} holds no complete line yet: {folder}")
    events = pl.concat(frames).with_columns(pl.col("level").fill_null(""))
    return Ledger(events, tuple(file.path.name for file, _, torn in parts if torn))


def ledger_files(folder: Path) -> list[LedgerFile]:
    """Return the files that count, in order: the newest compacted one and those with a higher fence."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if match := _FILE.fullmatch(path.name):
            found.append(LedgerFile(int(match[2] or 0), match[1] == "compacted", path))
    found.sort()
    return found[max((at for at, file in enumerate(found) if file.compacted), default=0) :]


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


def _read_parts(folder: Path) -> list[tuple[LedgerFile, pl.DataFrame, bool]]:
    """Return the files that count, their events, and whether they are torn; again while files are moved."""
    for _ in range(_TRIES):
        files = ledger_files(folder)
        try:
            parts = [(file, *_read_file(file)) for file in files]
        except FileNotFoundError:
            continue
        if ledger_files(folder) == files:
            return parts
    raise UserError(f"{folder}: its files change all the time; try again")


def _read_file(file: LedgerFile) -> tuple[pl.DataFrame, bool]:
    """Return the events of a file, and whether its last line was torn."""
    lines, torn = _verified_lines(file)
    frame = _parse(file.path, lines) if lines else pl.DataFrame(schema=ledger_schema())
    assert frame.height == len(lines), f"{file.path}: {frame.height} events in {len(lines)} lines"
    _check_version(file, frame)
    _check_fence(file, frame)
    return frame, torn


def _verified_lines(file: LedgerFile) -> tuple[list[bytes], bool]:
    """Return the good lines of a file, and whether its last line was torn."""
    *lines, rest = file.path.read_bytes().split(b"\n")
    for number, line in enumerate([*lines, rest] if rest else lines, start=1):
        if _sealed(line) and number <= len(lines):
            continue
        last = number == len(lines) + bool(rest)
        if last and not file.compacted and not _holds_event(line):
            return lines[: number - 1], True
        raise UserError(
            f"{file.path}:{number}: a bad line in the middle of the ledger: "
            f"{line_problem(line) or 'it has no newline'}. Nothing was read or changed; restore the file "
            "from a copy, or look at this line"
        )
    return lines, False


def _sealed(line: bytes) -> bool:
    """Return whether a line ends with the checksum of what stands before; such a line is what was written."""
    seal = line[-_SEAL:]
    crc = b"%08x" % zlib.crc32(b"}", zlib.crc32(memoryview(line)[:-_SEAL]))
    return seal == b',"crc":"' + crc + b'"}'


def _holds_event(line: bytes) -> bool:
    """Return whether a bad line is a whole event with something but zeros behind it, not one cut short."""
    ends = (match.start() + _SEAL for match in re.finditer(_CRC_MEMBER, line))
    return any(_sealed(line[:end]) and line[end:].strip(b"\0") for end in ends)


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


def _check_version(file: LedgerFile, events: pl.DataFrame) -> None:
    """Refuse a file that a newer sarx has written."""
    newest = events["v"].max()
    if isinstance(newest, int) and newest > SCHEMA_VERSION:
        raise UserError(
            f"{file.path} has version {newest}, this analysis reads up to {SCHEMA_VERSION}: use the sarx "
            "that wrote it"
        )


def _check_fence(file: LedgerFile, events: pl.DataFrame) -> None:
    """Refuse events of another fence than the file's name says; ``events.ndjson`` says nothing."""
    fence = pl.col("fence").fill_null(0)
    wrong = events.with_row_index("line", 1).filter(
        fence > file.fence if file.compacted else fence != file.fence
    )
    if wrong.height and file.path.name != "events.ndjson":
        line, number = wrong.select("line", "fence").row(0)
        raise UserError(f"{file.path}:{line}: an event of fence {number or 0} in a file of another name")


def _check_seq(file: LedgerFile, seq: pl.Series, due: int) -> None:
    """Refuse a file whose events do not count on from ``due``."""
    wrong = seq.ne_missing(pl.int_range(due, due + len(seq), dtype=pl.Int64, eager=True)).arg_max()
    if wrong is None or seq[wrong] == due + wrong:
        return
    line, due = wrong + 1, due + wrong
    if seq[wrong] is not None and seq[wrong] > due:
        missing = f"event {due} is" if seq[wrong] == due + 1 else f"events {due} to {seq[wrong] - 1} are"
        raise UserError(
            f"{file.path}:{line}: {missing} missing before this line; restore the files from a copy"
        )
    raise UserError(f"{file.path}:{line}: event {seq[wrong]} stands where event {due} is due")
