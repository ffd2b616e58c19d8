"""The event log: what is written is read, damage is noticed, what replaced drivers wrote does not count."""

import contextlib
import errno
import json
import math
import os
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarx.config.errors import UserError
from sarx.study.ledger import (
    Ledger,
    decode,
    encode,
    of_kind,
    pack_metrics,
    pack_parameters,
    read_events,
    unpack_metrics,
    unpack_parameters,
)
from sarx.study.ledger_schema import COLUMNS, SCHEMA_VERSION

SAMPLES = Path(__file__).parents[1] / "fixtures" / "ledger"


@pytest.fixture
def filled(tmp_path):
    """Return a folder whose ledger has three events, all of the first start."""
    with Ledger(tmp_path) as ledger:
        for i in range(3):
            ledger.append("epoch", trial_id=f"t{i}", attempt=1, epoch=i, metrics=pack_metrics({"val/a": i}))
    return tmp_path


def file_of(folder, fence=1):
    return folder / f"events-{fence:06d}.ndjson"


def line_of(seq, fence, **columns):
    """Return a line as a driver with this fence writes it."""
    old = {"v": 1} if fence == 0 else {"v": SCHEMA_VERSION, "fence": fence}
    return encode({**old, "seq": seq, "time": 0.0, "event": "stopping", **columns}).encode()


def write(folder, fence, seqs):
    """Write the file of one start."""
    path = file_of(folder, fence) if fence else folder / "events.ndjson"
    path.write_bytes(b"".join(line_of(seq, fence) for seq in seqs))


