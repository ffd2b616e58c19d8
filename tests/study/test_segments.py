"""The ledger on an object store: what one driver writes another reads, and only one writes."""

import itertools
import json
import threading
import time
from dataclasses import asdict

import obstore
import pytest

from sarx.config.errors import UserError
from sarx.study import lock, segments
from sarx.study.lease import lease_holder, look
from sarx.study.ledger_at import holder, open_ledger, read_events
from sarx.study.ledger_lines import encode
from sarx.study.segments import SegmentLedger, list_segments, read_segments, segment_name
from sarx.study.store import StoreError
from sarx.study.store_folder import FolderStore
from sarx.study.store_object import store_of
from sarx.study.urls import Url

_NUMBERS = itertools.count()


@pytest.fixture
def url():
    return Url("memory", "x", f"segments{next(_NUMBERS)}/tiny/ledger")


@pytest.fixture
def store(url):
    return store_of(url)


def names(store):
    return [item.name for item in store.listing() if item.name != "lease.json"]


def dead(store):
    """Let the lease look like that of a driver on another host that was cut off long ago."""
    raw, tag = store.read("lease.json")
    record = json.loads(raw) | {
        "host": "elsewhere",
        "machine": "another boot",
        "heartbeat": time.time() - 600,
    }
    store.replace("lease.json", json.dumps(record).encode(), tag)


def test_what_is_written_is_read(url, store):
    with open_ledger(url) as ledger:
        ledger.append("study_opened", payload="{}")
        for epoch in range(3):
            ledger.append("epoch", trial_id="a", epoch=epoch, metrics=[{"name": "m", "value": 0.5}])
        ledger.append("trial_finished", sync=True, trial_id="a")
        assert [event["event"] for event in read_events(url)] == [event["event"] for event in ledger.events]
        assert holder(url).alive
    assert holder(url) is None
    assert [event["seq"] for event in read_events(url)] == [0, 1, 2, 3, 4]
    assert list(read_events(url)[2]["metrics"]) == [{"name": "m", "value": 0.5}]
    assert names(store) == [segment_name(1, 0), segment_name(1, 1)]  # the epochs came with the end
    with open_ledger(url) as ledger:
        assert ledger.fence == 2
        assert len(ledger.events) == 5
        assert ledger.append("stopping", sync=True)["seq"] == 5
    assert names(store) == [segment_name(1, 0), segment_name(1, 1), segment_name(1, 2), segment_name(2, 0)]
    assert store.read(segment_name(1, 2))[0] == b""  # the seal
    assert [event["fence"] for event in read_events(url)] == [1] * 5 + [2]
    assert read_events(url / "nothing") == []


def test_what_nothing_waits_for_is_put_together_and_soon(url, store, monkeypatch):
    monkeypatch.setattr(segments, "LINGER_S", 0.2)
    with open_ledger(url) as ledger:
        ledger.append("epoch", epoch=1)
        ledger.append("epoch", epoch=2)
        assert names(store) == []
        for _ in range(100):
            if names(store):
                break
            time.sleep(0.05)
        assert len(read_events(url)) == 2
        assert names(store) == [segment_name(1, 0)]
        ledger.append("trial_started", trial_id="a", attempt=1)  # is there before the trial starts
        assert len(read_events(url)) == 3
        monkeypatch.setattr(segments, "MAX_WAITING", 1000)
        ledger.append("epoch", payload="x" * 1000)
        assert len(read_events(url)) == 4


def test_a_second_driver_is_told_who_holds_the_study(url, store):
    with open_ledger(url) as ledger:
        for _ in range(2):
            with pytest.raises(
                UserError, match=r"^memory://x/.*: this study is already running \(pid \d+ on "
            ):
                open_ledger(url)
        ledger.append("stopping", sync=True)
    assert len(read_events(url)) == 1


