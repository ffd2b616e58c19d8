"""A store over a folder: the rules of an object store, kept with links, renames and flock."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from sarx.study.store import Changed, Object, check_deletable

GUARD = ".guard"
"""Locked while an object is replaced."""


class FolderStore:
    """Objects as files; of use where several processes of one machine share a folder.

    Attributes:
        url: The folder as text.
    """

    def __init__(self, root: Path) -> None:
        """Keep objects in ``root``."""
        self.root = root
        self.url = str(root)

    def read(self, name: str) -> tuple[bytes, str]:
        """Return content and tag."""
        raw = (self.root / name).read_bytes()
        return raw, _tag(raw)

    def fetch(self, name: str, path: Path) -> str:
        """Copy an object to a file; return its SHA-256."""
        raw, _ = self.read(name)
        path.write_bytes(raw)
        return hashlib.sha256(raw).hexdigest()

    def create(self, name: str, raw: bytes) -> str:
        """Write an object that is not there."""
        with self._beside(name, raw) as (beside, path):
            os.link(beside, path)
        return _tag(raw)

    def replace(self, name: str, raw: bytes, tag: str) -> str:
        """Write an object that still has this tag."""
        with self._guarded():
            try:
                found = _tag((self.root / name).read_bytes())
            except FileNotFoundError:
                found = ""
            if found != tag:
                raise Changed(f"{self.root / name} has changed")
            self.put(name, raw)
        return _tag(raw)

    def put(self, name: str, content: bytes | Path) -> None:
        """Write an object."""
        with self._beside(name, content) as (beside, path):
            beside.replace(path)

    def listing(self, folder: str = "", after: str = "") -> list[Object]:
        """Return the objects below a folder."""
        found = []
        for path in (self.root / folder).rglob("*"):
            name = path.relative_to(self.root).as_posix()
            if path.name.startswith(GUARD) or path.name.endswith(".beside") or name <= after:
                continue
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # deleted in this instant
                stat, raw = path.stat(), path.read_bytes()
                found.append(Object(name, len(raw), _tag(raw), stat.st_mtime))
        return sorted(found, key=lambda item: item.name)

    def folders(self) -> list[str]:
        """Return the folders that hold objects."""
        return sorted({item.name.partition("/")[0] for item in self.listing() if "/" in item.name})

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects."""
        for name in check_deletable(self.url, names):
            (self.root / name).unlink(missing_ok=True)

    def below(self, folder: str) -> FolderStore:
        """Return the store of a folder."""
        return FolderStore(self.root / folder)

    @contextlib.contextmanager
    def _beside(self, name: str, content: bytes | Path) -> Iterator[tuple[Path, Path]]:
        """Write content, forced to disk, beside the place where it belongs."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.beside")
        try:
            with beside.open("wb") as handle:
                if isinstance(content, Path):
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, handle)
                else:
                    handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            yield beside, path
        finally:
            beside.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / GUARD).open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _tag(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:32]
