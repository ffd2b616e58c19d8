"""A store over an object store: S3, GCS and what speaks like S3, through obstore (only here)."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarx.config.errors import UserError
from sarx.study.store import Changed, Object, StoreError, check_deletable
from sarx.study.urls import Url

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Client

CHUNK = 8 * 2**20
_AGAIN_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Pauses before a write is tried again whose answer was lost; obstore itself repeats what it safely can."""
_RETRIES: Any = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}
_CLIENT: Any = {"connect_timeout": "5s", "timeout": "120s"}


@lru_cache(maxsize=8)
def store_of(url: Url) -> ObjectStore:
    """Return the store that a URL names, one per process; nothing is asked of it yet.

    Raises:
        UserError: If obstore is not installed, or the environment's settings for it are wrong.
    """
    try:
        from obstore import exceptions
        from obstore.store import GCSStore, MemoryStore, S3Store
    except ImportError:
        raise UserError(
            "an object store needs the package obstore: pip install 'sarx[s3]'", where=str(url)
        ) from None
    try:
        if url.scheme == "memory":
            return ObjectStore(MemoryStore(), str(url), url.path)
        kind = S3Store if url.scheme == "s3" else GCSStore
        plain = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")  # as obstore itself reads it
        options = _CLIENT | {"allow_http": plain}
        client: Any = kind(url.bucket, client_options=options, retry_config=_RETRIES)
        return ObjectStore(client, str(url), url.path)
    except (exceptions.BaseError, ValueError) as error:
        raise UserError(
            f"{_first_line(error)}; see the variables AWS_* or GOOGLE_*", where=str(url)
        ) from None


class ObjectStore:
    """Objects below a prefix of a bucket.

    Args:
        client: The bucket.
        url: The prefix as URL.
        prefix: The prefix within the bucket, without slashes around it.

    Attributes:
        url: The prefix as URL.
    """

    def __init__(self, client: Client, url: str, prefix: str) -> None:
        """Ask nothing yet."""
        self.url = url
        self._client, self._prefix = client, prefix
        self._mark = "version" if url.startswith("gs://") else "e_tag"  # GCS compares generations

    def read(self, name: str) -> tuple[bytes, str]:
        """Return content and tag."""
        import obstore

        with self._told(name):
            found = obstore.get(self._client, self._key(name))
            return bytes(found.bytes()), self._tag(found.meta)

    def fetch(self, name: str, path: Path) -> str:
        """Copy an object to a file; return its SHA-256."""
        import obstore

        digest = hashlib.sha256()
        with self._told(name):
            pieces = obstore.get(self._client, self._key(name)).stream(CHUNK)
            with path.open("wb") as handle:
                for piece in pieces:
                    digest.update(piece)
                    handle.write(piece)
        return digest.hexdigest()

    def create(self, name: str, raw: bytes) -> str:
        """Write an object that is not there; an answer that was lost is found out."""
        return self._conditionally(name, raw, "create", FileExistsError)

    def replace(self, name: str, raw: bytes, tag: str) -> str:
        """Write an object that still has this tag; an answer that was lost is found out."""
        return self._conditionally(name, raw, {self._mark: tag}, Changed)

    def _conditionally(self, name: str, raw: bytes, mode: Any, refused: type[OSError]) -> str:
        """Write under a condition. After a lost answer, a refusal by the very same bytes is a success."""
        import obstore

        unsure = False
        for pause in (*_AGAIN_S, None):
            try:
                with self._told(name):
                    done = obstore.put(self._client, self._key(name), raw, mode=mode, use_multipart=False)
                    return self._tag(done)
            except refused:
                if unsure:
                    found, tag = self.read(name)
                    if found == raw:
                        return tag
                raise
            except Unsure:
                if pause is None:
                    raise
                unsure = True
                time.sleep(pause)
        raise AssertionError

    def put(self, name: str, content: bytes | Path) -> None:
        """Write an object."""
        import obstore

        with self._told(name):
            obstore.put(self._client, self._key(name), content)

    def listing(self, folder: str = "", after: str = "") -> list[Object]:
        """Return the objects below a folder."""
        import obstore

        found, cut = [], len(self._key("")) and len(self._key("")) + 1
        with self._told(folder):
            pages = obstore.list(
                self._client,
                self._key(folder) or None,
                offset=self._key(after) if after else None,
                chunk_size=1000,
            )
            for page in pages:
                for item in page:
                    when = item["last_modified"].timestamp()
                    found.append(Object(item["path"][cut:], item["size"], self._tag(item), when))
        return sorted(found, key=lambda item: item.name)

    def folders(self) -> list[str]:
        """Return what looks like folders below the prefix."""
        import obstore

        with self._told(""):
            paths = obstore.list_with_delimiter(self._client, self._prefix or None)["common_prefixes"]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects."""
        import obstore

        for name in check_deletable(self.url, names):
            with self._told(name), contextlib.suppress(FileNotFoundError):
                obstore.delete(self._client, self._key(name))

    def below(self, folder: str) -> ObjectStore:
        """Return the store of a folder."""
        return ObjectStore(self._client, f"{self.url}/{folder}", self._key(folder))

    def _tag(self, about: Any) -> str:
        return str(about[self._mark])

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self._prefix, name) if part)

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Turn obstore's errors into those of ``Store``."""
        from obstore import exceptions

        place = f"{self.url}/{name}" if name else self.url
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error) or "bucket does not exist" in str(error):
                raise StoreError(errno.ENOENT, NO_BUCKET, place) from None
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place) from None
        except exceptions.AlreadyExistsError:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), place) from None
        except exceptions.PreconditionError:
            raise Changed(errno.EAGAIN, "has changed since it was read", place) from None
        except (exceptions.BaseError, NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise  # of the disk of this machine
            text = explain(error)
            raise (Unsure if text.startswith(UNREACHABLE) else StoreError)(errno.EIO, text, place) from None


class Unsure(StoreError):
    """No answer came: what was asked may have been done."""


NO_BUCKET = "there is no such bucket; create it, or correct the URL"
UNREACHABLE = "the store gives no answer"
_WORDS = (
    (r"NoSuchBucket|bucket does not exist", NO_BUCKET),
    (
        r"169\.254\.|latest/(api/token|meta-data)|metadata\.google|instance.?metadata"
        r"|Missing(AccessKey|Credential)|no credentials",
        "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
        "GOOGLE_APPLICATION_CREDENTIALS, or give the machine a role",
    ),
    (
        r"AccessDenied|403 Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|401 Unauthorized"
        r"|PermissionDenied|Unauthenticated",
        "permission was denied to these credentials; they need to read, write, list and delete below the "
        "prefix, and must not have expired",
    ),
    (
        r"NotImplemented|not (yet )?(implemented|supported)|NotSupported",
        "the store has no conditional writes",
    ),
)


def explain(error: BaseException) -> str:
    """Return what an error of the store means to a user, on one line."""
    text = f"{type(error).__name__} {error}"
    for pattern, words in _WORDS:
        if re.search(pattern, text, re.IGNORECASE):
            return words
    return f"{UNREACHABLE} ({_first_line(error)})"


def _first_line(error: BaseException) -> str:
    return " ".join((str(error).strip() or type(error).__name__).splitlines()[0].split())[:300]
