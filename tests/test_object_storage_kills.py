"""Kills of a driver that runs segments itself, on a real S3 server: every trial is recorded exactly once.

Without Ray: the ledger, the working copies, the checkpoints and the engine are the real ones, and so are the
processes and the signals. Executions are counted from a witness file.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sarx.study.ledger_at import read_events
from sarx.study.store_object import store_of
from sarx.study.urls import Url
from tests import s3_server

pytestmark = [
    pytest.mark.skipif(bool(s3_server.MISSING), reason=s3_server.WHY),
    pytest.mark.timeout(600),
    pytest.mark.slow,
]
ROOT = Path(__file__).parents[1]
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
confirm: {seeds: 2}
"""
DRIVER = """
import json, os, sys, time
from pathlib import Path
from types import SimpleNamespace
from sarx.cluster.leftovers import Leftovers
from sarx.cluster.segment_run import SegmentRun, decode_work, encode_work
from sarx.cluster.transfer import publishing
from sarx.search.engine import Engine
from sarx.study.design import make_arms
from sarx.study.identity import trial_id
from sarx.study.ledger_at import open_ledger
from sarx.study.load import load_study
from sarx.study.storage import open_study_folder, storage_place
from sarx.training import checkpoint

def steps(work):
    attempts = [
        work.folder.attempt(work.segment.trial_id, n)
        for n in range(work.segment.attempt, work.segment.since - 1, -1)
    ]
    state = checkpoint.newest(attempts)
    for epoch in range(min(work.segment.start + 1, 6), 7):  # results that were lost on their way come again
        if epoch > (state["epoch"] if state else 0):
            with open(os.environ["SARX_WITNESS"], "a") as witness:
                witness.write(f"{work.segment.trial_id} {epoch}\\n")
            time.sleep(0.02)
            checkpoint.save(attempts[0], epoch, {"epoch": epoch})
        metrics = {"val/miou": 0.5} | ({"test/miou": 0.4} if epoch == 6 else {})
        result = {"epoch": epoch, "step": 2 * epoch, "duration_s": 0.02, "metrics": metrics}
        yield SimpleNamespace(**result, last=epoch == 6, diverged=False, module=None)

def identify(config):
    return trial_id(config, data_fingerprint="d", code="c")

study, source = load_study(Path(sys.argv[1]))
folder = open_study_folder(storage_place(None), study.study)
with open_ledger(folder.place / "ledger") as ledger, publishing(folder, fresh=not ledger.events):
    ledger.append("study_opened", sync=True, payload="{}")
    engine = Engine(study, make_arms(study, source), ledger, identify)
    leftovers = Leftovers(engine, folder)
    leftovers.clean()
    while not engine.done:
        segment = engine.next_segment()
        work = encode_work(segment, folder.root, study.resources, url=str(folder.url))
        run = SegmentRun(decode_work(work), steps)
        while True:
            answer = run.advance()
            values = json.loads(answer["result"])
            if values["last"]:
                engine.finished(segment, values)
                break
            engine.epoch_done(segment, values)
        leftovers.clean()
    leftovers.close()
print("done", flush=True)
"""


def test_kills_lose_nothing_and_repeat_nothing_finished(tmp_path, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(STUDY)
    with s3_server.s3_server() as port:
        s3_server.make_bucket(port, "bucket")
        url = Url("s3", "bucket", "kills")
        witness = tmp_path / "witness.txt"
        for name, value in s3_server.environment(port).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SARX_STORAGE", str(url))
        monkeypatch.setenv("SARX_WITNESS", str(witness))
        store_of.cache_clear()
        kills, finished_at_kill, counts_at_kill = 0, [], []
        for start in range(5):
            monkeypatch.setenv("SARX_CACHE", str(tmp_path / f"machine-{start % 3}"))
            last = start == 4
            process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, str(tmp_path / "tiny.yaml")],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if not last:
                wait_for_more(process, witness, epochs=(3, 8, 15, 9)[start])
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
            output, _ = process.communicate(timeout=300)
            events = read_events(url / "tiny" / "ledger")
            done = [event["trial_id"] for event in events if event["event"] == "trial_finished"]
            assert len(done) == len(set(done)), output
            counts = executions(witness)
            for before, then in zip(finished_at_kill, counts_at_kill, strict=True):
                assert before <= set(done)
                assert all(counts[key] == then[key] for key in then if key[0] in before)
            finished_at_kill.append(set(done))
            counts_at_kill.append(counts)
            if process.returncode == 0:
                break
        assert output.endswith("done\n"), output
        assert kills >= 3
        assert len(done) == 8
        assert len({key[0] for key in counts}) == 8
        assert all(counts[trial, str(epoch)] >= 1 for trial in done for epoch in range(1, 7))
        assert sum(count - 1 for count in counts.values()) <= kills  # one trial was running at each kill
        assert [event["seq"] for event in events] == list(range(len(events)))
        names = [item.name for item in store_of(url / "tiny").listing()]
        assert not [name for name in names if "/epoch-" in name]
        store_of.cache_clear()


def executions(witness):
    """Count (trial, epoch)."""
    lines = witness.read_text().splitlines() if witness.exists() else []
    return Counter(tuple(line.split()) for line in lines)


def wait_for_more(process, witness, epochs):
    """Wait until the process has begun so many epochs, or has ended; then a moment of any length."""
    before, until = executions(witness).total(), time.monotonic() + 200
    while process.poll() is None and executions(witness).total() < before + epochs:
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(int.from_bytes(os.urandom(1)) / 255 * 0.3)