def state_of(folder):
    """Return the content of every file but the lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def test_round_trip_over_two_starts(tmp_path):
    with Ledger(tmp_path) as ledger:
        assert (ledger.path, ledger.fence, ledger.events) == (file_of(tmp_path), 1, [])
        ledger.append("study_opened", sync=True, payload='{"a": "b,\\"crc\\":\\"01234567\\"}"}')
        ledger.append("proposed", arm="a", level="", index=0, seed=2**63 - 1, trial_id="t", parameters=[])
        record = ledger.append("epoch", trial_id="t", epoch=1, step=None, duration_s=0.1 + 0.2)
        assert record is ledger.events[-1]
        written = [{k: v for k, v in event.items() if v is not None} for event in ledger.events]
    for path in (tmp_path, file_of(tmp_path)):
        read = [{k: v for k, v in event.items() if k != "crc"} for event in read_events(path)]
        assert read == written
    assert [event["seq"] for event in read] == [0, 1, 2]
    with Ledger(tmp_path) as ledger:
        assert (ledger.path, ledger.fence, len(ledger.events)) == (file_of(tmp_path, 2), 2, 3)
        last = ledger.append("stopping")
        assert (last["seq"], last["fence"], last["v"]) == (3, 2, 2)
    assert [event["fence"] for event in read_events(tmp_path)] == [1, 1, 1, 2]
    assert read_events(tmp_path / "none") == []


def test_a_line_is_json_with_known_columns_and_a_checksum(filled):
    for line in file_of(filled).read_text().splitlines():
        event = json.loads(line)
        assert set(event) <= set(COLUMNS)
        text = json.dumps({k: v for k, v in event.items() if k != "crc"}, separators=(",", ":"))
        assert event["crc"] == f"{zlib.crc32(text.encode()):08x}"


def test_a_column_that_the_schema_does_not_have_is_refused(tmp_path):
    with Ledger(tmp_path) as ledger, pytest.raises(AssertionError, match="not ledger columns"):
        ledger.append("epoch", colour="red")


def test_metrics_and_parameters_survive():
    metrics = {"a": 0.1, "b": math.nan, "c": math.inf, "d": -math.inf, "e": 3}
    back = unpack_metrics(json.loads(json.dumps(pack_metrics(metrics), allow_nan=False)))
    assert math.isnan(back.pop("b"))
    assert back == {"a": 0.1, "c": math.inf, "d": -math.inf, "e": 3.0}
    parameters = {"x": 1, "y": 0.1, "z": "feature_dim", "n": None, "t": True}
    assert unpack_parameters(json.loads(json.dumps(pack_parameters(parameters)))) == parameters


@pytest.mark.parametrize(("sample", "name"), [("v1", "events.ndjson"), ("v2", "events-000001.ndjson")])
def test_stored_ledgers_are_read_and_continued(tmp_path, sample, name):
    """v1: two trials of a real version-1 study, renumbered. v2: every event, with numbers of the same."""
    raw = (SAMPLES / f"{sample}.ndjson").read_bytes()
    (tmp_path / name).write_bytes(raw)
    with Ledger(tmp_path) as ledger:
        events = list(ledger.events)
        assert ledger.append("stopping")["seq"] == len(events)
    assert (tmp_path / name).read_bytes() == raw
    assert b"".join(encode(event).encode() for event in events) == raw
    assert [event["seq"] for event in events] == list(range({"v1": 12, "v2": 20}[sample]))
    assert {event.get("fence", 0) for event in events} == {int(sample == "v2")}
    proposed = next(of_kind(events, "proposed"))
    assert proposed["seed"] == 7765066493325624491
    assert unpack_parameters(proposed["parameters"])["optim.lr"] == 0.0129128595477549
    first, second = of_kind(events, "trial_finished")
    assert (first["trial_id"], second["trial_id"]) == ("d50c3b5f818e9101", "1a3273db4a84cee5")
    assert unpack_metrics(first["metrics"])["val/miou"] == 0.3827189901087872
    metrics = unpack_metrics(second["metrics"])
    assert metrics["test/miou"] == 0.3106873060649119
    assert math.isnan(metrics["geometry/semantic_anchors/mean_cosine"])
    if sample == "v2":
        assert json.loads(next(of_kind(events, "failed"))["payload"])["kind"] == "out_of_memory"
        assert [e["repeat"] for e in of_kind(events, "promoted", "stopped", "selected")] == [1, 1, 1]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({1: [0, 1, 2], 2: [3, 4]}, {1: [0, 1, 2], 2: [3, 4]}),
        ({0: [0, 1], 1: [2], 2: [3]}, {0: [0, 1], 1: [2], 2: [3]}),
        ({1: [0, 1, 2, 3], 2: [2, 3]}, {1: [0, 1], 2: [2, 3]}),
        ({0: [0, 1, 2], 1: [0]}, {1: [0]}),
        ({1: [0, 1], 2: [], 3: [2], 7: []}, {1: [0, 1], 3: [2]}),
        ({1: [0, 1, 2, 3, 4], 2: [4], 3: [2, 3]}, {1: [0, 1], 3: [2, 3]}),
        ({1: [0, 1], 2: [2, 3, 4], 3: [4], 10: [3]}, {1: [0, 1], 2: [2], 10: [3]}),
    ],
)
def test_events_of_replaced_drivers_do_not_count(tmp_path, files, expected):
    for fence, seqs in files.items():
        write(tmp_path, fence, seqs)
    counted = {}
    for event in read_events(tmp_path):
        counted.setdefault(event.get("fence", 0), []).append(event["seq"])
    assert counted == expected
    with Ledger(tmp_path) as ledger:
        assert ledger.fence == max(files) + 1
        assert ledger.append("stopping")["seq"] == sum(map(len, expected.values()))


@pytest.mark.parametrize(
    ("files", "place", "said"),
    [
        ({1: [0, 1], 2: [3]}, "events-000002.ndjson:1", "event 2 is missing"),
        ({0: [0], 1: [1], 3: [5]}, "events-000003.ndjson:1", "events 2 to 4 are missing"),
        ({1: [0, 1, 3, 4]}, "events-000001.ndjson:3", "event 2 is missing"),
        ({1: [1]}, "events-000001.ndjson:1", "event 0 is missing"),
        ({0: [0, 1, 1]}, "events.ndjson:3", "event 1 stands where event 2 is due"),
        ({1: [0, 1, 2], 2: [1, 4], 3: [5]}, "events-000002.ndjson:2", "events 2 to 3 are missing"),
    ],
)
def test_missing_events_are_named_and_nothing_is_changed(tmp_path, files, place, said):
    for fence, seqs in files.items():
        write(tmp_path, fence, seqs)
    before = state_of(tmp_path)
    for _ in range(2):  # the lock is free again after the first refusal
        with pytest.raises(UserError) as caught:
            Ledger(tmp_path)
        assert str(caught.value).startswith(f"{tmp_path / place}: {said}")
    assert state_of(tmp_path) == before


TAILS = [
    b'{"v":1,"seq":3,"eve',
    b"\xff\xfe",
    b'{"v":1}\n',
    b"\0" * 50,
    line_of(3, 1)[:-1],
    line_of(3, 1)[:-1] + b"\0\0",
    line_of(3, 1).replace(b"stop", b"stap"),
    b'{"a":{"b":1,"crc":"00000000"}}\n',
]


@pytest.mark.parametrize("tail", TAILS)
def test_a_torn_tail_stays_and_does_not_count(filled, tail, capsys):
    whole = file_of(filled).read_bytes()
    file_of(filled).write_bytes(whole + tail)
    assert len(read_events(file_of(filled))) == len(read_events(filled)) == 3
    assert capsys.readouterr().out == ""
    for fence in (2, 3):
        with Ledger(filled) as ledger:
            assert len(ledger.events) == fence + 1
            assert ledger.append("stopping")["seq"] == fence + 1
        said = f"{file_of(filled)}:4: this line was cut short; it does not count and stays as it is\n"
        assert capsys.readouterr().out == said
    assert file_of(filled).read_bytes() == whole + tail


def test_every_file_may_have_a_torn_tail(tmp_path, capsys):
    write(tmp_path, 0, [0, 1])
    for fence in (1, 2, 3):
        write(tmp_path, fence, [fence + 1])
    for path in sorted(tmp_path.glob("*.ndjson")):
        path.write_bytes(path.read_bytes() + line_of(99, 1)[:30])
    with Ledger(tmp_path) as ledger:
        assert [event["seq"] for event in ledger.events] == [0, 1, 2, 3, 4]
    assert [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()] == [
        f"{tmp_path / 'events.ndjson'}:3",
        *(f"{file_of(tmp_path, fence)}:2" for fence in (1, 2, 3)),
    ]


@pytest.mark.parametrize("line", [1, 2])
@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace(b'"epoch":', b'"epach":'),
        lambda text: text[:20] + text[21:],
        lambda text: b"\xff" + text[1:],
        lambda text: b"\n",
        lambda text: b"null\n",
        lambda text: b'{"a":{"b":1,"crc":"00000000"}}\n',
        lambda text: encode({"v": 2, "fence": 1, "event": "stopping"}).encode(),
        lambda text: line_of(0, 3),
    ],
)
def test_a_bad_line_before_the_last_stops_and_nothing_is_changed(filled, line, damage):
    lines = file_of(filled).read_bytes().splitlines(keepends=True)
    lines[line - 1] = damage(lines[line - 1])
    file_of(filled).write_bytes(b"".join(lines))
    before = state_of(filled), file_of(filled).stat().st_mtime_ns
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            Ledger(filled)
        assert str(caught.value).startswith(f"{file_of(filled)}:{line}: the ledger is damaged here")
    assert (state_of(filled), file_of(filled).stat().st_mtime_ns) == before


def test_a_bad_line_in_an_earlier_file_stops_too(filled):
    with Ledger(filled) as ledger:
        ledger.append("stopping")
    file_of(filled).write_bytes(file_of(filled).read_bytes().replace(b"t0", b"t9"))
    with pytest.raises(UserError, match=r"events-000001\.ndjson:1: the ledger is damaged"):
        Ledger(filled)


def test_a_newer_ledger_is_refused(filled):
    with file_of(filled).open("ab") as handle:
        handle.write(encode({"v": SCHEMA_VERSION + 1, "seq": 3, "fence": 1, "event": "new"}).encode())
    newer = rf"events-000001\.ndjson:4: was written by a newer sarx \(version {SCHEMA_VERSION + 1}"
    with pytest.raises(UserError, match=newer):
        Ledger(filled)


FIVE = b"".join(
    line_of(seq, 1, metrics=pack_metrics({"a": seq / 7}), payload='{"x": "y"}') for seq in range(5)
)
ENDS = [at + 1 for at, byte in enumerate(FIVE) if byte == ord("\n")]


@contextlib.contextmanager
def five(raw, after=b""):
    """Yield a new folder with one file, and perhaps one of a second start."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file_of(folder).write_bytes(raw)
        if after:
            file_of(folder, 2).write_bytes(after)
        yield folder


