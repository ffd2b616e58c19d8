"""Failed attempts by name and reason, from what Ray knows of them and from the trial's own log.

What Ray 2.60 gives (each was produced and read): an exception in the trial comes as RayTaskError. A process
that died comes as ActorDiedError with one and the same text for SIGKILL, a signal of its own, and ``_exit``;
only ``sys.exit`` shows its code. A process that Ray's memory monitor killed comes as OutOfMemoryError. A node
that died comes as ActorUnavailableError after a second or two, and as a dead node 17 s later.
"""

from __future__ import annotations

import contextlib
import pickle
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import ray
import ray.cloudpickle
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from sarx.study.ledger_schema import FAILURES

LONGEST = 500
"""Characters of a reason at most."""
UNSURE_S = 45.0
"""How long to wait for the cluster to say whether a node whose actor cannot be reached is dead."""

NO_PLACE = "there was no place for the workers of this trial"
MEMORY = re.compile(
    r"^(torch\.|cuda\.)*(OutOfMemoryError|MemoryError)\b|CUDA out of memory|CUDA error: out of memory"
    r"|_ALLOC_FAILED|can't allocate memory|Cannot allocate memory"
)
NODE = re.compile(
    r"its node has died|actor's node was|node it was running on is dead|[Nn]ode was (forcibly )?preempted"
    r"|died by preemption"
)
TIMEOUT = re.compile(r"^Timeout \(\d+:\d\d:\d\d(\.\d+)?\)!$", re.MULTILINE)
FATAL = re.compile(r"^(?:Fatal Python error: (.+)|\*\*\* (SIG[A-Z]+) received.*)$", re.MULTILINE)
EXIT_CODE = re.compile(r"exit code (\d+)")


def heading(label: str, trial_id: str, attempt: int, pid: int, node: str) -> str:
    """Return the line that opens an attempt in the trial's log."""
    return f"{label}: trial {trial_id}, attempt {attempt} (pid {pid}, node {node})"


def verdict(attempt: int, reason: str) -> str:
    """Return the line that closes a failed attempt in the trial's log, newline included."""
    return f"attempt {attempt} failed: {shortened(reason)}\n"


def shortened(reason: str) -> str:
    """Return a reason on one line and not too long."""
    line = " ".join(reason.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 4]} ..."


def classify(
    error: BaseException | str | None, log: Path, attempt: int, dead_nodes: Collection[str] = ()
) -> tuple[str, str]:
    """Return kind (see FAILURES) and reason of a failed attempt.

    Args:
        error: What Ray gave for it, or its text; None if there is nothing.
        log: The trial's log.
        attempt: The attempt.
        dead_nodes: Ids of nodes that are known to be dead.
    """
    text, node = last_attempt(log, attempt)
    message = "" if error is None else str(error)
    if NO_PLACE in message:
        return "preempted", shortened(message.strip().splitlines()[-1])
    if not isinstance(error, RayTaskError):  # else the process lived on to tell
        if getattr(error, "preempted", False) or NODE.search(message) or (node and node in dead_nodes):
            return "preempted", f"its node was lost or taken away ({node or 'node unknown'})"
        if isinstance(error, OutOfMemoryError) or "running low on memory" in message:
            return "out_of_memory", out_of_memory(message)
    own = own_reason(text, attempt)
    if own is None and isinstance(error, RayTaskError):
        own = shortened(message.strip().splitlines()[-1] if message.strip() else type(error).__name__)
    if own is not None:
        return ("out_of_memory" if MEMORY.search(own) else "crashed"), own
    if TIMEOUT.search(text):
        return "timed_out", f"{FAILURES['timed_out']}; {where_it_was(text)}"
    return "crashed", death(error, message, text)


