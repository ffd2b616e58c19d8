"""One training on two workers, run as a user runs it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sarx.cluster.processes import alive, family

CHECKOUT = Path(__file__).resolve().parents[2]
OPTIONS = [
    "data=digit_scenes",
    "data.num_train=16",
    "model=fcn_test_efficientnet",
    "regularizer=sar",
    "training.steps=20",
    "training.eval_every=2",
    "training.batch_size=4",
    "resources.num_workers=2",
]


def start(storage: Path, *more: str) -> subprocess.Popen[str]:
    clean = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    given = {text.partition("=")[0]: text for text in (*OPTIONS, *more)}  # the later one counts
    return subprocess.Popen(
        [sys.executable, "-m", "sarx.train", *given.values(), "--storage", str(storage)],
        cwd=CHECKOUT,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def epochs(output: str) -> dict[int, str]:
    """Return what was printed of each epoch, without the estimate of the time left."""
    return {int(n): line for n, line in re.findall(r"^epoch (\d+)/10  (.*?)  about", output, re.MULTILINE)}


def until(process: subprocess.Popen[str], text: str) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line
        if text in line:
            return
    raise AssertionError(f"{text!r} never came: {process.stderr.read() if process.stderr else ''}")


def left_of(started: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the processes that still run 10 s after they were killed."""
    deadline = time.monotonic() + 10
    while (left := [entry for entry in started if alive(entry)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def command_of(entry: dict[str, Any]) -> str:
    """Return what a process calls itself."""
    return Path(f"/proc/{entry['pid']}/cmdline").read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_worker_and_ctrl_c_cost_the_epochs_since_the_last_checkpoint(tmp_path: Path) -> None:
    process = start(tmp_path)
    output = "".join(until(process, "epoch 3/"))
    (log,) = tmp_path.glob("train/trials/*/log-rank1.txt")
    (pid,) = re.findall(r"\(pid (\d+), node", log.read_text())
    os.kill(int(pid), signal.SIGKILL)
    more = "".join(until(process, "it goes on from its last checkpoint"))
    assert f"attempt 1: rank 1 (pid {pid}): its worker process died" in more
    more += "".join(until(process, "epoch 6/"))
    started = family(process.pid)
    names = {command_of(entry).partition("\0")[0] for entry in started}
    assert any(name.startswith("ray::Mailbox") for name in names)
    assert not [name for name in names if "Cleaner" in name], "it would stay on a cluster"
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=100)
    assert process.returncode == 130, errors
    assert "the same command continues from the last checkpoint" in errors
    assert "Traceback" not in errors
    assert "raylet" not in output + more + rest, "Ray's own words about the lost worker"
    assert not left_of(started)
    before = epochs(output + more + rest)
    assert set(range(1, 7)) <= before.keys()
    again = start(tmp_path)
    output_again, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    after = epochs(output_again)
    assert 1 < min(after) <= max(before) + 1
    assert max(after) == 10
    assert all(after[number] == before[number] for number in after.keys() & before.keys())
    assert sorted(path.name for path in log.parent.glob("attempt-*"))[:2] == ["attempt-1", "attempt-2"]
    assert not list(tmp_path.glob("train/.train-*"))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("wait_s", "number", "code"),
    [(0, signal.SIGINT, 130), (3, signal.SIGTERM, 143), (10, signal.SIGTERM, 143)],
)
def test_signals_are_heard_while_the_workers_start(
    wait_s: int, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    process = start(tmp_path)
    "".join(until(process, "starting 2 workers through Ray"))
    time.sleep(wait_s)
    started = family(process.pid)
    process.send_signal(number)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == code, errors
    assert errors == "\nstopped; the same command continues from the last checkpoint\n"
    assert not left_of(started)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workers_that_are_lost_again_and_again_end_the_training_with_one_message(tmp_path: Path) -> None:
    process = start(tmp_path, "training.steps=200", "training.eval_every=100")
    killed = list[str]()
    while process.poll() is None:
        for log in tmp_path.glob("train/trials/*/log-rank1.txt"):
            begun = re.findall(r"attempt \d+ \(pid (\d+), node", log.read_text())
            if begun and begun[-1] not in killed:
                killed.append(begun[-1])
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(begun[-1]), signal.SIGKILL)
        time.sleep(0.2)
    output, errors = process.communicate()
    assert process.returncode == 2, errors
    assert "workers were lost 4 times" in errors
    assert "Traceback" not in errors
    assert output.count("its worker process died") == len(killed) == 4
    assert output.count("it goes on from its last checkpoint") == 3


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_process_of_ray_that_dies_ends_the_training_with_one_message(tmp_path: Path) -> None:
    process = start(tmp_path)
    "".join(until(process, "epoch 3/"))
    started = family(process.pid)
    (mailbox,) = (entry for entry in started if command_of(entry).startswith("ray::Mailbox"))
    os.kill(mailbox["pid"], signal.SIGKILL)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 2, errors
    assert errors.startswith("error: resources: the cluster was lost: ")
    assert errors.count("\n") == 1
    assert not left_of(started)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["training.batch_size=3"], "training.batch_size=3 cannot be shared equally by 2 workers"),
        (["resources.gpus_per_worker=1"], "1 GPUs do not go with training.device=cpu"),
        (["resources.num_workers=64", "training.batch_size=64"], "needs 64 CPUs (64 workers with 1 each)"),
    ],
)
def test_workers_that_cannot_train_are_refused_before_anything_starts(
    options: list[str], message: str, tmp_path: Path
) -> None:
    process = start(tmp_path, *options)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 2, output + errors
    assert message in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "train").exists()
