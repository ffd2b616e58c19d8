"""What a trial on warm workers leaves behind: ``just bench memory``.

One session of two workers serves 204 trials of the embedded data on a local Ray; the resident memory of the
driver and of both workers is read after 50 and after 200 finished trials.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from bars import at_most

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.ray.steps import script

FROM, TO = 50, 200
MOST_KB = 50.0
GROWS = """
from sarx.cluster.segment_run import start_training

class Two(SessionHost):
    starting = staticmethod(start_training)

def resident(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0])

def processes():
    newest = max(folder.root.glob("trials/*/log-rank1.txt"), key=lambda path: path.stat().st_mtime).parent
    logs = [(newest / name).read_text() for name in ("log.txt", "log-rank1.txt")]
    return [os.getpid(), *(int(text.rpartition("(pid ")[2].partition(",")[0]) for text in logs)]

def watch():
    for count in (50, 200):
        while sum(event["event"] == "trial_finished" for event in ledger.events) < count:
            time.sleep(0.05)
        seen[count] = {pid: resident(pid) for pid in processes()}

seen = {}
threading.Thread(target=watch, daemon=True).start()
ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2)
run(Two)
import json
print(json.dumps([seen[50], seen[200]]))
"""
TINY = """\
# Does memory grow?
study: tiny
base: [data=digit_scenes, model=fcn_test_efficientnet, data.num_train=16,
       training.steps=2, training.eval_every=2, training.batch_size=4]
ablation:
  reference: sar
  arms: {sar: {}}
search:
  parameters: {optim.lr: {low: 0.001, high: 0.01, log: true}}
  trials_per_arm: 204
  batch: 4
confirm: {seeds: 1}
resources: {num_workers: 2}
"""


def main() -> int:
    """Run the session, print what it keeps per trial, judge the bar."""
    with tempfile.TemporaryDirectory() as folder:
        output, _ = script(Path(folder), GROWS, TINY, timeout=1500)
    before, after = json.loads(output.splitlines()[-1])
    if before.keys() != after.keys():
        print("workers were started anew in between: no measurement")
        return 1
    grown = [(after[pid] - before[pid]) / (TO - FROM) for pid in before]
    for name, kb in zip(("driver", "rank 0", "rank 1"), grown, strict=True):
        print(f"{name:8} {kb:8.1f} KB per trial")
    return 0 if at_most("KB per trial", max(grown), MOST_KB) else 1


if __name__ == "__main__":
    sys.exit(main())