def test_a_driver_whose_process_died_is_replaced_at_once(url, store):
    first = open_ledger(url)
    first.append("trial_finished", trial_id="a")
    raw, tag = store.read("lease.json")
    store.replace("lease.json", json.dumps(json.loads(raw) | {"start": 1}).encode(), tag)  # another process
    assert holder(url).alive is False
    with open_ledger(url) as second:
        assert second.fence == 2
        assert len(second.events) == 1
        second.append("trial_started", trial_id="b", attempt=1)
        with pytest.raises(UserError, match="another driver has taken over this study"):
            first.append("trial_finished", trial_id="a")
        with pytest.raises((UserError, OSError)):
            first.append("trial_finished", trial_id="a")
        first.close()
        assert look(store).record.fence == 2  # not released by the first
        assert not look(store).record.released
    assert [event["fence"] for event in read_events(url)] == [1, 2]


def test_a_lease_that_is_not_renewed_is_watched_before_it_is_taken(url, store, monkeypatch, capsys):
    monkeypatch.setattr(lock, "RENEW_S", 0.3)
    first = open_ledger(url)
    first._lease._stop.set()  # its renewals stop, as on a host that was cut off
    first.append("trial_finished", trial_id="a")
    dead(store)
    began = time.monotonic()
    with open_ledger(url) as second:
        assert time.monotonic() - began > 0.6
        assert "did not end properly; watching" in capsys.readouterr().out
        assert len(second.events) == 1
    with pytest.raises(UserError, match="taken over"):
        first.append("trial_finished", trial_id="b")


