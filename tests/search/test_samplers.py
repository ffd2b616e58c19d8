"""tpe, gp and cmaes: pure functions of the history that learn from it, whatever became of its trials."""

import json
import logging
import subprocess
import sys
from statistics import median

import numpy as np
import optuna
import pytest

from sarx.search import sampler_cmaes, sampler_gp, sampler_tpe
from sarx.search.axes import axes, decode, encode, from_unit, on_axis, to_unit
from sarx.search.propose import Proposal, Told, common_point, next_batch
from sarx.study.search_options import Sampler
from sarx.study.seeds import derive
from sarx.study.space import Parameter

NUMBERS = (
    Parameter(key="optim.lr", kind="float", low=1e-3, high=0.1, log=True),
    Parameter(key="optim.momentum", kind="float", low=0.0, high=0.9, step=0.1),
    Parameter(key="training.batch_size", kind="int", low=2, high=64, log=True),
    Parameter(key="model.depth", kind="int", low=1, high=9, step=2),
)
SPACE = (*NUMBERS, Parameter(key="regularizer.anchor_dim", kind="choice", choices=(32, 128, "feature_dim")))
MODELS = ("tpe", "gp", "cmaes")
STATES = ("finished", "stopped", "diverged", "failed")


def space_of(sampler):
    """Return a space that the sampler takes."""
    return {"cmaes": NUMBERS, "tpe": SPACE, "gp": SPACE[::4]}[sampler]  # gp takes .3 s for a point


def loss(space, point):
    """Return the squared distance, on the axes, to a place off the middle."""
    return sum((to_unit(p, point[p.key]) - 0.3 - 0.05 * i) ** 2 for i, p in enumerate(space))


def tell(space, proposals, states=("finished",), goals=1):
    """Return what came of proposals, of states in turn."""
    return [
        Told(p.point, state, (loss(space, p.point), float(i))[:goals], epoch=3, memory=p.memory)
        for i, p in enumerate(proposals)
        for state in [states[i % len(states)]]
    ]


def start(space, count=8, seed=0):
    """Return start-up proposals."""
    return [Proposal(common_point(space, "qmc", seed=seed, index=i)) for i in range(1, count + 1)]


def batch(sampler, history, *, size=4, seed=0, modes=("min",), space=None):
    """Return the batch after a history."""
    return next_batch(
        space or space_of(sampler),
        Sampler(name=sampler),
        seed=seed,
        start=len(history),
        size=size,
        history=history,
        modes=modes,
    )


def search(sampler, space, *, seed, trials):
    """Return the least loss of a search in batches of 4, the first 8 points those of qmc."""
    history = []
    while len(history) < trials:
        if sampler == "random" or len(history) < 8:
            name = "random" if sampler == "random" else "qmc"
            points = range(len(history) + 1, len(history) + 5)
            proposals = [Proposal(common_point(space, name, seed=seed, index=i)) for i in points]
        else:
            proposals = batch(sampler, history, seed=seed, space=space)
        history += tell(space, proposals)
    return min(told.values[0] for told in history)


@pytest.mark.parametrize(
    ("sampler", "dimensions", "trials", "seeds"), [("tpe", 3, 40, 10), ("cmaes", 3, 40, 10), ("gp", 2, 12, 3)]
)
def test_a_model_beats_random_search(sampler, dimensions, trials, seeds):
    space = tuple(
        Parameter(key=f"a.p{i}", kind="float", low=1e-4, high=1.0, log=bool(i % 2)) for i in range(dimensions)
    )
    learned = [search(sampler, space, seed=seed, trials=trials) for seed in range(seeds)]
    drawn = [search("random", space, seed=seed, trials=trials) for seed in range(10)]
    assert median(learned) < 0.7 * median(drawn)


def three_batches():
    """Return a batch of each model as JSON values; what the fresh process prints."""
    found = {}
    for sampler in MODELS:
        history = tell(space_of(sampler), start(space_of(sampler), 6), ("finished", "stopped", "failed"))
        proposals = batch(sampler, history, size=1 if sampler == "gp" else 2)
        found[sampler] = [[p.point, dict(p.memory)] for p in proposals]
    return found


def test_a_batch_depends_on_nothing_that_ran_before():
    first = three_batches()
    np.random.seed(3)  # noqa: NPY002
    for sampler in MODELS:
        batch(sampler, tell(space_of(sampler), start(space_of(sampler), 4, seed=9)), size=2, seed=5)
    assert three_batches() == first
    script = (
        "import importlib.util, json, sys; spec = importlib.util.spec_from_file_location('t', sys.argv[1]); "
        "t = importlib.util.module_from_spec(spec); spec.loader.exec_module(t); "
        "print(json.dumps(t.three_batches()))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", script, __file__],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == first
    assert done.stderr == ""


