from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from sarx.cluster.capture import captured
from sarx.cluster.failures import classify
from sarx.cluster.monitor import clock
from sarx.cluster.resources import slots_of
from sarx.cluster.trial import TrialHost, encode_segment
from sarx.search.claims import Segment
from sarx.study.schema import Resources

TRIAL = "0123456789abcdef"


def segment(**changes):
    values = {
        "trial_id": TRIAL,
        "attempt": 1,
        "phase": "search",
        "config": {"seed": 0},
        "label": "sar search 0",
    }
    return Segment(**{**values, "index": 0, "until": 2, **changes})


class Steps(TrialHost):
    """Gives results without training: epochs from ``start + 1``, four in all."""

    epochs = 4
    diverges_at = 0

    def start(self, work):
        try:
            for epoch in range(work.segment.start + 1, self.epochs + 1):
                print(f"epoch {epoch}")
                last, diverged = epoch == self.epochs, epoch == self.diverges_at
                yield SimpleNamespace(
                    epoch=epoch,
                    step=epoch,
                    duration_s=0.5,
                    metrics={},
                    last=last,
                    diverged=diverged,
                    module=None,
                )
        finally:
            print("closed")


@pytest.fixture
def host(tmp_path):
    def make(kind=Steps, minutes=0.0, **changes):
        return kind(config=encode_segment(segment(**changes), tmp_path, Resources(), minutes))

    return make


def log_of(tmp_path):
    return tmp_path / "trials" / TRIAL / "log.txt"


def test_everything_printed_in_the_block_goes_to_the_log_and_nothing_after_it(tmp_path, capfd):
    log = tmp_path / "a" / "log.txt"
    with captured(log, 1):
        print("from python")
        os.write(1, b"from a file descriptor\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    print("afterwards")
    lines = log.read_text().splitlines()
    assert lines == ["from python", "from a file descriptor", "from a child"]
    assert capfd.readouterr().out == "afterwards\n"


def test_a_traceback_goes_to_the_log_of_the_trial_that_failed(tmp_path, capfd):
    with pytest.raises(ZeroDivisionError), captured(tmp_path / "one.txt", 2):
        _ = 1 / 0
    with captured(tmp_path / "two.txt", 1):
        print("fine")
    text = (tmp_path / "one.txt").read_text()
    assert "Traceback" in text
    assert text.splitlines()[-1] == "attempt 2 failed: ZeroDivisionError: division by zero"
    assert (tmp_path / "two.txt").read_text() == "fine\n"
    assert capfd.readouterr() == ("", "")


def test_a_log_that_cannot_be_written_hides_no_error_and_keeps_no_output(capfd):
    with pytest.raises(ZeroDivisionError), captured(Path("/dev/full"), 1):
        _ = 1 / 0
    print("afterwards")
    assert capfd.readouterr().out == "afterwards\n"


def test_a_segment_travels_as_text(tmp_path):
    sent = segment(config={"seed": 2**62, "optim": {"lr": 1e-3}}, attempt=2, start=1, since=2)
    work = json.loads(encode_segment(sent, tmp_path, Resources(), 1.5)["segment"])
    assert Segment(**work["segment"]) == sent
    assert work["trial_minutes"] == 1.5


def outcome(result):
    values = json.loads(result["result"])
    return values["epoch"], result["done"], values["last"]


def test_a_segment_ends_at_its_epoch_with_the_generator_closed(host, tmp_path):
    one = host(until=2)
    assert outcome(one.step()) == (1, False, False)
    assert outcome(one.step()) == (2, True, False)
    assert log_of(tmp_path).read_text().splitlines() == [
        f"sar search 0: trial {TRIAL}, attempt 1 (pid {os.getpid()}, node )",
        "epoch 1",
        "epoch 2",
        "closed",
    ]
    one.reset_config(encode_segment(segment(until=4, start=2, attempt=2), tmp_path, Resources()))
    assert [outcome(one.step()) for _ in range(2)] == [(3, False, False), (4, True, True)]


def test_a_diverged_trial_ends_its_segment(host):
    class Diverges(Steps):
        diverges_at = 1

    result = host(Diverges, until=4).step()
    assert result["done"]
    assert json.loads(result["result"])["diverged"]


def test_a_training_that_ends_too_early_is_an_error(host):
    class Short(Steps):
        def start(self, work):
            return iter(())

    with pytest.raises(RuntimeError, match="ended before epoch 2"):
        host(Short).step()


def test_a_worker_with_other_code_refuses_the_work(tmp_path):
    work = json.loads(encode_segment(segment(), tmp_path, Resources())["segment"])
    work["files"]["training/loop.py"] = "0"
    host = TrialHost(config={"segment": json.dumps(work)})
    with pytest.raises(RuntimeError, match=r"not the driver's: training/loop\.py"):
        host.step()
    assert "failed: RuntimeError: this worker's code" in log_of(tmp_path).read_text()


HANGS = """
import ctypes, sys, time
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, {tests!r})
from test_trial import Resources, Steps, encode_segment, segment

class Hangs(Steps):
    def start(self, work):
        for result in super().start(work):
            yield result
            {hang}

host = Hangs(config=encode_segment(segment(until=4), Path({root!r}), Resources(), {minutes}))
host.step()
print("one epoch", flush=True)
host.step()
print("not reached", flush=True)
"""


@pytest.mark.parametrize(
    "hang",
    [
        "time.sleep(60)",
        "ctypes.PyDLL(None).sleep(60)",  # in C code that holds the GIL
    ],
)
def test_an_attempt_that_hangs_is_ended_and_its_log_says_where(hang, tmp_path):
    code = HANGS.format(tests=str(Path(__file__).parent), root=str(tmp_path), hang=hang, minutes=1 / 60)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout == "one epoch\n", done.stderr
    assert done.returncode == 1
    assert time.monotonic() - started < 40
    kind, reason = classify(None, log_of(tmp_path), 1)
    assert kind == "timed_out"
    assert "limits.trial_minutes" in reason
    assert "it was in start (<string>:" in reason


def test_time_between_steps_does_not_count_and_a_limit_ends_with_its_step(host):
    one = host(minutes=1 / 60, until=4)
    one.step()
    time.sleep(1.5)  # the driver is slow: were the limit armed, this process would be gone
    assert one._run._left_s == pytest.approx(1.0, abs=0.2)
    one.step()


def test_slots():
    assert slots_of({"CPU": 7.0}, {"CPU": 2.0, "GPU": 0.0}) == 3
    assert slots_of({"CPU": 8.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 0.5}) == 2
    assert slots_of({"CPU": 8.0}, {"CPU": 1.0, "GPU": 1.0}) == 0


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (65, "1:05"), (3605, "1:00:05")])
def test_clock(seconds, text):
    assert clock(seconds) == text
