"""Points by index are pure functions of seed and index; the points of all samplers lie inside the bounds."""

import itertools
import json
import random as stdlib_random
import time
import warnings
from collections import Counter

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarx.search.propose import Told, check, common_point, confounding, next_batch
from sarx.search.scrambling import scrambling
from sarx.study.search_options import Sampler
from sarx.study.seeds import derive
from sarx.study.space import Parameter, cells, contains, levels

ENDLESS = ("qmc", "random")

SPACE = (
    Parameter(key="optim.lr", kind="float", low=1e-3, high=0.1, log=True),
    Parameter(key="optim.momentum", kind="float", low=0.0, high=0.9, step=0.1),
    Parameter(key="training.batch_size", kind="int", low=2, high=64, log=True),
    Parameter(key="regularizer.anchor_dim", kind="choice", choices=(32, 128, "feature_dim")),
)


@st.composite
def spaces(draw):
    """Draw one to four parameters of any kind."""
    space = []
    for i in range(draw(st.integers(1, 4))):
        kind = draw(
            st.sampled_from(["float", "float log", "float step", "int", "int log", "int step", "choice"])
        )
        key = f"optim.p{i}"
        if kind == "choice":
            values = draw(st.lists(st.integers(0, 99), min_size=2, max_size=5, unique=True))
            space.append(Parameter(key=key, kind="choice", choices=tuple(values)))
            continue
        whole, log, step = kind.startswith("int"), kind.endswith("log"), None
        number = st.integers if whole else st.floats
        low = draw(number(1 if log else -50, 50)) if whole else draw(number(1e-6 if log else -50.0, 50.0))
        if kind.endswith("step"):
            step = draw(st.integers(1, 5)) if whole else draw(st.sampled_from([0.1, 0.25, 0.5]))
            low = low if whole else round(low, 2)  # as people write it
            high = round(low + step * draw(st.integers(1, 20)), 2)
        else:
            high = low + draw(st.integers(1, 500) if whole else st.floats(1e-6, 500.0))
        space.append(
            Parameter(key=key, kind="int" if whole else "float", low=low, high=high, log=log, step=step)
        )
    return tuple(space)


@pytest.mark.parametrize("sampler", [*ENDLESS, "tpe", "gp", "cmaes"])
def test_the_first_proposal_is_the_default(sampler):
    assert common_point(SPACE, sampler, seed=1, index=0) == {}
    assert common_point((), sampler, seed=1, index=5) == {}


@pytest.mark.parametrize("sampler", ENDLESS)
def test_the_same_arguments_give_the_same_point_in_any_order(sampler):
    first = {i: common_point(SPACE, sampler, seed=3, index=i) for i in range(12)}
    order = list(range(12))
    stdlib_random.Random(0).shuffle(order)
    for i in order:
        common_point(SPACE[:2], sampler, seed=4, index=i)  # of another search
        again = common_point(SPACE, sampler, seed=3, index=i)
        assert again == first[i]
        again.clear()  # a caller may change what it was given
    assert common_point(SPACE, sampler, seed=3, index=5) == first[5]
    assert len({repr(point) for point in first.values()}) == 12
    assert common_point(SPACE, sampler, seed=4, index=1) != first[1]
    assert set(first[1]) == {parameter.key for parameter in SPACE}


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])
def test_start_up_points_are_those_of_qmc(sampler):
    for index in range(9):
        assert common_point(SPACE, sampler, seed=2, index=index) == common_point(
            SPACE, "qmc", seed=2, index=index
        )


def check_point(space, point):
    """Fail unless the point has one plain value inside the range for each parameter."""
    assert list(point) == [parameter.key for parameter in space]
    for parameter in space:
        value = point[parameter.key]
        assert contains(parameter, value)
        if parameter.kind == "choice":
            assert any(value is choice for choice in parameter.choices)
            continue
        assert type(value) is {"int": int, "float": float}[parameter.kind]
        if parameter.step:
            assert value in levels(parameter)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(spaces(), st.sampled_from(ENDLESS), st.integers(0, 2**63 - 1), st.integers(1, 9))
