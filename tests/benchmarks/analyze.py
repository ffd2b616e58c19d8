"""From the ledger of a large study to all tables: ``just bench analyze``.

Ledgers of 1,000 and 10,000 trials of 30 epochs are written once, then read by contenders that take turns,
each in a process of its own; the best round counts. The files are in the page cache, as after training:
nothing is measured of the disk.

    report     python -m analysis: ledger, statistics, all tables written and printed; without figures, and
               without files of trials, of which there are none
    read       analysis.ledger.read_ledger, which is a part of it
    bare scan  polars.scan_ndjson with the schema of the ledger: no checksum compared, no event missed
    pandas     a CSV file of 30 rows for each trial, read one after the other, and the mean of each arm

``s`` begins after the imports, which ``imports`` has; CPU: processor seconds of all threads since then.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bars import at_most

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sarx.study.ledger import unpack_metrics

SIZES = (1_000, 10_000)
MOST_SECONDS, MOST_OVER_SCAN, MOST_GROWTH, MOST_GIB = 2.0, 3.0, 12.0, 2.0
STUDY, FILES = "large", "csv"
Task = Callable[[], int]


def report(storage: Path) -> Task:
    """Make the whole report but its figures; return the lines that are printed."""
    from analysis import figures
    from analysis.__main__ import main as analysis

    figures.FIGURES.clear()

    def task() -> int:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            code = analysis([STUDY, "--storage", str(storage)])
        assert code == 0
        return printed.getvalue().count("\n")

    return task


def read(storage: Path) -> Task:
    """Read and verify the ledger; return its events."""
    from analysis.ledger import read_ledger

    return lambda: read_ledger(storage / STUDY).events.height


def scan(storage: Path) -> Task:
    """Let polars read the ledger; return its events."""
    import polars as pl

    from analysis.ledger import ledger_files, ledger_schema

    files = [file.path for file in ledger_files(storage / STUDY / "ledger")]
    return lambda: pl.scan_ndjson(files, schema=ledger_schema()).collect().height


def pandas(storage: Path) -> Task:
    """Read a file for each trial; return the number of arms, of which the means are made."""
    import pandas as pd

    def task() -> int:
        found = pd.concat(pd.read_csv(file) for file in sorted((storage / FILES).glob("*.csv")))
        last = found[found["epoch"] == found["epoch"].max()]
        return len(last.groupby(["level", "arm"]).mean(numeric_only=True))

    return task


CONTENDERS = {"report": report, "read": read, "bare scan": scan, "pandas": pandas}


def run(contender: str, storage: Path) -> dict[str, float]:
    """Run a contender in this process; return seconds, memory and what it found."""
    begun = time.perf_counter()
    task = CONTENDERS[contender](storage)
    start, cpu = time.perf_counter(), time.process_time()
    found = task()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"s": seconds, "cpu": cpu, "imports": start - begun, "peak_mib": peak, "found": found}


def apart(contender: str, storage: Path) -> dict[str, float]:
    """Return what a contender finds in a process of its own."""
    command = [sys.executable, __file__, "--task", contender, str(storage)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{contender} failed:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


class Files:
    """Writes what pandas reads: one CSV file for each trial, a row for each epoch."""

    def __init__(self, folder: Path) -> None:
        """Make the folder."""
        self.folder = folder
        self.places: dict[str, tuple[str, str]] = {}
        self.rows: dict[str, list[dict[str, object]]] = {}
        folder.mkdir()

    def add(self, event: dict[str, Any]) -> None:
        """Take note of an event of the ledger; write the file of a trial that has ended."""
        trial, kind = event.get("trial_id", ""), event["event"]
        if "arm" in event:
            self.places.setdefault(trial, (event["level"], event["arm"]))
        if kind in ("epoch", "rung", "trial_finished"):
            level, arm = self.places[trial]
            row = {"level": level, "arm": arm, "epoch": event["epoch"], **unpack_metrics(event["metrics"])}
            self.rows.setdefault(trial, []).append(row)
        if kind in ("trial_finished", "diverged"):
            found = self.rows.pop(trial)[-30:]
            names = list(dict.fromkeys(name for row in found for name in row))
            lines = [",".join(str(row.get(name, "")) for name in names) for row in found]
            (self.folder / f"{trial}.csv").write_text("\n".join([",".join(names), *lines, ""]))


def measure(size: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the best round of every contender on one ledger, and print them."""
    from study_ledger import write_ledger

    with tempfile.TemporaryDirectory(dir=options.folder, prefix="sarx-analyze-") as name:
        storage = Path(name)
        chosen = [name for name in CONTENDERS if options.pandas or name != "pandas"]
        also = Files(storage / FILES).add if options.pandas else None
        events = write_ledger(storage / STUDY, size, options.metrics, also)
        megabytes = sum(file.stat().st_size for file in (storage / STUDY / "ledger").iterdir()) / 1e6
        rounds = [{name: apart(name, storage) for name in chosen} for _ in range(options.rounds)]
    assert all(one[name]["found"] == events for one in rounds for name in ("read", "bare scan"))
    best = {name: min((one[name] for one in rounds), key=lambda found: found["s"]) for name in chosen}
    for name, found in best.items():
        ratio = found["s"] / best["bare scan"]["s"]
        cpu = found["cpu"] / best["bare scan"]["cpu"]
        print(
            f"{size:7d} {events:8d} {megabytes:6.1f} {name:10s} {found['s']:8.2f} {ratio:8.2f} "
            f"{found['cpu']:8.2f} {cpu:8.2f} {found['imports']:8.2f} {found['peak_mib']:9.0f}",
            flush=True,
        )
    return best


def main() -> int:
    """Write ledgers, read them, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="trials (multiples of 500)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--metrics", type=int, default=31, help="of each epoch (default: 31, as the embedded data has)"
    )
    parser.add_argument("--no-pandas", dest="pandas", action="store_false", help="leave pandas out")
    parser.add_argument("--folder", type=Path, help="where the ledgers lie (default: the temp folder)")
    parser.add_argument("--task", nargs=2, metavar=("TASK", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(run(options.task[0], Path(options.task[1]))))
        return 0
    if any(size < 500 or size % 500 for size in options.sizes):
        parser.error("sizes are multiples of 500")
    print(f"best of {options.rounds}; 30 epochs, {options.metrics} metrics at each; ratios to the bare scan")
    heads = ("s", "ratio", "CPU s", "ratio", "imports")
    print(
        f"{'trials':>7s} {'events':>8s} {'MB':>6s} {'':10s} "
        + " ".join(f"{head:>8s}" for head in heads)
        + f" {'peak MiB':>9s}"
    )
    found = {size: measure(size, options) for size in sorted(options.sizes)}
    largest = found[max(found)]
    print()
    passed = [
        at_most("analyze over bare scan", largest["report"]["s"] / largest["bare scan"]["s"], MOST_OVER_SCAN),
        at_most("analyze seconds", largest["report"]["s"], MOST_SECONDS),
        at_most("analyze peak GiB", largest["report"]["peak_mib"] / 1024, MOST_GIB),
    ]
    if {1_000, 10_000} <= found.keys():
        growth = found[10_000]["report"]["s"] / found[1_000]["report"]["s"]
        passed.append(at_most("analyze 10000 over 1000 trials", growth, MOST_GROWTH))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
