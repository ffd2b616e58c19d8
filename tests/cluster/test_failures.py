"""Kinds and reasons of failures, from Ray's errors as Ray 2.60 makes them (real ones are in tests/ray)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray.cloudpickle
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
)

from sarx.cluster import failures
from sarx.cluster.capture import captured
from sarx.cluster.failures import classify, heading, note, verdict

DIED = "The actor died unexpectedly before finishing this task.\n\tclass_name: TrialHost\n"
KILLED = (
    DIED
    + "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit "
    "detail: Worker unexpectedly exits with a connection error code 2. End of file. Some common causes "
    "include: (1) the process was killed by the OOM killer due to high memory usage."
)
LEFT = KILLED.partition("Worker exit detail")[0] + "Worker exit detail: Worker exits with an exit code 3."
NODE_DIED = DIED + "The actor died because its node has died. Node Id: abc\n\tthe actor's node was terminated"
MONITOR = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 1.2.3.4, ID: be) "
    "was 4.26GB used / 23.54GB limit (0.181085)\nOOM kill reason: Memory usage exceeded"
)
STACKS = """\
Timeout (0:00:30)!
Thread 0x00007f4c127fc6c0 (most recent call first):
  File "/lib/threading.py", line 327 in wait

Thread 0x00007f4c5b441b80 (most recent call first):
  File "/sarx/training/loop.py", line 25 in train_epoch
  File "/sarx/cluster/trial.py", line 70 in step