@settings(max_examples=400, deadline=None)
@given(at=st.integers(0, ENDS[3] - 1), change=st.integers(1, 255), more=st.booleans())
def test_any_byte_that_flips_in_a_line_before_the_last_is_noticed(at, change, more):
    raw = bytearray(FIVE)
    raw[at] ^= change
    line = 1 + sum(end <= at for end in ENDS)
    with five(bytes(raw), line_of(5, 2) if more else b"") as folder:
        with pytest.raises(UserError) as caught:
            read_events(folder)
        assert str(caught.value).startswith(f"{file_of(folder)}:{line}: the ledger is damaged here")


@settings(max_examples=200, deadline=None)
@given(at=st.integers(ENDS[3], ENDS[4] - 1), change=st.integers(1, 255))
def test_a_byte_that_flips_in_the_last_line_never_gives_other_events(at, change):
    raw = bytearray(FIVE)
    raw[at] ^= change
    with five(bytes(raw)) as folder:
        try:
            read, where = read_events(folder), None
        except UserError as error:
            read, where = None, error.where
        if where is None:
            assert read == [decode(line) for line in FIVE.splitlines()[:4]]
        else:
            assert where == f"{file_of(folder)}:5"


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, len(FIVE)))
def test_a_cut_anywhere_loses_at_most_the_line_that_was_cut(cut):
    whole = sum(end <= cut for end in ENDS)
    with five(FIVE[:cut]) as folder:
        with Ledger(folder) as ledger:
            assert ledger.events == [decode(line) for line in FIVE.splitlines()[:whole]]
            assert ledger.append("stopping")["seq"] == whole
        assert len(read_events(folder)) == whole + 1
        kept = file_of(folder) if cut else folder / "originals" / file_of(folder).name
        assert kept.read_bytes() == FIVE[:cut]