def test_points_lie_inside_the_bounds(space, sampler, seed, index):
    check_point(space, common_point(space, sampler, seed=seed, index=index))


def check_batch(space, sampler, seed, states, size=3):
    """Fail unless a batch after trials of these states is good and the same twice."""
    history = [
        Told(common_point(space, "random", seed=seed, index=i + 1), state, (float(i % 5),), epoch=2)
        for i, state in enumerate(states)
    ]
    arguments = {"seed": seed, "start": len(states), "size": size, "history": history, "modes": ("min",)}
    batch = next_batch(space, Sampler(name=sampler), **arguments)
    assert len(batch) == size
    for proposal in batch:
        check_point(space, proposal.point)
        assert json.loads(json.dumps(proposal.memory)) == proposal.memory
    assert next_batch(space, Sampler(name=sampler), **arguments) == batch


STATES = st.lists(st.sampled_from(["finished", "stopped", "diverged", "failed"]), max_size=12)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(spaces(), st.integers(0, 2**63 - 1), STATES)
def test_points_of_tpe_lie_inside_the_bounds(space, seed, states):
    check_batch(space, "tpe", seed, states)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(spaces(), st.integers(0, 2**63 - 1), STATES)
def test_points_of_cmaes_lie_inside_the_bounds(space, seed, states):
    numbers = tuple(parameter for parameter in space if parameter.kind != "choice")
    if numbers:
        check_batch(numbers, "cmaes", seed, states)


@settings(max_examples=3, derandomize=True, deadline=None)
@given(spaces(), st.integers(0, 2**63 - 1), STATES)
def test_points_of_gp_lie_inside_the_bounds(space, seed, states):
    check_batch(space, "gp", seed, states, size=1)


@pytest.mark.parametrize("sampler", ENDLESS)
def test_both_bounds_are_reached(sampler):
    space = (Parameter(key="a.b", kind="int", low=3, high=5),)
    assert {common_point(space, sampler, seed=0, index=i)["a.b"] for i in range(1, 40)} == {3, 4, 5}


def test_qmc_covers_choices_and_ranges_evenly():
    points = [common_point(SPACE, "qmc", seed=0, index=i) for i in range(1, 65)]
    counts = Counter(point["regularizer.anchor_dim"] for point in points)
    assert all(abs(counts[choice] - 64 / 3) <= 2 for choice in SPACE[3].choices)
    decades = Counter(int(point["optim.lr"] >= 1e-2) for point in points)
    assert abs(decades[0] - 32) <= 1
    quarters = Counter(round(point["optim.momentum"], 1) for point in points)
    assert min(quarters.values()) >= 5
    assert len(quarters) == 10


KINDS = {
    "float": Parameter(key="a.float", kind="float", low=-1.7, high=2.9),
    "float log": Parameter(key="a.float_log", kind="float", low=1e-6, high=0.3, log=True),
    "float step": Parameter(key="a.float_step", kind="float", low=0.1, high=0.7, step=0.2),
    "int": Parameter(key="a.int", kind="int", low=-3, high=9),
    "int log": Parameter(key="a.int_log", kind="int", low=1, high=1000, log=True),
    "int step": Parameter(key="a.int_step", kind="int", low=2, high=17, step=3),
    "choice": Parameter(key="a.choice", kind="choice", choices=("x", None, True, 0.5)),
}


@pytest.mark.parametrize("space", [(p,) for p in KINDS.values()] + [tuple(KINDS.values())])
@pytest.mark.parametrize("seed", [0, 2**62 + 1])
def test_qmc_points_are_those_of_optuna(space, seed):
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    sampler = optuna.samplers.QMCSampler(
        qmc_type="halton", scramble=True, seed=scrambling(len(space), seed), warn_independent_sampling=False
    )
    assert optuna_points(space, sampler, 64) == [
        common_point(space, "qmc", seed=seed, index=i) for i in range(1, 65)
    ]


