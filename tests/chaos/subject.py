"""A study that is run, killed and damaged as a user or a machine would do it, and what became of it."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from sarx.cluster.processes import alive, family
from sarx.study.ledger_files import read_events
from tests.titles import TRIAL_HOSTS, titled

CHECKOUT = Path(__file__).resolve().parents[2]
STUDY = """\
# Does anything get lost?
study: chaos
base: [data=digit_scenes, model=fcn_test_efficientnet, data.num_train=32, data.num_eval={num_eval},
       training.steps={steps}, training.eval_every=4, training.batch_size=4]
ablation:
  reference: cross_entropy
  arms:
    cross_entropy: {{regularizer: none}}
    sar: {{regularizer: sar}}
search:
  parameters:
    optim.lr: {{low: 0.001, high: 0.01, log: true}}
  trials_per_arm: {search}
  batch: {batch}
  sampler: {sampler}
  scheduler: {scheduler}
confirm: {{seeds: {seeds}}}
max_failures: {max_failures}
"""
DEFAULTS: dict[str, Any] = {
    "num_eval": 100,
    "steps": 24,
    "search": 10,
    "batch": 5,
    "sampler": "qmc",
    "scheduler": "none",
    "seeds": 20,
    "max_failures": 20,
}


class Subject:
    """One study in a folder of its own, with a witness file that the training loop writes.

    Args:
        folder: Where its YAML and its results lie.
        storage: Another folder for the results.
        options: Values of ``STUDY`` that differ from ``DEFAULTS``.
    """

    def __init__(self, folder: Path, storage: Path | None = None, **options: Any) -> None:
        """Write the study file."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.file = folder / "chaos.yaml"
        self.file.write_text(STUDY.format(**(DEFAULTS | options)))
        self.storage = storage or folder / "results"
        self.study = self.storage / "chaos"
        self.witness = folder / "witness.txt"
        self.log = folder / "driver.log"
        self.environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {
            "SARX_STORAGE": str(self.storage),
            "SARX_WITNESS": str(self.witness),
            "RAY_AUTH_MODE": "token",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a driver; its output is added to ``driver.log``."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sarx.tune", str(self.file), *arguments],
                cwd=CHECKOUT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.process

    def run(self, *arguments: str, timeout: float = 600) -> tuple[int, str]:
        """Run a driver to its end; return the exit code and what it printed."""
        before = self.log.stat().st_size if self.log.exists() else 0
        code = self.start(*arguments).wait(timeout)
        return code, self.log.read_bytes()[before:].decode(errors="replace")

    def kill_driver(self, *, alone: bool = True) -> None:
        """End the driver with SIGKILL; unless ``alone``, wait until the hosts of its trials are gone too."""
        assert self.process is not None
        hosts = self.workers()
        started = [] if alone else [entry for entry in family(self.process.pid) if entry["pid"] in hosts]
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + 60
        while any(map(alive, started)):
            assert time.monotonic() < deadline, "a host of a trial still runs after 60 s"
            time.sleep(0.1)

    def workers(self) -> list[int]:
        """Return the processes that host trials now."""
        assert self.process is not None
        return titled((entry["pid"] for entry in family(self.process.pid)), *TRIAL_HOSTS)

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the events of the ledger as a reader sees them."""
        folder = self.study / "ledger"
        found = read_events(folder) if folder.is_dir() else []
        return [event for event in found if not kinds or event["event"] in kinds]

    def finished(self) -> list[str]:
        """Return the trials that the ledger calls finished, once per event."""
        return [event["trial_id"] for event in self.events("trial_finished")]

    def executions(self) -> Counter[tuple[str, int]]:
        """Count how often each (trial, epoch) was trained, from the witness file."""
        if not self.witness.exists():
            return Counter()
        lines = (line.split() for line in self.witness.read_text().splitlines())
        return Counter((words[0], int(words[1])) for words in lines if len(words) == 3)

    def wait(self, condition: Any, seconds: float = 180.0) -> None:
        """Wait until a condition holds.

        Raises:
            AssertionError: If it does not within the time, or if the driver ended before.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.05)
        raise AssertionError(f"waited in vain for {seconds} s:\n{self.log.read_text()[-3000:]}")

    def wait_until_idle(self, folder: Path, seconds: float = 60.0) -> None:
        """Wait until no process has a file below a folder open, after a SIGKILL of the driver."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not any(map(str.startswith, open_files(), itertools.repeat(f"{folder}/"))):
                return
            time.sleep(0.2)
        raise AssertionError(f"files below {folder} are still open after {seconds} s")

    def close(self) -> None:
        """End the driver if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def open_files() -> list[str]:
    """Return the files that processes of this machine have open, as far as we may look."""
    found = []
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            found.append(str(path.readlink()))
    return found
