"""The driver of a study: opens the ledger and hands what is left to one Tune run."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from sarx.cluster.monitor import Monitor, clock, progress
from sarx.cluster.processes import end_descendants
from sarx.cluster.resources import connect, prepare_environment
from sarx.search.engine import Engine
from sarx.search.state import DIVERGED, FAILED
from sarx.study.design import Arm
from sarx.study.ledger import Ledger
from sarx.study.schema import Study
from sarx.study.storage import StudyFolder


def run_study(study: Study, arms: list[Arm], engine: Engine, folder: StudyFolder, address: str | None) -> int:
    """Run what is left of a study and return the exit code: 0, or 1 if an arm lacks confirm trials.

    Args:
        study: The study.
        arms: Its arms.
        engine: The engine on its open ledger.
        folder: The study's folder.
        address: Cluster to join; None: RAY_ADDRESS, else a local one.
    """
    monitor = Monitor()
    monitor.tick(engine)
    if not engine.done:
        prepare_environment()
        slots = connect(address, study.resources)
        left = sum(progress(engine)[1].values()) - sum(progress(engine)[0].values())
        print(f"running {left} trials, {slots} at a time; results in {folder.root}", flush=True)
        with stopping(engine.ledger, folder):
            fit(study, engine, folder, monitor)
    if engine.done:
        engine.ledger.append(
            "study_finished", sync=True, payload=json.dumps({"reason": "nothing left to run"})
        )
    return summarise(engine, folder, time.monotonic() - monitor.started)


def fit(study: Study, engine: Engine, folder: StudyFolder, monitor: Monitor) -> None:
    """Let Ray Tune run all segments; its own state and files are scratch."""
    import ray
    from ray import tune

    from sarx.cluster.searcher import SegmentSearcher, scratch
    from sarx.cluster.trial import TrialHost

    resources = study.resources
    needs = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    searcher = SegmentSearcher(engine, folder, resources.cpus_per_worker, monitor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuner = tune.Tuner(
            tune.with_resources(TrialHost, {name: amount for name, amount in needs.items() if amount}),
            tune_config=tune.TuneConfig(search_alg=searcher, num_samples=-1, reuse_actors=True),
            run_config=tune.RunConfig(
                name=f"run-{os.getpid()}",
                storage_path=str(scratch(folder)),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[],
            ),
        )
        tuner.fit()
    shutil.rmtree(scratch(folder), ignore_errors=True)
    searcher.record_ended()
    ray.shutdown()


@contextlib.contextmanager
def stopping(ledger: Ledger, folder: StudyFolder) -> Iterator[None]:
    """Leave at once and safely on Ctrl-C and SIGTERM: what is on disk is all that counts."""

    def leave(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        with contextlib.suppress(OSError):  # the signal may have come in the middle of another event
            ledger.append("stopping", sync=True, payload=json.dumps({"reason": name}))
        command = shlex.join(["python", "-m", "sarx.tune", *sys.argv[1:]])
        sys.stdout.write(f"\nstopped by {name}; nothing finished is lost. Results: {folder.root}\n")
        sys.stdout.write(f"to go on: {command}\n")
        sys.stdout.flush()
        end_descendants()
        os._exit(128 + number)

    previous = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def summarise(engine: Engine, folder: StudyFolder, seconds: float) -> int:
    """Print how the study ended and where its results are; return the exit code."""
    done, total = progress(engine)
    counts = ", ".join(f"{phase} {done[phase]}/{total[phase]}" for phase in done)
    print(f"{engine.study.study}: {counts} trials decided in {clock(seconds)}")
    for claim in engine.queue():
        record = engine.record(claim)
        if record.status in (FAILED, DIVERGED):
            what = f"{claim.arm.key} {claim.phase} {claim.index}: {reason(record.reason)}"
            print(f"  {record.status}: {what} ({folder.trial(record.trial_id) / 'log.txt'})")
    missing = engine.incomplete
    if missing:
        print(f"  without all their trials: {', '.join(missing)}")
    print(f"results      {folder.root}")
    print(f"tensorboard  {folder.tensorboard}   (just tensorboard {engine.study.study})")
    print(f"next         just analyze {engine.study.study}", flush=True)
    return 1 if missing else 0


def reason(payload: str) -> str:
    """Return the reason out of an event's payload."""
    try:
        values: Mapping[str, Any] = json.loads(payload)
    except ValueError:
        return payload
    return str(values.get("reason", payload))
