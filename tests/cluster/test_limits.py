from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from sarx.cluster import limits
from sarx.cluster.limits import Guard
from sarx.study.schema import Limits


def guard(spent=(0, 0.0), done=False, hours_ago=0.0, **values):
    engine = SimpleNamespace(spent=lambda: spent, done=done)
    return Guard(Limits(**values), engine, time.monotonic() - 3600 * hours_ago)


def test_without_limits_nothing_is_reached_and_nothing_is_asked():
    free = Guard(Limits(), None, 0.0)
    assert free.reached() is None
    assert free.admits(10**6)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"max_hours": 2.0, "hours_ago": 1.9}, None),
        ({"max_hours": 2.0, "hours_ago": 2.1}, "limits.max_hours=2 is reached: this start has run 2.1 hours"),
        ({"max_trials": 5, "spent": (4, 9.0)}, None),
        ({"max_trials": 5, "spent": (5, 9.0)}, "limits.max_trials=5 is reached: 5 trials are decided"),
        ({"max_gpu_hours": 9.5, "spent": (4, 9.0)}, None),
        (
            {"max_gpu_hours": 8.5, "spent": (4, 9.0)},
            "limits.max_gpu_hours=8.5 is reached: 9 GPU hours are used",
        ),
        ({"max_trials": 5, "spent": (5, 9.0), "done": True}, None),
        ({"max_hours": 2.0, "hours_ago": 2.1, "done": True}, None),
    ],
)
def test_the_limit_that_is_reached_is_named(arguments, sentence):
    assert guard(**arguments).reached() == sentence


@pytest.mark.parametrize(("decided", "running", "admitted"), [(0, 0, True), (2, 2, True), (3, 2, False)])
def test_decided_and_running_trials_never_exceed_the_limit(decided, running, admitted):
    assert guard(max_trials=5, spent=(decided, 0.0)).admits(running) is admitted


def test_what_was_spent_is_looked_up_now_and_then(monkeypatch):
    looks = []
    engine = SimpleNamespace(spent=lambda: looks.append(1) or (0, 0.0), done=False)
    now = [100.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: now[0])
    one = Guard(Limits(max_trials=1), engine, 100.0)
    for _ in range(100):
        one.reached()
        now[0] += limits.LOOK_S / 10
    assert len(looks) == pytest.approx(10, abs=1)
