"""Processes that end at once: with the right exit code and nothing left, whoever reads what they print."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sarx.cluster.processes import alive, identity

TRAINING = """
import subprocess, sys, time
from pathlib import Path
from sarx.cluster.single import end_with
from sarx.config.errors import UserError

def run():
    child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(child.pid, flush=True)
    BODY

end_with(run, "stopped; go on", Path(sys.argv[1]))
"""
STUDY = """
import subprocess, sys, time
from types import SimpleNamespace
from sarx.cluster.driver import Leaving, stopping

ledger = SimpleNamespace(append=lambda *given, **named: None, close=lambda: None)
with stopping(Leaving(ledger, SimpleNamespace(place="results"))):
    child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(child.pid, flush=True)
    BODY
"""
WAITS = "time.sleep(600)"
NOBODY_READS = "print('x' * 10**7, flush=True)"


Programs = Callable[..., "Program"]


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    """Start programs, and end what is left of them."""
    with contextlib.ExitStack() as after:

        def start(text: str, body: str, stderr: int = subprocess.PIPE) -> Program:
            program = Program(text, body, tmp_path / "scratch", stderr)
            after.callback(program.close)
            return program

        yield start


class Program:
    """A program that has started a process of its own."""

    def __init__(self, text: str, body: str, scratch: Path, stderr: int) -> None:
        """Start it and wait until it has."""
        scratch.mkdir()
        self.scratch = scratch
        self.process = subprocess.Popen(
            [sys.executable, "-c", text.replace("BODY", body), str(scratch)],
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        assert self.process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):  # not a byte more: what comes later stays in the pipe
            line += os.read(self.process.stdout.fileno(), 1)
        self.child = identity(int(line))

    def signalled(self, *signals: signal.Signals) -> int:
        """Return the exit code after these signals, a moment apart; nobody reads what it prints."""
        for number in signals:
            time.sleep(0.5)
            self.process.send_signal(number)
        return self.process.wait(timeout=30)

    def close(self) -> None:
        """End what still runs, and close the pipes."""
        self.process.kill()
        self.process.wait()
        if alive(self.child):
            os.kill(self.child["pid"], signal.SIGKILL)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def gone(self) -> bool:
        """Return whether what it had started is gone."""
        deadline = time.monotonic() + 10
        while alive(self.child) and time.monotonic() < deadline:
            time.sleep(0.02)
        return not alive(self.child)


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("return 0", 0, ""),
        ("return 1", 1, ""),
        ("raise UserError('a mistake', where='here')", 2, "error: here: a mistake\n"),
        ("raise KeyError('ours')", 1, "KeyError: 'ours'\n"),
    ],
)
def test_a_training_ends_with_its_code_and_its_words(
    body: str, code: int, said: str, programs: Programs
) -> None:
    program = programs(TRAINING, body)
    _, errors = program.process.communicate(timeout=30)
    assert program.process.returncode == code
    assert errors.decode().endswith(said)
    assert bool(said) == bool(errors)
    assert program.gone()
    assert not program.scratch.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_training_says_so(number: signal.Signals, code: int, programs: Programs) -> None:
    program = programs(TRAINING, WAITS)
    assert program.signalled(number) == code
    assert program.process.stderr is not None
    assert program.process.stderr.read() == b"\nstopped; go on\n"
    assert program.gone()
    assert not program.scratch.exists()


def test_a_training_is_stopped_whose_reader_the_same_ctrl_c_has_ended(programs: Programs) -> None:
    program = programs(TRAINING, WAITS, stderr=subprocess.STDOUT)
    assert program.process.stdout is not None
    program.process.stdout.close()
    assert program.signalled(signal.SIGINT) == 130
    assert program.gone()
    assert not program.scratch.exists()


def test_a_training_is_stopped_that_waits_for_a_reader(programs: Programs) -> None:
    program = programs(TRAINING, NOBODY_READS)
    assert program.signalled(signal.SIGINT) == 130
    assert program.gone()


def test_a_second_ctrl_c_stops_a_training_that_cannot_say_that_it_stops(programs: Programs) -> None:
    program = programs(TRAINING, NOBODY_READS, stderr=subprocess.STDOUT)
    assert program.signalled(signal.SIGINT, signal.SIGINT) == 130
    assert program.gone()
    assert not program.scratch.exists()


def test_a_training_ends_without_any_output(tmp_path: Path) -> None:
    text = TRAINING.replace("print(child.pid, flush=True)", "").replace("BODY", "return 0")
    command = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", sys.executable, "-c", text, str(tmp_path / "scratch")]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("body", [WAITS, NOBODY_READS])
def test_a_study_is_stopped_even_if_nobody_reads_what_it_prints(body: str, programs: Programs) -> None:
    program = programs(STUDY, body)
    assert program.signalled(signal.SIGINT) == 130
    assert program.gone()
