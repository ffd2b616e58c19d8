"""The live view on a terminal: what stays on the screen, however the process ends."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from sarx.cluster import live
from sarx.cluster.live import LiveView

SIMULATED = Path(__file__).parents[1] / "search" / "conftest.py"


@pytest.mark.parametrize(
    ("environment", "terminal", "expected"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
        ({"TERM": "xterm", "CI": "true"}, True, False),
        ({"TERM": "xterm", "CI": "", "SARX_PLAIN": "0"}, True, True),
        ({"TERM": "xterm", "SARX_PLAIN": "1"}, True, False),
    ],
)
def test_where_a_live_view_suits(monkeypatch, environment, terminal, expected):
    for name in ("TERM", "CI", "SARX_PLAIN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    assert live.wanted() is expected


class Screen:
    """All lines that a terminal has shown, scrolled away or not."""

    def __init__(self):
        self.lines, self.row, self.column = [""], 0, 0

    def feed(self, text):
        for part in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|[\r\n]|[^\x1b\r\n]+", text):
            if part == "\r":
                self.column = 0
            elif part == "\n":
                self.row += 1
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif part.startswith("\x1b"):
                self._control(part[2:-1], part[-1])
            else:
                old = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = old[: self.column] + part + old[self.column + len(part) :]
                self.column += len(part)
        return self

    def _control(self, argument, kind):
        if kind == "A":
            self.row -= int(argument)
            assert self.row >= 0
        elif kind == "J":
            self.lines[self.row :] = [self.lines[self.row][: self.column]]
        else:
            assert kind == "m", f"the view writes no {argument}{kind}"


@contextlib.contextmanager
def terminal(rows=24, columns=100):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        yield master, slave
    finally:
        for descriptor in (master, slave):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def read(master):
    """Return all that was written to a terminal so far, or until its writers are gone."""
    data = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(master, 65536):
            data += chunk
    return data.decode()


@contextlib.contextmanager
def view():
    """Yield a live view on a terminal, and a function that returns what the terminal has shown."""
    with terminal() as (master, slave):
        os.set_blocking(master, False)
        screen = Screen()
        with (
            open(slave, "w", closefd=False) as out,
            open(slave, "w", closefd=False) as err,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            yield LiveView(), lambda: screen.feed(read(master)).lines


def test_what_is_printed_meanwhile_scrolls_above_the_view():
    with view() as (drawn, seen):
        streams = sys.stdout, sys.stderr
        drawn.draw("one\ntwo")
        print("printed")
        print("half", end="")
        drawn.draw("three")
        print(" whole", flush=True)
        print("error\x1b[1m!\x1b[0m", file=sys.stderr)
        drawn.draw("four\nfive\nsix")
        assert seen() == ["printed", "half whole", "error!", "four", "five", "six", ""]
        print("left over", end="")
        drawn.close("last")
        drawn.close("not again")
        print("afterwards", flush=True)
        print("late", file=streams[0], flush=True)  # by one who kept the stream
        assert seen() == ["printed", "half whole", "error!", "left over", "last", "afterwards", "late", ""]
        assert sys.stdout is streams[0].stream


def test_a_frame_is_never_higher_or_wider_than_the_terminal():
    with view() as (drawn, seen):
        for _ in range(2):
            drawn.draw("\n".join(f"{i} " + "x" * 300 for i in range(40)))
        assert len(seen()) == 24
        assert max(map(len, seen())) < 100
        drawn.close()


def test_after_a_change_of_size_the_old_frame_stays(monkeypatch):
    with view() as (drawn, seen):
        drawn.draw("one")
        fcntl.ioctl(drawn.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
        drawn.draw("two")
        drawn.draw("three")
        assert seen() == ["one", "three", ""]
        drawn.close()


def test_a_terminal_that_takes_nothing_holds_nobody_up(monkeypatch):
    with view() as (drawn, seen):
        drawn.draw("one")
        monkeypatch.setattr(live, "_writable", lambda descriptor, seconds: False)
        drawn.draw("two")
        drawn.close("three")
        assert seen() == ["one", ""]


def test_an_interrupted_frame_is_not_erased(monkeypatch):
    with view() as (drawn, seen):
        drawn.draw("one\ntwo")
        real = os.write

        def half(descriptor, data):
            monkeypatch.setattr(os, "write", real)
            real(descriptor, data[: len(data) // 2])
            drawn.close("last")  # as a signal handler would
            raise OSError

        monkeypatch.setattr(os, "write", half)
        drawn.draw("one\ntwo")
        assert seen()[-2:] == ["last", ""]


STUDY = """
import importlib.util, os, pathlib, signal, sys, time
spec = importlib.util.spec_from_file_location("simulated_host", sys.argv[1])
sim = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sim)
from sarx.cluster.monitor import Monitor
folder = pathlib.Path(sys.argv[2])
(folder / "s.yaml").write_text(sim.TEXT)
study, source = sim.load_study(folder / "s.yaml")
engine = sim.Engine(study, sim.make_arms(study, source), sim.Ledger(folder), sim.identify)
monitor = Monitor(results=folder)

