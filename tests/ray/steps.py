"""A study of trials that train nothing, run in a process of its own on a real Ray by code of the test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sarx.study.ledger import read_events

CHECKOUT = Path(__file__).resolve().parents[2]
STUDY = """\
# Does the machinery work?
study: tiny
base: [data=digit_scenes, training.steps=12, training.eval_every=2]
ablation:
  reference: cross_entropy
  arms: {cross_entropy: {regularizer: none}, sar: {regularizer: sar}}
search:
  parameters: {optim.lr: {low: 0.001, high: 0.01, log: true}}
  trials_per_arm: 2
  batch: 2
confirm: {seeds: 1}
max_failures: 0
"""
PRELUDE = """
import os, sys, threading, time
from pathlib import Path
from types import SimpleNamespace
from sarx.cluster.resources import prepare_environment
prepare_environment()
import ray
from sarx.cluster.driver import fit
from sarx.cluster.monitor import Monitor
from sarx.cluster.segment_run import node_id
from sarx.cluster.session_host import SessionHost
from sarx.cluster.trial import TrialHost
from sarx.search.engine import Engine
from sarx.study.design import make_arms
from sarx.study.identity import trial_id
from sarx.study.ledger import Ledger
from sarx.study.load import load_study
from sarx.study.storage import open_folder

class Steps(TrialHost):
    pause_s = 0.5

    def start(self, work):
        for epoch in range(work.segment.start + 1, 7):
            self.before(epoch)
            time.sleep(self.pause_s)
            metrics = {"val/miou": 0.5}
            result = {"epoch": epoch, "step": 2 * epoch, "duration_s": 0.5, "metrics": metrics}
            yield SimpleNamespace(**result, last=epoch == 6, diverged=False, module=None)

    def before(self, epoch):
        pass

root = Path(sys.argv[1])
study, source = load_study(root / "tiny.yaml")
folder = open_folder(root / "results", study.study)
ledger = Ledger(folder.ledger)

def identify(config):
    return trial_id(config, data_fingerprint="d", code="c")

engine = Engine(study, make_arms(study, source), ledger, identify)

def run(host):
    with Monitor() as monitor:
        monitor.tick(engine)
        fit(study, engine, folder, monitor, host)
    print("done", engine.done, flush=True)
    ledger.close()
"""


def script(folder, code, study=STUDY, timeout=400, **environment):
    """Run code after the prelude; return what it printed and the ledger."""
    (folder / "tiny.yaml").write_text(study)
    clean = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code, str(folder)],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env=clean | environment,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, read_events(folder / "results" / "tiny" / "ledger")
