"""Every slot of a real Ray works, and no actor is started twice."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.ray.steps import STUDY, script

SHORT = """
class Short(Steps):
    # takes no time, but that the first trial of each actor waits until the actors of all slots are there
    pause_s = 0.0

    def before(self, epoch):
        folder = root / "actors"
        folder.mkdir(exist_ok=True)
        (folder / str(os.getpid())).touch()
        deadline = time.monotonic() + 60
        while len(list(folder.iterdir())) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)

ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=3)
run(Short)
"""
BATCHES = STUDY.replace("trials_per_arm: 2", "trials_per_arm: 24").replace("batch: 2", "batch: 6")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_short_trials_in_batches_keep_all_slots_and_their_actors(tmp_path):
    """Trials of milliseconds, a wait after each batch: left to itself, Tune uses one slot, or restarts."""
    output, events = script(tmp_path, SHORT, BATCHES)
    assert "done True" in output
    finished = [event["trial_id"] for event in events if event["event"] == "trial_finished"]
    assert len(finished) == len(set(finished)) == 50
    notes = [
        json.loads(path.read_text())
        for path in (tmp_path / "results" / "tiny" / "trials").glob("*/attempts.ndjson")
    ]
    served = Counter(note["pid"] for note in notes)
    assert len(served) == 3, served
    assert min(served.values()) >= 5, served