def test_a_lease_that_stirs_is_left_alone(url, store, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_S", 0.3)
    first = open_ledger(url)
    first._lease._stop.set()
    dead(store)

    def stir():
        time.sleep(0.2)
        raw, tag = store.read("lease.json")
        store.replace("lease.json", json.dumps(json.loads(raw) | {"heartbeat": time.time()}).encode(), tag)

    thread = threading.Thread(target=stir)
    thread.start()
    with pytest.raises(UserError, match="already running"):
        open_ledger(url)
    thread.join()


def test_a_lease_is_renewed_and_found_lost(url, store, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_S", 0.05)
    ledger = open_ledger(url)
    before = look(store).record.heartbeat
    time.sleep(0.3)
    assert look(store).record.heartbeat > before
    raw, tag = store.read("lease.json")
    while True:  # somebody else takes it
        try:
            store.replace("lease.json", json.dumps(json.loads(raw) | {"fence": 7, "pid": 99}).encode(), tag)
            break
        except OSError:
            raw, tag = store.read("lease.json")
    for _ in range(100):
        if ledger._lease.lost:
            break
        time.sleep(0.02)
    with pytest.raises(UserError, match=r"taken over this study \(pid 99"):
        ledger.append("epoch")
    ledger.close()
    assert look(store).record.pid == 99


def test_a_renewal_whose_answer_was_lost_is_no_loss(url, store, monkeypatch):
    ledger = open_ledger(url)
    held, real = ledger._lease, store.replace
    fresh = held._store

    def losing(name, raw, tag):
        real(name, raw, tag)
        raise StoreError(5, "no answer", "x")

    monkeypatch.setattr(fresh, "replace", losing)
    with pytest.raises(StoreError):
        held._renew()
    monkeypatch.undo()
    held._renew()
    assert not held.lost
    held._renew()
    ledger.close()
    assert look(store).record.released


def test_of_many_contenders_one_opens(url, store):
    barrier, opened, refused = threading.Barrier(8), [], []

    def contend():
        barrier.wait()
        try:
            opened.append(open_ledger(url))
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert len(refused) == 7
    opened[0].close()


def test_a_replaced_driver_cannot_slip_behind_the_seal(url, store):
    """Whatever the moment at which the other one takes over, every event is refused or counted."""
    for moment in range(6):
        place = url / str(moment)
        first = open_ledger(place)
        for number in range(moment):
            first.append("trial_finished", trial_id=str(number))
        first._lease._stop.set()
        below = store_of(place)
        raw, tag = below.read("lease.json")
        below.replace("lease.json", json.dumps(json.loads(raw) | {"start": 1}).encode(), tag)
        second = open_ledger(place)
        known = len(second.events)
        assert known == moment
        with pytest.raises(UserError, match="taken over"):
            first.append("trial_finished", trial_id="late")
        second.append("trial_finished", trial_id="next")
        second.close()
        assert [event["trial_id"] for event in read_events(place)][known:] == ["next"]


def test_a_driver_that_writes_while_it_is_sealed(url, store, monkeypatch):
    """The first goes on writing until the second's seal is in place; the second reads all of it.

    A driver that puts without a pause could keep ahead of the seal until its lease is found lost.
    """
    first = open_ledger(url)
    first._lease._stop.set()
    told, stop = [], threading.Event()

    def write():
        while not stop.is_set():
            try:
                first.append("trial_finished", trial_id=str(len(told)))
            except (UserError, OSError):
                return
            told.append(len(told))
            stop.wait(0.0005)

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(0.1)
    raw, tag = store.read("lease.json")
    store.replace("lease.json", json.dumps(json.loads(raw) | {"start": 1}).encode(), tag)
    second = open_ledger(url)
    thread.join(10)
    assert not thread.is_alive()
    assert [event["trial_id"] for event in second.events] == [str(number) for number in told]
    second.close()
    stop.set()


def test_a_seal_whose_answer_was_lost_is_followed_by_a_second(url, store, monkeypatch):
    with open_ledger(url) as first:
        first.append("trial_finished", trial_id="a")
    create, lost = store.create, []

    def loses_an_answer(name, raw):
        tag = create(name, raw)
        if not lost:  # the request is sent again, and finds what it has put
            lost.append(name)
            raise FileExistsError(name)
        return tag

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "create", lambda self, name, raw: loses_an_answer(name, raw))
        assert segments.seal(store, list_segments(store), 2)
    empty = [segment.number for segment in list_segments(store) if segment.size == 0]
    assert len(lost) == 1
    assert len(empty) == 2
    assert [event["trial_id"] for event in read_events(url)] == ["a"]
    assert not segments.seal(store, list_segments(store), 2)


def test_a_reader_during_writing_sees_a_prefix(url, store):
    stop, problems, counts = threading.Event(), [], []

    def read():
        while not stop.is_set():
            try:
                found = read_events(url)
                assert [event["seq"] for event in found] == list(range(len(found)))
                counts.append(len(found))
            except Exception as error:  # noqa: BLE001  shown below
                problems.append(error)
                return

    with open_ledger(url) as ledger:
        thread = threading.Thread(target=read)
        thread.start()
        until = time.monotonic() + 60
        while len(set(counts)) <= 3 and not problems and time.monotonic() < until:
            ledger.append("trial_finished", trial_id="a")
            time.sleep(0.002)
        stop.set()
        thread.join()
    assert problems == []
    assert counts == sorted(counts)
    assert len(set(counts)) > 3


def test_damage_is_named_with_its_place(url, store):
    with open_ledger(url) as ledger:
        ledger.append("study_opened", payload="{}")
        ledger.append("trial_finished", trial_id="a")
    good, _ = store.read(segment_name(1, 1))
    cases = {
        good[:-5]: r"events-000001-000001.ndjson:1: the ledger is damaged here",  # cut short: never by us
        good.replace(b'"a"', b'"b"'): r"events-000001-000001.ndjson:1: .*checksum mismatch",
        good + b"{}\n": r"events-000001-000001.ndjson:2: the ledger is damaged here",
    }
    for raw, said in cases.items():
        store.put(segment_name(1, 1), raw)
        with pytest.raises(UserError, match=said) as told:
            read_events(url)
        assert str(told.value).startswith(f"{url}/events-")
        with pytest.raises(UserError, match=said):
            open_ledger(url)
        assert holder(url) is None  # released again
    store.put(segment_name(1, 1), good)
    assert len(read_events(url)) == 2


def test_a_segment_that_is_missing_is_damage(url, store, monkeypatch):
    monkeypatch.setattr(segments, "_TRIES", 2)
    for number in (0, 2):
        event = {"v": 2, "seq": number, "time": 1.0, "fence": 1, "event": "epoch"}
        store.put(segment_name(1, number), encode(event).encode())
    with pytest.raises(UserError, match="event 1 is missing before this line"):
        read_events(url)


def test_a_segment_behind_a_seal_is_damage(url, store):
    for number in (0, 2):
        event = {"v": 2, "seq": number // 2, "time": 1.0, "fence": 1, "event": "epoch"}
        store.put(segment_name(1, number), encode(event).encode())
    store.put(segment_name(1, 1), b"")
    with pytest.raises(
        UserError, match=r"000002.ndjson: the ledger is damaged here \(a segment behind the seal"
    ):
        read_events(url)


def test_compaction_keeps_every_line(url, store, monkeypatch):
    monkeypatch.setattr(segments, "MAX_SEGMENTS", 6)
    written = []
    for start in range(4):
        with open_ledger(url) as ledger:
            assert [event["payload"] for event in ledger.events] == written
            for number in range(4):
                written.append(f"{start}.{number}")
                ledger.append("trial_finished", payload=written[-1])
    assert [event["payload"] for event in read_events(url)] == written
    compacted = [item.name for item in store.listing("compacted")]
    assert compacted == ["compacted/compacted-000002.ndjson"]
    assert [segment.name for segment in list_segments(store)] == [
        compacted[0],
        *(segment_name(3, number) for number in range(5)),
        *(segment_name(4, number) for number in range(4)),
    ]
    lines = b"".join(read_segments(store, keep_lines=True).lines)
    plain = [store.read(name)[0] for name in names(store) if not name.startswith("compacted/")]
    assert lines == b"".join(plain)  # nothing was rewritten, and what was covered is there still


def test_a_put_that_fails_ends_the_ledger(url, store, monkeypatch):
    ledger = open_ledger(url)
    ledger.append("trial_finished", trial_id="a")

    def failing(name, raw):
        raise StoreError(5, "the store gives no answer", f"{store.url}/{name}")

    monkeypatch.setattr(ledger._store, "create", failing)
    with pytest.raises(StoreError):
        ledger.append("trial_finished", trial_id="b")
    monkeypatch.undo()
    with pytest.raises(OSError, match="could not be written before"):
        ledger.append("trial_finished", trial_id="c")
    ledger.close()
    assert [event["trial_id"] for event in read_events(url)] == ["a"]


def test_a_number_that_is_not_finite_leaves_the_ledger_usable(url):
    with open_ledger(url) as ledger:
        with pytest.raises(ValueError, match="not JSON compliant"):
            ledger.append("epoch", duration_s=float("nan"))
        ledger.append("epoch", sync=True, duration_s=1.0)
    assert [event["seq"] for event in read_events(url)] == [0]


def test_a_signal_in_the_middle_of_a_put_is_refused_and_harms_nothing(url, store, monkeypatch):
    ledger = open_ledger(url)
    create, refusals = ledger._store.create, []

    def interrupted(name, raw):
        with pytest.raises(OSError, match="could not be written"):  # what a signal handler would do
            ledger.append("stopping", sync=True)
        refusals.append(name)
        return create(name, raw)

    monkeypatch.setattr(ledger._store, "create", interrupted)
    ledger.append("trial_finished", trial_id="a")
    monkeypatch.undo()
    ledger.close()
    assert refusals == [segment_name(1, 0)]
    assert [event["event"] for event in read_events(url)] == ["trial_finished"]


def test_a_folder_store_holds_the_same_ledger(tmp_path):
    store = FolderStore(tmp_path)
    with SegmentLedger(store) as ledger:
        ledger.append("trial_finished", trial_id="a")
    with SegmentLedger(store) as ledger:
        ledger.append("trial_finished", trial_id="b")
    assert [event["trial_id"] for event in read_segments(store).events] == ["a", "b"]
    assert lease_holder(store) is None


def test_a_lease_that_cannot_be_read_is_watched(url, store, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_S", 0.05)
    store.put("lease.json", b"half")
    with open_ledger(url) as ledger:
        assert ledger.fence == 1
    assert asdict(look(store).record)["released"]


def test_no_fence_is_used_twice_when_the_lease_is_removed(url, store):
    with open_ledger(url) as ledger:
        ledger.append("trial_finished", trial_id="a")
    obstore.delete(store._client, f"{store._prefix}/lease.json")
    with open_ledger(url) as ledger:
        assert ledger.fence == 2