@pytest.mark.parametrize("sampler", MODELS)
def test_points_of_a_batch_differ_from_each_other_and_between_seeds(sampler):
    history = tell(space_of(sampler), start(space_of(sampler)))
    points = [repr(proposal.point) for proposal in batch(sampler, history, size=3)]
    assert len(set(points)) == 3
    assert [repr(p.point) for p in batch(sampler, history, seed=1, size=2)] != points[:2]


@pytest.mark.parametrize("sampler", MODELS)
@pytest.mark.parametrize("states", [STATES, *((state,) for state in STATES[1:])])
def test_any_outcome_is_accepted(sampler, states):
    history = tell(space_of(sampler), start(space_of(sampler)), states)
    assert len(batch(sampler, history, size=2)) == 2


@pytest.mark.parametrize("sampler", MODELS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_values_that_no_model_can_use_are_accepted(sampler, value):
    first, *others = tell(space_of(sampler), start(space_of(sampler)))
    history = [Told(first.point, "finished", (value,)), Told(first.point, "stopped", ()), *others]
    assert len(batch(sampler, history, size=2)) == 2


@pytest.mark.parametrize("sampler", MODELS)
def test_nothing_is_needed_to_start(sampler):
    assert len(batch(sampler, [], size=2)) == 2


@pytest.mark.parametrize("sampler", MODELS)
def test_a_default_outside_its_range_is_left_out(sampler):
    space = space_of(sampler)
    history = tell(space, start(space))
    outside = Told({**history[0].point, "optim.lr": 0.5}, "finished", (-1.0,))
    arguments = {"seed": 0, "start": 8, "size": 2, "modes": ("min",)}
    proposals = next_batch(space, Sampler(name=sampler), history=[outside, *history], **arguments)
    assert proposals == next_batch(space, Sampler(name=sampler), history=history, **arguments)


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        (NUMBERS[1], 0.30000000000000004, True),
        (NUMBERS[1], 0.25, False),
        (NUMBERS[1], "0.3", False),
        (NUMBERS[1], None, False),
        (NUMBERS[2], 8.0, True),
        (NUMBERS[2], 8.5, False),
        (NUMBERS[2], True, False),
        (NUMBERS[3], 7, True),
        (NUMBERS[3], 8, False),
        (SPACE[4], "feature_dim", True),
        (SPACE[4], 64, False),
    ],
)
def test_values_between_steps_are_off_the_axis(parameter, value, expected):
    assert on_axis(parameter, value) is expected


def test_every_value_survives_the_unit_cube_and_optunas_counting():
    assert set(axes(SPACE)) == {p.key for p in SPACE}
    for index in range(1, 65):
        point = common_point(SPACE, "qmc", seed=0, index=index)
        assert decode(SPACE, encode(SPACE, point)) == point
        for p in SPACE[1:]:
            assert from_unit(p, to_unit(p, point[p.key])) == point[p.key]
        lr = point["optim.lr"]
        assert from_unit(SPACE[0], to_unit(SPACE[0], lr)) == pytest.approx(lr, rel=1e-12)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
@pytest.mark.parametrize("states", [STATES, ("failed",)])
def test_several_goals(sampler, states):
    space = space_of(sampler)
    history = tell(space, start(space), states, goals=2)
    assert len(batch(sampler, history, size=2, modes=("min", "max"))) == 2


def test_tpe_follows_both_goals():
    space = NUMBERS[:1]
    history = []
    for proposal in start(space, 16):
        unit = to_unit(space[0], proposal.point["optim.lr"])
        history.append(Told(proposal.point, "finished", (abs(unit - 0.2), -abs(unit - 0.3))))
    proposals = batch("tpe", history, size=8, modes=("min", "max"), space=space)
    assert 0.1 < median(to_unit(space[0], p.point["optim.lr"]) for p in proposals) < 0.4


def test_the_sign_of_the_goal_turns_the_search():
    space = NUMBERS[:1]
    history = tell(space, start(space, 16))
    for sampler in ("tpe", "gp"):
        low = batch(sampler, history, space=space, modes=("min",), size=1)
        high = batch(sampler, history, space=space, modes=("max",), size=1)
        assert low[0].point["optim.lr"] < 0.02 < high[0].point["optim.lr"]


def test_outcomes_are_told_to_tpe_as_documented():
    def known(told, goals=1):
        return sampler_tpe._known(told, (9.0,), goals)

    point = {"a": 1}
    assert known(Told(point, "finished", (1.0,))).state == "COMPLETE"
    assert known(Told(point, "diverged")).values == (9.0,)
    assert known(Told(point, "finished", (float("nan"),))).values == (9.0,)
    assert sampler_tpe._known(Told(point, "diverged"), None, 1) is None
    assert known(Told(point, "failed")).state == "FAIL"
    stopped = Told(point, "stopped", (2.0, 3.0), epoch=4)
    assert known(stopped).state == "PRUNED"
    assert known(stopped).rung == {4: 2.0}
    assert known(stopped, goals=2).rung == {}