"""


def died(text):
    error = ActorDiedError()
    error.error_msg = text
    return error


def in_task(cause):
    return RayTaskError("train", f"Traceback:\n  File x\n{type(cause).__name__}: {cause}", cause)


@pytest.fixture
def log(tmp_path):
    """A log with an attempt that failed before, and one that began on node abc."""
    path = tmp_path / "log.txt"
    path.write_text(
        heading("sar search 0", "0" * 16, 1, 7, "abc")
        + "\n"
        + STACKS
        + verdict(1, "ValueError: old")
        + heading("sar search 0", "0" * 16, 2, 8, "abc")
        + "\n"
    )
    return path


@pytest.mark.parametrize(
    ("error", "written", "kind", "reason"),
    [
        (in_task(ValueError("x")), "attempt 2 failed: ValueError: x", "crashed", "ValueError: x"),
        (in_task(ValueError("the disk is full")), "", "crashed", "ValueError: the disk is full"),
        (in_task(MemoryError("m")), "attempt 2 failed: MemoryError: m", "out_of_memory", "MemoryError: m"),
        (
            in_task(RuntimeError("CUDA error: out of memory")),
            "attempt 2 failed: RuntimeError: CUDA error: out of memory",
            "out_of_memory",
            "CUDA error",
        ),
        (
            in_task(RuntimeError("x")),
            "attempt 2 failed: OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
            "out_of_memory",
            "CUDA out of memory",
        ),
        (OutOfMemoryError(MONITOR), "", "out_of_memory", "nearly full (4.26GB used / 23.54GB)"),
        (RayActorError(error_msg=f"OutOfMemoryError: {MONITOR}"), "", "out_of_memory", "nearly full"),
        (f"Failure # 1 (occurred at)\n{MONITOR}", "", "out_of_memory", "nearly full"),
        (died(NODE_DIED), "", "preempted", "its node was lost or taken away (abc)"),
        (RayActorError(preempted=True), "", "preempted", "its node was lost"),
        (died(KILLED), STACKS, "timed_out", "it was in train_epoch (loop.py:25)"),
        (died(KILLED), "", "crashed", "died without a message"),
        (died(LEFT), "", "crashed", "left with exit code 3"),
        (died(LEFT), "attempt 2 failed: SystemExit: 3", "crashed", "SystemExit: 3"),
        (died(KILLED), "Fatal Python error: Segmentation fault\n", "crashed", "died (Segmentation fault)"),
        (died(KILLED), "*** SIGABRT received at time=1 on cpu 1 ***", "crashed", "died (SIGABRT)"),
        (
            ActorUnavailableError("RPC error: Socket closed", None),
            "",
            "crashed",
            "the connection to the worker process was lost",
        ),
        (None, "", "crashed", "died without a message"),
    ],
)
def test_kinds_and_reasons(log, error, written, kind, reason):
    with log.open("a") as handle:
        handle.write(f"{written}\n" if written else "")
    found = classify(error, log, 2)
    assert found[0] == kind
    assert reason in found[1]
    assert "\n" not in found[1]


def test_a_trial_without_a_log_has_a_reason_too(tmp_path):
    assert classify(None, tmp_path / "log.txt", 1)[0] == "crashed"
    assert classify(in_task(OSError(28, "No space left on device")), tmp_path / "log.txt", 1) == (
        "crashed",
        "OSError: [Errno 28] No space left on device",
    )


def test_an_unreachable_actor_is_preempted_once_its_node_is_known_to_be_dead(log, monkeypatch):
    error = ActorUnavailableError("RPC error: Socket closed", None)
    dead = set()
    monkeypatch.setattr(failures, "dead_nodes", lambda: dead)
    assert failures.unsettled(error, log, 2)
    assert not failures.unsettled(died(KILLED), log, 2)
    dead.add("abc")
    assert not failures.unsettled(error, log, 2)
    assert classify(error, log, 2, dead)[0] == "preempted"
    assert classify(in_task(ValueError("x")), log, 2, dead)[0] == "crashed"  # it lived on to tell


def test_a_word_of_memory_in_what_a_trial_printed_is_no_failure_of_memory(log):
    with log.open("a") as handle:
        handle.write("CUDA out of memory is what this trial prints\nattempt 2 failed: KeyError: 'a'\n")
    assert classify(in_task(KeyError("a")), log, 2) == ("crashed", "KeyError: 'a'")


def test_how_an_attempt_ended_is_noted_once(log):
    note(log, 2, "crashed", "the worker\nprocess died")
    note(log, 2, "crashed", "again")
    assert log.read_text().splitlines()[-1] == "attempt 2 failed: crashed: the worker process died"
    assert classify(died(KILLED), log, 2)[1] == "crashed: the worker process died"


def test_a_long_reason_of_many_lines_is_one_short_line(tmp_path):
    log = tmp_path / "log.txt"
    with pytest.raises(ValueError, match="a"), captured(log, 1):
        raise ValueError("a\n" * 5000)
    assert len(log.read_text().splitlines()[-1]) < failures.LONGEST + 30


def test_the_error_that_tune_stored_is_read_where_tune_wrote_it(tmp_path):
    pickled, text = tmp_path / "error.pkl", tmp_path / "error.txt"
    pickled.write_bytes(ray.cloudpickle.dumps(in_task(ValueError("x")).as_instanceof_cause()))
    text.write_text("Failure # 1\nsome text")
    stored = failures.stored_error(SimpleNamespace(pickled_error_file=str(pickled), error_file=str(text)))
    assert isinstance(stored, ValueError)
    assert isinstance(stored, RayTaskError)
    pickled.write_bytes(b"\x80\x04cmissing_module\nThing\n.")
    stored = failures.stored_error(SimpleNamespace(pickled_error_file=str(pickled), error_file=str(text)))
    assert stored == "Failure # 1\nsome text"
    assert failures.stored_error(SimpleNamespace(pickled_error_file=None, error_file=None)) is None


def test_an_error_that_tune_does_not_know_reaches_it_as_a_lost_actor():
    """Else Tune ends the whole run: RuntimeError("Caught unexpected exception")."""
    seen = []
    actor = SimpleNamespace(actor_id=1, _on_error=lambda tracked, error: seen.append(error))
    task = SimpleNamespace(_tracked_actor=actor, _on_error=None)
    manager = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    with failures.lost_actors_are_failed_trials():
        RayActorManager._actor_task_failed(
            manager, tracked_actor_task=task, exception=OutOfMemoryError(MONITOR)
        )
    assert isinstance(seen[0], RayActorError)
    again = ray.cloudpickle.loads(ray.cloudpickle.dumps(seen[0]))
    assert MONITOR in str(again)
    with pytest.raises(RuntimeError, match="unexpected exception"):
        RayActorManager._actor_task_failed(manager, task, OutOfMemoryError(MONITOR))