def last_attempt(log: Path, attempt: int) -> tuple[str, str]:
    """Return what the log says of an attempt since it began, and the node that it ran on; else empty."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "", ""
    begun = list(re.finditer(rf", attempt {attempt} \(pid \d+, node (\w*)\)$", text, re.MULTILINE))
    return (text[begun[-1].end() :], begun[-1][1]) if begun else ("", "")


def own_reason(text: str, attempt: int) -> str | None:
    """Return the reason that an attempt wrote itself; None if it could not write any."""
    mark = f"attempt {attempt} failed: "
    lines = [line for line in text.splitlines() if line.startswith(mark)]
    return lines[-1].removeprefix(mark) if lines else None


def out_of_memory(message: str) -> str:
    """Return why Ray's memory monitor ended a process, from its message of 40 lines."""
    found = re.search(r"was (\S+ used / \S+) limit", message)
    full = f" ({found[1]})" if found else ""
    return f"Ray ended the worker process because the memory of its node was nearly full{full}"


def where_it_was(text: str) -> str:
    """Return where the main thread stood in the last stacks that the watchdog wrote."""
    stacks = text[[found.end() for found in TIMEOUT.finditer(text)][-1] :]
    threads = [part for part in stacks.split("\n\n") if "most recent call first" in part]
    frames = re.findall(r'File "(.+)", line (\d+) in (.+)', threads[-1]) if threads else []
    if not frames:
        return "its log has the stacks of all threads"
    file, line, function = frames[0]
    return f"it was in {function} ({Path(file).name}:{line}); its log has the stacks of all threads"


def death(error: BaseException | str | None, message: str, text: str) -> str:
    """Return how a worker process died that left no reason of its own."""
    if fatal := FATAL.findall(text):
        name = next((number for _, number in reversed(fatal) if number), fatal[-1][0])
        return f"the worker process died ({name}); its log has the stack"
    if found := EXIT_CODE.search(message):
        return f"the worker process left with exit code {found[1]}"
    if isinstance(error, RayActorError) and error.actor_init_failed:
        return shortened(f"the worker process could not start: {message.strip().splitlines()[-1]}")
    if isinstance(error, ActorUnavailableError):
        return "the connection to the worker process was lost"
    return "the worker process died without a message (SIGKILL, or the machine's memory was full)"


def unsettled(error: BaseException | str | None, log: Path, attempt: int) -> bool:
    """Whether only time can tell why an attempt failed: its actor is out of reach, its node not yet dead."""
    if not isinstance(error, ActorUnavailableError):
        return False
    text, node = last_attempt(log, attempt)
    return own_reason(text, attempt) is None and node not in dead_nodes()


def dead_nodes() -> set[str]:
    """Return the ids of the cluster's nodes that are dead."""
    if not ray.is_initialized():
        return set()
    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}  # type: ignore[no-untyped-call]


def note(log: Path, attempt: int, kind: str, reason: str) -> None:
    """Write to a trial's log how an attempt ended whose process could not write it itself."""
    if own_reason(last_attempt(log, attempt)[0], attempt) is None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as handle:
            handle.write(verdict(attempt, f"{kind}: {reason}"))


def stored_error(trial: Any) -> BaseException | str | None:
    """Return the exception that Tune stored for a trial, its text if it cannot be loaded, or None.

    ``Trial.get_pickled_error`` looks where Tune would copy the file later, and finds nothing.
    """
    if trial.pickled_error_file:
        try:
            raw = Path(trial.pickled_error_file).read_bytes()
            error: BaseException = ray.cloudpickle.loads(raw)
            return error
        except (OSError, pickle.UnpicklingError, ImportError, AttributeError, TypeError, ValueError):
            pass  # of a class that the driver cannot make: its text is below
    if trial.error_file:
        with contextlib.suppress(OSError):
            return Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    return None


@contextlib.contextmanager
def lost_actors_are_failed_trials() -> Iterator[None]:
    """Let Tune take every loss of an actor as one failed trial.

    Tune 2.60 knows two errors of an actor's task, RayTaskError and RayActorError, and ends the whole run at
    any other: so when Ray's memory monitor kills a worker, which gives OutOfMemoryError. Inside the block
    such an error reaches Tune as a RayActorError with the same text.
    """
    handle: Callable[..., None] = RayActorManager._actor_task_failed

    def failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, (RayTaskError, RayActorError)):
            exception = RayActorError(error_msg=f"{type(exception).__name__}: {exception}")
        handle(self, tracked_actor_task=tracked_actor_task, exception=exception)

    RayActorManager._actor_task_failed = failed  # type: ignore[method-assign]
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = handle  # type: ignore[method-assign]
