"""Ranges from the opening, as parts or as the text of older ledgers, and where a value lies in them."""

import pytest

from analysis.space import Range, read_space
from sarx.study.space import Parameter, as_range, describe

PARAMETERS = [
    Parameter(key="a", kind="float", low=0.001, high=0.1, log=True),
    Parameter(key="b", kind="float", low=0.0, high=1e-5),
    Parameter(key="c", kind="float", low=-0.5, high=2.0, step=0.25),
    Parameter(key="d", kind="int", low=0, high=3),
    Parameter(key="e", kind="choice", choices=("all", "always")),
]


def test_parts_are_read_as_they_were_searched() -> None:
    opening = {"plan": {"ranges": {p.key: as_range(p) for p in PARAMETERS}, "space": {"x": "[0, 1]"}}}
    assert read_space(opening) == {
        "a": Range("float", 0.001, 0.1, log=True),
        "b": Range("float", 0.0, 1e-5),
        "c": Range("float", -0.5, 2.0, step=0.25),
        "d": Range("int", 0.0, 3.0),
        "e": Range("choice", choices=("all", "always")),
    }


def test_the_text_of_older_openings_is_read_too() -> None:
    space = {p.key: describe(p) for p in PARAMETERS} | {"f": "0.001 .. 0.1, log", "g": "whatever", "h": 3}
    found = read_space({"plan": {"space": space}})
    assert found["a"] == found["f"] == Range("float", 0.001, 0.1, log=True)
    assert found["b"] == Range("float", 0.0, 1e-5)
    assert found["c"] == Range("float", -0.5, 2.0, step=0.25)
    assert found["d"] == Range("float", 0.0, 3.0)
    assert found["e"] == Range("choice", choices=("all", "always"))
    assert set(found) == set("abcdef")
    assert read_space({}) == {}


@pytest.mark.parametrize("text", ["[1, 1]", "[2, 1]", "[0, 1] log", "[1, 2", "[a, b]"])
def test_ranges_that_cannot_be_are_not_read(text: str) -> None:
    assert read_space({"plan": {"space": {"x": text}}}) == {}


@pytest.mark.parametrize(
    ("searched", "value", "end"),
    [
        (Range("float", 0.0, 1.0), 0.05, "low"),
        (Range("float", 0.0, 1.0), 0.051, ""),
        (Range("float", 0.0, 1.0), 0.95, "high"),
        (Range("float", 0.0, 1.0), 1.7, "high"),
        (Range("float", 0.001, 0.1, log=True), 0.0012, "low"),  # 4 % of two decades
        (Range("float", 0.001, 0.1, log=True), 0.0013, ""),
        (Range("float", 0.001, 0.1, log=True), 0.05, ""),  # high in value, not in logarithm
        (Range("float", 0.001, 0.1, log=True), 0.0, "low"),
        (Range("int", 0, 3), 3, "high"),
        (Range("int", 0, 3), 2, ""),
        (Range("float", 0.0, 1.0), "x", ""),
        (Range("float", 0.0, 1.0), True, ""),
        (Range("choice", choices=(1, 2)), 1, ""),
    ],
)
def test_the_edge_is_five_percent_of_the_scale_that_is_searched(
    searched: Range, value: object, end: str
) -> None:
    assert searched.edge(value) == end


@pytest.mark.parametrize(
    ("searched", "value", "inside"),
    [
        (Range("float", 0.0, 1.0), 1.0, True),
        (Range("float", 0.0, 1.0), 1.01, False),
        (Range("float", 0.0, 1.0, step=0.25), 0.75, True),
        (Range("float", 0.0, 1.0, step=0.25), 0.8, False),
        (Range("int", 0, 3), 2, True),
        (Range("int", 0, 3), 2.5, False),
        (Range("choice", choices=("32", "x")), 32, True),
        (Range("choice", choices=("32", "x")), 64, False),
        (Range("float", 0.0, 1.0), "0.5", False),
    ],
)
def test_what_a_range_holds(searched: Range, value: object, inside: bool) -> None:
    assert searched.holds(value) is inside
