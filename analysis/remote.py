"""Studies on an object store: what the report reads is copied to a folder of the cache, the report goes back.

A second reading of how a study lies there (``sarx/study/segments.py``), independent of the driver's. Segments
of the ledger are immutable; a file is copied again only when its tag has changed. Only here: obstore.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.errors import UserError
from analysis.studies import choose

READ = (".ndjson", ".npz", ".parquet", ".json", ".yaml", ".csv")
"""Endings of the files that a report is made of; never checkpoints, logs or curves."""
LEFT_OUT = ("tensorboard", "report")
READERS = 16
TAGS = ".tags.json"
_TRIES = 10
_SEGMENT = re.compile(r"events-(\d{6,})-(\d{6,})\.ndjson")
_COMPACTED = re.compile(r"compacted/compacted-(\d{6,})\.ndjson")


def is_url(storage: str) -> bool:
    """Return whether a storage is an object store."""
    return "://" in storage and not storage.startswith("file://")


@dataclass(frozen=True)
class Remote:
    """A study on an object store.

    Attributes:
        client: The prefix of the storage.
        url: Of the storage.
        name: Of the study.
    """

    client: Any
    url: str
    name: str

    def fetch(self) -> Path:
        """Copy what the report needs to this machine; return the folder, which is made like a study's.

        Raises:
            UserError: The store refuses or gives no answer.
        """
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        folder = _cache() / "analysis" / digest / self.name
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("a") as lock, _told(f"{self.url}/{self.name}"):
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._make_equal(folder, dict(self._wanted()))
        return folder

    def _wanted(self) -> Iterator[tuple[str, tuple[str, str]]]:
        """Yield where each file goes, and the key and tag of its object."""
        import obstore

        for attempt in range(_TRIES):
            pages = obstore.list(self.client, self.name, chunk_size=1000)
            found = {item["path"].removeprefix(f"{self.name}/"): item for page in pages for item in page}
            ledger = ledger_objects(
                name.removeprefix("ledger/") for name in found if name.startswith("ledger/")
            )
            if ledger is not None or attempt == _TRIES - 1:
                break
            time.sleep(0.1)
        for name, item in found.items():
            top, _, rest = name.partition("/")
            if top == "ledger" and rest not in (ledger or ()) and (ledger or not _SEGMENT.fullmatch(rest)):
                continue
            if top not in LEFT_OUT and name.endswith(READ):
                yield name.replace("ledger/compacted/", "ledger/"), (item["path"], str(item["e_tag"]))

    def _make_equal(self, folder: Path, wanted: dict[str, tuple[str, str]]) -> None:
        """Copy what is new or has changed; delete from the copy what is not there any more."""
        import obstore

        try:
            tags: dict[str, str] = json.loads((folder / TAGS).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            tags = {}
        (folder / TAGS).unlink(missing_ok=True)  # written anew when all is there
        for path in [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]:
            if (
                path.relative_to(folder).as_posix() not in wanted
                and "report" not in path.relative_to(folder).parts
            ):
                path.unlink()

        def copy(name: str) -> None:
            path, (key, tag) = folder / name, wanted[name]
            if tags.get(name) != tag or not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                beside = path.with_name(f".{path.name}.part")
                beside.write_bytes(bytes(obstore.get(self.client, key).bytes()))
                beside.replace(path)  # whoever reads the old one, reads on

        (folder / "ledger").mkdir(exist_ok=True)
        with ThreadPoolExecutor(READERS) as threads:
            list(threads.map(copy, wanted))
        tags = {name: tag for name, (_, tag) in wanted.items()}
        (folder / TAGS).write_text(json.dumps(tags), encoding="utf-8")

    def publish(self, folder: Path, paths: Iterable[Path]) -> list[str]:
        """Copy files of the folder to the store; return their URLs.

        Raises:
            UserError: The store refuses or gives no answer.
        """
        import obstore

        urls = []
        with _told(f"{self.url}/{self.name}"):
            for path in paths:
                key = f"{self.name}/{path.relative_to(folder).as_posix()}"
                obstore.put(self.client, key, path.read_bytes())
                urls.append(f"{self.url}/{key}")
        return urls


def ledger_objects(names: Iterable[str]) -> set[str] | None:
    """Return the names of a ledger's objects that count; None if a segment is missing between others.

    The newest compacted object counts, and segments of higher fences, whose numbers are 0, 1, 2, ...
    """
    known = list(names)
    fences = {int(match[1]): match.string for match in map(_COMPACTED.fullmatch, known) if match}
    covered = max(fences, default=0)
    counted = {fences[covered]} if fences else set()
    numbers: dict[int, set[int]] = {}
    for match in filter(None, map(_SEGMENT.fullmatch, known)):
        if int(match[1]) > covered:
            counted.add(match.string)
            numbers.setdefault(int(match[1]), set()).add(int(match[2]))
    whole = all(found == set(range(len(found))) for found in numbers.values())
    return counted if whole else None


def open_remote(url: str, name: str | None) -> Remote:
    """Return a study of an object store; without a name, the one whose ledger changed last.

    Raises:
        UserError: No study there, or none of this name; a URL that is not one; obstore is not installed.
    """
    url = url.rstrip("/")
    client = _client(url)
    import obstore

    with _told(url):
        paths = obstore.list_with_delimiter(client)["common_prefixes"]
        ledgers = {path: obstore.list_with_delimiter(client, f"{path}/ledger")["objects"] for path in paths}
    changed = {
        path: max(item["last_modified"].timestamp() for item in found)
        for path, found in ledgers.items()
        if found
    }
    return Remote(client, url, choose(changed, name, url))


def _client(url: str) -> Any:
    if "@" in url or "?" in url:  # not shown: it may hold a secret
        raise UserError(
            "the storage URL holds more than bucket and prefix; credentials come from the environment"
        )
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    try:
        from obstore.store import GCSStore, S3Store
    except ImportError:
        raise UserError(f"{url}: an object store needs the package obstore: pip install 'sarx[s3]'") from None
    kinds: dict[str, Any] = {"s3": S3Store, "gs": GCSStore}
    if scheme not in kinds:
        raise UserError(f"{scheme}:// is not known; known: s3://, gs://, file:///")
    plain = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
    options = {"connect_timeout": "5s", "timeout": "120s", "allow_http": plain}
    with _told(url):
        return kinds[scheme](
            bucket, prefix=prefix or None, client_options=options, retry_config={"max_retries": 5}
        )


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Turn errors of the store into one line."""
    from obstore import exceptions

    try:
        yield
    except (exceptions.BaseError, FileNotFoundError) as problem:
        text = f"{type(problem).__name__} {problem}"
        first = str(problem).splitlines()[0][:300]
        for pattern, words in _WORDS.items():
            if re.search(pattern, text, re.IGNORECASE):
                raise UserError(f"{url}: {words}") from None
        raise UserError(f"{url}: the store gives no answer ({first})") from None


_WORDS = {
    r"NoSuchBucket|bucket does not exist": "there is no such bucket; correct the URL",
    r"169\.254\.|latest/(api/token|meta-data)|metadata\.google|Missing(AccessKey|Credential)": (
        "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
        "GOOGLE_APPLICATION_CREDENTIALS, or give the machine a role"
    ),
    r"AccessDenied|403 Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|401 |PermissionDenied"
    r"|Unauthenticated": "permission was denied to these credentials",
}


def _cache() -> Path:
    """Return ``$SARX_CACHE``, else ``$XDG_CACHE_HOME/sarx``, else ``~/.cache/sarx``."""
    own, shared = os.environ.get("SARX_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "sarx"
