"""URLs of object stores, and places that may be either folders or such URLs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sarx.config.errors import UserError

SCHEMES = ("s3", "gs")
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}[A-Za-z0-9]")


@dataclass(frozen=True)
class Url:
    """A prefix of a bucket: ``scheme://bucket/path``.

    Attributes:
        scheme: s3 or gs; memory in tests.
        bucket: Its name.
        path: The prefix, without slashes around it; may be empty.
    """

    scheme: str
    bucket: str
    path: str = ""

    def __truediv__(self, name: str) -> Url:
        """Return what lies below."""
        return Url(self.scheme, self.bucket, f"{self.path}/{name}" if self.path else name)

    @property
    def name(self) -> str:
        """Return the last part."""
        return self.path.rpartition("/")[2] or self.bucket

    @property
    def parent(self) -> Url:
        """Return what it lies in."""
        return Url(self.scheme, self.bucket, self.path.rpartition("/")[0])

    def __str__(self) -> str:
        """Return it as text."""
        return f"{self.scheme}://{self.bucket}" + (f"/{self.path}" if self.path else "")


Place = Path | Url
"""Where a study, or a part of one, lies."""


def url_of(text: str) -> Url:
    """Return the URL that ``str`` made this text from."""
    scheme, _, rest = text.partition("://")
    bucket, _, path = rest.partition("/")
    return Url(scheme, bucket, path)


def is_url(text: str) -> bool:
    """Return whether a text is meant as a URL."""
    return _URL.match(text) is not None


def parse_url(text: str) -> Place:
    """Return the place that a URL names; ``file://`` names a folder.

    Raises:
        UserError: If it is no URL of a bucket, or holds more than that, such as credentials.
    """
    match = _URL.fullmatch(text)
    scheme, rest = (match[1].lower(), match[2]) if match else ("", text)
    if scheme == "file":
        if not rest.startswith("/"):
            raise UserError("a file URL has three slashes: file:///folder", where="storage")
        return Path(rest)
    bucket, _, path = rest.partition("/")
    if "@" in bucket or "?" in rest or "#" in rest:  # not shown: it may hold a secret
        raise UserError(
            f"give {scheme}://bucket/prefix and nothing else; credentials come from the environment "
            "(AWS_*, GOOGLE_*) or the machine's role",
            where="storage",
        )
    parts = path.strip("/").split("/") if path.strip("/") else []
    if scheme not in SCHEMES:
        raise UserError(f"{scheme}:// is not known; known: s3://, gs://, file:///", where="storage")
    if not _BUCKET.fullmatch(bucket) or not all(re.fullmatch(r"[\w.=+-]+", part) for part in parts):
        raise UserError(
            f"{text!r} is not {scheme}://bucket/prefix with plain names (letters, digits, . _ = + -)",
            where="storage",
        )
    if {".", ".."} & set(parts):
        raise UserError(f"{text!r}: . and .. mean nothing in a bucket", where="storage")
    return Url(scheme, bucket, "/".join(parts))
