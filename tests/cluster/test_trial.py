from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from sarx.cluster.monitor import clock
from sarx.cluster.resources import slots_of
from sarx.cluster.trial import captured, encode_segment, failure_reason
from sarx.search.engine import Segment


def test_everything_printed_in_the_block_goes_to_the_log_and_nothing_after_it(tmp_path, capfd):
    log = tmp_path / "a" / "log.txt"
    with captured(log, "attempt 1"):
        print("from python")
        os.write(1, b"from a file descriptor\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    print("afterwards")
    text = log.read_text()
    assert all(part in text for part in ("from python", "from a file descriptor", "from a child"))
    assert "afterwards" not in text
    assert "from" not in capfd.readouterr().out


def test_a_traceback_goes_to_the_log_of_the_trial_that_failed(tmp_path):
    with pytest.raises(ZeroDivisionError), captured(tmp_path / "one.txt", "attempt 2"):
        _ = 1 / 0
    with captured(tmp_path / "two.txt", "attempt 1"):
        print("fine")
    assert "Traceback" in (tmp_path / "one.txt").read_text()
    assert (tmp_path / "two.txt").read_text() == "fine\n"
    assert failure_reason(tmp_path / "one.txt", 2) == "ZeroDivisionError: division by zero"


def test_a_worker_that_died_silently_is_named_as_such(tmp_path):
    assert "died without a message" in failure_reason(tmp_path / "missing.txt", 1)
    (tmp_path / "log.txt").write_text("attempt 1 failed: ValueError: x\n")
    assert "died without a message" in failure_reason(tmp_path / "log.txt", 2)


def test_a_segment_travels_as_text(tmp_path):
    segment = Segment(
        "0123456789abcdef", 2, "search", {"seed": 2**62, "optim": {"lr": 1e-3}}, "sar search 0", 0
    )
    work = json.loads(encode_segment(segment, tmp_path, 1)["segment"])
    assert Segment(**work["segment"]) == segment


def test_slots():
    assert slots_of({"CPU": 7.0}, {"CPU": 2.0, "GPU": 0.0}) == 3
    assert slots_of({"CPU": 8.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 0.5}) == 2
    assert slots_of({"CPU": 8.0}, {"CPU": 1.0, "GPU": 1.0}) == 0


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (65, "1:05"), (3605, "1:00:05")])
def test_clock(seconds, text):
    assert clock(seconds) == text
