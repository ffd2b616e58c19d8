"""Which segments Tune holds and which of them gets a free actor; the real Tune is in tests/ray."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sarx.cluster import slots as module
from sarx.cluster.slots import LOOK_S, PATIENCE_S, Slots


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


class Tune:
    """What a scheduler sees of Tune's controller."""

    def __init__(self):
        self.live = {}
        self.kept = []
        cache = SimpleNamespace(increase_max=lambda key, by: self.kept.append((key, by)))
        sets = {name: set() for name in ("_stopped_trials", "_failed_trials", "_trials_to_cache")}
        self._tune_controller = SimpleNamespace(_actor_cache=cache, _trials=[], **sets)

    def add(self, slots, name, clock):
        clock.now += 0.01
        slots.handed(name)
        trial = SimpleNamespace(trial_id=name, status="PENDING", placement_group_factory="one CPU")
        self.live[name] = trial
        slots.on_trial_add(self, trial)

    def start(self, slots, name):
        self.live[name].status = "RUNNING"
        slots.started(name)

    def get_live_trials(self):
        return set_of(self.live.values())


def set_of(trials):
    return sorted(trials, key=lambda trial: hash(trial.trial_id))  # Tune's is a set: in no order


def test_every_slot_is_given_a_segment_at_once_and_one_ahead_when_all_run(clock):
    slots, tune = Slots(lambda: 3), Tune()
    for name in "abc":
        assert slots.room()
        tune.add(slots, name, clock)
    assert not slots.room()
    tune.start(slots, "a")
    tune.start(slots, "b")
    assert not slots.room()  # c's actor is being started
    tune.start(slots, "c")
    assert slots.room()  # one ahead
    tune.add(slots, "d", clock)
    assert not slots.room()
    slots.freed("a")
    assert not slots.room()  # d takes the place
    tune.start(slots, "d")
    assert slots.room()


def test_it_follows_the_cluster(clock):
    size = [1]
    slots, tune = Slots(lambda: size[0]), Tune()
    assert slots.room()
    tune.add(slots, "a", clock)
    assert not slots.room()
    size[0] = 2
    assert not slots.room()  # the cluster is not asked at every step
    clock.now += LOOK_S
    assert slots.room()
    size[0] = 0  # the only node is gone
    clock.now += LOOK_S
    assert not slots.room()


def test_a_segment_whose_actor_starts_keeps_it_while_newer_ones_wait(clock):
    slots, tune = Slots(lambda: 2), Tune()
    for name in "ab":
        tune.add(slots, name, clock)
    tune.start(slots, "a")
    slots.freed("a")
    tune.live.pop("a")
    tune.add(slots, "c", clock)
    assert slots.choose_trial_to_run(tune).trial_id == "c"  # not b, whose actor is on its way
    clock.now += PATIENCE_S
    assert slots.choose_trial_to_run(tune).trial_id == "b"  # its actor does not come


def test_running_segments_are_not_chosen(clock):
    slots, tune = Slots(lambda: 2), Tune()
    assert slots.choose_trial_to_run(tune) is None
    tune.add(slots, "a", clock)
    tune.start(slots, "a")
    assert slots.choose_trial_to_run(tune) is None


def test_free_actors_are_kept_for_all_of_the_run(clock):
    slots, tune = Slots(lambda: 2), Tune()
    for name in "ab":
        tune.add(slots, name, clock)
    assert [key for key, _ in tune.kept] == ["one CPU"]
    assert tune.kept[0][1] >= 10_000


class Over:
    """A Tune trial that has ended, or has not."""

    def __init__(self, finished=True):
        self.finished, self.placement_group_factory = finished, "one CPU"

    def is_finished(self):
        return self.finished


def test_tune_forgets_what_is_over_but_for_the_last_trial(clock):
    slots, tune = Slots(lambda: 3), Tune()
    known = tune._tune_controller
    trials = [Over(), Over(finished=False), Over()]
    for trial in trials:
        slots.on_trial_add(tune, trial)
        known._trials.append(trial)
        known._stopped_trials.add(trial)
        known._trials_to_cache.add(trial)
    assert slots.forget([*trials]) == [trials[1]]
    assert known._trials == [trials[1]]
    assert known._stopped_trials == known._trials_to_cache == {trials[1]}
    trials[1].finished = True
    assert slots.forget([trials[1]]) == [trials[1]]  # Tune wants one at its end
    assert known._trials == [trials[1]]