def test_what_cannot_be_encoded_is_not_written_and_harms_nothing(filled):
    with Ledger(filled) as ledger:
        with pytest.raises(ValueError, match="not JSON compliant"):
            ledger.append("epoch", duration_s=math.nan)
        assert ledger.append("stopping")["seq"] == 3
    assert len(read_events(filled)) == 4


def test_a_full_disk_is_an_error_and_leaves_what_was_there(filled, monkeypatch):
    ledger = Ledger(filled)
    ledger.append("stopping")
    before = ledger.path.read_bytes()
    real = os.write

    def full(number, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    def short(number, data):
        return real(number, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        ledger.append("stopping")
    monkeypatch.setattr(os, "write", real)
    with pytest.raises(OSError, match="could not be written before"):  # even with space again
        ledger.append("stopping")
    ledger.close()
    assert ledger.path.read_bytes() == before
    with Ledger(filled) as again:
        assert len(again.events) == 4
        monkeypatch.setattr(os, "write", short)
        with pytest.raises(OSError, match=r"only \d+ of \d+ bytes"):
            again.append("stopping")
        monkeypatch.setattr(os, "write", real)
        with pytest.raises(OSError, match="could not be written before"):
            again.append("stopping")
        assert len(again.events) == 4
    assert len(read_events(filled)) == 4


def test_after_a_failed_sync_nothing_is_appended(filled, monkeypatch):
    def fail(number):
        raise OSError(errno.EIO, "Input/output error")

    ledger = Ledger(filled)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output"):
            ledger.append("trial_finished", sync=True)
    with pytest.raises(OSError, match="could not be written before"):
        ledger.append("stopping")
    ledger.close()


LIMITED = """
import resource, sys
from pathlib import Path
from sarx.study.ledger import Ledger
resource.setrlimit(resource.RLIMIT_FSIZE, (1100, 1100))
ledger = Ledger(Path(sys.argv[1]))
errors = []
for _ in range(20):
    try:
        ledger.append("stopping", sync=True, payload="x" * 100)
    except OSError as error:
        errors.append(str(error))
print(len(ledger.events), *errors, sep="|")
"""


def test_a_write_that_the_kernel_cuts_short(tmp_path):
    """At a file size limit the kernel writes what fits, as it does on a disk that becomes full."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    count, *errors = done.stdout.split("|")
    assert "bytes could be written" in errors[0]
    assert all("could not be written before" in error for error in errors[1:])
    assert len(errors) == 20 - int(count)
    assert len(read_events(tmp_path)) == int(count)
    with Ledger(tmp_path) as ledger:
        assert ledger.append("stopping")["seq"] == int(count)


def test_a_second_driver_is_refused_and_told_who(tmp_path):
    folder = tmp_path / "study" / "ledger"
    folder.mkdir(parents=True)
    with Ledger(folder):
        with pytest.raises(UserError, match=rf"study: this study is already running \(pid {os.getpid()} on"):
            Ledger(folder)
        assert read_events(file_of(folder)) == []
    Ledger(folder).close()


def test_a_ledger_is_read_while_it_is_written(tmp_path):
    with Ledger(tmp_path) as ledger:
        for count in range(1, 4):
            ledger.append("stopping")
            assert len(read_events(tmp_path)) == count


def test_closing_twice_is_fine(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.close()
    ledger.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        ledger.append("stopping")
