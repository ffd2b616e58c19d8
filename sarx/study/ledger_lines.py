"""One event, one line: JSON with a checksum at its end."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from zlib import crc32

import orjson

from sarx.study.ledger_schema import COLUMNS

Event = dict[str, Any]

_METRICS = b',"metrics":['
_TAG = b',"crc":"'
_SEAL = len(_TAG) + 8 + len(b'"}')  # bytes at the end of every line: ,"crc":"01234567"}


def encode(event: Mapping[str, Any]) -> str:
    """Return one ledger line, checksum included, newline included.

    Raises:
        ValueError: If a number is not finite; metrics are packed with ``pack_metrics``.
    """
    plain = {key: event[key] for key in COLUMNS if event.get(key) is not None and key != "crc"}
    if isinstance(packed := plain.get("metrics"), PackedMetrics):
        plain["metrics"] = packed.plain()
    text = json.dumps(plain, separators=(",", ":"), allow_nan=False)
    crc = f"{crc32(text.encode()):08x}"
    return f'{text[:-1]},"crc":"{crc}"}}\n'


def decode(line: str | bytes) -> Event:
    """Return the event of one line, with or without its newline.

    Raises:
        ValueError: If its checksum does not match or it is not a JSON object in UTF-8.
    """
    raw = (line.encode() if isinstance(line, str) else line).removesuffix(b"\n")
    return decode_part(memoryview(raw), raw, 0, len(raw))


def decode_part(view: memoryview, raw: bytes, start: int, end: int) -> Event:
    """Return the event of the line ``raw[start:end]``, which has no newline.

    Args:
        view: Of ``raw``, so that the checksum needs no copy.
        raw: Any number of lines.
        start: Where the line starts.
        end: Where it ends.

    Raises:
        ValueError: As ``decode``.
    """
    close = end - _SEAL
    if close < start or not raw.startswith(_TAG, close):
        raise ValueError("no checksum at its end")
    crc = b"%08x" % crc32(b"}", crc32(view[start:close]))
    if not raw.startswith(crc, close + len(_TAG)) or not raw.startswith(b'"}', end - 2):
        raise ValueError("checksum mismatch")
    at = raw.find(_METRICS, start, close)  # inside a string the quotes would be escaped
    if at > start and _ends_with_list(raw, at, close):  # nothing follows them
        event = orjson.loads(raw[start:at] + b"}")
        event["metrics"] = PackedMetrics(raw[at + len(_METRICS) - 1 : close])
        event["crc"] = crc.decode()
        return event  # type: ignore[no-any-return]
    event = orjson.loads(view[start:end])
    if not isinstance(event, dict):
        raise ValueError("not a JSON object")
    return event


def _ends_with_list(raw: bytes, start: int, end: int) -> bool:
    """Return whether the list of objects that begins in ``raw[start:end]`` is the last thing there."""
    if raw.find(b"]", start, end) == end - 1:  # the usual case, found quickly
        return True
    return raw.endswith(b"}]", start, end) and raw.find(b'}],"', start, end) < 0


class PackedMetrics(Sequence[dict[str, Any]]):
    """The metrics of a line that was read: a list that is made from its JSON whenever it is looked at.

    Most of a ledger is metrics, and whoever takes up a study looks at few of them.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        """Keep the JSON."""
        self._raw = raw

    def plain(self) -> list[dict[str, Any]]:
        """Return the list."""
        found: list[dict[str, Any]] = orjson.loads(self._raw)
        return found

    def __getitem__(self, index: Any) -> Any:
        """Return an item, or those of a slice."""
        return self.plain()[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Iterate over the items."""
        return iter(self.plain())

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.plain())

    def __eq__(self, other: object) -> bool:
        """Return whether it is a list of equal items."""
        return self.plain() == (other.plain() if isinstance(other, PackedMetrics) else other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return the list as text."""
        return repr(self.plain())


def holds_event(line: bytes) -> bool:
    """Return whether a bad line is more than one line cut short: a whole event with something behind it.

    A line cut short is a prefix of a line, and no prefix holds a checksum that agrees. Newlines do not count
    as something, nor do zeros, which a power cut can leave at the end of a file.
    """
    start = line.find(_TAG)
    while start >= 0:
        end = start + _SEAL
        try:
            decode(line[:end])
        except ValueError:
            start = line.find(_TAG, end)
        else:
            return bool(line[end:].strip(b"\0\n"))
    return False


def pack_metrics(metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return metrics as the ledger stores them: a list, non-finite values as text."""
    packed = []
    for name, value in metrics.items():
        if math.isfinite(value):
            packed.append({"name": name, "value": float(value)})
        else:
            packed.append({"name": name, "nonfinite": str(float(value))})
    return packed


def unpack_metrics(packed: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return metrics by name."""
    return {
        item["name"]: float(item["nonfinite"] if "nonfinite" in item else item["value"]) for item in packed
    }


def pack_parameters(parameters: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return parameters as the ledger stores them: values as JSON."""
    return [{"name": name, "value": json.dumps(value)} for name, value in parameters.items()]


def unpack_parameters(packed: list[dict[str, str]]) -> dict[str, Any]:
    """Return parameters by dotted key."""
    return {item["name"]: json.loads(item["value"]) for item in packed}


def of_kind(events: list[Event], *kinds: str) -> Iterator[Event]:
    """Yield the events of some kinds, in order."""
    return (event for event in events if event["event"] in kinds)
