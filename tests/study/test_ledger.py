"""The event log: what is written is read, damage is noticed, one driver at a time."""

import json
import math
import os
import signal
import subprocess
import sys
import zlib

import pytest

from sarx.config.errors import UserError
from sarx.study.ledger import (
    Ledger,
    encode,
    pack_metrics,
    pack_parameters,
    read_events,
    unpack_metrics,
    unpack_parameters,
)
from sarx.study.ledger_schema import COLUMNS


@pytest.fixture
def filled(tmp_path):
    """Return a folder whose ledger has three events."""
    with Ledger(tmp_path) as ledger:
        for i in range(3):
            ledger.append("epoch", trial_id=f"t{i}", attempt=1, epoch=i, metrics=pack_metrics({"val/a": i}))
    return tmp_path


def file_of(folder):
    return folder / "events.ndjson"


def torn(folder):
    return sorted(folder.glob("torn-*"))


def test_round_trip(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger.append("study_opened", sync=True, payload='{"a": "b,\\"crc\\":1"}')
        ledger.append("proposed", arm="a", level="", index=0, seed=2**63 - 1, trial_id="t", parameters=[])
        ledger.append("epoch", trial_id="t", epoch=1, step=None, duration_s=0.1 + 0.2)
        written = [{k: v for k, v in event.items() if v is not None} for event in ledger.events]
    read = [{k: v for k, v in event.items() if k != "crc"} for event in read_events(file_of(tmp_path))]
    assert read == written
    assert [event["seq"] for event in read] == [0, 1, 2]
    with Ledger(tmp_path) as ledger:
        assert ledger.append("stopping")["seq"] == 3


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


@pytest.mark.parametrize(
    "tail",
    [
        b'{"v":1,"seq":3,"eve',
        b"\xff\xfe",
        b'{"v":1}\n',
        encode({"v": 1, "seq": 3, "event": "stopping"}).encode()[:-1],
        encode({"v": 1, "seq": 3, "event": "stopping"}).replace("stop", "stap").encode(),
        b'{"a":{"b":1,"crc":"00000000"}}\n',
    ],
)
def test_a_torn_tail_is_set_aside_and_cut(filled, tail):
    whole = file_of(filled).read_bytes()
    file_of(filled).write_bytes(whole + tail)
    assert len(read_events(file_of(filled))) == 3
    assert (file_of(filled).read_bytes(), torn(filled)) == (whole + tail, [])
    with Ledger(filled) as ledger:
        assert len(ledger.events) == 3
        assert ledger.append("stopping")["seq"] == 3
    (aside,) = torn(filled)
    assert aside.read_bytes() == tail
    assert file_of(filled).read_bytes().startswith(whole)
    assert [event["event"] for event in read_events(file_of(filled))] == ["epoch"] * 3 + ["stopping"]


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
    ],
)
def test_a_bad_line_before_the_last_stops_and_nothing_is_rewritten(filled, line, damage):
    lines = file_of(filled).read_bytes().splitlines(keepends=True)
    lines[line - 1] = damage(lines[line - 1])
    file_of(filled).write_bytes(b"".join(lines))
    before = file_of(filled).stat().st_mtime_ns
    for _ in range(2):  # the lock is free again after the first refusal
        with pytest.raises(UserError) as caught:
            Ledger(filled)
        assert str(caught.value).startswith(f"{file_of(filled)}:{line}: the ledger is damaged here")
    assert file_of(filled).read_bytes() == b"".join(lines)
    assert file_of(filled).stat().st_mtime_ns == before
    assert torn(filled) == []


def test_a_second_driver_is_refused_and_told_who(tmp_path):
    folder = tmp_path / "study" / "ledger"
    folder.mkdir(parents=True)
    with Ledger(folder):
        with pytest.raises(UserError, match=rf"study: this study is already running \(pid {os.getpid()} on"):
            Ledger(folder)
        assert read_events(file_of(folder)) == []
    Ledger(folder).close()


def test_a_killed_driver_leaves_no_lock(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from sarx.study.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1])); ledger.append('stopping', sync=True)\n"
        "print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(UserError, match=f"pid {holder.pid} on"):
            Ledger(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait(timeout=30)
    with Ledger(tmp_path) as ledger:
        assert [event["event"] for event in ledger.events] == ["stopping"]