@pytest.mark.parametrize("space", [(p,) for p in KINDS.values()] + [tuple(KINDS.values())])
def test_random_points_are_those_of_optuna(space):
    for index in range(1, 65):
        sampler = optuna.samplers.RandomSampler(seed=derive(5, "random", index - 1) % 2**32)
        assert optuna_points(space, sampler, 1) == [common_point(space, "random", seed=5, index=index)]


def optuna_points(space, sampler, count):
    """Return the sampler's first points, choices drawn as positions on a whole-number axis."""
    distributions = {}
    for p in space:
        if p.kind == "choice":
            distributions[p.key] = optuna.distributions.IntDistribution(0, len(p.choices) - 1)
        elif p.kind == "int":
            distributions[p.key] = optuna.distributions.IntDistribution(
                p.low, p.high, log=p.log, step=p.step or 1
            )
        else:
            distributions[p.key] = optuna.distributions.FloatDistribution(
                p.low, p.high, log=p.log, step=p.step
            )
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler)
    optuna.logging.set_verbosity(verbosity)
    lowest = {key: distribution.low for key, distribution in distributions.items()}
    study.add_trial(optuna.create_trial(params=lowest, distributions=distributions, value=0.0))
    asked = [study.ask(distributions).params for _ in range(count)]
    return [
        {p.key: p.choices[params[p.key]] if p.kind == "choice" else params[p.key] for p in space}
        for params in asked
    ]


def test_ten_thousand_qmc_points_take_less_than_two_seconds():
    space = tuple(Parameter(key=f"a.p{i}", kind="float", low=1e-3, high=1.0, log=True) for i in range(6))
    common_point(space, "qmc", seed=77, index=1)  # the choice of the scrambling
    started = time.process_time()
    points = {repr(common_point(space, "qmc", seed=77, index=i)) for i in range(1, 10_001)}
    assert time.process_time() - started < 2
    assert len(points) == 10_000


def test_a_grid_gives_each_cell_once_first_parameter_slowest():
    space = (KINDS["choice"], KINDS["float step"], KINDS["int step"])
    points = [common_point(space, "grid", seed=index, index=index) for index in range(cells(space))]
    assert [tuple(point.values()) for point in points] == list(itertools.product(*map(levels, space)))
    assert list(points[0]) == [parameter.key for parameter in space]
    for index in (cells(space), -1):
        with pytest.raises(ValueError, match="no cell"):
            common_point(space, "grid", seed=0, index=index)
    assert common_point((), "grid", seed=0, index=0) == {}


def test_confounding_names_the_two_parameters_and_is_nothing_for_a_grid():
    value, first, second = confounding(SPACE, SPACE, "qmc", seed=0, trials=8)
    assert 0 < value < 1
    assert first != second
    assert confounding(SPACE, SPACE, "tpe", seed=0, trials=8) == (value, first, second)
    assert confounding(SPACE, SPACE, "random", seed=0, trials=8)[0] > 0
    assert confounding(SPACE, SPACE, "grid", seed=0, trials=8) == (0.0, "", "")
    assert confounding(SPACE, SPACE[:1], "qmc", seed=0, trials=8) == (0.0, "", "")
    assert confounding(SPACE, SPACE, "qmc", seed=0, trials=5) == (0.0, "", "")


@pytest.mark.parametrize(
    ("space", "sampler", "batch", "message"),
    [
        (SPACE, "qmc", 4, "learns nothing"),
        ((), "tpe", 4, "empty"),
        (SPACE, "cmaes", 4, "list of choices"),
        (SPACE[:2], "cmaes", 1, "too small"),
        ((Parameter(key="a.b", kind="int", low=0, high=10**9),), "gp", 4, "1000000001 values"),
    ],
)
def test_what_a_sampler_cannot_do_is_refused(space, sampler, batch, message):
    with pytest.raises(ValueError, match=message):
        check(space, sampler, batch=batch)
    with pytest.raises(ValueError, match=message):
        next_batch(space, Sampler(name=sampler), seed=0, start=0, size=batch, history=(), modes=("max",))
