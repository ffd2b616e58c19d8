"""Kill and damage a running study, and count what was lost: ``just chaos``.

A study of 60 trials on the embedded data runs on a local Ray while its driver and its workers are SIGKILLed
at random moments; after each SIGKILL of the driver the same command is given again. Executions are counted
from a witness file that the training loop appends to, not from the ledger. Then come damaged files and full
disks.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.damage import CASES, IN_TURN, all_cases
from tests.chaos.kills import Outcome, chaos


def main() -> int:
    """Run the parts that were asked for; return 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="just chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="SIGKILLs of the driver, and of workers")
    parser.add_argument("--trials", type=int, default=60, help="trials of the study, a multiple of 6")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="decides the moments (printed)")
    parser.add_argument("--only", choices=("kills", "damage"), help="one part alone")
    parser.add_argument("--case", choices=[*CASES, *IN_TURN], help="one damage alone")
    options = parser.parse_args()
    options.only = "damage" if options.case else options.only
    bad = 0
    with tempfile.TemporaryDirectory(prefix="sarx-chaos-") as folder:
        if options.only != "damage":
            print(f"kills: seed {options.seed}", flush=True)
            outcome = chaos(
                Path(folder) / "kills",
                drivers=options.kills,
                workers=options.kills,
                seed=options.seed,
                trials=options.trials,
            )
            bad += report(outcome)
        if options.only != "kills":
            for case in all_cases(Path(folder), options.case):
                mark = "skip" if case.skipped else "pass" if case.passed else "FAIL"
                print(f"{mark}  {case.name}: {case.said}", flush=True)
                bad += not case.passed
    return 1 if bad else 0


def report(outcome: Outcome) -> int:
    """Print the figures of the kills and their bars; return the number of bars missed."""
    print(
        f"  {outcome.driver_kills} SIGKILLs of the driver, {outcome.worker_kills} of workers, "
        f"{outcome.planned} trials, {outcome.seconds:.0f} s"
    )
    print(f"  {outcome.interrupted} trial starts were cut off; {outcome.repeated} epochs were trained again")
    for note in outcome.notes:
        print(f"  {note}")
    bars = [
        ("trials lost", outcome.planned - outcome.finished, 0),
        ("finished twice in the ledger", outcome.twice, 0),
        ("finished trials executed again", outcome.finished_again, 0),
        ("epochs repeated per interruption", outcome.repeated / max(1, outcome.interrupted), 1),
        ("drivers that ended badly", len(outcome.notes), 0),
    ]
    for name, value, bound in bars:
        print(f"BAR {name} {value:g} <= {bound} {'pass' if value <= bound else 'fail'}", flush=True)
    return sum(value > bound for _, value, bound in bars)


if __name__ == "__main__":
    sys.exit(main())