@pytest.mark.parametrize(("rung", "expected"), [(0.1, 0.5), (0.6, 0.6), (7.0, 0.9)])
def test_a_stopped_trial_is_told_to_gp_between_median_and_worst(rung, expected):
    stopped = Told({}, "stopped", (rung,), epoch=1)
    assert sampler_gp._values(stopped, (0.9,), (0.5,)) == (expected,)
    assert sampler_gp._values(stopped, None, ()) == (rung,)


def generations(states=("finished",), count=3, size=4, space=NUMBERS):
    """Return the history of a cmaes search: start-up points, then generations."""
    history = tell(space, start(space))
    for _ in range(count):
        history += tell(space, batch("cmaes", history, size=size, space=space), states)
    return history


def test_cmaes_remembers_in_json_and_does_not_drift_when_rebuilt():
    history = generations()
    assert [told.memory["generation"] for told in history[8:]] == [0] * 4 + [1] * 4 + [2] * 4
    through_json = [
        Told(t.point, t.state, t.values, t.epoch, json.loads(json.dumps(dict(t.memory)))) for t in history
    ]
    assert batch("cmaes", through_json) == batch("cmaes", history)
    for end in (8, 12, 16):
        asked = batch("cmaes", history[:end])
        assert [p.memory for p in asked] == [t.memory for t in history[end : end + 4]]
        assert [p.point for p in asked] == [t.point for t in history[end : end + 4]]


def test_cmaes_rebuilt_equals_one_that_was_never_dropped():
    from cmaes import CMA

    history = generations(count=4)
    best = min(history[:8], key=lambda told: told.values)
    mean = np.array([to_unit(p, best.point[p.key]) for p in NUMBERS])
    kept = CMA(mean=mean, sigma=1 / 6, bounds=np.array([[0.0, 1.0]] * 4), population_size=4)
    for first in range(8, 24, 4):
        kept.reseed_rng(derive(0, first) % 2**32)
        asked = [kept.ask().tolist() for _ in range(4)]
        assert asked == [told.memory["x"] for told in history[first : first + 4]]
        kept.tell([(np.array(t.memory["x"]), t.values[0]) for t in history[first : first + 4]])


@pytest.mark.parametrize("states", [STATES, ("failed",), ("stopped", "failed")])
def test_cmaes_goes_on_after_any_generation(states):
    history = generations(states)
    assert batch("cmaes", history)[0].memory["generation"] == 3


@pytest.mark.parametrize(("dimensions", "size"), [(1, 2), (1, 5), (2, 2), (2, 3), (4, 12)])
def test_cmaes_takes_one_dimension_and_small_populations(dimensions, size):
    history = generations(space=NUMBERS[:dimensions], size=size, count=6)
    assert all(0 <= x <= 1 for told in history[8:] for x in told.memory["x"])


def test_cmaes_starts_again_when_the_batch_or_the_space_changes():
    history = generations(count=2)
    anew = batch("cmaes", history, size=8)
    assert {p.memory["generation"] for p in anew} == {0}
    longer = history + tell(NUMBERS, anew)
    assert {p.memory["generation"] for p in batch("cmaes", longer, size=8)} == {1}
    assert {p.memory["generation"] for p in batch("cmaes", longer, size=4)} == {0}
    assert {p.memory["generation"] for p in batch("cmaes", history, space=NUMBERS[:2])} == {0}


def test_cmaes_starts_anew_where_the_memories_are_of_other_proposals():
    history = generations(count=2)
    swapped = [
        *history[:-2],
        Told(history[-2].point, "finished", (1.0,), memory=history[8].memory),
        history[-1],
    ]
    for broken in (swapped, history[-4:]):
        assert {proposal.memory["generation"] for proposal in batch("cmaes", broken)} == {0}


def test_cmaes_ranks_finished_before_stopped_before_the_rest():
    memory = {"x": [0.5]}
    told = [
        Told({}, "failed", memory=memory),
        Told({}, "stopped", (0.9,), 2, memory),
        Told({}, "finished", (0.1,), memory=memory),
        Told({}, "stopped", (0.2,), 5, memory),
        Told({}, "finished", (0.3,), memory=memory),
        Told({}, "diverged", memory=memory),
        Told({}, "stopped", (0.95,), 2, memory),
    ]
    assert [rank for _, rank in sampler_cmaes._ranked(told, ("max",))] == [5, 4, 1, 2, 0, 5, 3]
    assert sampler_cmaes._ranked([told[0], told[5]], ("max",)) == []


def test_optuna_stays_silent_and_keeps_its_verbosity(caplog, capsys):
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.enable_propagation()
    try:
        with caplog.at_level(logging.DEBUG):
            for sampler in MODELS:
                batch(sampler, tell(space_of(sampler), start(space_of(sampler))), size=2)
    finally:
        optuna.logging.disable_propagation()
    assert [record for record in caplog.records if record.name.startswith("optuna")] == []
    assert capsys.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == verbosity
