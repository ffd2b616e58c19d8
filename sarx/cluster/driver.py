"""The driver of a study: opens the ledger and hands what is left to one Tune run."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import shlex
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TypeVar

from sarx.cluster.limits import Guard, unwritable
from sarx.cluster.monitor import Monitor, clock
from sarx.cluster.processes import end_descendants
from sarx.cluster.resources import capacity, connect, grows, needs_of, prepare_environment
from sarx.config.errors import UserError
from sarx.search.engine import Engine
from sarx.search.mirror import Mirror
from sarx.search.overview import overview, totals
from sarx.search.state import DIVERGED, FAILED
from sarx.study.design import Arm
from sarx.study.ledger import Ledger
from sarx.study.ledger_schema import CONFIRM
from sarx.study.plan import describe_batch
from sarx.study.schema import Resources, Study
from sarx.study.storage import StudyFolder

if TYPE_CHECKING:
    from sarx.cluster.trial import TrialHost

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE_S = 5.0
"""Seconds after which a process leaves that cannot say so: a pipe may be full that nobody reads."""
HOST_BYTES = 2**30
"""Memory of the host of a session, with Train's controller and the mailbox."""


def run_study(
    study: Study,
    arms: list[Arm],
    engine: Engine,
    folder: StudyFolder,
    address: str | None,
    mirror: Mirror | None = None,
) -> int:
    """Run what is left of a study and return the exit code: 0, or 1 if an arm lacks confirm trials.

    Args:
        study: The study.
        arms: Its arms.
        engine: The engine on its open ledger.
        folder: The study's folder.
        address: Cluster to join; None: RAY_ADDRESS, else a local one.
        mirror: Where settled search trials are copied to.
    """
    with Monitor(results=str(folder.place)) as monitor:
        leaving = Leaving(engine.ledger, folder, monitor)
        monitor.tick(engine)
        with stopping(leaving):
            if not engine.done:
                if why := Guard(study.limits, engine, monitor.started).reached():
                    leaving.at_limit(engine, why)
                prepare_environment()
                slots = aside(partial(connect, address, study.resources))
                left = sum(count.total - count.done for count in totals(overview(engine)).values())
                for line in describe_batch(study, arms, slots):
                    print(line)
                print(f"running {left} trials, {slots} at a time; results in {folder.place}", flush=True)
                fit(study, engine, folder, monitor, mirror=mirror)
            if engine.done and not engine.held_back:
                note_finished(leaving)
            if mirror is not None:
                mirror.finish(engine)
    return summarise(engine, folder, time.monotonic() - monitor.started)


def fit(
    study: Study,
    engine: Engine,
    folder: StudyFolder,
    monitor: Monitor,
    host: type[TrialHost] | None = None,
    mirror: Mirror | None = None,
) -> None:
    """Let Ray Tune run all segments; its own state and files are scratch.

    Args:
        study: The study.
        engine: The engine on its open ledger.
        folder: The study's folder.
        monitor: Shows progress; the limits count from its start.
        host: What runs the segments; None: ``TrialHost``, or ``SessionHost`` for several workers.
        mirror: Where settled search trials are copied to.
    """
    import ray
    from ray import tune

    from sarx.cluster.failures import lost_actors_are_failed_trials
    from sarx.cluster.searcher import SegmentSearcher, Watch, scratch
    from sarx.cluster.slots import Silence, Slots

    logging.getLogger("ray.tune.tune").addFilter(lambda record: "did not complete" not in str(record.msg))
    slots = Slots(partial(capacity, study.resources), ahead=study.resources.num_workers == 1)
    leaving = Leaving(engine.ledger, folder, monitor)
    guard = Guard(study.limits, engine, monitor.started)
    at_limit = partial(leaving.at_limit, engine)
    searcher = SegmentSearcher(engine, folder, monitor, guard, at_limit, leaving.given_up, slots, mirror)
    with warnings.catch_warnings(), lost_actors_are_failed_trials():
        warnings.simplefilter("ignore")
        tuner = tune.Tuner(
            tune.with_resources(host or host_of(study.resources), occupied_by_host(study.resources)),
            tune_config=tune.TuneConfig(
                search_alg=searcher, scheduler=slots, num_samples=-1, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name=f"run-{os.getpid()}",
                storage_path=str(scratch(folder)),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[Watch(searcher), Silence()],
            ),
        )
        try:
            tuner.fit()
        except OSError as error:  # Tune's own files
            leaving.given_up(unwritable(folder, error))
        except (EOFError, pickle.UnpicklingError):
            pass  # from Tune's own list of results, which nobody reads: an error's file was cut off
        searcher.record_ended(final=True)
    shutil.rmtree(scratch(folder), ignore_errors=True)
    ray.shutdown()


def host_of(resources: Resources) -> type[TrialHost]:
    """Return what runs the trials of a study."""
    from sarx.cluster.session_host import SessionHost
    from sarx.cluster.trial import TrialHost

    return SessionHost if resources.num_workers > 1 else TrialHost


def occupied_by_host(resources: Resources) -> dict[str, float]:
    """Return what Tune reserves for a trial; the workers of a session reserve their own.

    Tune takes no request for nothing, and a host of a session must not take a part of what its workers need.
    On a cluster that grows all hosts start on the head, so they ask for the memory that they use.
    """
    if resources.num_workers == 1:
        return needs_of(resources)
    return {"memory": HOST_BYTES if grows() else 2**20}


# ---------------------------------------------------------------- leaving before the end


