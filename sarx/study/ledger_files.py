"""The files of a ledger, and which of their events count. Reading needs no lock and changes nothing.

``events-NNNNNN.ndjson`` holds what the driver with fence NNNNNN wrote; creating it (O_EXCL) made that driver
the holder of the fence. ``events.ndjson`` (version 1) is fence 0. ``compacted-NNNNNN.ndjson`` replaces all
files up to its fence. Files are read in the order of their fences:

- Where a file begins with seq n, events of earlier files with seq >= n do not count: their driver had been
  replaced and did not notice.
- A last line that was cut short does not count and stays where it is; the next driver has its own file. Any
  other bad line, and a last line that holds a whole event with something behind it, is damage.
- What counts has the seq 0, 1, 2, ...: a gap is damage too.

``originals/`` holds files that are read no longer: those that were compacted, and empty ones.

On an object store the same events lie in segments that are never torn: see ``segments``.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sarx.config.errors import UserError
from sarx.study.ledger_lines import Event, decode_part, holds_event
from sarx.study.ledger_schema import SCHEMA_VERSION

FILE = "events.ndjson"
"""The one file of a version-1 ledger."""

_NAME = re.compile(r"(?P<kind>events|compacted)-(?P<fence>\d{6,})\.ndjson")
_TRIES = 20  # listings, while a compaction moves files away


@dataclass(frozen=True)
class LedgerFile:
    """A file of a ledger, or the copy of a segment of one.

    Attributes:
        url: Of the segment, which was written whole; empty for a file.
    """

    path: Path
    fence: int
    compacted: bool = False
    url: str = ""

    @property
    def shown(self) -> str:
        """Return what messages call it."""
        return self.url or str(self.path)


@dataclass
class Part:
    """What one file holds.

    Attributes:
        events: its events, one per line from the first.
        lines: their lines with newlines, if asked for.
        torn: number of the line that was cut short; 0 without one.
    """

    file: LedgerFile
    events: list[Event] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    torn: int = 0


@dataclass
class Contents:
    """What a ledger holds.

    Attributes:
        events: those that count; the position of each is its seq.
        lines: their lines with newlines, if asked for.
        torn: ``path:line`` of every line that was cut short.
    """

    events: list[Event] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)


def events_file(folder: Path, fence: int) -> Path:
    """Return the path of the file of one start of a driver."""
    return folder / f"events-{fence:06d}.ndjson"


def compacted_file(folder: Path, fence: int) -> Path:
    """Return the path of the file that stands for all files up to a fence."""
    return folder / f"compacted-{fence:06d}.ndjson"


def all_files(folder: Path) -> list[LedgerFile]:
    """Return the files of a ledger in the order of their fences; none of a folder that does not exist."""
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    found = [LedgerFile(folder / FILE, 0)] if FILE in names else []
    for match in filter(None, map(_NAME.fullmatch, names)):
        compacted = match["kind"] == "compacted"
        found.append(LedgerFile(folder / match.string, int(match["fence"]), compacted))
    return sorted(found, key=lambda file: (file.fence, file.compacted))


def find_files(folder: Path) -> list[LedgerFile]:
    """Return the files that count, in order: the newest compacted one and those with a higher fence."""
    files = all_files(folder)
    start = max((at for at, file in enumerate(files) if file.compacted), default=0)
    return files[start:]


def highest_fence(folder: Path) -> int:
    """Return the highest fence that was claimed: 0 with a version-1 file alone, -1 without any file."""
    files = all_files(folder)
    return files[-1].fence if files else -1


def read_file(file: LedgerFile, keep_lines: bool = False) -> Part:
    """Read one file and check every line of it.

    Raises:
        UserError: If a line is damaged, of another fence, or written by a newer sarx (with file and line).
        FileNotFoundError: If there is no such file.
    """
    return read_lines(file, file.path.read_bytes(), keep_lines)  # all at once: a driver may be writing


def read_lines(file: LedgerFile, raw: bytes, keep_lines: bool = False) -> Part:
    """Check every line of a file whose content is ``raw``; see ``read_file``."""
    part, whole = Part(file), file.compacted or bool(file.url)
    view, size = memoryview(raw), len(raw)
    start = number = 0
    while start < size:
        number += 1
        end = raw.find(b"\n", start)
        after = size if end < 0 else end + 1
        try:
            if end < 0:
                raise ValueError("no newline at its end")
            event = decode_part(view, raw, start, end)
        except ValueError as error:
            if after < size or whole or holds_event(raw[start:after]):
                raise _damage(str(error), file, number) from None
            part.torn = number
            break
        seq, fence = event.get("seq"), event.get("fence")
        plain = type(seq) is int and type(fence) is int
        if not plain or event.get("v") != SCHEMA_VERSION or fence != file.fence:
            _check(event, file, number)
        part.events.append(event)
        if keep_lines:
            part.lines.append(raw[start:after])
        start = after
    return part


def _damage(problem: str, file: LedgerFile, number: int) -> UserError:
    """Return the error for a bad line."""
    return UserError(
        f"the ledger is damaged here ({problem}); nothing was changed. Restore the file from a copy",
        where=f"{file.shown}:{number}",
    )


def _check(event: Event, file: LedgerFile, number: int) -> None:
    """Refuse an event of a newer sarx, without its place, or in a file of another fence."""
    version, seq, fence = event.get("v"), event.get("seq"), event.get("fence", 0)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(
            f"was written by a newer sarx (version {version}; this one reads {SCHEMA_VERSION})",
            where=f"{file.shown}:{number}",
        )
    if not isinstance(seq, int) or not isinstance(fence, int):
        raise _damage("no seq", file, number)
    misplaced = fence > file.fence if file.compacted else fence != file.fence
    if misplaced and file.path.name != FILE:
        raise _damage(f"an event of fence {fence} in a file of another name", file, number)


def merge(parts: list[Part]) -> Contents:
    """Put parts, in the order of their fences, together.

    Raises:
        UserError: If events are missing, naming the file after the gap and which they are.
    """
    contents = Contents()
    for part in parts:
        first: int = part.events[0]["seq"] if part.events else len(contents.events)
        del contents.events[max(first, 0) :], contents.lines[max(first, 0) :]
        for number, event in enumerate(part.events, start=1):
            due, seq = len(contents.events), event["seq"]
            if seq == due:
                contents.events.append(event)
                continue
            missing = f"event {due} is" if seq == due + 1 else f"events {due} to {seq - 1} are"
            raise UserError(
                f"{missing} missing before this line; nothing was changed. Restore the files of the ledger "
                "from a copy"
                if seq > due
                else f"event {seq} stands where event {due} is due; nothing was changed",
                where=f"{part.file.shown}:{number}",
            )
        contents.lines += part.lines
        if part.torn:
            contents.torn.append(f"{part.file.path}:{part.torn}")
    return contents


def read_parts(folder: Path, keep_lines: bool = False) -> list[Part]:
    """Read the files that count, again from the start while a compaction moves them.

    Raises:
        UserError: As ``read_file``, or if the files do not come to rest.
    """
    for _ in range(_TRIES):
        files = find_files(folder)
        try:
            with collecting_nothing():
                parts = [read_file(file, keep_lines) for file in files]
        except FileNotFoundError:
            continue
        if find_files(folder) == files:
            return parts
    raise UserError("its files change all the time; try again", where=str(folder))


@contextlib.contextmanager
def collecting_nothing() -> Iterator[None]:
    """Pause the garbage collector, which goes over all events again and again: half the time of reading."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def read_folder(folder: Path, keep_lines: bool = False) -> Contents:
    """Read a ledger.

    Args:
        folder: The ledger's folder; one that does not exist holds nothing.
        keep_lines: Return the lines as well.

    Raises:
        UserError: If a line is damaged or written by a newer sarx, or events are missing; with file and line.
    """
    return merge(read_parts(folder, keep_lines))


def read_events(path: Path) -> list[Event]:
    """Return the events that count of a ledger's folder, or all whole events of one of its files.

    Nothing is changed, and a driver may be writing; a path that does not exist holds nothing.

    Raises:
        UserError: As ``read_folder``.
    """
    if path.is_dir():
        return read_folder(path).events
    match = _NAME.fullmatch(path.name)
    file = LedgerFile(path, int(match["fence"]), match["kind"] == "compacted") if match else None
    try:
        return read_file(file or LedgerFile(path, 0)).events
    except FileNotFoundError:
        return []


def claim_file(folder: Path, fence: int) -> int:
    """Create the file of a fence and return its descriptor, to append to; the name is on disk.

    Raises:
        FileExistsError: If the fence is claimed already.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(events_file(folder, fence), flags, 0o666)
    sync_folder(folder)
    return descriptor


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to disk, where the file system knows how to."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # what some network ones answer
            raise
    finally:
        os.close(descriptor)
