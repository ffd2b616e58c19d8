"""Every example runs as its user runs it, and what it prints holds."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path("docs/examples").resolve()
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
NUMBER = r"(-?\d+(?:\.\d+)?(?:e[-+]\d+)?)"


def run(script: str, folder: Path, *launcher: str) -> str:
    """Run an example in an empty folder, which it must leave empty, and return its standard output."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback}
    done = subprocess.run(
        [sys.executable, *launcher, str(EXAMPLES / script)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir())
    return done.stdout


def metrics(output: str) -> dict[str, float]:
    """Return the metrics of the last line that prints any."""
    line = [line for line in output.splitlines() if "train/" in line][-1]
    values = {name: float(value) for name, value in re.findall(rf"(train/\w+) {NUMBER}(?=\s|$)", line)}
    assert len(values) == line.count("train/"), line  # a nan or an inf is no number
    return values


def test_the_plain_loop(tmp_path: Path) -> None:
    output = run("plain_loop.py", tmp_path)
    accuracies = dict(re.findall(rf"^(with|without) SAR: held-out accuracy {NUMBER}", output, re.M))
    assert set(accuracies) == {"with", "without"}
    assert all(0.7 < float(value) < 1.0 for value in accuracies.values()), output
    assert accuracies["with"] != accuracies["without"], "the regularizer changed nothing"
    last = metrics(output)
    assert last["train/gate_open"] == 1
    assert 0 < last["train/first_open_step"] < 400
    assert last["train/pull_loss"] > 0


@pytest.mark.slow
def test_models_of_smp(tmp_path: Path) -> None:
    output = run("smp_unet.py", tmp_path)
    line = rf"^(\w+) step (\d+): cross-entropy {NUMBER}, aux {NUMBER}, pull {NUMBER}$"
    for name, sizes in (("DeepLabV3Plus", "(256, 16, 16)"), ("Unet", "(16, 64, 64)")):
        rows = [match for match in re.findall(line, output, re.M) if match[0] == name]
        assert [int(row[1]) for row in rows] == [1, 10, 20, 30], output
        first, last = rows[0], rows[-1]
        assert 0 < float(last[2]) < float(first[2]) / 2, output
        assert float(first[4]) == 0, "pulled before the gate opened"
        assert float(last[4]) > 0
        assert f"{name}: features {sizes}, labels (64, 64), gate first open after" in output


def test_the_lightning_module(tmp_path: Path) -> None:
    last = metrics(run("lightning_module.py", tmp_path))
    assert 0 < last["train/loss"] < math.log(10)
    assert last["train/gate_open"] == 1
    assert 0 < last["train/first_open_step"] < 58  # 2 epochs of 29 batches
    assert last["train/pull_loss"] > 0


@pytest.mark.parametrize("launcher", [(), TORCHRUN], ids=["spawn", "torchrun"])
def test_processes_hold_the_same_regularizer(launcher: tuple[str, ...], tmp_path: Path) -> None:
    output = run("ddp.py", tmp_path, *launcher)
    for name in ("anchors", "semantic anchors"):
        (norm,) = re.findall(rf"^{name}: equal in all 2 processes, norm {NUMBER}$", output, re.M)
        assert float(norm) > 1
    ((steps, loss),) = re.findall(rf"gate first open after (\d+) steps, last loss {NUMBER}$", output, re.M)
    assert 0 < int(steps) < 60
    assert float(loss) > 0


def test_the_table_names_every_example_and_each_says_how_to_run_it() -> None:
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    scripts = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert sorted(re.findall(r"^\| `(\w+\.py)`", table, re.M)) == scripts
    for script in scripts:
        assert f"python docs/examples/{script}" in (EXAMPLES / script).read_text(encoding="utf-8"), script
