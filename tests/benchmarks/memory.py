"""What a trial on warm workers leaves behind: ``just bench memory``.

One session of two workers serves 204 trials of the embedded data on a local Ray. After every finished trial
from 50 to 200 the memory of the driver and of both workers is read: what they allocated themselves, in RAM or
swapped out (RssAnon + VmSwap). Pages of files, such as those of libraries, come and go as the kernel likes,
tens of MB at a time, and are shown beside it. The bar holds for the slope over these trials (Theil-Sen: the
median over all pairs, which single steps of the allocator do not move).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from bars import at_most
from scipy.stats import theilslopes

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.ray.steps import script

FROM, TO = 50, 200
MOST_MISSED = 0.5
"""Share of the trials after which memory must have been read."""
MOST_KB = 50.0
GROWS = """
from sarx.cluster.segment_run import start_training

class Two(SessionHost):
    starting = staticmethod(start_training)

def memory(pid):
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    kb = lambda *names: sum(int(lines[name].split()[0]) for name in names)
    return kb("RssAnon", "VmSwap"), kb("VmRSS")

def processes():
    newest = max(folder.root.glob("trials/*/log-rank1.txt"), key=lambda path: path.stat().st_mtime).parent
    logs = [(newest / name).read_text() for name in ("log.txt", "log-rank1.txt")]
    return [os.getpid(), *(int(text.rpartition("(pid ")[2].partition(",")[0]) for text in logs)]

def watch():
    place = count = 0
    pids = []
    while count < 200:
        for event in ledger.events[place:]:
            place += 1
            count += event["event"] == "trial_finished"
        if count >= 50 and count not in seen:
            pids = pids or processes()
            seen[count] = [memory(pid) for pid in pids]
        time.sleep(0.02)
    assert processes() == pids, "workers were started anew in between"

seen = {}
watching = threading.Thread(target=watch, daemon=True)
watching.start()
ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2)
run(Two)
import json
watching.join()
print(json.dumps([[count, *seen[count]] for count in sorted(seen)]))
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
    readings = json.loads(output.splitlines()[-1])
    counts = [count for count, *_ in readings]
    if len(counts) < MOST_MISSED * (TO - FROM) or counts[-1] < TO:
        print(f"{len(counts)} readings, the last after {counts[-1]} trials: no measurement")
        return 1
    print(f"{len(counts)} readings after {counts[0]} to {counts[-1]} trials; KB per trial")
    print(f"{'':8} {'own, slope':>12} {'95 %':>18} {'own, ends':>12} {'resident, ends':>16}")
    slopes = []
    for place, name in enumerate(("driver", "rank 0", "rank 1"), start=1):
        own, resident = zip(*(reading[place] for reading in readings), strict=True)
        found = theilslopes(own, counts)
        slopes.append(float(found.slope))
        ends = [(kb[-1] - kb[0]) / (counts[-1] - counts[0]) for kb in (own, resident)]
        interval = f"[{found.low_slope:.1f}, {found.high_slope:.1f}]"
        print(f"{name:8} {slopes[-1]:12.1f} {interval:>18} {ends[0]:12.1f} {ends[1]:16.1f}")
    return 0 if at_most("KB per trial", max(slopes), MOST_KB) else 1


if __name__ == "__main__":
    sys.exit(main())