@dataclass(frozen=True)
class Leaving:
    """Ends this process and all that it started within a second, recording why; nothing is waited for.

    What is on disk is all that counts: a trial that runs goes on from its last checkpoint at the next start.

    Attributes:
        ledger: The open ledger.
        folder: The study's folder.
        monitor: What may be drawing on the terminal.
    """

    ledger: Ledger
    folder: StudyFolder
    monitor: Monitor | None = None

    def by_signal(self, number: int) -> NoReturn:
        """Leave because of a signal; the exit code is 128 + its number."""
        name = signal.Signals(number).name
        goodbye = [
            f"\nstopped by {name}; nothing finished is lost. Results: {self.folder.place}",
            f"to go on: {same_command()}",
        ]
        self._leave(name, 128 + number, goodbye)

    def at_limit(self, engine: Engine, why: str) -> NoReturn:
        """Leave because a limit of the study is reached; the exit code is 1."""
        counts = totals(overview(engine)).items()
        left = ", ".join(f"{phase} {count.total - count.done} of {count.total}" for phase, count in counts)
        goodbye = [
            f"\nstopped: {why}; nothing finished is lost. Results: {self.folder.place}",
            f"left: {left} trials",
            f"to go on: raise {why.partition('=')[0]}, then {same_command()}",
        ]
        self._leave(why, 1, goodbye)

    def given_up(self, error: UserError) -> NoReturn:
        """Leave because the study cannot go on; the exit code is 2."""
        message = "error: " + " ".join(str(error).splitlines())
        self._leave(str(error), 2, [message, f"results: {self.folder.place}"], stream=2)

    def _leave(self, why: str, code: int, goodbye: list[str], stream: int = 1) -> NoReturn:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        try:
            self.ledger.append("stopping", sync=True, payload=json.dumps({"reason": why}))
            self.ledger.close()
        except (OSError, UserError):  # full, taken over, or a signal came in the middle of another event
            goodbye = [*goodbye, "the ledger has no event of this stop; it needs none"]
        patience = threading.Timer(PATIENCE_S, leave, [code])
        patience.daemon = True
        patience.start()
        if self.monitor is not None:
            self.monitor.close()
        with contextlib.suppress(OSError):  # nobody listens; not print, which may be what was interrupted
            os.write(stream, ("\n".join(goodbye) + "\n").encode())
        leave(code)


def leave(code: int) -> NoReturn:
    """End this process and what it started."""
    end_descendants()
    os._exit(code)


@contextlib.contextmanager
def stopping(leaving: Leaving) -> Iterator[None]:
    """Leave at once and safely on Ctrl-C and SIGTERM."""

    def handle(number: int, frame: FrameType | None) -> None:
        leaving.by_signal(number)

    previous = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def aside(call: Callable[[], T]) -> T:
    """Call something in a thread, so that a signal is handled while it lasts.

    ``ray.init`` waits for seconds in C++, where no Python handler runs ((m) 6.5 s), and in the main thread it
    puts a handler of its own in place of ours. The thread stays: the processes that Ray starts end with the
    thread that started them (PR_SET_PDEATHSIG).
    """
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001  raised again where it is waited for
            answer.set_exception(error)
        threading.Event().wait()

    threading.Thread(target=work, name="aside", daemon=True).start()
    try:
        return answer.result()
    finally:
        for number in SIGNALS:  # once more, over Ray's own in C++, which would print a stack
            signal.signal(number, signal.getsignal(number))


def same_command() -> str:
    """Return the command that was given, for a shell."""
    return shlex.join(["python", "-m", "sarx.tune", *sys.argv[1:]])


# ---------------------------------------------------------------- the end


def restriction(engine: Engine) -> str:
    """Return the options that let a part of the study run alone."""
    arms = f"--arms {','.join(sorted(engine.only_arms))}" if engine.only_arms is not None else ""
    phase = f"--phase {engine.only_phase}" if engine.only_phase else ""
    what = " ".join(filter(None, (arms, phase)))
    waits = engine.only_phase == CONFIRM and len(engine.winners) < len(engine.searches)
    return what + (" (confirm trials wait for their search to end)" if waits else "")


def note_finished(leaving: Leaving) -> None:
    """Record that nothing is left to run."""
    try:
        leaving.ledger.append(
            "study_finished", sync=True, payload=json.dumps({"reason": "nothing left to run"})
        )
    except OSError as error:
        leaving.given_up(unwritable(leaving.folder, error))


def summarise(engine: Engine, folder: StudyFolder, seconds: float) -> int:
    """Print how the study ended and where its results are; return the exit code."""
    phases = totals(overview(engine)).items()
    counts = ", ".join(f"{phase} {count.done}/{count.total}" for phase, count in phases)
    print(f"{engine.study.study}: {counts} trials decided in {clock(seconds)}")
    for claim in engine.queue():
        record = engine.record(claim)
        if record.status in (FAILED, DIVERGED):
            what = f"{claim.arm.key} {claim.phase} {claim.index}: {record.reason}"
            log = folder.shown(folder.trial(record.trial_id) / "log.txt")
            print(f"  {record.status}: {what} ({log})")
    missing, held = engine.incomplete, engine.held_back if engine.done else []
    if failed := [arm for arm in missing if arm not in held]:
        print(f"  without all their trials: {', '.join(failed)}")
    if held:
        print(f"  held back by {restriction(engine)}: {', '.join(held)}")
    print(f"results      {folder.place}")
    print(f"tensorboard  {folder.shown(folder.tensorboard)}   (just tensorboard {engine.study.study})")
    print(f"next         just analyze {engine.study.study}", flush=True)
    return 1 if missing else 0
