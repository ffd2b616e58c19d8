"""The ledger on an object store: a row of immutable segments, put once each, whole, if they are not there.

``events-FENCE-SEGMENT.ndjson``, segment 0, 1, 2, ..., holds what the driver with that fence wrote, in order.
No line is ever torn. An empty segment is a seal: whoever takes over puts one behind the last segment of every
earlier fence before it reads. A replaced driver that did not notice puts its next segment under that number,
is refused, and stops before it believes anything to be recorded. So what was read stays all there is, and a
fence goes on only while nobody has sealed it.

``compacted/compacted-FENCE.ndjson`` stands for all segments up to that fence; those
stay, and are listed no more.
"""

from __future__ import annotations

import gc
import re
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sarx.config.errors import UserError
from sarx.study.lease import Lease
from sarx.study.ledger import BROKEN, Event, Ledger, encode
from sarx.study.ledger_files import Contents, LedgerFile, Part, collecting_nothing, merge, read_lines
from sarx.study.store import Store

MAX_SEGMENTS = 200
"""More segments than this are compacted when a ledger is opened."""
LINGER_S = 1.0
"""Seconds that an event may wait for others before it is put; what something waits for is put at once."""
MAX_WAITING = 256 * 1024
"""Bytes of events that may wait."""
AT_ONCE = frozenset({"trial_started", "rung", "trial_finished", "diverged", "failed", "study_opened"})
"""Events that are in the store before anything follows from them: an attempt number, an end."""
READERS = 16
COMPACTED = "compacted"
_TRIES = 10
_NAME = re.compile(r"events-(\d{6,})-(\d{6,})\.ndjson|compacted/compacted-(\d{6,})\.ndjson")


@dataclass(frozen=True, order=True)
class Segment:
    """An object of a ledger; they sort in the order of reading.

    Attributes:
        fence: Which start wrote it, or the highest that it stands for.
        number: Its place in the fence; -1: stands for all fences up to its own.
        size: In bytes; 0: a seal; -1: not asked for.
        name: Of the object.
    """

    fence: int
    number: int
    size: int
    name: str


def segment_name(fence: int, number: int) -> str:
    """Return the name of a segment."""
    return f"events-{fence:06d}-{number:06d}.ndjson"


def compacted_name(fence: int) -> str:
    """Return the name of what stands for all segments up to a fence."""
    return f"{COMPACTED}/compacted-{fence:06d}.ndjson"


def list_segments(store: Store) -> list[Segment]:
    """Return the segments that count, in order; what the newest compacted one covers does not.

    While a driver writes, a listing may show a segment and lack one before it that was put while the listing
    was made; then it is made again. A gap that stays is one that ``merge`` reports.
    """
    found: list[Segment] = []
    for _ in range(_TRIES):
        found = _list(store)
        if _without_gaps(found):
            break
        time.sleep(0.1)
    return found


def _list(store: Store) -> list[Segment]:
    names = [item.name for item in store.listing(COMPACTED)]
    newest = max(filter(None, (_segment(name) for name in names)), default=None)
    after = segment_name(newest.fence, 0).replace("-000000.", "-~") if newest else ""
    found = (_segment(item.name, item.size) for item in store.listing(after=after))
    later = (segment for segment in found if segment and segment.number >= 0)
    covered = newest.fence if newest else 0
    return ([newest] if newest else []) + sorted(segment for segment in later if segment.fence > covered)


def _segment(name: str, size: int = -1) -> Segment | None:
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    if match[3]:
        return Segment(int(match[3]), -1, size, name)
    return Segment(int(match[1]), int(match[2]), size, name)


def _without_gaps(segments: Iterable[Segment]) -> bool:
    """Return whether the numbers of every fence are 0, 1, 2, ..."""
    due: dict[int, int] = {}
    for segment in segments:
        if segment.number >= 0:
            if segment.number != due.get(segment.fence, 0):
                return False
            due[segment.fence] = segment.number + 1
    return True


def read_segments(store: Store, keep_lines: bool = False) -> Contents:
    """Read a ledger; a driver may be writing.

    Raises:
        UserError: If a line is damaged or written by a newer sarx, events are missing, or something stands
            behind a seal; with the segment's URL and the line.
    """
    return read_listed(store, list_segments(store), keep_lines)


def read_listed(store: Store, segments: list[Segment], keep_lines: bool = False) -> Contents:
    """Read the segments of a listing; see ``read_segments``."""
    check_seals(store, segments)
    full = [segment for segment in segments if segment.size]
    with ThreadPoolExecutor(READERS) as threads:
        raws = list(threads.map(lambda segment: store.read(segment.name)[0], full))
    with collecting_nothing():
        return merge([_part(store, *pair, keep_lines) for pair in zip(full, raws, strict=True)])


def _part(store: Store, segment: Segment, raw: bytes, keep_lines: bool) -> Part:
    file = LedgerFile(
        Path(segment.name), segment.fence, segment.number < 0, url=f"{store.url}/{segment.name}"
    )
    return read_lines(file, raw, keep_lines)


def check_seals(store: Store, segments: list[Segment]) -> None:
    """Refuse a segment behind the seal of its fence.

    Raises:
        UserError: Naming it.
    """
    sealed = set()
    for segment in segments:
        if segment.fence in sealed and segment.size:
            raise UserError(
                "the ledger is damaged here (a segment behind the seal of its fence); nothing was changed",
                where=f"{store.url}/{segment.name}",
            )
        if segment.size == 0:
            sealed.add(segment.fence)


def read_segment_events(store: Store) -> list[Event]:
    """Return the events that count; see ``read_segments``."""
    return read_segments(store).events


