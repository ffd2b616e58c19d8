"""Rungs: where they stand, and who goes on."""

import math

import pytest

from sarx.search.rungs import above_median, in_top_share, rung_epochs, survivors
from sarx.study.search_options import Scheduler

BAD = -math.inf


@pytest.mark.parametrize(
    ("options", "epochs", "rungs"),
    [
        ({"name": "none"}, 9, ()),
        ({}, 9, (3,)),  # 3, then 9 is the end
        ({}, 8, (3,)),  # a third of 8, rounded up
        ({}, 27, (9,)),
        ({"min_fraction": 0.1}, 30, (3, 9, 27)),
        ({"min_fraction": 0.1, "reduction_factor": 2}, 30, (3, 6, 12, 24)),
        ({"min_fraction": 0.33}, 100, (33,)),  # 99 would save one epoch of a hundred
        ({}, 1, ()),
        ({}, 2, (1,)),
        ({"min_fraction": 0.95}, 100, (95,)),  # asked for
    ],
)
def test_rung_epochs(options, epochs, rungs):
    assert rung_epochs(Scheduler(**({"name": "successive_halving"} | options)), epochs) == rungs


@pytest.mark.parametrize(
    ("values", "factor", "kept"),
    [
        ([1, 4, 3, 2], 3, {1}),
        ([1, 4, 3, 2], 2, {1, 2}),
        ([1, 1, 1, 1], 2, {0, 1}),  # ties go to the earlier
        ([1.0], 3, {0}),
        ([BAD, 1, BAD, BAD], 2, {1}),  # failed trials count as last and never go on
        ([BAD, BAD], 2, set()),
        ([], 2, set()),
    ],
)
def test_survivors(values, factor, kept):
    assert survivors(values, factor) == kept


def test_the_top_share():
    assert in_top_share(0.1, [], 3)
    assert in_top_share(0.5, [0.4, 0.3], 3)
    assert not in_top_share(0.35, [0.4, 0.3], 3)
    assert in_top_share(0.4, [0.4, 0.3], 3)  # a tie with the best
    assert not in_top_share(BAD, [], 3)


def test_the_median():
    assert above_median(0.1, [0.5, 0.5, 0.5], 4)  # too few to say
    assert not above_median(0.1, [0.5, 0.5, 0.5, 0.4], 4)
    assert above_median(0.5, [0.5, 0.5, 0.5, 0.4], 4)
    assert not above_median(BAD, [], 4)
