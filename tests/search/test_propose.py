"""Proposals: pure functions of study, sampler, seed and index, inside the bounds."""

import random as stdlib_random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarx.search.propose import SAMPLERS, propose
from sarx.study.space import Parameter, contains

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


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_first_proposal_is_the_default(sampler):
    assert propose(SPACE, sampler, seed=1, index=0) == {}
    assert propose((), sampler, seed=1, index=5) == {}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_arguments_give_the_same_point_in_any_order(sampler):
    first = {i: propose(SPACE, sampler, seed=3, index=i) for i in range(12)}
    order = list(range(12))
    stdlib_random.Random(0).shuffle(order)
    for i in order:
        propose(SPACE[:2], sampler, seed=4, index=i)  # of another search
        assert propose(SPACE, sampler, seed=3, index=i) == first[i]
    assert len({repr(point) for point in first.values()}) == 12
    assert propose(SPACE, sampler, seed=4, index=1) != first[1]
    assert set(first[1]) == {parameter.key for parameter in SPACE}


@settings(max_examples=60, derandomize=True, deadline=None)
@given(spaces(), st.sampled_from(sorted(SAMPLERS)), st.integers(0, 2**63 - 1), st.integers(1, 9))
def test_points_lie_inside_the_bounds(space, sampler, seed, index):
    point = propose(space, sampler, seed=seed, index=index)
    assert list(point) == [parameter.key for parameter in space]
    for parameter in space:
        value = point[parameter.key]
        assert contains(parameter, value)
        if parameter.kind == "int":
            assert type(value) is int
        if parameter.step:
            steps = (value - parameter.low) / parameter.step
            assert steps == pytest.approx(round(steps), abs=1e-6)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_both_bounds_are_reached(sampler):
    space = (Parameter(key="a.b", kind="int", low=3, high=5),)
    assert {propose(space, sampler, seed=0, index=i)["a.b"] for i in range(1, 40)} == {3, 4, 5}


def test_qmc_covers_choices_and_ranges_evenly():
    points = [propose(SPACE, "qmc", seed=0, index=i) for i in range(1, 65)]
    counts = Counter(point["regularizer.anchor_dim"] for point in points)
    assert all(abs(counts[choice] - 64 / 3) <= 2 for choice in SPACE[3].choices)
    decades = Counter(int(point["optim.lr"] >= 1e-2) for point in points)
    assert abs(decades[0] - 32) <= 1
    quarters = Counter(round(point["optim.momentum"], 1) for point in points)
    assert min(quarters.values()) >= 5
    assert len(quarters) == 10