def leave(number, frame):
    monitor.close()
    monitor.close()
    os.write(1, b"stopped\\n")
    os._exit(128 + number)

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, leave)
monitor.tick(engine)
runner = sim.Host()
for limit in range(1, 1000):
    runner.run(engine, min(limit, 7))
    print(f"trial {limit}", file=sys.stderr if limit % 2 else sys.stdout)
    if sys.argv[3] == "error" and limit == 7:
        with monitor:
            raise ValueError("broken")
    monitor.tick(engine, force=limit % 3 > 0)
    if limit == 7:
        os.write(int(sys.argv[4]), b"x")
    if limit > 7:
        time.sleep(0.01)
"""


def study_on_a_terminal(tmp_path, how):
    """Run a study on a terminal until it has started, end it, and return its exit code and its output."""
    ready, tell = os.pipe()
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "SARX_PLAIN")}
    with terminal() as (master, slave):
        process = subprocess.Popen(
            [sys.executable, "-c", STUDY, str(SIMULATED), str(tmp_path), str(how), str(tell)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            pass_fds=[tell],
            env=environment | {"TERM": "xterm-256color"},
        )
        os.close(slave)
        os.close(tell)
        text = ""
        if how != "error":
            assert os.read(ready, 1) == b"x"
            time.sleep(0.3)
            process.send_signal(how)
        text = read(master)
        os.close(ready)
        return process.wait(60), text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_closing_in_a_signal_handler_leaves_the_last_state_and_a_whole_terminal(tmp_path, number):
    code, text = study_on_a_terminal(tmp_path, number)
    assert code == 128 + number
    assert text.rfind("\x1b[?25h") >= text.rfind("\x1b[?25l")  # the cursor is shown
    *lines, end = Screen().feed(text).lines
    assert end == ""
    assert lines[-1] == "stopped"
    printed = [line for line in lines if line.startswith("trial ")]
    assert printed == [f"trial {i + 1}" for i in range(len(printed))]
    heads = [i for i, line in enumerate(lines) if line.split()[:2] == ["arm", "search"]]
    assert heads[0] == len(printed)
    assert len(heads) <= 2  # above the last state may stand the frame that the signal came into
    table = lines[heads[-1] : -1]
    assert [row.split()[0] for row in table[1:4]] == ["sar", "plain", "no_pull"]
    below = " ".join(table[4:])
    assert re.search(r"7/18 decided", below)
    assert str(tmp_path) in "".join(line.strip() for line in table[4:])


def test_an_error_shows_the_last_state_and_then_its_traceback(tmp_path):
    code, text = study_on_a_terminal(tmp_path, "error")
    assert code == 1
    lines = Screen().feed(text).lines
    assert lines[-2:] == ["ValueError: broken", ""]
    assert sum(line.startswith("arm ") for line in lines) == 1
    assert (
        lines.index("Traceback (most recent call last):")
        > [i for i, line in enumerate(lines) if line.startswith("arm ")].pop()
    )