def seal(store: Store, segments: list[Segment], below: int) -> bool:
    """Seal every fence below one that is not sealed yet; return whether there was any.

    The highest compacted fence and those below it need none: they are compacted when they are sealed.
    """
    covered = max((segment.fence for segment in segments if segment.number < 0), default=0)
    last = {segment.fence: segment for segment in segments if segment.number >= 0}
    fences = [fence for fence in range(covered + 1, below) if fence not in last or last[fence].size]
    for fence in fences:
        number = last[fence].number + 1 if fence in last else 0
        # Its driver may be writing still, so each try is one request alone. A seal whose answer was lost is
        # followed by a second one, which says no more.
        while not put_new(store, segment_name(fence, number), b""):
            number += 1
    return bool(fences)


def put_new(store: Store, name: str, raw: bytes) -> bool:
    """Put a segment; return whether nothing was there."""
    try:
        store.create(name, raw)
    except FileExistsError:
        return False
    return True


def put_once(store: Store, name: str, raw: bytes) -> bool:
    """Put a segment; return whether it is there with this content, of whomever."""
    return put_new(store, name, raw) or store.read(name)[0] == raw


def compact_segments(store: Store, below: int, segments: list[Segment], contents: Contents) -> None:
    """Put one object that stands for all fences below one, and verify it; for the holder of the study.

    Raises:
        UserError: If it reads back as something else; it must then be looked at by hand.
    """
    name = compacted_name(below - 1)
    raw = b"".join(contents.lines)
    if not put_once(store, name, raw):
        raise UserError("is not what was written; is the store failing?", where=f"{store.url}/{name}")
    written = _part(store, Segment(below - 1, -1, len(raw), name), store.read(name)[0], True)
    if written.lines != contents.lines:
        raise UserError(
            "reads back as something else than was written; is the store failing?",
            where=f"{store.url}/{name}",
        )


class SegmentLedger(Ledger):
    """An open ledger on an object store; for its users the same as ``Ledger``.

    Events that nothing waits for are put together, ``LINGER_S`` after the first of them at the latest, so a
    driver that is killed loses at most those: epochs that their trials repeat from the last checkpoint.

    Args:
        store: Of the ledger's folder.

    Raises:
        UserError: If another driver holds the study, a line is damaged, or events are missing.
        StoreError: If the store refuses or gives no answer.
    """

    def __init__(self, store: Store) -> None:
        """Take the lease, seal what earlier drivers wrote, and read it."""
        self._store = store
        self._guard = threading.RLock()
        self._waiting: list[bytes] = []
        self._number, self._putting, self._broken = 0, False, False
        self._wake, self._closed = threading.Event(), threading.Event()
        highest = max((segment.fence for segment in list_segments(store)), default=0)
        self._lease = Lease(store, highest)
        self.fence = self._lease.fence
        try:
            segments = list_segments(store)
            if seal(store, segments, self.fence):
                segments = list_segments(store)
            many = len(segments) > MAX_SEGMENTS
            contents = read_listed(store, segments, keep_lines=many)
            if many:
                compact_segments(store, self.fence, segments, contents)
            self.events = contents.events
            gc.freeze()
        except BaseException:
            self._lease.close()
            raise
        self._thread = threading.Thread(target=self._linger, name="sarx-ledger", daemon=True)
        self._thread.start()

    def append(self, event: str, *, sync: bool = False, **columns: Any) -> Event:
        """Write one event and return it; with ``sync``, or if others wait for it, it is in the store then.

        Raises:
            UserError: If another driver has taken over the study.
            OSError: If it cannot be written, or an earlier one could not.
            ValueError: If a number is not finite; nothing was written and the ledger can be used.
        """
        with self._guard:
            self._check()
            record = self._next(event, columns)
            self._waiting.append(encode(record).encode())
            self.events.append(record)
            if sync or event in AT_ONCE or sum(map(len, self._waiting)) > MAX_WAITING:
                self._put()
            else:
                self._wake.set()
            return record

    def sync(self) -> None:
        """Put what waits.

        Raises:
            UserError: If another driver has taken over the study.
            OSError: If that fails; nothing can be appended any more.
        """
        with self._guard:
            self._check()
            self._put()

    def close(self) -> None:
        """Put what waits and let others have the study; more than once is fine."""
        try:
            if not (self._closed.is_set() or self._broken or self._lease.lost):
                self.sync()
        finally:
            self._closed.set()
            self._wake.set()
            self._lease.close()

    def _check(self) -> None:
        """Refuse where an earlier put failed, or a signal came in the middle of one (of this very thread)."""
        if self._broken or self._putting:
            raise OSError(BROKEN)
        if self._lease.lost:
            raise self._lease.taken_over()

    def _put(self) -> None:
        """Put what waits as the next segment."""
        if not self._waiting:
            return
        raw = b"".join(self._waiting)
        self._putting = True
        try:
            if not put_once(self._store, segment_name(self.fence, self._number), raw):
                raise self._lease.taken_over()
        except BaseException:
            self._broken = True
            raise
        finally:
            self._putting = False
        self._number += 1
        self._waiting.clear()
        self._wake.clear()

    def _linger(self) -> None:
        """Put what has waited long enough; that it failed is told to who appends next."""
        while True:
            self._wake.wait()
            if self._closed.wait(LINGER_S):
                return
            with self._guard:
                if self._broken or self._lease.lost:
                    return
                try:
                    self._put()
                except (OSError, UserError) as error:
                    print(f"{self._store.url}: {error}", flush=True)
                    return
