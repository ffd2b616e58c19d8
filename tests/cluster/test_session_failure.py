"""Names and reasons of what fails on several workers."""

from __future__ import annotations

import pytest

from sarx.cluster.failures import heading
from sarx.cluster.mailbox import DIED
from sarx.cluster.session_failure import SessionFailure

LOST = [{"rank": 1, "pid": 7, "node": "abc"}]


@pytest.mark.parametrize(
    ("failure", "dead", "kind", "reason"),
    [
        ({"rank": 1, "reason": "ValueError: no luck"}, (), "crashed", "rank 1: ValueError: no luck"),
        (
            {"rank": 0, "reason": "torch.OutOfMemoryError: CUDA out of memory"},
            (),
            "out_of_memory",
            "rank 0: torch.OutOfMemoryError: CUDA out of memory",
        ),
        (
            {"lost": LOST, "reason": DIED},
            (),
            "crashed",
            f"rank 1 (pid 7): {DIED} (SIGKILL, or the machine's memory was full)",
        ),
        ({"lost": LOST, "reason": "it did not answer"}, (), "crashed", "rank 1 (pid 7): it did not answer"),
        (
            {"lost": LOST, "reason": DIED},
            ("abc",),
            "preempted",
            "the node of rank 1 (pid 7) was lost or taken away (abc)",
        ),
        ({"lost": [], "reason": DIED}, ("abc",), "crashed", None),
    ],
)
def test_kind_and_reason(tmp_path, failure, dead, kind, reason):
    found = SessionFailure(failure).classify(tmp_path / "log.txt", 1, dead)
    assert found[0] == kind
    assert reason is None or found[1] == reason


def test_the_log_of_a_rank_says_that_it_hung_or_crashed(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text(heading("sar search 0", "t", 1, 6, "abc") + "\n")
    other = tmp_path / "log-rank1.txt"
    head = heading("sar search 0", "t", 1, 7, "abc") + "\n"
    stack = 'Thread 0x1 (most recent call first):\n  File "/x/step.py", line 7 in forward\n'
    other.write_text(f"{head}Timeout (0:00:03)!\n{stack}")
    failure = SessionFailure({"lost": LOST, "reason": DIED})
    kind, reason = failure.classify(log, 1, ())
    assert kind == "timed_out"
    assert "it was in forward (step.py:7)" in reason
    other.write_text(f"{head}Fatal Python error: Segmentation fault\n")
    kind, reason = failure.classify(log, 1, ())
    assert (kind, "Segmentation fault" in reason) == ("crashed", True)


def test_only_silence_on_a_node_that_lives_is_not_settled():
    silent = SessionFailure({"lost": LOST, "reason": "no sign of life for 30 s"})
    assert silent.unsettled(())
    assert not silent.unsettled(("abc",))
    assert not SessionFailure({"lost": LOST, "reason": DIED}).unsettled(())
    assert not SessionFailure({"rank": 0, "reason": "boom"}).unsettled(())
