"""SIGKILLs of driver and workers at random moments: what was lost, what was done twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.subject import Subject


@dataclass
class Outcome:
    """What kills did to a study.

    Attributes:
        planned: Trials of the study.
        finished: Finished trials in the ledger.
        twice: ``trial_finished`` events beyond one per trial.
        finished_again: Starts, or epochs that no start explains, of trials that were finished already.
        repeated: Epochs trained more than once, all told.
        interrupted: Trial starts that a kill cut off: each may repeat what was not yet recorded.
        most: How often the most repeated epoch of all was trained.
        driver_kills: SIGKILLs of the driver.
        worker_kills: SIGKILLs of a worker.
        seconds: Wall time.
    """

    planned: int
    finished: int = 0
    twice: int = 0
    finished_again: int = 0
    repeated: int = 0
    interrupted: int = 0
    most: int = 0
    driver_kills: int = 0
    worker_kills: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def chaos(folder: Path, *, drivers: int, workers: int, seed: int, trials: int = 60) -> Outcome:
    """Run a study of ``trials`` trials to its end while its processes are killed at random moments.

    Args:
        folder: Where it runs.
        drivers: SIGKILLs of the driver, each followed by the same command again.
        workers: SIGKILLs of a process that hosts a trial.
        seed: Decides the moments.
        trials: 2 arms x (search + confirm): a multiple of 6.
    """
    subject = Subject(folder, search=trials // 6, batch=trials // 6, seeds=trials // 3)
    outcome = Outcome(trials)
    rng = random.Random(seed)
    todo = ["driver"] * drivers + ["worker"] * workers
    rng.shuffle(todo)
    began = time.monotonic()
    subject.start()
    try:
        for number, what in enumerate(todo):
            target = trials * (number + 1) // (len(todo) + 2)  # spread over the study
            subject.wait(lambda target=target: len(set(subject.finished())) >= target and subject.workers())
            time.sleep(rng.uniform(0.0, 1.5))
            if what == "driver":
                subject.kill_driver()
                outcome.driver_kills += 1
                subject.start()
            else:
                subject.wait(lambda: kill_one(subject.workers(), rng))
                outcome.worker_kills += 1
        assert subject.process is not None
        code = subject.process.wait(900)
        if code:
            outcome.notes.append(f"the last driver ended with exit code {code}")
    finally:
        subject.close()
    outcome.seconds = time.monotonic() - began
    return judge(subject, outcome)


def kill_one(workers: list[int], rng: random.Random) -> bool:
    """End one of some processes with SIGKILL; return whether one was there."""
    with contextlib.suppress(ProcessLookupError, IndexError):
        os.kill(rng.choice(workers), signal.SIGKILL)
        return True
    return False


def judge(subject: Subject, outcome: Outcome) -> Outcome:
    """Count what was lost and what was done twice.

    A trial that the ledger calls finished ran again if the ledger has a later start of it, or if the witness
    saw an epoch of it more often than its starts can explain: each start trains an epoch once at most.
    """
    finished, executions = subject.finished(), subject.executions()
    outcome.finished = len(set(finished))
    outcome.twice = len(finished) - outcome.finished
    ended: dict[str, int] = {}
    starts: Counter[str] = Counter()
    for event in subject.events("trial_started", "trial_finished"):
        trial = event["trial_id"]
        if event["event"] == "trial_finished":
            ended.setdefault(trial, event["seq"])
        else:
            starts[trial] += 1
            outcome.finished_again += trial in ended
    outcome.finished_again += sum(count > starts[trial] for (trial, _), count in executions.items())
    outcome.repeated = sum(count - 1 for count in executions.values())
    outcome.most = max(executions.values(), default=0)
    outcome.interrupted = sum(starts.values()) - outcome.finished
    return outcome
