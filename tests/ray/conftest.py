"""Real studies, run as a user runs them: in a process of their own, on a local Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sarx.study.ledger import read_events

CHECKOUT = Path(__file__).resolve().parents[2]
STUDY = """\
# Does the machinery work?
study: tiny
base: [data=digit_scenes, model=fcn_test_efficientnet, data.num_train=32, data.num_eval={num_eval},
       training.steps={steps}, training.eval_every=2, training.batch_size=4]
ablation:
  reference: cross_entropy
  arms:
    cross_entropy: {{regularizer: none}}
    sar: {{regularizer: sar}}
search:
  parameters:
    optim.lr: {{low: 0.001, high: 0.01, log: true}}
  trials_per_arm: 2
  batch: 2
confirm: {{seeds: 3}}
"""


class Host:
    """Runs sarx.tune on one study with its own storage and witness file.

    Few images are scored; tests that act from another process while a study runs take more, for time.
    """

    def __init__(self, folder: Path, steps: int = 4, num_eval: int = 100) -> None:
        self.folder = folder
        self.study = folder / "tiny.yaml"
        self.study.write_text(STUDY.format(steps=steps, num_eval=num_eval))
        self.storage = folder / "results"
        self.witness = folder / "witness.txt"
        self.environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {
            "SARX_STORAGE": str(self.storage),
            "SARX_WITNESS": str(self.witness),
            "RAY_AUTH_MODE": "token",
        }

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "sarx.tune", str(self.study)]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.command, *arguments],
            cwd=CHECKOUT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *arguments],
            cwd=CHECKOUT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def analyze(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "analysis", "tiny"],
            cwd=CHECKOUT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        found = read_events(self.storage / "tiny" / "ledger")
        return [event for event in found if not kinds or event["event"] in kinds]

    def executions(self) -> Counter[tuple[str, str]]:
        """Count (trial_id, epoch) from the witness file, which the training loop writes."""
        if not self.witness.exists():
            return Counter()
        return Counter(tuple(line.split()[:2]) for line in self.witness.read_text().splitlines())


@pytest.fixture
def host(tmp_path: Path) -> Callable[..., Host]:
    def make(name: str = "one", **options: Any) -> Host:
        folder = tmp_path / name
        folder.mkdir()
        return Host(folder, **options)

    return make


@pytest.fixture
def finish() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes to end if a test leaves them running."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        if process.stdout is not None and not process.stdout.closed:
            process.communicate()
