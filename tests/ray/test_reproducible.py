"""Equal results give equal proposals and rung decisions, whatever the slots and whoever is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

from sarx.cluster.local import unused_ports
from sarx.cluster.processes import family
from tests.chaos.subject import CHECKOUT, Subject
from tests.titles import TRIAL_HOSTS, titled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
HALVING = {
    "num_eval": 500,
    "steps": 16,
    "search": 12,
    "batch": 4,
    "sampler": "{name: tpe, startup: 4}",
    "scheduler": "{name: successive_halving, min_fraction: 0.25, reduction_factor: 2}",
    "seeds": 1,
}


@contextlib.contextmanager
def cluster(folder, slots, **variables):
    """Run a cluster of ours that hands out ``slots`` CPUs; yield its address and the pid of its head.

    Its workers see ``variables``, since they are started by it and not by the driver.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = unused_ports(1)
    command = [sys.executable, "-m", "sarx.cluster.local"]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), **variables}
    subprocess.run(
        [*command, "up", "--port", str(port), "--cpus", str(slots)], cwd=folder, env=environment, check=True
    )
    try:
        record = json.loads((folder / ".sarx" / "cluster.json").read_text())
        yield f"127.0.0.1:{record['ports']['gcs']}", record["head"]["pid"]
    finally:
        subprocess.run([*command, "down"], cwd=folder, env=environment, check=True)


def workers(head):
    """Return the processes of a cluster that host trials."""
    return titled((entry["pid"] for entry in family(head)), *TRIAL_HOSTS)


def decisions(subject):
    """Return proposals and verdicts, in an order that does not depend on timing."""
    keys = ("event", "arm", "index", "epoch", "trial_id", "parameters")
    events = subject.events("proposed", "promoted", "stopped", "selected")
    return sorted(json.dumps({key: event.get(key) for key in keys}, sort_keys=True) for event in events)


def in_the_middle_of_a_rung(subject):
    """Whether some trials of a batch have reached a rung and wait for the others."""
    judged = {(e["trial_id"], e["epoch"]) for e in subject.events("promoted", "stopped")}
    return sum((e["trial_id"], e["epoch"]) not in judged for e in subject.events("rung")) >= 2


def test_slots_and_kills_change_no_proposal_and_no_decision(tmp_path):
    runs = {}
    for slots in (1, 2, 4):
        with cluster(tmp_path / f"cluster-{slots}", slots) as (address, head):
            subject = runs[slots] = Subject(tmp_path / f"slots-{slots}", **HALVING)
            try:
                subject.start("--address", address)
                if slots > 1:
                    subject.wait(lambda subject=subject: in_the_middle_of_a_rung(subject))
                if slots == 2:
                    subject.kill_driver()
                    subject.start("--address", address)
                if slots == 4:
                    subject.wait(lambda head=head: workers(head))
                    os.kill(workers(head)[0], signal.SIGKILL)
                assert subject.process.wait(600) == 0, subject.log.read_text()[-3000:]
            finally:
                subject.close()
    proposed = [e["trial_id"] for e in runs[1].events("proposed")]
    assert len(proposed) == len(set(proposed)) == 24
    assert {e["event"] for e in runs[1].events("promoted", "stopped")} == {"promoted", "stopped"}
    assert runs[4].events("failed")
    assert len(runs[2].events("study_opened")) == 2
    for slots in (2, 4):
        assert decisions(runs[slots]) == decisions(runs[1])

    grown = Subject(tmp_path / "slots-2", **(HALVING | {"search": 16}))
    before = decisions(grown)
    code, output = grown.run()
    assert code == 0, output[-3000:]
    of_search = [d for d in decisions(grown) if '"selected"' not in d]
    assert {d for d in before if '"selected"' not in d} <= set(of_search)
    assert len(grown.events("proposed")) == 32


def test_a_grid_of_30_cells_with_4_at_a_time_is_30_executions(tmp_path):
    subject = Subject(tmp_path / "grid", steps=4, seeds=1)
    text = subject.file.read_text()
    start = text.index("search:")
    text = text[:start] + (
        "search:\n  sampler: grid\n  parameters:\n"
        "    optim.lr: {choices: [0.001, 0.002, 0.003, 0.004, 0.006, 0.01]}\n"
        "    optim.weight_decay: {low: 0.0, high: 0.4, step: 0.1}\n"
        "confirm: {seeds: 1}\n"
    )
    subject.file.write_text(text.replace("    sar: {regularizer: sar}\n", ""))
    with cluster(tmp_path / "cluster", 4, SARX_WITNESS=str(subject.witness)) as (address, _):
        code, output = subject.run("--address", address)
    assert code == 0, output[-3000:]
    search = {e["trial_id"] for e in subject.events("proposed")}
    assert len(search) == 30
    executed = Counter(trial for trial, _ in subject.executions().elements())
    assert sum(executed[trial] for trial in search) == 30
    assert len(executed) == 31
