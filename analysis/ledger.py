"""Reading the ledger: NDJSON with a checksum in every line, into one polars frame with an explicit schema.

A second reading of the rules in ``sarx.study.ledger_schema`` and ``sarx/study/ledger_files.py``, independent
of the driver's: files in the order of their fences, events of replaced drivers dropped, no event missing.

Most of a ledger is metrics of epochs that no table needs. They are verified like everything else and stay
packed: the column ``metrics`` holds their JSON, ``analysis.packed`` unpacks it. One thread takes the lines
apart and computes their checksums, polars parses what lies before the metrics.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from analysis.errors import UserError
from analysis.ledger_part import SEAL, Misfit, Part, Unsealed, sealed
from sarx.study.ledger_schema import COLUMNS, SCHEMA_VERSION

_SCALARS: dict[str, pl.DataType] = {"int": pl.Int64(), "float": pl.Float64(), "str": pl.String()}
_CRC_MEMBER = b',"crc":'
_FILE = re.compile(r"events\.ndjson|(events|compacted)-(\d{6,})(?:-(\d{6,}))?\.ndjson")
_TRIES = 20  # listings, while a driver compacts
_CHUNK = 1 << 20  # bytes of a file whose lines are taken apart while the processor's cache holds them
_PART = 1 << 24  # bytes of a file that are parsed together
_AHEAD = 2  # parts whose lines are taken apart while an earlier one is parsed


@dataclass(frozen=True)
class Ledger:
    """All events of a study, in the order of ``seq``.

    Attributes:
        events: one row per event; the columns are those of the ledger's schema, ``metrics`` being packed
            (JSON as bytes, see ``analysis.packed``) and ``crc``, which is compared, left out.
        torn: files whose last line was cut off in the middle of writing, and is not in ``events``.
    """

    events: pl.DataFrame
    torn: tuple[str, ...]


@dataclass(frozen=True, order=True)
class LedgerFile:
    """A file of a ledger; ``events.ndjson`` has the fence 0. They sort in the order of reading.

    ``events-FENCE-SEGMENT.ndjson`` is a segment of a ledger on an object store; they are never torn.
    """

    fence: int
    compacted: bool
    path: Path
    segment: int | None = field(default=None, compare=False)


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
        frames = [_before(earlier, frame["seq"][0]) for earlier in frames]
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
            segment = int(match[3]) if match[3] else None
            found.append(LedgerFile(int(match[2] or 0), match[1] == "compacted", path, segment))
    found.sort(key=lambda file: (file.fence, file.compacted, file.segment or 0, file.path))
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


def _before(events: pl.DataFrame, seq: int | None) -> pl.DataFrame:
    """Return the events before ``seq``; they count on without a gap."""
    if seq is None or events.is_empty() or events["seq"][-1] < seq:
        return events
    return events.filter(pl.col("seq") < seq)


def _read_file(file: LedgerFile) -> tuple[pl.DataFrame, bool]:
    """Return the events of a file, and whether its last line was torn."""
    data = _file_bytes(file.path)
    stop = len(data)
    while True:
        try:
            frame, end = _parsed(data, stop)
            break
        except Unsealed as bad:  # there may be another one before it, which was not looked at yet
            stop = bad.start
        except Misfit as problem:
            raise UserError(
                f"{file.path}:{problem.line}: does not fit the ledger's schema (version {SCHEMA_VERSION}): "
                f"{problem}"
            ) from None
    if end < len(data):
        _check_torn(file, data[end:], frame.height + 1)
    _check_version(file, frame)
    _check_fence(file, frame)
    return frame, end < len(data)


def _file_bytes(path: Path) -> mmap.mmap | bytes:
    """Return what a file holds now.

    A large one is mapped, which saves copying it: sarx never changes or shortens what was written (whoever
    writes another file over it while a report is made ends that process, as with polars' own scan). A map
    keeps the file open, and of small ones there may be thousands.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size  # a driver may be writing
        if size <= _PART:
            return file.read(size)
        flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_POPULATE", 0)  # all pages at once, where that is known
        return mmap.mmap(file.fileno(), size, flags, mmap.PROT_READ)


def _parsed(data: mmap.mmap | bytes, stop: int) -> tuple[pl.DataFrame, int]:
    """Return the events of the complete lines before ``stop``, and where these lines end.

    Raises:
        Unsealed: the checksum of a line does not agree.
        Misfit: a line does not fit the schema.
    """
    schema, frames = ledger_schema(), []
    part, waiting, chunk = Part(1), deque[Part](), _CHUNK
    with ThreadPoolExecutor(1) as pool:
        while part.end < stop:
            taken = part.take(data[part.end : min(part.end + chunk, stop)])
            if not taken and part.end + chunk >= stop:
                break
            chunk = _CHUNK if taken else 2 * chunk  # until it holds a whole line
            if part.end - part.start > _PART:
                part.parse(pool, schema)
                waiting.append(part)
                part = Part(part.line + len(part), part.end)
            if len(waiting) > _AHEAD:
                frames.append(waiting.popleft().frame(data))  # which lets go of its memory
        part.parse(pool, schema)
    frames += [one.frame(data) for one in (*waiting, part)]
    return pl.concat(frames), part.end


def _check_torn(file: LedgerFile, rest: bytes, number: int) -> None:
    """Refuse what begins with a bad line, unless that is the last one and was cut short."""
    line, newline, behind = rest.partition(b"\n")
    whole = file.compacted or file.segment is not None  # written in one piece
    if behind or whole or _holds_event(line):
        problem = line_problem(line) if newline else line_problem(line) or "it has no newline"
        raise UserError(
            f"{file.path}:{number}: a bad line in the middle of the ledger: {problem}. Nothing was read or "
            "changed; restore the file from a copy, or look at this line"
        )


def _holds_event(line: bytes) -> bool:
    """Return whether a bad line is a whole event with something but zeros behind it, not one cut short."""
    ends = (match.start() + SEAL for match in re.finditer(_CRC_MEMBER, line))
    return any(sealed(line[:end]) and line[end:].strip(b"\0") for end in ends)


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
