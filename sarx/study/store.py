"""Studies on an object store: what the code needs of a store, and how a study lies in one.

The design. A study on a local or shared folder stays what it is: files, fsync, flock. A storage given as
``s3://bucket/prefix`` or ``gs://bucket/prefix`` keeps the same names below the prefix, with these means:

- ``Store`` is all that is asked of a store: read, put, list, delete, and two conditional writes, ``create``
  (If-None-Match: *) and ``replace`` (If-Match: ETag). Two implementations pass one suite of tests:
  ``FolderStore`` over a folder and ``ObjectStore`` over an object store. A store that does not honour both
  conditions is refused before anything starts (``check_store``): without them two drivers could both record.
- The ledger is a row of immutable objects ``ledger/events-FENCE-SEGMENT.ndjson`` (``segments``), the lock a
  lease that is taken and renewed by conditional writes (``lease``). Both hold without any trust in clocks.
- What sarx writes as files (configs, logs, TensorBoard, checkpoints) goes to a working copy on the disk of
  the machine that writes it, below the cache folder, and from there to the store: checkpoints and logs by the
  worker itself after each epoch, before the driver hears of it; everything else by the driver every few
  seconds. A worker that continues a trial brings what it needs from the store, and believes that alone: its
  working copy is made equal first. Training code knows nothing of it.
- Nothing is deleted but resumable checkpoints of decided trials and of attempts that have newer ones; a store
  refuses any other name (``deletable``).

The store is spoken to through obstore (Rust's object_store): one wheel of 6 MB without dependencies for S3,
GCS and what speaks like S3, with both conditional writes on each. boto3 speaks S3 alone (18 MB), s3fs and
gcsfs are two packages with asyncio and have no If-Match, pyarrow.fs has no conditional write at all.
Credentials come from the environment (AWS_*, GOOGLE_*) or the machine's own role, never from a study file,
and a URL that contains some is refused.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sarx.config.errors import UserError

PROBE = ".conditional-"
_DELETABLE = re.compile(rf"(.*/)?(trials/[^/]+/attempt-\d+/epoch-\d+\.(pt|sha256|bad)|{re.escape(PROBE)}\w+)")


@dataclass(frozen=True)
class Object:
    """An object of a store.

    Attributes:
        name: Its name below the store's prefix.
        size: In bytes.
        tag: Changes whenever the content does.
        modified: When it was written, in seconds since the Unix epoch by the store's clock.
    """

    name: str
    size: int
    tag: str
    modified: float


class StoreError(OSError):
    """The store refused, failed or could not be reached; the text says which and what would help."""


class Changed(OSError):
    """An object is not what it was when it was read; nothing was written."""


class Store(Protocol):
    """Named byte strings below a prefix. Every method may raise StoreError.

    Attributes:
        url: The prefix, for messages.
    """

    url: str

    def read(self, name: str) -> tuple[bytes, str]:
        """Return the content and the tag of an object, or raise FileNotFoundError."""

    def fetch(self, name: str, path: Path) -> str:
        """Copy an object to a file that nobody reads yet; return its SHA-256. As ``read`` otherwise."""

    def create(self, name: str, raw: bytes) -> str:
        """Write an object that is not there and return its tag, or raise FileExistsError."""

    def replace(self, name: str, raw: bytes, tag: str) -> str:
        """Write an object that still has this tag and return the new one, or raise Changed."""

    def put(self, name: str, content: bytes | Path) -> None:
        """Write an object, whatever is there; readers see the old one or the new one."""

    def listing(self, folder: str = "", after: str = "") -> list[Object]:
        """Return the objects below a folder whose names come after ``after``, in the order of their names."""

    def folders(self) -> list[str]:
        """Return the first parts of all names that have several."""

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects, there or not; only what ``deletable`` allows."""

    def below(self, folder: str) -> Store:
        """Return the store of what lies in a folder."""


@contextmanager
def store_errors() -> Iterator[None]:
    """Make an error of the store one of the user's: that is where it can be mended."""
    try:
        yield
    except StoreError as error:
        raise UserError(error.strerror or str(error), where=str(error.filename or "storage")) from None


def deletable(name: str) -> bool:
    """Return whether an object of this name may ever be deleted: resumable checkpoints, and probes."""
    return _DELETABLE.fullmatch(name) is not None


def check_deletable(url: str, names: Iterable[str]) -> list[str]:
    """Return the names, all of which may be deleted."""
    wanted = list(names)
    for name in wanted:
        assert deletable(f"{url}/{name}"), f"{url}/{name} must never be deleted"
    return wanted


def check_store(store: Store) -> None:
    """Make sure that a store can be written, and honours conditional writes.

    Raises:
        UserError: With what is wrong and what would help.
    """
    name = f"{PROBE}{secrets.token_hex(6)}"
    with store_errors():
        with suppress(FileNotFoundError):
            store.read(name)  # which fails sooner than a write where nobody answers
        tag = store.create(name, b"first")
        try:
            problem = _ignored_condition(store, name, tag)
        finally:
            store.delete([name])
    if problem:
        raise UserError(
            f"this store {problem}, so two drivers could both record the study there; use one with "
            "conditional writes (S3, GCS, MinIO since 2024, ...) or a shared folder",
            where=store.url,
        )


def _ignored_condition(store: Store, name: str, tag: str) -> str:
    """Return which condition a store does not honour on an object that is there; empty if it honours all."""
    try:
        store.create(name, b"second")
        return "overwrites an object in spite of If-None-Match"
    except FileExistsError:
        pass
    changed = store.replace(name, b"third", tag)
    try:
        store.replace(name, b"fourth", tag)
        return "overwrites an object in spite of If-Match"
    except Changed:
        pass
    store.replace(name, b"fifth", changed)
    return ""
