"""Compaction keeps every event and every file, whenever it ends."""

import os
import shutil
import threading
from pathlib import Path

import pytest

import sarx.study.compaction as compaction
import sarx.study.ledger as ledger_module
from sarx.config.errors import UserError
from sarx.study.compaction import compact
from sarx.study.ledger import Ledger, encode, read_events
from sarx.study.ledger_files import Part, read_folder


def write(folder, fence, seqs, tail=b""):
    """Write the file of one start."""
    old = {"v": 2, "fence": fence} if fence else {"v": 1}
    lines = [encode({**old, "seq": seq, "time": fence / 8, "event": "stopping"}).encode() for seq in seqs]
    name = f"events-{fence:06d}.ndjson" if fence else "events.ndjson"
    (folder / name).write_bytes(b"".join(lines) + tail)


@pytest.fixture
def folder(tmp_path):
    """Return a ledger of five starts: an old one, replaced ones, torn tails, an empty file."""
    path = tmp_path / "ledger"
    path.mkdir()
    write(path, 0, [0, 1, 2])
    write(path, 1, [3, 4, 5], b'{"v":2,')
    write(path, 2, [4, 5, 6])
    write(path, 3, [])
    write(path, 4, [7, 8], b"\0\0")
    return path


def state_of(folder):
    """Return the content of every file but the lock, by relative path."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_events_and_their_lines_stay(folder):
    before = read_folder(folder, keep_lines=True)
    originals = state_of(folder)
    assert compact(folder, 4) == folder / "compacted-000003.ndjson"
    after = read_folder(folder, keep_lines=True)
    assert (after.events, after.lines) == (before.events, before.lines)
    assert after.torn == [f"{folder / 'events-000004.ndjson'}:3"]
    assert (folder / "compacted-000003.ndjson").read_bytes() == b"".join(before.lines[:7])
    kept = {
        f"originals/{name}" if name < "events-000004" or name == "events.ndjson" else name: content
        for name, content in originals.items()
    }
    kept |= {"compacted-000003.ndjson": b"".join(before.lines[:7]), "events-000005.ndjson": b""}
    assert state_of(folder) == kept
    with Ledger(folder) as ledger:
        assert (ledger.fence, ledger.append("stopping")["seq"]) == (6, 9)


def test_again_it_takes_the_compacted_file_too(folder):
    compact(folder, 3)
    before = read_folder(folder, keep_lines=True)
    assert compact(folder, 99) == folder / "compacted-000005.ndjson"
    after = read_folder(folder, keep_lines=True)
    assert (after.events, after.lines, after.torn) == (before.events, before.lines, [])
    assert (folder / "compacted-000005.ndjson").read_bytes() == b"".join(before.lines)
    assert (folder / "originals" / "compacted-000002.ndjson").exists()
    assert sorted(path.name for path in folder.glob("*.ndjson")) == [
        "compacted-000005.ndjson",
        "events-000006.ndjson",
    ]


@pytest.mark.parametrize("below", [0, 1])
def test_a_single_file_is_left_alone(folder, below):
    before = state_of(folder)
    assert compact(folder, below) is None
    assert state_of(folder) == before | {"events-000005.ndjson": b""}


def test_the_events_of_a_later_start_still_replace_those_of_merged_ones(folder):
    write(folder, 5, [2, 3])
    before = read_events(folder)
    assert [(event["seq"], event.get("fence", 0)) for event in before] == [(0, 0), (1, 0), (2, 5), (3, 5)]
    assert compact(folder, 5) == folder / "compacted-000004.ndjson"
    assert read_events(folder) == before
    assert (folder / "compacted-000004.ndjson").read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("kind", ["flock", "lease"])
def test_not_under_a_driver(folder, kind, monkeypatch):
    monkeypatch.setattr("sarx.study.lock.RENEW_S", 0.02)
    with Ledger(folder, lock_kind=kind):
        before = state_of(folder)
        with pytest.raises(UserError, match="already running"):
            compact(folder, 4, kind)
        assert state_of(folder) == before
    assert compact(folder, 4, kind) == folder / "compacted-000002.ndjson"


def test_a_driver_that_was_replaced_renames_nothing(folder, monkeypatch):
    def replaced(*arguments):
        write(folder, 6, [9])
        real(*arguments)

    real = compaction.write_merged
    monkeypatch.setattr(compaction, "write_merged", replaced)
    with pytest.raises(UserError, match="another driver has taken over"):
        compact(folder, 4)
    assert not list(folder.glob("compacted-*"))


def test_a_start_that_wrote_nothing_cannot_change_later_what_its_successor_has_read(tmp_path):
    """The first driver goes on after it was replaced; the second was stopped before its first event."""
    write(tmp_path, 1, [0, 1, 2, 3])
    write(tmp_path, 2, [])
    with (tmp_path / "events-000002.ndjson").open("a") as second, Ledger(tmp_path) as third:
        assert len(third.events) == 4
        second.write(encode({"v": 2, "fence": 2, "seq": 2, "time": 0.0, "event": "stopping"}))
        second.flush()
        third.append("stopping")
        assert read_events(tmp_path)[:4] == third.events[:4]
        assert [event["fence"] for event in read_events(tmp_path)] == [1, 1, 1, 1, 3]
    assert (tmp_path / "originals" / "events-000002.ndjson").stat().st_size > 0


class Interrupted(BaseException):
    """The end of the process: nothing in between catches it."""


class Interrupter:
    """Ends the process at one of the calls that change the file system, before it is made."""

    def __init__(self, monkeypatch, at):
        self.left = at
        self.done = []
        for owner, names in ((os, ["fsync"]), (Path, ["open", "mkdir", "replace", "rename", "unlink"])):
            for name in names:
                monkeypatch.setattr(owner, name, self.wrapped(name, getattr(owner, name)))

    def wrapped(self, name, real):
        def call(*arguments, **options):
            if self.left == 0:
                raise Interrupted(name)
            self.left -= 1
            self.done.append(name)
            return real(*arguments, **options)

        return call


def test_an_interruption_at_any_step_is_harmless(folder, tmp_path, monkeypatch):
    (folder / ".compacted-000002-000003.ndjson").write_bytes(b'{"half')
    expected, files = read_events(folder), set(state_of(folder).values()) - {b'{"half'}
    for step in range(100):
        copy = tmp_path / f"copy-{step}"
        shutil.copytree(folder, copy)
        with monkeypatch.context() as patch:
            interrupter = Interrupter(patch, step)
            try:
                compact(copy, 4)
                interrupted = False
            except Interrupted:
                interrupted = True
        assert read_events(copy) == expected
        assert files <= set(state_of(copy).values())
        if not interrupted:
            break
        with Ledger(copy) as ledger:
            assert ledger.events == expected
            ledger.append("stopping")
        compact(copy, 99)
        assert read_events(copy)[:-1] == expected
        assert files <= set(state_of(copy).values())
        assert len(list(copy.glob("*.ndjson"))) == 2
        assert list(copy.glob(".compacted-*")) == []
    assert {"unlink", "open", "fsync", "replace", "mkdir", "rename"} <= set(interrupter.done)
    assert interrupter.done.count("rename") == 4
    assert step > 10


def test_what_reads_back_differently_is_not_used(folder, monkeypatch):
    before = state_of(folder)
    monkeypatch.setattr(compaction, "read_file", lambda file, keep_lines: Part(file))
    with pytest.raises(UserError, match=r"reads back as something else.*not changed"):
        compact(folder, 4)
    after = {
        name: content for name, content in state_of(folder).items() if not name.startswith(".compacted-")
    }
    assert after == before | {"events-000005.ndjson": b""}
    assert len(read_events(folder)) == 9


def test_a_damaged_compacted_file_is_refused_even_in_its_last_line(folder):
    path = compact(folder, 4)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:-10], whole[:-20] + b"\n", whole + b"\0"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"compacted-000003\.ndjson:[78]: the ledger is damaged"):
            read_events(folder)


def test_a_ledger_with_many_files_is_compacted_when_it_is_opened(tmp_path, capsys):
    for start in range(1, 18):
        with Ledger(tmp_path) as ledger:
            ledger.append("stopping")
        assert len(list(tmp_path.glob("*.ndjson"))) == start
    with Ledger(tmp_path) as ledger:
        assert sorted(path.name for path in tmp_path.glob("*.ndjson")) == [
            "compacted-000017.ndjson",
            "events-000018.ndjson",
        ]
        assert ledger.append("stopping")["seq"] == 17
        assert read_events(tmp_path)[17]["fence"] == 18
    assert [event["fence"] for event in read_events(tmp_path)] == list(range(1, 19))
    assert len(list((tmp_path / "originals").iterdir())) == 17


def test_a_full_disk_does_not_keep_a_driver_from_starting(tmp_path, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ledger_module, "merge_files", full)
    monkeypatch.setattr(ledger_module, "MAX_CLOSED", 1)
    for count in range(3):
        with Ledger(tmp_path) as ledger:
            assert ledger.append("stopping")["seq"] == count
    assert "could not be merged ([Errno 28] No space left on device)" in capsys.readouterr().out


def test_readers_see_every_event_while_files_move(tmp_path):
    with Ledger(tmp_path) as ledger:
        for _ in range(5):
            ledger.append("stopping")
    found, done = set(), threading.Event()

    def read():
        while not done.is_set():
            try:
                found.add(len(read_events(tmp_path)))
            except Exception as error:  # noqa: BLE001
                found.add(repr(error))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(25):
            for _ in range(3):
                Ledger(tmp_path).close()
            compact(tmp_path, 10**6)
    finally:
        done.set()
        thread.join()
    assert found == {5}
