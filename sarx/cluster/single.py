"""One training on several workers, through Ray Train, outside of any study."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from sarx.cluster.driver import SIGNALS, aside
from sarx.cluster.processes import end_descendants
from sarx.cluster.resources import check_local, check_reachable, connect, prepare_environment
from sarx.config.errors import UserError, exit_code
from sarx.config.schema import TrainConfig, as_dict
from sarx.search.claims import Segment
from sarx.study.ledger_schema import CONFIRM, SEARCH
from sarx.study.resources import check_training
from sarx.study.schema import Resources
from sarx.study.storage import SINGLE, StudyFolder, open_folder
from sarx.training.single import Recorded, announce, follow

PLACE_S = 60.0
"""Seconds without a place for the workers after which that is said."""

RESTARTS = 3
"""How often a training goes on from its last checkpoint after a worker was lost."""


def train_together(
    config: TrainConfig,
    root: Path,
    resources: Resources,
    address: str | None,
    recorded: Recorded | None,
    stopped: str,
) -> NoReturn:
    """Train on the workers of a cluster, or of this machine; print each epoch; the same call continues.

    It ends this process, with the exit code of ``exit_code``, and all that Ray started for it. After Ctrl-C
    or a failure nothing is waited for: what is on disk counts. Nor could Ray be shut down then: where a
    thread is inside of ``ray.get``, as that of a session, Ray 2.60 may end the process with exit code 1.

    Args:
        config: What to train.
        root: Storage that all nodes see.
        resources: The workers.
        address: Cluster to join; None: RAY_ADDRESS, else a local one.
        recorded: The trial of a study to compare with.
        stopped: What to say after Ctrl-C.

    Raises:
        UserError: For workers that fit nowhere, before anything starts.
    """
    check_training(config.training, resources)
    target = address or os.environ.get("RAY_ADDRESS")
    if target:
        check_reachable(target)
    else:
        check_local(resources)
    folder = open_folder(root, SINGLE)
    name = announce(config, folder, resources.cpus_per_worker, resources.num_workers, recorded)
    print(f"starting {resources.num_workers} workers through Ray", flush=True)
    scratch = folder.root / f".train-{os.getpid()}"

    def run() -> int:
        prepare_environment()
        aside(partial(connect, address, resources))
        import ray

        from sarx.cluster.segment_run import start_training
        from sarx.cluster.session import Session

        session = Session(resources, start_training, scratch)
        code = follow(results(session, config, folder, name, resources), config, folder, name, recorded)
        if session.end():
            ray.shutdown()
        return code

    try:
        code = exit_code(run, stopped)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        sys.stdout.flush()
        sys.stderr.flush()
        end_descendants()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    os._exit(code)


def results(
    session: Any, config: TrainConfig, folder: StudyFolder, name: str, resources: Resources
) -> Iterator[Any]:
    """Yield the results of a training, over attempts: each goes on from the last checkpoint.

    Raises:
        UserError: If an attempt raised an error, or workers were lost too often.
    """
    from sarx.cluster.segment_run import encode_work
    from sarx.cluster.session_failure import SessionFailure

    known = [int(path.name.partition("-")[2]) for path in folder.trial(name).glob("attempt-*")]
    epoch, epochs = 0, config.training.epochs
    first = max(known, default=0) + 1
    for attempt in range(first, first + RESTARTS + 1):
        phase = CONFIRM if config.role == "confirm" else SEARCH
        segment = Segment(name, attempt, phase, as_dict(config), "train", 0, epochs, start=epoch)
        session.post(encode_work(segment, folder.root, resources))
        answer: dict[str, Any] = {"done": False}
        heard = time.monotonic()
        while not answer.get("done"):
            try:
                answer = session.take()
            except RuntimeError as error:
                raise UserError(f"{error}", where="resources") from error
            if answer or session.complete():
                heard = time.monotonic()
            elif time.monotonic() - heard > PLACE_S:
                heard = time.monotonic()
                print(f"still waiting for {resources.num_workers} workers; is the cluster busy?", flush=True)
            if "result" in answer:
                result = SimpleNamespace(**json.loads(answer["result"]))
                epoch = result.epoch
                yield result
        if "failure" not in answer:
            return
        log = folder.trial(name) / "log.txt"
        failure = SessionFailure(json.loads(answer["failure"]))
        _, reason = failure.classify(log, attempt, ())
        if not failure.lost:
            raise UserError(f"the training failed: {reason}", where=str(log))
        onward = "; it goes on from its last checkpoint" if attempt < first + RESTARTS else ""
        print(f"attempt {attempt}: {reason}{onward}", flush=True)
    raise UserError(f"workers were lost {RESTARTS + 1} times", where=str(folder.trial(name)))
