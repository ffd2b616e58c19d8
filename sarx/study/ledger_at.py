"""The ledger of a study wherever it lies: in a folder, or on an object store."""

from __future__ import annotations

from sarx.study import ledger
from sarx.study.ledger import Event, Holder, Ledger
from sarx.study.urls import Place, Url


def open_ledger(place: Place) -> Ledger:
    """Open the ledger in a folder, or below a URL; see ``Ledger``."""
    if not isinstance(place, Url):
        return Ledger(place)
    from sarx.study.segments import SegmentLedger
    from sarx.study.store_object import store_of

    return SegmentLedger(store_of(place))


def read_events(place: Place) -> list[Event]:
    """Return the events that count; see ``sarx.study.ledger.read_events``."""
    if not isinstance(place, Url):
        return ledger.read_events(place)
    from sarx.study.segments import read_segment_events
    from sarx.study.store_object import store_of

    return read_segment_events(store_of(place))


def holder(place: Place) -> Holder | None:
    """Return who holds a study now; see ``sarx.study.lock.holder``."""
    if not isinstance(place, Url):
        return ledger.holder(place)
    from sarx.study.lease import lease_holder
    from sarx.study.store_object import store_of

    return lease_holder(store_of(place))
