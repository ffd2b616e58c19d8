"""One training on several workers, through Ray Train, outside of any study."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType, SimpleNamespace
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

    It ends this process. Unless all went well nothing is waited for: what is on disk counts.

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

        from sarx.cluster.failures import shortened
        from sarx.cluster.segment_run import start_training
        from sarx.cluster.session import Session

        try:
            session = Session(resources, start_training, scratch)
            code = follow(results(session, config, folder, name, resources), config, folder, name, recorded)
        except ray.exceptions.RayError as error:
            raise UserError(f"the cluster was lost: {shortened(str(error))}", where="resources") from error
        print(end="", flush=True)  # ``os._exit`` does not flush
        with contextlib.suppress(ray.exceptions.RayError):
            if session.end():
                ray.shutdown()
        return code

    end_with(run, stopped, scratch)


def end_with(run: Callable[[], int], stopped: str, scratch: Path) -> NoReturn:
    """Run something that uses Ray, and end this process with all that Ray started for it.

    The exit code is that of ``exit_code``, 143 after SIGTERM, or 1 for an error of ours. Ray is not shut down
    here: while a thread, as that of a session, is still inside of ``ray.get``, Ray 2.60 may end the process
    with exit code 1 and without a word. For the same reason the interpreter does not end in its usual way.

    Args:
        run: What to run; it returns the exit code.
        stopped: What to say after Ctrl-C or SIGTERM.
        scratch: Folder to remove.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt

    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        code = exit_code(run, stopped)
    except KeyboardInterrupt:  # while it said that it stops
        code = 130
    except BaseException:  # noqa: BLE001  a traceback as ever, and the same end
        code = 1
        with contextlib.suppress(OSError):
            traceback.print_exc()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_descendants()
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(128 + received[0] if code == 130 and received else code)


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
