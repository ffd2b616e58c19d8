"""Axes of searched options, by hand."""

import math

import pytest

from analysis.figures.scale import OUTSIDE, Scale, scale_of
from analysis.space import Range


def test_a_log_range_is_spread_in_logarithms() -> None:
    scale = scale_of(Range("float", 1e-5, 0.1, log=True), [0.001])
    assert scale == Scale(1e-5, 0.1, log=True)
    assert scale.place(0.001) == pytest.approx(0.5)
    assert scale.ticks() == [(0.0, "1e-05"), (1.0, "0.1")]


def test_a_range_with_steps_is_linear() -> None:
    scale = scale_of(Range("float", -1.0, 1.0, step=0.5), [0.5])
    assert (scale.log, scale.place(0.5)) == (False, 0.75)


def test_values_outside_are_drawn_just_beyond_the_end() -> None:
    scale = scale_of(Range("float", 0.1, 10.0, log=True), [1.0, None])
    assert [scale.place(value) for value in (0, -3.0, 0.01, 11)] == [*[-OUTSIDE] * 3, 1 + OUTSIDE]
    assert scale.place("feature_dim") is None
    assert scale.place(None) is None
    assert scale.place(math.nan) is None


def test_choices_keep_their_order_and_new_ones_come_last() -> None:
    choices = (128, "feature_dim", True, None)
    scale = scale_of(Range("choice", choices=choices), [True, "other", None, 128])
    assert scale.choices == ("128", "feature_dim", "True", "None", "other")
    assert scale.place(True) == pytest.approx(0.5)
    assert [text for _, text in scale.ticks()] == list(scale.choices)


def test_an_unknown_range_is_that_of_the_values() -> None:
    assert scale_of(None, [3, 1, 2]) == Scale(1, 3, known=False)
    assert scale_of(None, ["a", 1, True]).choices == ("a", "1", "True")
    assert scale_of(None, [5.0, 5.0]).place(5.0) == 0.5
    assert scale_of(None, [5.0, 5.0]).ticks() == [(0.5, "5")]
